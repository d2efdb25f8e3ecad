//! The reference: plain loops, which every other set is held to.

use gguf::TensorType;
use half::f16;

use super::Kernels;
use crate::quant::{Block32, Block256, GROUP, Rows256};

pub const KERNELS: Kernels = Kernels { name: "scalar", row256, dot32, dot_f32, dot_f16, add_f16 };

fn row256(weights: TensorType, packed: &[u8], values: &Rows256, out: &mut [f32]) {
    let blocks = packed.len() / weights.block_bytes() as usize;
    let mut block = Block256::default();
    out.fill(0.0);
    for (at, packed) in packed.chunks_exact(weights.block_bytes() as usize).enumerate() {
        block.unpack(weights, packed);
        for (row, out) in out.iter_mut().enumerate() {
            let values = &values.0[row * blocks + at];
            *out += values.scale * dot256(&block, &values.codes, &values.sums);
        }
    }
}

/// A block times a block of activations, without the activations' scale.
fn dot256(block: &Block256, codes: &[i8], sums: &[i16]) -> f32 {
    let (mut dots, mut mins) = (0i32, 0i32);
    let groups = block.codes.chunks_exact(GROUP).zip(codes.chunks_exact(GROUP));
    for (group, (weights, codes)) in groups.enumerate() {
        let dot: i32 = weights.iter().zip(codes).map(|(weight, code)| i32::from(*weight) * i32::from(*code)).sum();
        dots += i32::from(block.scales[group]) * dot;
        mins += i32::from(block.mins[group]) * i32::from(sums[group]);
    }
    block.d * dots as f32 - block.dmin * mins as f32
}

fn dot32(block: &Block32, codes: &[i8]) -> i32 {
    block.codes.iter().zip(codes).map(|(weight, code)| i32::from(*weight) * i32::from(*code)).sum()
}

fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn dot_f16(query: &[f32], key: &[f16]) -> f32 {
    query.iter().zip(key).map(|(query, key)| query * key.to_f32()).sum()
}

fn add_f16(sum: &mut [f32], weight: f32, value: &[f16]) {
    for (sum, value) in sum.iter_mut().zip(value) {
        *sum += weight * value.to_f32();
    }
}
