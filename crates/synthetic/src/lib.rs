//! GGUF models of seeded random numbers: real files for real engines, in every architecture and
//! tensor type.
//!
//! Speed does not depend on the values, so a benchmark needs no trained model. Tests need one whose
//! greedy answers do not end: the head's rows of all tokens but [`Shape::spoken`] are zero, so they
//! are never the likeliest, and end tokens are among them.
//!
//! * [`Shape`] says what a model is like; [`named`] has shapes that people run.
//! * [`Quant`] says which type each matrix has.
//! * [`model`] makes the file's content.
//! * [`cases`] are small models whose answers are known.

mod blocks;
pub mod cases;
mod quant;
mod shape;
mod tensors;
mod vocabulary;

use gguf::{TensorType, Value, Writer};

use blocks::Random;
pub use quant::Quant;
pub use shape::{Factors, NAMES, Shape, named};
use tensors::{Fill, Tensor};
pub use vocabulary::{CHATML, END_OF_TEXT, IM_END, OWN_TOKENS};

/// The whole model, to which more keys and tensors can be added.
pub fn model(shape: &Shape, quant: Quant) -> Writer {
    let mut random = Random::new(shape.seed);
    let mut writer = vocabulary::add(keys(shape), shape);
    for tensor in tensors::of(shape) {
        let kind = if tensor.is_matrix() { quant.kind(&tensor, shape) } else { TensorType::F32 };
        let data = fill(&tensor, kind, shape, &mut random);
        writer = writer.tensor(&tensor.name, kind, &tensor.dims, data);
    }
    writer
}

fn keys(shape: &Shape) -> Writer {
    let key = |name: &str| format!("{}.{name}", shape.architecture);
    let mut writer = Writer::new()
        .key("general.architecture", shape.architecture)
        .key("general.name", "synthetic")
        .key(&key("context_length"), shape.context)
        .key(&key("embedding_length"), shape.hidden)
        .key(&key("block_count"), shape.layers)
        .key(&key("feed_forward_length"), shape.feed_forward)
        .key(&key("attention.head_count"), shape.heads)
        .key(&key("attention.head_count_kv"), shape.kv_heads)
        .key(&key("attention.key_length"), shape.head)
        .key(&key("attention.value_length"), shape.head)
        .key(&key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5))
        .key(&key("rope.dimension_count"), shape.head)
        .key(&key("rope.freq_base"), Value::F32(shape.rope_base))
        .key(&key("vocab_size"), shape.vocabulary());
    if let Some((experts, _)) = shape.experts {
        writer = writer.key(&key("expert_count"), experts).key(&key("expert_used_count"), 2u32);
    }
    if let Some(window) = shape.window {
        writer = writer.key(&key("attention.sliding_window"), window);
    }
    writer
}

fn fill(tensor: &Tensor, kind: TensorType, shape: &Shape, random: &mut Random) -> Vec<u8> {
    let elements: u64 = tensor.dims.iter().product();
    let width = tensor.dims.first().copied().unwrap_or(1);
    match tensor.fill {
        // Keeps a product with this matrix at the scale of what it is multiplied by.
        Fill::Matrix => blocks::random(kind, elements, 1.0 / (width as f32).sqrt(), random),
        Fill::Tokens { silent } => {
            let mut bytes = blocks::random(kind, elements, 1.0 / (width as f32).sqrt(), random);
            if silent {
                silence(&mut bytes, shape);
            }
            bytes
        }
        Fill::Norm => floats(elements, || random.signed(0.5, 1.5)),
        Fill::Bias => floats(elements, || random.signed(0.0, 0.5)),
        Fill::Factors => floats(elements, || 1.0 + random.unit() * 7.0),
    }
}

/// Makes zero rows of all tokens that greedy answers shall not contain.
fn silence(bytes: &mut [u8], shape: &Shape) {
    let row = bytes.len() / shape.vocabulary() as usize;
    for (token, row) in bytes.chunks_exact_mut(row).enumerate() {
        if !(shape.spoken.0..shape.spoken.1).contains(&(token as u64)) {
            // Zero bytes are zero weights in every type.
            row.fill(0);
        }
    }
}

fn floats(count: u64, mut one: impl FnMut() -> f32) -> Vec<u8> {
    (0..count).flat_map(|_| one().to_le_bytes()).collect()
}
