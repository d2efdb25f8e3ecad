//! Attention's inner loops: a row of a tile is four registers, multiplied by one coefficient of
//! each of up to four query rows before the next is read. Nothing here needs more than NEON.

use std::arch::aarch64::*;

use half::f16;

use super::columns::{four, widened};
use crate::kernels::attention::{AttentionLoops, HIGHEST, LN2_HIGH, LN2_LOW, LOWEST, POLYNOMIAL, SPAN};
use crate::kv::LANES;

pub const LOOPS: AttentionLoops = AttentionLoops { halves, codes, weigh, cap };

/// Query rows whose sums fit the registers, four each.
const ROWS: usize = 4;

/// The numbers of a tile's row, or a query row's sums for them.
type Numbers = [float32x4_t; LANES / 4];

fn halves(rows: usize, coefficients: &[f32], stride: usize, tile: &[[f16; LANES]], sums: &mut [f32], to: usize) {
    // SAFETY: every aarch64 processor that runs this has NEON.
    unsafe { tile_loop(rows, coefficients, stride, tile, sums, to, |row| sixteen_halves(row)) }
}

fn codes(rows: usize, coefficients: &[f32], stride: usize, tile: &[[i8; LANES]], sums: &mut [f32], to: usize) {
    // SAFETY: as above.
    unsafe { tile_loop(rows, coefficients, stride, tile, sums, to, |row| sixteen_codes(row)) }
}

#[target_feature(enable = "neon")]
fn tile_loop<T>(
    rows: usize,
    coefficients: &[f32],
    stride: usize,
    tile: &[[T; LANES]],
    sums: &mut [f32],
    to: usize,
    read: impl Fn(&[T; LANES]) -> Numbers,
) {
    for row in (0..rows).step_by(ROWS) {
        let (from, sums) = (&coefficients[row * stride..], &mut sums[row * to..]);
        match rows - row {
            1 => rows_loop::<T, 1>(from, stride, tile, sums, to, &read),
            2 => rows_loop::<T, 2>(from, stride, tile, sums, to, &read),
            3 => rows_loop::<T, 3>(from, stride, tile, sums, to, &read),
            _ => rows_loop::<T, ROWS>(from, stride, tile, sums, to, &read),
        }
    }
}

/// `N` rows; each lane's sum is one chain of additions, however many rows there are.
#[target_feature(enable = "neon")]
#[inline]
fn rows_loop<T, const N: usize>(
    coefficients: &[f32],
    stride: usize,
    tile: &[[T; LANES]],
    sums: &mut [f32],
    to: usize,
    read: impl Fn(&[T; LANES]) -> Numbers,
) {
    let rows: [&[f32]; N] = std::array::from_fn(|row| &coefficients[row * stride..][..tile.len()]);
    let mut totals = [[vdupq_n_f32(0.0); LANES / 4]; N];
    for (row, totals) in totals.iter_mut().enumerate() {
        let sums = sums[row * to..][..LANES].as_chunks().0;
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = four(sum);
        }
    }
    for (at, numbers) in tile.iter().enumerate() {
        let numbers = read(numbers);
        for (totals, coefficients) in totals.iter_mut().zip(rows) {
            for (total, numbers) in totals.iter_mut().zip(numbers) {
                *total = vfmaq_n_f32(*total, numbers, coefficients[at]);
            }
        }
    }
    for (row, totals) in totals.iter().enumerate() {
        let sums = sums[row * to..][..LANES].as_chunks_mut().0;
        for (sum, total) in sums.iter_mut().zip(totals) {
            store(sum, *total);
        }
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn sixteen_halves(row: &[f16; LANES]) -> Numbers {
    let bits = row.as_ptr().cast::<[u16; 8]>();
    // SAFETY: a half is a transparent 16-bit word, and there are sixteen.
    let ([a, b], [c, d]) = unsafe { (widened(&*bits), widened(&*bits.add(1))) };
    [a, b, c, d]
}

#[target_feature(enable = "neon")]
#[inline]
fn sixteen_codes(row: &[i8; LANES]) -> Numbers {
    // SAFETY: sixteen bytes.
    let codes = unsafe { vld1q_s8(row.as_ptr()) };
    let (low, high) = (vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes));
    [
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
        vcvtq_f32_s32(vmovl_high_s16(low)),
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
        vcvtq_f32_s32(vmovl_high_s16(high)),
    ]
}

fn weigh(scores: &mut [f32; SPAN], highest: f32) -> (f32, f32) {
    // SAFETY: as above.
    unsafe { weigh_neon(scores, highest) }
}

#[target_feature(enable = "neon")]
fn weigh_neon(scores: &mut [f32; SPAN], highest: f32) -> (f32, f32) {
    let mut most = vdupq_n_f32(highest);
    for scores in scores.as_chunks().0 {
        most = vmaxnmq_f32(four(scores), most);
    }
    let highest = vmaxnmvq_f32(most);
    let mut sum = vdupq_n_f32(0.0);
    for scores in scores.as_chunks_mut().0 {
        let weights = exp(vsubq_f32(four(scores), vdupq_n_f32(highest)));
        sum = vaddq_f32(sum, weights);
        store(scores, weights);
    }
    (highest, vaddvq_f32(sum))
}

fn cap(scores: &mut [f32; SPAN], cap: f32) {
    // SAFETY: as above.
    unsafe { cap_neon(scores, cap) }
}

#[target_feature(enable = "neon")]
fn cap_neon(scores: &mut [f32; SPAN], cap: f32) {
    let (one, two) = (vdupq_n_f32(1.0), vdupq_n_f32(2.0));
    for scores in scores.as_chunks_mut().0 {
        let below = vaddq_f32(exp(vmulq_n_f32(four(scores), 2.0 / cap)), one);
        store(scores, vmulq_n_f32(vsubq_f32(one, vdivq_f32(two, below)), cap));
    }
}

/// [`crate::kernels::attention::exp`] of four numbers.
#[target_feature(enable = "neon")]
#[inline]
fn exp(x: float32x4_t) -> float32x4_t {
    let in_range = vcgeq_f32(x, vdupq_n_f32(LOWEST));
    let x = vminnmq_f32(x, vdupq_n_f32(HIGHEST));
    let n = vrndnq_f32(vmulq_n_f32(x, std::f32::consts::LOG2_E));
    let r = vfmsq_n_f32(x, n, LN2_HIGH);
    let r = vfmsq_n_f32(r, n, LN2_LOW);
    let mut power = vdupq_n_f32(POLYNOMIAL[0]);
    for factor in &POLYNOMIAL[1..] {
        power = vfmaq_f32(vdupq_n_f32(*factor), power, r);
    }
    let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    let scaled = vmulq_f32(power, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)));
    vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(scaled), in_range))
}

#[target_feature(enable = "neon")]
#[inline]
fn store(to: &mut [f32; 4], numbers: float32x4_t) {
    // SAFETY: there is room for four numbers.
    unsafe { vst1q_f32(to.as_mut_ptr(), numbers) }
}
