//! Small llama models made of seeded random numbers: real files for real engines, in milliseconds.
//!
//! Greedy answers are printable ASCII and never end by themselves: every other output row is zero,
//! and the largest of a hundred random logits is above zero.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::path::PathBuf;
use std::sync::Arc;

use gguf::{Array, TensorType, Writer};
use pensieve::engine::LoadSpec;
use tempfile::TempDir;

pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Tokens after the 256 bytes.
const MERGED: [(&str, &str); 4] = [("h", "e"), ("t", "h"), ("Ġ", "a"), ("th", "e")];
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// The ids of the special tokens.
pub const END_OF_TEXT: u32 = 256 + MERGED.len() as u32;
pub const IM_END: u32 = END_OF_TEXT + 2;

/// What a synthetic model is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub layers: u64,
    pub embedding: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_width: u64,
    pub feed_forward: u64,
    pub context: u64,
    /// More tokens, never chosen, to make the vocabulary large.
    pub padding: u64,
    /// The type of all matrices but the router: F32 or Q8_0.
    pub kind: TensorType,
    /// Without an output matrix of its own the embedding serves as one.
    pub tied: bool,
    /// Experts that there are, and experts that the router names.
    pub experts: Option<(u64, u64)>,
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            layers: 2,
            embedding: 64,
            heads: 4,
            kv_heads: 2,
            head_width: 16,
            feed_forward: 128,
            context: 1024,
            padding: 0,
            kind: TensorType::Q8_0,
            tied: false,
            experts: None,
            seed: 1,
        }
    }
}

/// A model file that lives as long as this value.
pub struct SyntheticModel {
    _dir: TempDir,
    pub path: PathBuf,
    pub shape: Shape,
}

impl SyntheticModel {
    pub fn new(shape: Shape) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synthetic.gguf");
        std::fs::write(&path, writer(&shape).to_bytes()).unwrap();
        Self { _dir: dir, path, shape }
    }

    pub fn file_len(&self) -> u64 {
        std::fs::metadata(&self.path).unwrap().len()
    }

    pub fn spec(&self, name: &str) -> LoadSpec {
        spec(name, self.path.clone(), u32::try_from(self.shape.context).unwrap())
    }
}

/// A spec for a model file.
pub fn spec(name: &str, source: PathBuf, context: u32) -> LoadSpec {
    let header = gguf::Header::read(&source).unwrap();
    let summary = Some(Arc::new(gguf::Summary::of(&header).unwrap()));
    LoadSpec { model: name.into(), source, summary, context, sequences: 1 }
}

/// The file's content, for tests that want to change it.
pub fn writer(shape: &Shape) -> Writer {
    let writer = Writer::new()
        .key("general.architecture", "llama")
        .key("general.name", "synthetic")
        .key("llama.context_length", shape.context)
        .key("llama.embedding_length", shape.embedding)
        .key("llama.block_count", shape.layers)
        .key("llama.feed_forward_length", shape.feed_forward)
        .key("llama.attention.head_count", shape.heads)
        .key("llama.attention.head_count_kv", shape.kv_heads)
        .key("llama.attention.key_length", shape.head_width)
        .key("llama.attention.value_length", shape.head_width)
        .key("llama.attention.layer_norm_rms_epsilon", gguf::Value::F32(1e-5))
        .key("llama.rope.dimension_count", shape.head_width)
        .key("llama.rope.freq_base", gguf::Value::F32(10_000.0));
    let writer = match shape.experts {
        Some((experts, _)) => writer.key("llama.expert_count", experts).key("llama.expert_used_count", 2u32),
        None => writer,
    };
    tensors(vocabulary(writer, shape), shape)
}

fn vocabulary(writer: Writer, shape: &Shape) -> Writer {
    let mut tokens: Vec<String> = (0..=255u8).map(|byte| byte_name(byte).to_string()).collect();
    tokens.extend(MERGED.iter().map(|(left, right)| format!("{left}{right}")));
    tokens.extend(SPECIAL.iter().map(|name| (*name).to_owned()));
    let special = 256 + MERGED.len()..256 + MERGED.len() + SPECIAL.len();
    tokens.extend((0..shape.padding).map(|index| format!("padding{index}")));
    let kinds = (0..tokens.len()).map(|index| if special.contains(&index) { 3 } else { 1 }).collect();
    let merges = MERGED.iter().map(|(left, right)| format!("{left} {right}")).collect();
    writer
        .key("tokenizer.ggml.model", "gpt2")
        .key("tokenizer.ggml.tokens", Array::String(tokens))
        .key("tokenizer.ggml.token_type", Array::I32(kinds))
        .key("tokenizer.ggml.merges", Array::String(merges))
        .key("tokenizer.ggml.bos_token_id", END_OF_TEXT)
        .key("tokenizer.ggml.eos_token_id", IM_END)
        .key("tokenizer.chat_template", CHATML)
}

