//! Quantized numbers: weights as they lie in the file, activations as integers.
//!
//! A block of weights is unpacked into one of two plain forms, [`Block256`] or [`Block32`], and
//! every kernel works on those: an unpacked block serves all rows of a batch before the next is
//! touched, so unpacking is paid once a step and not once a sequence.
//!
//! Block layouts are ggml's (`ggml-common.h`).

mod activations;
mod k_quants;
mod small;

pub use activations::{Activations, Kind, PANEL, Panel32, Panel256, Panels};
pub use k_quants::{Block256, scales_q3, scales_q45};
pub use small::{Block32, NON_LINEAR};

use gguf::TensorType;
use half::{bf16, f16};

/// Weights in a k-quant block.
pub const K: usize = 256;
/// Weights that share a scale inside a k-quant block.
pub const GROUP: usize = 16;
/// Weights in a small block.
pub const SMALL: usize = 32;

/// The integer form in which activations meet weights of this type; `None` if they stay floats.
/// The outer `None`: the type is not supported.
pub fn kind_of(weights: TensorType) -> Option<Option<Kind>> {
    use TensorType as T;
    match weights {
        T::Q2_K | T::Q3_K | T::Q4_K | T::Q5_K | T::Q6_K => Some(Some(Kind::Rows256)),
        T::Q4_0 | T::Q4_1 | T::Q5_0 | T::Q5_1 | T::Q8_0 | T::IQ4_NL => Some(Some(Kind::Rows32)),
        T::F32 | T::F16 | T::BF16 => Some(None),
        _ => None,
    }
}

/// Expands a row of any supported type to floats: the reference of every kernel, and the look-up
/// of an embedding. `bytes` holds exactly `out.len()` elements.
pub fn dequantize(weights: TensorType, bytes: &[u8], out: &mut [f32]) {
    match kind_of(weights) {
        Some(Some(Kind::Rows256)) => {
            let mut block = Block256::default();
            for (packed, out) in bytes.chunks_exact(weights.block_bytes() as usize).zip(out.chunks_exact_mut(K)) {
                block.unpack(weights, packed);
                block.dequantize(out);
            }
        }
        Some(Some(Kind::Rows32)) => {
            let mut block = Block32::default();
            for (packed, out) in bytes.chunks_exact(weights.block_bytes() as usize).zip(out.chunks_exact_mut(SMALL)) {
                block.unpack(weights, packed);
                block.dequantize(out);
            }
        }
        _ => floats(weights, bytes, out),
    }
}

/// Floats of a row stored as floats.
pub fn floats(weights: TensorType, bytes: &[u8], out: &mut [f32]) {
    match weights {
        TensorType::F32 => {
            for (value, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
                *out = f32::from_le_bytes(*value);
            }
        }
        TensorType::F16 => {
            for (value, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
                *out = f16::from_le_bytes(*value).to_f32();
            }
        }
        _ => {
            for (value, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
                *out = bf16::from_le_bytes(*value).to_f32();
            }
        }
    }
}

/// The half-precision number at `at`.
fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
