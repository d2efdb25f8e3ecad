//! What is done to every row of a batch by itself: norms, sums, activations.
//!
//! Nothing here looks at more than one row, so a row's numbers never depend on its neighbours.

use super::architecture::Activation;
use crate::kernels::attention::exp;
use crate::kernels::team::Team;

/// Numbers that one task of a cheap loop works on at least.
const ELEMENTS_PER_TASK: usize = 4096;

/// RMS norm (<https://arxiv.org/abs/1910.07467>) of every row as wide as `weights`, times them.
pub fn normed(team: &mut Team, rows: &[f32], weights: &[f32], epsilon: f32) -> Vec<f32> {
    let mut out = vec![0.0; rows.len()];
    let width = weights.len();
    let piece = ELEMENTS_PER_TASK.next_multiple_of(width);
    team.chunks(&mut out, piece, |at, out| {
        for (out, row) in out.chunks_exact_mut(width).zip(rows[at * piece..].chunks_exact(width)) {
            let scale = 1.0 / (sum_of_squares(row) / width as f32 + epsilon).sqrt();
            for ((out, value), weight) in out.iter_mut().zip(row).zip(weights) {
                *out = value * scale * weight;
            }
        }
    });
    out
}

/// In eight sums, so that it is not one chain of additions.
fn sum_of_squares(row: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (eights, rest) = row.as_chunks::<8>();
    for values in eights {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value * value;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| value * value).sum::<f32>()
}

/// Adds `change` to `rows`.
pub fn add(rows: &mut [f32], change: &[f32]) {
    for (value, change) in rows.iter_mut().zip(change) {
        *value += change;
    }
}

/// Adds `bias` to every row as wide as it.
pub fn add_bias(rows: &mut [f32], bias: &[f32]) {
    rows.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
}

/// `gate = activation(gate) * up`.
pub fn gate(team: &mut Team, activation: Activation, gate: &mut [f32], up: &[f32]) {
    match activation {
        Activation::Silu => gate_by(team, gate, up, silu),
        Activation::Gelu => gate_by(team, gate, up, gelu),
    }
}

/// Compiled for each activation, so that its loop becomes one of vectors.
fn gate_by(team: &mut Team, gate: &mut [f32], up: &[f32], activation: impl Fn(f32) -> f32 + Sync) {
    team.chunks(gate, ELEMENTS_PER_TASK, |at, gate| {
        for (gate, up) in gate.iter_mut().zip(&up[at * ELEMENTS_PER_TASK..]) {
            *gate = activation(*gate) * up;
        }
    });
}

/// `cap * tanh(value / cap)` of every number.
pub fn soft_cap(values: &mut [f32], cap: f32) {
    for value in values {
        *value = cap * (*value / cap).tanh();
    }
}

fn silu(value: f32) -> f32 {
    value / (1.0 + exp(-value))
}

/// <https://arxiv.org/abs/1606.08415>, by tanh.
fn gelu(value: f32) -> f32 {
    let root = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    // (1 + tanh(x)) / 2 = 1 / (1 + exp(-2x))
    value / (1.0 + exp(-2.0 * root * (value + 0.044_715 * value * value * value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_the_tanh_approximation() {
        // From the formula in double precision.
        for (value, expected) in [(-3.0, -0.003_637_39), (-0.5, -0.154_285_9), (0.0, 0.0), (1.0, 0.841_192)] {
            assert!((gelu(value) - expected).abs() < 1e-6, "{value}: {}", gelu(value));
        }
    }

    #[test]
    fn a_soft_cap_bends_large_numbers_and_leaves_small_ones() {
        let mut values = [0.01, 1000.0, -1000.0];
        soft_cap(&mut values, 30.0);
        assert!((values[0] - 0.01).abs() < 1e-6);
        assert_eq!(values[1..], [30.0, -30.0]);
    }
}
