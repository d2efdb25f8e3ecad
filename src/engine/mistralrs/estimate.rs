//! What mistral.rs 0.8.1 will hold for a model, computed from the header.
//!
//! It maps nothing: each tensor is read into memory of its own. Quantized matrices keep their bytes;
//! the embedding, norms and biases become F32, and so does every matrix that is not quantized. A
//! model without `output.weight` has its embedding a second time, quantized, as the output matrix.
//!
//! Held against two loads and their longest prompts, on Linux with glibc: a demo model of 1.8 MB,
//! 896 tokens, context 1024 (weights and tables 7.6 MiB estimated, 5.3 measured; 54 MiB in all, peak
//! 53) and a synthetic one of 191 MiB, 32,263 tokens, context 2048 (296 and 297; 664 and 588).

use gguf::{Header, Summary, TensorInfo, TensorType, Value};

use super::load::DTYPE;
use super::support::usable_context;
use crate::engine::Footprint;

const EMBEDDING: &str = "token_embd.weight";
const F32_BYTES: u64 = 4;

/// The KV cache grows by this many tokens at once.
const KV_GROWTH: u64 = 512;

/// What a load takes, at `context` tokens for the one sequence there is.
pub fn estimate(header: &Header, model: &Summary, context: u64) -> Footprint {
    let context = context.min(usable_context(model));
    Footprint {
        weights_mapped: 0,
        weights_private: weights(header),
        kv: kv(model, context),
        scratch: scratch(header, model, context).max(load_peak(header)),
        tables: rope(header, model).saturating_add(tokenizer(model)),
    }
}

/// The same without a header to look at. The summary does not tell which bytes are the embedding's,
/// so they are counted beside its F32 form, as if the model used it twice.
pub fn estimate_coarsely(model: &Summary, context: u64) -> Footprint {
    let context = context.min(usable_context(model));
    let embedding = model.vocabulary.saturating_mul(model.embedding).saturating_mul(F32_BYTES);
    let held = |(kind, bytes): (&TensorType, &u64)| match kind {
        TensorType::F16 | TensorType::BF16 => bytes.saturating_mul(2),
        _ => *bytes,
    };
    let tensors = model.bytes_by_type.iter().map(held).fold(0, u64::saturating_add);
    Footprint {
        weights_mapped: 0,
        weights_private: tensors.saturating_add(embedding),
        kv: kv(model, context),
        scratch: kv(model, context).saturating_mul(2).saturating_add(embedding / 4),
        tables: tokenizer(model),
    }
}

/// Exact: what the tensors become.
pub fn weights(header: &Header) -> u64 {
    let tied = header.tensor("output.weight").is_none();
    header.tensors.iter().map(|tensor| resident(tensor, tied)).fold(0, u64::saturating_add)
}

fn resident(tensor: &TensorInfo, tied: bool) -> u64 {
    let expanded = tensor.elements().saturating_mul(F32_BYTES);
    let as_matrix = match tensor.kind {
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => expanded,
        _ if tensor.dims.len() == 1 => expanded,
        _ => tensor.bytes,
    };
    match tensor.name == EMBEDDING {
        true if tied => expanded.saturating_add(as_matrix),
        true => expanded,
        false => as_matrix,
    }
}

/// Exact: cosines and sines for every position that the model was made for, used or not.
pub fn rope(header: &Header, model: &Summary) -> u64 {
    let key = format!("{}.rope.dimension_count", model.architecture);
    let width = header.metadata.get(&key).and_then(Value::as_u64).unwrap_or(model.key_length);
    let one_table = model.context_length.saturating_mul(width / 2).saturating_mul(F32_BYTES);
    one_table.saturating_mul(2)
}

/// One sequence at full length. It is allocated in steps of 512 tokens as the sequence grows.
fn kv(model: &Summary, context: u64) -> u64 {
    let dtype_bytes = DTYPE.size_in_bytes() as u64;
    model.kv_bytes_per_token(dtype_bytes).saturating_mul(context.next_multiple_of(KV_GROWTH))
}

