//! Weights times activations: rows of the matrix over the cores, each block unpacked once for all
//! rows of the batch.

use gguf::TensorType;
use rayon::prelude::*;

use super::Kernels;
use crate::quant::{Activations, Block32, Kind, SMALL, floats, kind_of};

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

impl<'a> Matrix<'a> {
    fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.bytes.len() / self.rows;
        &self.bytes[row * bytes..][..bytes]
    }
}

/// `out[batch row][matrix row]` of `activations` times the matrix's transpose, on the current
/// thread pool. The activations must have the integer form of the matrix's type.
pub fn matmul(kernels: Kernels, matrix: Matrix<'_>, activations: &Activations) -> Vec<f32> {
    let batch = activations.rows;
    if batch == 0 {
        return Vec::new();
    }
    let task_rows = matrix.rows.div_ceil(rayon::current_num_threads() * TASKS_PER_THREAD).max(TASK);
    // Matrix rows are split over the cores, so the result comes out transposed.
    let mut columns = vec![0.0; matrix.rows * batch];
    columns.par_chunks_mut(task_rows * batch).enumerate().for_each(|(task, out)| {
        let rows = (task * task_rows..).zip(out.chunks_exact_mut(batch));
        match kind_of(matrix.weights).flatten() {
            Some(Kind::Rows256) => {
                let Some(values) = &activations.by256 else { return };
                rows.for_each(|(row, out)| (kernels.row256)(matrix.weights, matrix.row(row), values, out));
            }
            Some(Kind::Rows32) => rows.for_each(|(row, out)| row32(kernels, matrix, row, activations, out)),
            None => {
                let mut weights = vec![0.0; matrix.width];
                rows.for_each(|(row, out)| {
                    floats(matrix.weights, matrix.row(row), &mut weights);
                    for (out, values) in out.iter_mut().zip(activations.floats.chunks_exact(matrix.width)) {
                        *out = (kernels.dot_f32)(&weights, values);
                    }
                });
            }
        }
    });
    if batch == 1 { columns } else { transpose(&columns, matrix.rows, batch) }
}

/// One matrix row of a type with blocks of 32 times every batch row.
fn row32(kernels: Kernels, matrix: Matrix<'_>, row: usize, activations: &Activations, out: &mut [f32]) {
    let Some(values) = &activations.by32 else { return };
    let blocks = matrix.width / SMALL;
    let mut block = Block32::default();
    for (at, packed) in matrix.row(row).chunks_exact(matrix.weights.block_bytes() as usize).enumerate() {
        block.unpack(matrix.weights, packed);
        for (batch_row, out) in out.iter_mut().enumerate() {
            let place = batch_row * blocks + at;
            let dot = (kernels.dot32)(&block, &values.codes[place * SMALL..][..SMALL]) as f32;
            *out += block.d * values.scales[place] * dot + block.m * values.sums[place];
        }
    }
}

/// `[rows][batch]` to `[batch][rows]`.
fn transpose(columns: &[f32], rows: usize, batch: usize) -> Vec<f32> {
    let mut out = vec![0.0; columns.len()];
    out.par_chunks_mut(rows).enumerate().for_each(|(batch_row, out)| {
        for (row, out) in out.iter_mut().enumerate() {
            *out = columns[row * batch + batch_row];
        }
    });
    out
}
