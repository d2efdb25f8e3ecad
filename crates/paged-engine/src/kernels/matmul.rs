//! Weights times activations: tiles of matrix rows over the team, each block unpacked once for all
//! rows of the batch.

use gguf::TensorType;

use super::team::{Parts, Team};
use super::{Buffer, Kernels};
use crate::quant::{Activations, Kind, floats, kind_of};

/// Tasks a thread, so that one that was held up does not hold up all.
const TASKS_PER_THREAD: usize = 4;

/// A weight matrix as it lies in the file: `rows` rows of `width` weights.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub weights: TensorType,
    pub rows: usize,
    pub width: usize,
    /// All rows, one after the other.
    pub bytes: &'a [u8],
}

/// Some tiles of one of the matrices.
struct Task<'a> {
    matrix: Matrix<'a>,
    /// `[batch row][matrix row]`
    out: Parts<'a, f32>,
    first: usize,
    rows: usize,
}

/// For each matrix `outs[..][batch row][matrix row]`: `activations` times its transpose. All of them
/// in one loop, since a loop costs as much as a small matrix. The activations must have the integer
/// forms of the matrices' types, the outs the length of the products.
pub fn matmul<const N: usize>(
    team: &mut Team,
    kernels: Kernels,
    matrices: [Matrix<'_>; N],
    activations: &Activations,
    outs: &mut [Buffer; N],
) {
    if activations.rows == 0 {
        return;
    }
    let all: usize = matrices.iter().map(|matrix| matrix.rows).sum();
    let rows = all.div_ceil(team.threads() * TASKS_PER_THREAD).next_multiple_of(kernels.tile);
    let tasks: Vec<Task<'_>> = matrices
        .iter()
        .zip(outs)
        .flat_map(|(matrix, out)| {
            let (matrix, out) = (*matrix, Parts::new(out));
            (0..matrix.rows).step_by(rows).map(move |first| Task { matrix, out, first, rows })
        })
        .collect();
    let compute = match kernels.tile {
        8 => Task::compute::<8>,
        16 => Task::compute::<16>,
        32 => Task::compute::<32>,
        tile => unreachable!("no set has tiles of {tile} rows"),
    };
    team.run(tasks.len(), |at| compute(&tasks[at], kernels, activations));
}

impl Task<'_> {
    /// `TILE` is the kernels', known here so that a row of sums is copied without a call.
    fn compute<const TILE: usize>(&self, kernels: Kernels, activations: &Activations) {
        let all = self.matrix.rows;
        let mut sums = vec![0.0; TILE * activations.rows];
        for first in (self.first..all.min(self.first + self.rows)).step_by(TILE) {
            self.matrix.with_tile(first, TILE, |bytes| {
                product(kernels, self.matrix, bytes, activations, &mut sums);
            });
            for (batch_row, sums) in sums.as_chunks::<TILE>().0.iter().enumerate() {
                let there = TILE.min(all - first);
                #[expect(unsafe_code, reason = "columns of a matrix are no slice")]
                // SAFETY: every matrix row belongs to one task, and this one writes only its own.
                let out = unsafe { self.out.part(batch_row * all + first, there) };
                match out.first_chunk_mut::<TILE>() {
                    Some(out) => *out = *sums,
                    None => out.copy_from_slice(&sums[..there]),
                }
            }
        }
    }
}

impl Matrix<'_> {
    /// Calls `work` with the bytes of `count` whole rows from `first`; rows beyond the last are
    /// zeros.
    fn with_tile(&self, first: usize, count: usize, work: impl FnOnce(&[u8])) {
        let row = self.bytes.len() / self.rows;
        let there = (self.rows - first).min(count);
        let bytes = &self.bytes[first * row..][..there * row];
        if there == count {
            return work(bytes);
        }
        let mut padded = bytes.to_vec();
        padded.resize(count * row, 0);
        work(&padded);
    }
}

/// One tile times every batch row, `[batch row][row of the tile]`.
fn product(kernels: Kernels, matrix: Matrix<'_>, bytes: &[u8], activations: &Activations, out: &mut [f32]) {
    match kind_of(matrix.weights).flatten() {
        Some(Kind::Rows256) => {
            let Some(values) = activations.by256() else { return };
            (kernels.tile256)(matrix.weights, bytes, values, out);
        }
        Some(Kind::Rows32) => {
            let Some(values) = activations.by32() else { return };
            (kernels.tile32)(matrix.weights, bytes, values, out);
        }
        None => {
            let mut weights = vec![0.0; matrix.width];
            for (row, packed) in bytes.chunks_exact(bytes.len() / kernels.tile).enumerate() {
                floats(matrix.weights, packed, &mut weights);
                let rows = activations.floats.chunks_exact(matrix.width).zip(out.chunks_exact_mut(kernels.tile));
                rows.for_each(|(values, out)| out[row] = (kernels.dot_f32)(&weights, values));
            }
        }
    }
}
