//! What a step computes with: the team, the kernels, and memory that serves one step after another.
//!
//! A step fills a dozen buffers for each layer. Taken from the system each time, they would cost as
//! much as the attention of a long prompt.

use crate::kernels::team::Team;
use crate::kernels::{Buffer, Kernels, Matrix, matmul};
use crate::quant::{Activations, kind_of};

#[derive(Debug)]
pub struct Workspace {
    pub team: Team,
    pub kernels: Kernels,
    activations: Activations,
    spare: Vec<Buffer>,
}

impl Workspace {
    pub fn new(team: Team, kernels: Kernels) -> Self {
        Self { team, kernels, activations: Activations::default(), spare: Vec::new() }
    }

    /// A buffer of this length, whatever stands in it.
    pub fn take(&mut self, length: usize) -> Buffer {
        let spare = self.spare.iter().map(Buffer::room).enumerate();
        // The smallest that fits; else the largest makes place, so that there are never more than a
        // step needs at once.
        let best = spare.min_by_key(|(_, room)| if *room >= length { (0, *room) } else { (1, usize::MAX - room) });
        let buffer = best.map(|(at, _)| self.spare.swap_remove(at)).unwrap_or_default();
        buffer.resized(length)
    }

    /// Takes a buffer back.
    pub fn give(&mut self, buffer: Buffer) {
        self.spare.push(buffer);
    }

    /// Returns the memory of all buffers: nothing will be computed for a while.
    pub fn rest(&mut self) {
        (self.activations, self.spare) = (Activations::default(), Vec::new());
    }

    /// The products of some matrices with the same rows, `[rows][matrix rows]`. `floats` is
    /// `[rows][width]`.
    pub fn products<const N: usize>(&mut self, matrices: [Matrix<'_>; N], floats: Buffer, width: usize) -> [Buffer; N] {
        let rows = floats.len() / width;
        let mut outs = matrices.map(|matrix| self.take(rows * matrix.rows));
        let before = self.activations.replace(floats, width);
        self.give(before);
        for kind in matrices.iter().filter_map(|matrix| kind_of(matrix.weights).flatten()) {
            self.activations.quantize(&mut self.team, self.kernels.rows, kind);
        }
        matmul(&mut self.team, self.kernels, matrices, &self.activations, &mut outs);
        outs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::scalar;

    #[test]
    fn buffers_serve_again_and_the_smallest_that_fits_is_taken() {
        let mut workspace = Workspace::new(Team::new(1).unwrap(), scalar::KERNELS);
        let (small, large) = (workspace.take(10), workspace.take(1000));
        let (small_at, large_at) = (small.as_ptr(), large.as_ptr());
        workspace.give(small);
        workspace.give(large);
        let (small, large) = (workspace.take(8), workspace.take(999));
        assert_eq!((small.as_ptr(), large.as_ptr()), (small_at, large_at));
        assert!(workspace.spare.is_empty());
        workspace.give(vec![0.0; 10].into());
        assert_eq!((workspace.take(20).len(), workspace.spare.len()), (20, 0), "one too small makes place");
    }
}
