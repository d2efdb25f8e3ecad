//! The reference: plain loops, which every other set is held to.

use half::f16;

use super::{AttentionLoops, SPAN, exp};
use crate::kv::LANES;

pub const LOOPS: AttentionLoops = AttentionLoops { halves, codes, weigh, cap };

fn halves(rows: usize, coefficients: &[f32], stride: usize, tile: &[[f16; LANES]], sums: &mut [f32], to: usize) {
    tile_loop(rows, coefficients, stride, tile, sums, to, |half| half.to_f32());
}

fn codes(rows: usize, coefficients: &[f32], stride: usize, tile: &[[i8; LANES]], sums: &mut [f32], to: usize) {
    tile_loop(rows, coefficients, stride, tile, sums, to, f32::from);
}

fn tile_loop<T: Copy>(
    rows: usize,
    coefficients: &[f32],
    stride: usize,
    tile: &[[T; LANES]],
    sums: &mut [f32],
    sums_stride: usize,
    float: impl Fn(T) -> f32,
) {
    for row in 0..rows {
        let sums = &mut sums[row * sums_stride..][..LANES];
        for (coefficient, numbers) in coefficients[row * stride..].iter().zip(tile) {
            for (sum, number) in sums.iter_mut().zip(numbers) {
                *sum += coefficient * float(*number);
            }
        }
    }
}

fn weigh(scores: &mut [f32; SPAN], highest: f32) -> (f32, f32) {
    let highest = scores.iter().copied().fold(highest, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = exp(*score - highest);
        sum += *score;
    }
    (highest, sum)
}

/// `tanh(x)` as `1 - 2 / (exp(2 x) + 1)`: for small `x` off by some 1e-7, times the cap.
fn cap(scores: &mut [f32; SPAN], cap: f32) {
    for score in scores.iter_mut() {
        *score = cap * (1.0 - 2.0 / (exp(2.0 * *score / cap) + 1.0));
    }
}
