//! The reference: plain loops, which every other set is held to.

use gguf::TensorType;

use super::{Kernels, attention};
use crate::quant::{Block32, Block256, GROUP, K, PANEL, Panel32, Panel256, Panels, SMALL};

/// Matrix rows of a tile.
const TILE: usize = 8;

pub const KERNELS: Kernels = Kernels {
    name: "scalar",
    tile: TILE,
    tile256,
    tile32,
    dot_f32,
    attention: attention::scalar::LOOPS,
    rows: super::rows::PLAIN,
};

fn tile256(weights: TensorType, rows: &[u8], values: &Panels<Panel256>, out: &mut [f32]) {
    let mut block = Block256::default();
    out.fill(0.0);
    for (row, packed) in rows.chunks_exact(rows.len() / TILE).enumerate() {
        for (at, packed) in packed.chunks_exact(weights.block_bytes() as usize).enumerate() {
            block.unpack(weights, packed);
            for (batch_row, out) in out.chunks_exact_mut(TILE).enumerate() {
                let panel = &values.of_block(at)[batch_row / PANEL];
                out[row] += dot256(&block, panel, batch_row % PANEL);
            }
        }
    }
}

/// A block times a row of a panel.
fn dot256(block: &Block256, panel: &Panel256, row: usize) -> f32 {
    let (mut dots, mut mins) = (0i32, 0i32);
    for group in 0..GROUP {
        let quads = panel.codes[group * 4..][..4].iter().flat_map(|quad| quad[row]);
        let weights = &block.codes[group * K / GROUP..];
        let dot: i32 = weights.iter().zip(quads).map(|(weight, code)| i32::from(*weight) * i32::from(code)).sum();
        dots += i32::from(block.scales[group]) * dot;
        mins += i32::from(block.mins[group]) * i32::from(panel.sums16[group / 2][row][group % 2]);
    }
    panel.scales[row] * (block.d * dots as f32 - block.dmin * mins as f32)
}

fn tile32(weights: TensorType, rows: &[u8], values: &Panels<Panel32>, out: &mut [f32]) {
    let mut block = Block32::default();
    out.fill(0.0);
    for (row, packed) in rows.chunks_exact(rows.len() / TILE).enumerate() {
        for (at, packed) in packed.chunks_exact(weights.block_bytes() as usize).enumerate() {
            block.unpack(weights, packed);
            for (batch_row, out) in out.chunks_exact_mut(TILE).enumerate() {
                let (panel, lane) = (&values.of_block(at)[batch_row / PANEL], batch_row % PANEL);
                out[row] += block.d * panel.scales[lane] * dot32(&block, panel, lane) + block.m * panel.sums[lane];
            }
        }
    }
}

fn dot32(block: &Block32, panel: &Panel32, row: usize) -> f32 {
    let codes = panel.codes[..SMALL / 4].iter().flat_map(|quad| quad[row]);
    block.codes.iter().zip(codes).map(|(weight, code)| i32::from(*weight) * i32::from(code)).sum::<i32>() as f32
}

fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
