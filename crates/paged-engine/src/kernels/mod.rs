//! Matrix products and attention inner loops: the fastest set this processor has, chosen once.
//!
//! Every set computes the same sums of integers; where floats are added the order may differ, so
//! answers are equal bit for bit on one machine and not between machines. Within one set a row's
//! result never depends on the other rows of the batch: each row is summed in the same order,
//! whoever stands beside it.

pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod buffer;
mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
mod rows;
pub mod scalar;
pub mod team;

use std::sync::OnceLock;

use gguf::TensorType;

pub use attention::{Attention, AttentionLoops, Queries};
pub use buffer::Buffer;
pub use matmul::{Matrix, matmul};
pub use rows::RowLoops;

use crate::quant::{Panel32, Panel256, Panels};

/// The inner loops of one instruction set.
#[derive(Clone, Copy)]
pub struct Kernels {
    pub name: &'static str,
    /// Matrix rows that the two functions below take at once.
    pub tile: usize,
    /// A tile of whole rows of a k-quant, as they lie in the file, times every row of the batch:
    /// `out` is `[batch row][row of the tile]`. Each block is unpacked once for all of them.
    pub tile256: fn(TensorType, rows: &[u8], &Panels<Panel256>, out: &mut [f32]),
    /// The same for the types with blocks of 32.
    pub tile32: fn(TensorType, rows: &[u8], &Panels<Panel32>, out: &mut [f32]),
    pub dot_f32: fn(&[f32], &[f32]) -> f32,
    pub attention: AttentionLoops,
    pub rows: RowLoops,
}

impl Kernels {
    /// The fastest set of this processor.
    pub fn best() -> Self {
        static BEST: OnceLock<Kernels> = OnceLock::new();
        *BEST.get_or_init(|| Self::all().next().unwrap_or(scalar::KERNELS))
    }

    /// The set of this name, if this processor has it.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|kernels| kernels.name == name)
    }

    /// Every set that this processor can run, the fastest first, the reference last.
    pub fn all() -> impl Iterator<Item = Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        sets.extend(avx512::kernels().into_iter().chain(avx2::kernels()));
        #[cfg(target_arch = "aarch64")]
        sets.extend(neon::kernels());
        sets.push(scalar::KERNELS);
        sets.into_iter()
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests;
