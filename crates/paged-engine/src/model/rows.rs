//! What is done to every row of a batch by itself: norms, sums, activations.
//!
//! Nothing here looks at more than one row, so a row's numbers never depend on its neighbours.

use super::architecture::Activation;
use super::workspace::Workspace;
use crate::kernels::Buffer;

/// Numbers that one task of a cheap loop works on at least.
const ELEMENTS_PER_TASK: usize = 4096;

/// RMS norm of every row as wide as `weights`, times them.
pub fn normed(workspace: &mut Workspace, rows: &[f32], weights: &[f32], epsilon: f32) -> Buffer {
    let mut out = workspace.take(rows.len());
    let (width, norm) = (weights.len(), workspace.kernels.rows.norm);
    let piece = ELEMENTS_PER_TASK.next_multiple_of(width);
    workspace.team.chunks(&mut out, piece, |at, out| {
        for (out, row) in out.chunks_exact_mut(width).zip(rows[at * piece..].chunks_exact(width)) {
            norm(row, weights, epsilon, out);
        }
    });
    out
}

/// Adds `change` to `rows`, and gives its buffer back.
pub fn add(workspace: &mut Workspace, rows: &mut [f32], change: Buffer) {
    let add = workspace.kernels.rows.add;
    workspace.team.chunks(rows, ELEMENTS_PER_TASK, |at, rows| add(rows, &change[at * ELEMENTS_PER_TASK..]));
    workspace.give(change);
}

/// Adds `bias` to every row as wide as it.
pub fn add_bias(workspace: &Workspace, rows: &mut [f32], bias: &[f32]) {
    rows.chunks_exact_mut(bias.len()).for_each(|row| (workspace.kernels.rows.add)(row, bias));
}

/// `gate = activation(gate) * up`; gives the second buffer back.
pub fn gate(workspace: &mut Workspace, activation: Activation, gate: &mut [f32], up: Buffer) {
    let loops = workspace.kernels.rows;
    let by = match activation {
        Activation::Silu => loops.silu,
        Activation::Gelu => loops.gelu,
    };
    workspace.team.chunks(gate, ELEMENTS_PER_TASK, |at, gate| by(gate, &up[at * ELEMENTS_PER_TASK..]));
    workspace.give(up);
}

/// `cap * tanh(value / cap)` of every number.
pub fn soft_cap(values: &mut [f32], cap: f32) {
    for value in values {
        *value = cap * (*value / cap).tanh();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_cap_bends_large_numbers_and_leaves_small_ones() {
        let mut values = [0.01, 1000.0, -1000.0];
        soft_cap(&mut values, 30.0);
        assert!((values[0] - 0.01).abs() < 1e-6);
        assert_eq!(values[1..], [30.0, -30.0]);
    }
}
