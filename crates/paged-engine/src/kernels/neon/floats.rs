//! The float loop: sixteen numbers at a time in four sums, the rest by the reference.

use std::arch::aarch64::*;

use super::columns::four;
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

#[target_feature(enable = "neon")]
#[inline]
fn total([a, b, c, d]: [float32x4_t; 4]) -> f32 {
    vaddvq_f32(vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d)))
}
