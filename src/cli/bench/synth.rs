//! `pensieve bench synth`: random blocks with sane scales in the shape of a real model, with the
//! tensor types that llama.cpp's Q3_K_M mix gives it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gguf::{Array, TensorType, Writer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cli::Failure;

#[derive(Debug, Args)]
pub(super) struct Synth {
    #[arg(long, value_enum)]
    shape: Shape,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The same seed gives the same file.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Shapes of models that people run.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shape {
    /// hidden 1024, 12 layers, 16 heads, 4 KV heads, ffn 2816, vocabulary 32000
    #[value(name = "llama-200m")]
    Llama200m,
    /// hidden 2048, 22 layers, 32 heads, 4 KV heads, ffn 5632, vocabulary 32000
    #[value(name = "tinyllama-1.1b")]
    TinyLlama,
}

struct Numbers {
    hidden: u64,
    layers: u64,
    heads: u64,
    kv_heads: u64,
    feed_forward: u64,
    vocabulary: u64,
}

impl Shape {
    fn numbers(self) -> Numbers {
        match self {
            Self::Llama200m => {
                Numbers { hidden: 1024, layers: 12, heads: 16, kv_heads: 4, feed_forward: 2816, vocabulary: 32000 }
            }
            Self::TinyLlama => {
                Numbers { hidden: 2048, layers: 22, heads: 32, kv_heads: 4, feed_forward: 5632, vocabulary: 32000 }
            }
        }
    }
}

impl Synth {
    pub fn run(self) -> Result<(), Failure> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let bytes = model(&self.shape.numbers(), &mut random).to_bytes();
        std::fs::write(&self.out, &bytes)
            .map_err(|error| Failure::Configuration(format!("cannot write {}: {error}", self.out.display())))?;
        println!("{}: {} bytes", self.out.display(), bytes.len());
        Ok(())
    }
}

fn model(shape: &Numbers, random: &mut StdRng) -> Writer {
    use TensorType::{Q3_K, Q4_K, Q5_K, Q6_K};
    let kv = shape.hidden / shape.heads * shape.kv_heads;
    let mut matrix = |writer: Writer, name: &str, kind: TensorType, rows: u64, width: u64| {
        writer.tensor(name, kind, &[width, rows], blocks(kind, rows * width, random))
    };
    let mut writer = matrix(header(shape), "token_embd.weight", Q3_K, shape.vocabulary, shape.hidden);
    writer = matrix(writer, "output.weight", Q6_K, shape.vocabulary, shape.hidden);
    writer = norm(writer, "output_norm.weight", shape.hidden);
    for layer in 0..shape.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let value = if layer < 2 { Q5_K } else { Q4_K };
        let down = if layer < shape.layers / 16 { Q5_K } else { Q4_K };
        writer = norm(writer, &name("attn_norm"), shape.hidden);
        writer = norm(writer, &name("ffn_norm"), shape.hidden);
        for (part, kind, rows, width) in [
            ("attn_q", Q3_K, shape.hidden, shape.hidden),
            ("attn_k", Q3_K, kv, shape.hidden),
            ("attn_v", value, kv, shape.hidden),
            ("attn_output", Q4_K, shape.hidden, shape.hidden),
            ("ffn_gate", Q3_K, shape.feed_forward, shape.hidden),
            ("ffn_up", Q3_K, shape.feed_forward, shape.hidden),
            ("ffn_down", down, shape.hidden, shape.feed_forward),
        ] {
            writer = matrix(writer, &name(part), kind, rows, width);
        }
    }
    writer
}

fn norm(writer: Writer, name: &str, width: u64) -> Writer {
    writer.tensor(name, TensorType::F32, &[width], (0..width).flat_map(|_| 1.0f32.to_le_bytes()).collect())
}

/// Random codes; the half-precision scales are small and positive.
fn blocks(kind: TensorType, elements: u64, random: &mut StdRng) -> Vec<u8> {
    let block = kind.block_bytes() as usize;
    let mut bytes = vec![0; (elements / kind.block_elements()) as usize * block];
    random.fill(bytes.as_mut_slice());
    // Half 0x1400 is 0.00098.
    let scales: &[usize] = match kind {
        TensorType::Q3_K => &[108],
        TensorType::Q6_K => &[208],
        _ => &[0, 2],
    };
    for block in bytes.chunks_exact_mut(block) {
        for at in scales {
            block[*at..at + 2].copy_from_slice(&[0x00, 0x14]);
        }
    }
    bytes
}

/// A vocabulary of the right size: all bytes, then names that no text contains.
fn header(shape: &Numbers) -> Writer {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut moved = 256u32..;
    let mut character = |byte: u8| match printable(&byte) {
        true => char::from(byte),
        false => moved.next().and_then(char::from_u32).unwrap_or_default(),
    };
    let mut names: Vec<String> = (0..=255).map(|byte| character(byte).to_string()).collect();
    names.extend(["<|end|>".to_owned(), "he".to_owned()]);
    names.extend((names.len() as u64..shape.vocabulary).map(|id| format!("tok{id}")));
    let kinds = (0..names.len()).map(|id| if id == 256 { 3 } else { 1 }).collect();
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Writer::new()
        .key("general.architecture", "llama")
        .key("general.name", "synthetic")
        .key("llama.context_length", 8192u32)
        .key("llama.block_count", small(shape.layers))
        .key("llama.embedding_length", small(shape.hidden))
        .key("llama.feed_forward_length", small(shape.feed_forward))
        .key("llama.attention.head_count", small(shape.heads))
        .key("llama.attention.head_count_kv", small(shape.kv_heads))
        .key("llama.attention.layer_norm_rms_epsilon", 1e-5f32)
        .key("llama.rope.dimension_count", small(shape.hidden / shape.heads))
        .key("llama.rope.freq_base", 10_000.0f32)
        .key("llama.vocab_size", small(shape.vocabulary))
        .key("tokenizer.ggml.model", "gpt2")
        .key("tokenizer.ggml.pre", "llama-bpe")
        .key("tokenizer.ggml.tokens", Array::String(names))
        .key("tokenizer.ggml.token_type", Array::I32(kinds))
        .key("tokenizer.ggml.merges", Array::String(vec!["h e".into()]))
        .key("tokenizer.ggml.eos_token_id", 256u32)
        .key("tokenizer.ggml.bos_token_id", 256u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synthetic_model_is_one_that_the_paged_engine_runs() {
        let tiny = Numbers { hidden: 256, layers: 1, heads: 4, kv_heads: 2, feed_forward: 256, vocabulary: 300 };
        let bytes = model(&tiny, &mut StdRng::seed_from_u64(1)).to_bytes();
        let header = gguf::Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap();
        let summary = gguf::Summary::of(&header).unwrap();
        assert_eq!(paged_engine::model::supported(&summary), Ok(()));
        assert_eq!(summary.vocabulary, 300);
    }
}
