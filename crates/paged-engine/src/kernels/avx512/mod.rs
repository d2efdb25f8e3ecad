//! AVX-512 with VNNI and GFNI: Intel since Ice Lake, AMD since Zen 4.
#![allow(unsafe_code, reason = "intrinsics; each function states what it needs")]

mod attention;
mod columns;
mod k_quants;
mod small;
mod unpack;

use gguf::TensorType;

use self::columns::TILE;
use super::rows::compiled_for;
use super::{Kernels, avx2};
use crate::quant::{Panel32, Panel256, Panels};

/// The set, if this processor has it. Products of floats are rare: they stay AVX2's.
pub fn kernels() -> Option<Kernels> {
    let there = is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("gfni");
    let avx2 = avx2::kernels().filter(|_| there)?;
    let attention = attention::loops(avx2.attention);
    Some(Kernels { name: "avx512", tile: TILE, tile256, tile32, attention, rows: ROWS, ..avx2 })
}

compiled_for!(ROWS, "avx512bw,avx512vl");

// The functions below are handed out by `kernels` alone, so the features they need are there.

fn tile256(weights: TensorType, rows: &[u8], values: &Panels<Panel256>, out: &mut [f32]) {
    assert!(rows.len().is_multiple_of(TILE * weights.block_bytes() as usize));
    // SAFETY: the features are there, and the rows are whole.
    unsafe { k_quants::tile(weights, rows, values, out) }
}

fn tile32(weights: TensorType, rows: &[u8], values: &Panels<Panel32>, out: &mut [f32]) {
    assert!(rows.len().is_multiple_of(TILE * weights.block_bytes() as usize));
    // SAFETY: the features are there, and the rows are whole.
    unsafe { small::tile(weights, rows, values, out) }
}
