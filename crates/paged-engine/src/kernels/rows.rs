//! Loops over one row at a time: norms, activations, 8-bit codes.
//!
//! They are written once, in a form that becomes vectors by itself, and compiled for each
//! instruction set. No set changes the order of a sum, so all give the same numbers.

use super::attention::exp;
use crate::quant::{GROUP, K, PANEL, Panel32, Panel256, SMALL};

/// The loops of one instruction set.
#[derive(Clone, Copy)]
pub struct RowLoops {
    /// Fills the panel whose first row begins where the floats begin; the others follow at the
    /// width. Rows that are not there become zeros.
    pub panel256: fn(&mut Panel256, floats: &[f32], width: usize),
    pub panel32: fn(&mut Panel32, floats: &[f32], width: usize),
    /// RMS norm (<https://arxiv.org/abs/1910.07467>) of a row, times the weights.
    pub norm: fn(row: &[f32], weights: &[f32], epsilon: f32, out: &mut [f32]),
    /// `gate = silu(gate) * up`.
    pub silu: fn(gate: &mut [f32], up: &[f32]),
    /// `gate = gelu(gate) * up`, by tanh (<https://arxiv.org/abs/1606.08415>).
    pub gelu: fn(gate: &mut [f32], up: &[f32]),
    /// `row += change`.
    pub add: fn(row: &mut [f32], change: &[f32]),
}

/// The loops as the compiler makes them without any feature, and the source of the others.
pub const PLAIN: RowLoops = RowLoops { panel256, panel32, norm, silu, gelu, add };

