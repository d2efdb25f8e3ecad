//! Weights times activations: tiles of matrix rows over the cores, each block unpacked once for all
//! rows of the batch.

use gguf::TensorType;
use rayon::prelude::*;

use super::Kernels;
use crate::quant::{Activations, Kind, floats, kind_of};

/// Matrix rows that one task computes at least: enough to outweigh handing it over.
const TASK: usize = 16;
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

/// `out[batch row][matrix row]` of `activations` times the matrix's transpose, on the current
/// thread pool. The activations must have the integer form of the matrix's type.
pub fn matmul(kernels: Kernels, matrix: Matrix<'_>, activations: &Activations) -> Vec<f32> {
    let (batch, tile) = (activations.rows, kernels.tile);
    if batch == 0 {
        return Vec::new();
    }
    let task_rows = matrix.rows.div_ceil(rayon::current_num_threads() * TASKS_PER_THREAD).max(TASK);
    let task_tiles = task_rows.div_ceil(tile);
    // `[tile][batch row][row of the tile]`: what one task writes lies together.
    let mut tiles = vec![0.0; matrix.rows.div_ceil(tile) * tile * batch];
    tiles.par_chunks_mut(task_tiles * tile * batch).enumerate().for_each(|(task, out)| {
        for (at, out) in out.chunks_exact_mut(tile * batch).enumerate() {
            let first = (task * task_tiles + at) * tile;
            matrix.with_tile(first, tile, |bytes| product(kernels, matrix, bytes, activations, out));
        }
    });
    untile(&tiles, matrix.rows, tile, batch)
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
            let Some(values) = &activations.by256 else { return };
            (kernels.tile256)(matrix.weights, bytes, values, out);
        }
        Some(Kind::Rows32) => {
            let Some(values) = &activations.by32 else { return };
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

/// `[tile][batch][row of the tile]` to `[batch][rows]`.
fn untile(tiles: &[f32], rows: usize, tile: usize, batch: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows * batch];
    out.par_chunks_mut(rows).enumerate().for_each(|(batch_row, out)| {
        for (out, tiles) in out.chunks_mut(tile).zip(tiles.chunks_exact(tile * batch)) {
            out.copy_from_slice(&tiles[batch_row * tile..][..out.len()]);
        }
    });
    out
}
