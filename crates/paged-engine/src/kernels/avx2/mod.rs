//! AVX2 with FMA and F16C: every x86-64 processor since 2013.
#![allow(unsafe_code, reason = "intrinsics; each function states what it needs")]

mod attention;
mod columns;
mod k_quants;
mod small;

use std::arch::x86_64::*;

use gguf::TensorType;

use self::columns::TILE;
use super::rows::compiled_for;
use super::{Kernels, scalar};
use crate::quant::{Panel32, Panel256, Panels};

/// The set, if this processor has it.
pub fn kernels() -> Option<Kernels> {
    let there = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let attention = attention::LOOPS;
    there.then_some(Kernels { name: "avx2", tile: TILE, tile256, tile32, dot_f32, attention, rows: ROWS })
}

compiled_for!(ROWS, "avx2");

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

fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let (whole, _) = a.as_chunks::<8>();
    // SAFETY: the features are there; both slices hold `whole.len() * 8` numbers.
    let sum = unsafe { dot_f32_avx2(a.as_ptr(), b.as_ptr(), whole.len()) };
    let tail = whole.len() * 8;
    sum + (scalar::KERNELS.dot_f32)(&a[tail..], &b[tail..])
}

/// # Safety
/// AVX2 and FMA; `8 * eights` readable numbers at both pointers.
#[target_feature(enable = "avx2,fma")]
unsafe fn dot_f32_avx2(a: *const f32, b: *const f32, eights: usize) -> f32 {
    let mut sum = _mm256_setzero_ps();
    for at in 0..eights {
        // SAFETY: by the contract above.
        unsafe { sum = _mm256_fmadd_ps(_mm256_loadu_ps(a.add(8 * at)), _mm256_loadu_ps(b.add(8 * at)), sum) };
    }
    horizontal_sum(sum)
}

#[target_feature(enable = "avx2")]
fn horizontal_sum(values: __m256) -> f32 {
    let half = _mm_add_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values));
    let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
}