/// Makes `$loops`, compiled with these features. Whoever hands it out has seen that they are there.
#[cfg(target_arch = "x86_64")]
macro_rules! compiled_for {
    ($loops:ident, $features:literal) => {
        pub const $loops: $crate::kernels::rows::RowLoops = {
            use $crate::kernels::rows;
            use $crate::quant::{Panel32, Panel256};
            compiled_for!(@one $features, panel256(panel: &mut Panel256, floats: &[f32], width: usize));
            compiled_for!(@one $features, panel32(panel: &mut Panel32, floats: &[f32], width: usize));
            compiled_for!(@one $features, norm(row: &[f32], weights: &[f32], epsilon: f32, out: &mut [f32]));
            compiled_for!(@one $features, silu(gate: &mut [f32], up: &[f32]));
            compiled_for!(@one $features, gelu(gate: &mut [f32], up: &[f32]));
            compiled_for!(@one $features, add(row: &mut [f32], change: &[f32]));
            rows::RowLoops { panel256, panel32, norm, silu, gelu, add }
        };
    };
    (@one $features:literal, $name:ident($($argument:ident: $type:ty),*)) => {
        fn $name($($argument: $type),*) {
            #[target_feature(enable = $features)]
            fn compiled($($argument: $type),*) {
                rows::$name($($argument),*);
            }
            // SAFETY: the features are there.
            unsafe { compiled($($argument),*) }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use compiled_for;

#[inline(always)]
pub(super) fn panel256(panel: &mut Panel256, floats: &[f32], width: usize) {
    let (codes, scales) = quantized::<K>(floats, width);
    panel.scales = scales;
    interleave(&codes, &mut panel.codes);
    for (row, codes) in codes.iter().enumerate() {
        let mut sums = [0i16; GROUP];
        for (sum, group) in sums.iter_mut().zip(codes.as_chunks::<{ K / GROUP }>().0) {
            *sum = group.iter().map(|code| i16::from(*code)).sum();
        }
        for (pair, sums) in panel.sums16.iter_mut().zip(sums.as_chunks::<2>().0) {
            pair[row] = *sums;
        }
        for (pair, sums) in panel.sums32.iter_mut().zip(sums.as_chunks::<4>().0) {
            pair[row] = [sums[0] + sums[1], sums[2] + sums[3]];
        }
        for (offset, sum) in panel.offsets.iter_mut().zip(sums) {
            offset[row] = -32 * i32::from(sum);
        }
        panel.totals[row] = sums.iter().map(|sum| i32::from(*sum)).sum();
    }
}

#[inline(always)]
pub(super) fn panel32(panel: &mut Panel32, floats: &[f32], width: usize) {
    let (codes, scales) = quantized::<SMALL>(floats, width);
    panel.scales = scales;
    interleave(&codes, &mut panel.codes);
    for (row, codes) in codes.iter().enumerate() {
        let sum = codes.iter().map(|code| i32::from(*code)).sum::<i32>();
        panel.offsets[row] = -128 * sum;
        panel.sums[row] = scales[row] * sum as f32;
    }
}

/// The codes of a panel's rows, and their scales.
#[inline(always)]
fn quantized<const N: usize>(floats: &[f32], width: usize) -> ([[i8; N]; PANEL], [f32; PANEL]) {
    let (mut codes, mut scales) = ([[0; N]; PANEL], [0.0; PANEL]);
    for (row, floats) in floats.chunks(width).take(PANEL).enumerate() {
        if let Some(floats) = floats.first_chunk() {
            scales[row] = quantize(floats, &mut codes[row]);
        }
    }
    (codes, scales)
}

/// Four codes of each row side by side.
#[inline(always)]
fn interleave<const N: usize>(rows: &[[i8; N]; PANEL], quads: &mut [[[i8; 4]; PANEL]]) {
    let [a, b, c, d] = rows.each_ref().map(|row| row.as_chunks::<4>().0);
    for ((((quad, a), b), c), d) in quads.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *quad = [*a, *b, *c, *d];
    }
}

/// Rounds to the nearest of 255 steps; the scale gives the floats back.
#[inline(always)]
fn quantize<const N: usize>(floats: &[f32; N], codes: &mut [i8; N]) -> f32 {
    /// Added to a number below 2^22 it leaves the nearest integer, ties to even, in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // Many maxima, so that the loop is not one chain.
    let mut largest = [0.0f32; 32];
    for floats in floats.as_chunks::<32>().0 {
        for (largest, value) in largest.iter_mut().zip(floats) {
            *largest = if value.abs() > *largest { value.abs() } else { *largest };
        }
    }
    let largest = largest.iter().fold(0.0f32, |a, b| a.max(*b));
    if largest == 0.0 || !largest.is_finite() {
        codes.fill(0);
        return 0.0;
    }
    let inverse = 127.0 / largest;
    for (code, value) in codes.iter_mut().zip(floats) {
        // In range by construction; what is no number becomes 0.
        *code = (value * inverse + ROUND).to_bits() as i8;
    }
    largest / 127.0
}

#[inline(always)]
pub(super) fn norm(row: &[f32], weights: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = 1.0 / (sum_of_squares(row) / weights.len() as f32 + epsilon).sqrt();
    for ((out, value), weight) in out.iter_mut().zip(row).zip(weights) {
        *out = value * scale * weight;
    }
}

/// In sixteen sums, so that it is not one chain of additions.
#[inline(always)]
fn sum_of_squares(row: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (whole, rest) = row.as_chunks::<16>();
    for values in whole {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value * value;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| value * value).sum::<f32>()
}

#[inline(always)]
pub(super) fn silu(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

#[inline(always)]
pub(super) fn gelu(gate: &mut [f32], up: &[f32]) {
    let root = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    for (gate, up) in gate.iter_mut().zip(up) {
        let value = *gate;
        // (1 + tanh(x)) / 2 = 1 / (1 + exp(-2x))
        *gate = value / (1.0 + exp(-2.0 * root * (value + 0.044_715 * value * value * value))) * up;
    }
}

#[inline(always)]
pub(super) fn add(row: &mut [f32], change: &[f32]) {
    for (value, change) in row.iter_mut().zip(change) {
        *value += change;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Kernels;

    #[test]
    fn gelu_is_the_tanh_approximation() {
        // From the formula in double precision.
        for (value, expected) in [(-3.0, -0.003_637_39), (-0.5, -0.154_285_9), (0.0, 0.0), (1.0, 0.841_192)] {
            let mut gate = [value];
            gelu(&mut gate, &[1.0]);
            assert!((gate[0] - expected).abs() < 1e-6, "{value}: {}", gate[0]);
        }
    }

    #[test]
    fn codes_are_the_nearest_steps_and_what_is_no_number_is_zero() {
        let mut floats = [0.0f32; SMALL];
        floats[..6].copy_from_slice(&[127.0, -127.0, 2.5, 3.5, -0.4, f32::NAN]);
        let mut panel = Panel32::default();
        panel32(&mut panel, &floats, SMALL);
        let codes: Vec<i8> = (0..6).map(|at| panel.codes[at / 4][0][at % 4]).collect();
        assert_eq!((codes, panel.scales[0]), (vec![127, -127, 2, 4, 0, 0], 1.0));
    }

    #[test]
    fn every_set_gives_the_numbers_of_the_plain_loops() {
        let floats: Vec<f32> = (0..3 * K).map(|at| ((at * 7919 % 4001) as f32 - 2000.0) / 300.0).collect();
        let (ups, weights) = (&floats[100..][..K], &floats[200..][..K]);
        let all = |loops: RowLoops| {
            let (mut a, mut b) = (Panel256::default(), Panel32::default());
            (loops.panel256)(&mut a, &floats, K);
            (loops.panel32)(&mut b, &floats, SMALL);
            let rows = [loops.silu, loops.gelu, loops.add].map(|change| {
                let mut row = floats[..K - 3].to_vec();
                change(&mut row, ups);
                row
            });
            let mut normed = vec![0.0; K];
            (loops.norm)(&floats[..K], weights, 1e-5, &mut normed);
            (format!("{a:?} {b:?}"), rows, normed)
        };
        for kernels in Kernels::all() {
            assert_eq!(all(kernels.rows), all(PLAIN), "{kernels:?}");
        }
    }
}
