//! The float loops: sixteen numbers at a time in four sums, the rest by the reference.

use std::arch::aarch64::*;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::columns::{four, widened};
use crate::kernels::scalar;

/// Numbers that one turn of a loop takes.
const STEP: usize = 16;

pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    // SAFETY: every aarch64 processor that runs this has NEON.
    let sum = unsafe { whole_f32(a, b) };
    sum + (scalar::KERNELS.dot_f32)(a_rest, b_rest)
}

#[target_feature(enable = "neon")]
fn whole_f32(a: &[[f32; STEP]], b: &[[f32; STEP]]) -> f32 {
    let mut sums = [vdupq_n_f32(0.0); 4];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a.as_chunks().0).zip(b.as_chunks().0) {
            *sum = vfmaq_f32(*sum, four(a), four(b));
        }
    }
    total(sums)
}

pub fn dot_f16(query: &[f32], key: &[f16]) -> f32 {
    assert_eq!(query.len(), key.len());
    let ((query, query_rest), (keys, key_rest)) = (query.as_chunks(), key.as_chunks());
    // SAFETY: as above.
    let sum = unsafe { whole_f16(query, keys) };
    sum + (scalar::KERNELS.dot_f16)(query_rest, key_rest)
}

#[target_feature(enable = "neon")]
fn whole_f16(query: &[[f32; STEP]], key: &[[f16; STEP]]) -> f32 {
    let mut sums = [vdupq_n_f32(0.0); 4];
    for (query, key) in query.iter().zip(key) {
        for ((sum, query), key) in sums.iter_mut().zip(query.as_chunks().0).zip(sixteen(key)) {
            *sum = vfmaq_f32(*sum, four(query), key);
        }
    }
    total(sums)
}

pub fn add_f16(sum: &mut [f32], weight: f32, value: &[f16]) {
    assert_eq!(sum.len(), value.len());
    let ((sum, sum_rest), (value, value_rest)) = (sum.as_chunks_mut(), value.as_chunks());
    // SAFETY: as above.
    unsafe { add_whole_f16(sum, weight, value) };
    (scalar::KERNELS.add_f16)(sum_rest, weight, value_rest);
}

#[target_feature(enable = "neon")]
fn add_whole_f16(sum: &mut [[f32; STEP]], weight: f32, value: &[[f16; STEP]]) {
    let weight = vdupq_n_f32(weight);
    for (sum, value) in sum.iter_mut().zip(value) {
        for (sum, value) in sum.as_chunks_mut().0.iter_mut().zip(sixteen(value)) {
            let added = vfmaq_f32(four(sum), weight, value);
            // SAFETY: four floats.
            unsafe { vst1q_f32(sum.as_mut_ptr(), added) };
        }
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn sixteen(halves: &[f16; STEP]) -> [float32x4_t; 4] {
    let bits = halves.as_slice().reinterpret_cast().as_chunks::<8>().0;
    let ([a, b], [c, d]) = (widened(&bits[0]), widened(&bits[1]));
    [a, b, c, d]
}

#[target_feature(enable = "neon")]
#[inline]
fn total([a, b, c, d]: [float32x4_t; 4]) -> f32 {
    vaddvq_f32(vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d)))
}