/// The most a step needs beside the KV cache: a prompt of full length. There is no chunking: the
/// whole prompt is one step, with a dense mask of prompt x prompt.
fn scratch(header: &Header, model: &Summary, context: u64) -> u64 {
    // Bytes for one element of the mask: as a byte in a vector that doubles and once more, then as
    // F32 in the mask, in its infinities and in the copy that attention takes.
    const MASK_ELEMENT: u64 = 3 + 1 + 3 * F32_BYTES;
    // Vectors of one token that are alive together.
    const HIDDEN: u64 = 8;
    const FEED_FORWARD: u64 = 4;
    const LOGITS: u64 = 6;
    // Keys are allocated once for the waiting request and once more for the step, and the first
    // token behind the prompt copies the whole cache.
    let kv_copies = kv(model, context).saturating_mul(3) / 2;
    let key = format!("{}.feed_forward_length", model.architecture);
    let feed_forward = header.metadata.get(&key).and_then(Value::as_u64).unwrap_or(4 * model.embedding);
    let vectors = HIDDEN.saturating_mul(model.embedding).saturating_add(FEED_FORWARD.saturating_mul(feed_forward));
    [
        kv_copies,
        context.saturating_mul(context).saturating_mul(MASK_ELEMENT),
        context.saturating_mul(vectors).saturating_mul(F32_BYTES),
        model.vocabulary.saturating_mul(LOGITS * F32_BYTES),
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

/// What a load needs for a moment: the embedding as it stands in the file, kept to the end, and the
/// largest tensor twice.
fn load_peak(header: &Header) -> u64 {
    let embedding = header.tensor(EMBEDDING).map_or(0, |tensor| tensor.bytes);
    let largest = header.tensors.iter().map(|tensor| tensor.bytes).max().unwrap_or(0);
    embedding.saturating_add(largest.saturating_mul(2))
}

/// The tokenizer with its merges (held twice), the token trie and the grammar tables. Measured as
/// the growth of the process over loads, less weights and rope, byte-level vocabularies: 2.7 MiB at
/// 1,263 tokens, 35.8 at 32,263, 54.2 at 60,263 with as many merges, 128.5 at 128,263.
fn tokenizer(model: &Summary) -> u64 {
    const BASE: u64 = 4 << 20;
    const PER_TOKEN: u64 = 1024;
    model.vocabulary.saturating_mul(PER_TOKEN).saturating_add(BASE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two layers' worth of odd tensors: 64 wide, 100 tokens, 2 layers, 2 kv heads of 16.
    fn header(output: bool, heads: u32) -> (Header, Summary) {
        let tokens = gguf::Array::String((0..100).map(|n| n.to_string()).collect());
        let mut writer = gguf::Writer::new()
            .key("general.architecture", "llama")
            .key("llama.context_length", 2048u32)
            .key("llama.embedding_length", 64u32)
            .key("llama.block_count", 2u32)
            .key("llama.attention.head_count", heads)
            .key("llama.attention.head_count_kv", 2u32)
            .key("llama.rope.dimension_count", 16u32)
            .key("tokenizer.ggml.model", "gpt2")
            .key("tokenizer.ggml.tokens", tokens)
            .tensor(EMBEDDING, TensorType::Q8_0, &[64, 100], vec![0; 6800])
            .tensor("output_norm.weight", TensorType::F32, &[64], vec![0; 256])
            .tensor("blk.0.attn_q.weight", TensorType::Q8_0, &[64, 64], vec![0; 4352])
            .tensor("blk.0.attn_k.weight", TensorType::F16, &[64, 32], vec![0; 4096])
            .tensor("blk.0.attn_norm.weight", TensorType::F16, &[64], vec![0; 128]);
        if output {
            writer = writer.tensor("output.weight", TensorType::Q8_0, &[64, 100], vec![0; 6800]);
        }
        let bytes = writer.to_bytes();
        let header = Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap();
        let summary = Summary::of(&header).unwrap();
        (header, summary)
    }

    /// The embedding as F32, two norms as F32, the quantized matrix as it is, the F16 one as F32.
    const ALL_BUT_OUTPUT: u64 = 100 * 64 * 4 + 2 * 64 * 4 + 4352 + 64 * 32 * 4;

    #[test]
    fn weights_are_counted_as_they_are_held() {
        assert_eq!(weights(&header(true, 4).0), ALL_BUT_OUTPUT + 6800);
        assert_eq!(weights(&header(false, 4).0), ALL_BUT_OUTPUT + 6800, "a tied head is held again");
    }

    #[test]
    fn kv_is_one_sequence_in_f32_and_whole_steps_of_growth() {
        let (header, summary) = header(true, 4);
        let per_token = 2 * 2 * 2 * 16 * 4;
        assert_eq!(estimate(&header, &summary, 600).kv, 1024 * per_token);
        assert_eq!(estimate(&header, &summary, 100_000).kv, 2048 * per_token, "no more than the model's context");
    }

    #[test]
    fn rope_tables_are_as_long_as_the_models_context_whatever_is_asked() {
        let (header, summary) = header(true, 4);
        assert_eq!(rope(&header, &summary), 2 * 2048 * 8 * 4);
        let tables = |context| estimate(&header, &summary, context).tables;
        assert_eq!(tables(16), tables(2048));
    }

    #[test]
    fn nothing_is_mapped_and_nothing_overflows() {
        let (header, mut summary) = header(true, 4);
        assert_eq!(estimate(&header, &summary, 512).weights_mapped, 0);
        summary.layers = u64::MAX / 2;
        summary.context_length = 1 << 40;
        assert_eq!(estimate(&header, &summary, u64::MAX).total(), u64::MAX);
    }

    #[test]
    fn the_coarse_estimate_is_not_below_the_exact_one() {
        let (header, summary) = header(false, 4);
        assert!(estimate_coarsely(&summary, 2048).weights_private >= weights(&header));
    }
}