/// The character by which a byte-level vocabulary names a byte.
fn byte_name(byte: u8) -> char {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let before = (0..byte).filter(|byte| !is_itself(*byte)).count();
    match is_itself(byte) {
        true => char::from(byte),
        false => char::from_u32(0x100 + u32::try_from(before).unwrap()).unwrap(),
    }
}

fn tensors(mut writer: Writer, shape: &Shape) -> Writer {
    let mut random = Random(shape.seed);
    let vocabulary = 256 + (MERGED.len() + SPECIAL.len()) as u64 + shape.padding;
    let (query, kv) = (shape.heads * shape.head_width, shape.kv_heads * shape.head_width);
    let mut embedding = random.matrix(shape.embedding, vocabulary);
    silence(&mut embedding, shape.embedding, shape.tied);
    writer = matrix(writer, "token_embd.weight", shape.kind, shape.embedding, vocabulary, &embedding);
    if !shape.tied {
        let mut output = random.matrix(shape.embedding, vocabulary);
        silence(&mut output, shape.embedding, true);
        writer = matrix(writer, "output.weight", shape.kind, shape.embedding, vocabulary, &output);
    }
    writer = norm(writer, "output_norm.weight", shape.embedding);
    for layer in 0..shape.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let mut add = |writer: Writer, part: &str, row: u64, rows: u64| {
            matrix(writer, &name(part), shape.kind, row, rows, &random.matrix(row, rows))
        };
        writer = add(writer, "attn_q", shape.embedding, query);
        writer = add(writer, "attn_k", shape.embedding, kv);
        writer = add(writer, "attn_v", shape.embedding, kv);
        writer = add(writer, "attn_output", query, shape.embedding);
        let experts: Vec<String> = match shape.experts {
            None => vec![String::new()],
            Some((experts, _)) => (0..experts).map(|index| format!(".{index}")).collect(),
        };
        for expert in experts {
            writer = add(writer, &format!("ffn_gate{expert}"), shape.embedding, shape.feed_forward);
            writer = add(writer, &format!("ffn_up{expert}"), shape.embedding, shape.feed_forward);
            writer = add(writer, &format!("ffn_down{expert}"), shape.feed_forward, shape.embedding);
        }
        if let Some((_, routed)) = shape.experts {
            let router = random.matrix(shape.embedding, routed);
            writer = matrix(writer, &name("ffn_gate_inp"), TensorType::F32, shape.embedding, routed, &router);
        }
        writer = norm(writer, &name("attn_norm"), shape.embedding);
        writer = norm(writer, &name("ffn_norm"), shape.embedding);
    }
    writer
}

/// Makes zero rows of all tokens that greedy answers shall not contain.
fn silence(rows: &mut [f32], width: u64, wanted: bool) {
    if !wanted {
        return;
    }
    for (token, row) in rows.chunks_mut(usize::try_from(width).unwrap()).enumerate() {
        let printable = (32..127).contains(&token) || (256..256 + MERGED.len()).contains(&token);
        if !printable {
            row.fill(0.0);
        }
    }
}

fn norm(writer: Writer, name: &str, width: u64) -> Writer {
    let ones = (0..width).flat_map(|_| 1f32.to_le_bytes()).collect();
    writer.tensor(name, TensorType::F32, &[width], ones)
}

fn matrix(writer: Writer, name: &str, kind: TensorType, row: u64, rows: u64, values: &[f32]) -> Writer {
    let data = match kind {
        TensorType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        TensorType::Q8_0 => values.chunks(32).flat_map(q8_0).collect(),
        other => panic!("no synthetic tensors of type {other}"),
    };
    writer.tensor(name, kind, &[row, rows], data)
}

/// One block: the scale as f16, then 32 signed bytes.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = f16(largest / 127.0);
    let step = from_f16(scale);
    let mut block = scale.to_le_bytes().to_vec();
    block.extend(values.iter().map(|value| {
        let steps = if step == 0.0 { 0.0 } else { (value / step).round().clamp(-127.0, 127.0) };
        (steps as i8).to_le_bytes()[0]
    }));
    block
}

/// Truncates to half precision; values too small for a normal number become zero.
fn f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = i32::try_from(bits >> 23 & 0xff).unwrap() - 127 + 15;
    if exponent <= 0 { 0 } else { u16::try_from(exponent).unwrap() << 10 | (bits >> 13 & 0x3ff) as u16 }
}

fn from_f16(half: u16) -> f32 {
    let exponent = u32::from(half >> 10);
    if exponent == 0 { 0.0 } else { f32::from_bits((exponent + 127 - 15) << 23 | u32::from(half & 0x3ff) << 13) }
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Uniform with the variance that keeps a product with this matrix at the scale of its input.
    fn matrix(&mut self, row: u64, rows: u64) -> Vec<f32> {
        let width = (12.0 / row as f64).sqrt();
        (0..row * rows).map(|_| (((self.next() >> 11) as f64 / (1u64 << 53) as f64 - 0.5) * width) as f32).collect()
    }
}
