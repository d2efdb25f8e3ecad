//! Activations as 8-bit integers, one scale a block: what the integer kernels multiply weights by.

use rayon::prelude::*;

use super::{GROUP, K, SMALL};

/// Blocks that one task quantizes at least.
const BLOCKS_PER_TASK: usize = 16;

/// The form activations take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For k-quants.
    Rows256,
    /// For the types with blocks of 32.
    Rows32,
}

/// The rows of a batch, each `width` numbers long, as floats and in the forms asked for.
#[derive(Debug, Default)]
pub struct Activations {
    pub rows: usize,
    pub width: usize,
    /// `[rows][width]`
    pub floats: Vec<f32>,
    pub by256: Option<Rows256>,
    pub by32: Option<Rows32>,
}

/// `[rows][width / 256]` blocks.
#[derive(Clone, Debug, Default)]
pub struct Rows256(pub Vec<Activations256>);

/// 256 activations of one row: `scale * codes[i]`. Kernels load them in whole cache lines.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Activations256 {
    /// -127 to 127.
    pub codes: [i8; K],
    /// The sum of each group of 16 codes.
    pub sums: [i16; GROUP],
    pub scale: f32,
}

/// `[rows][width / 32]` blocks.
#[derive(Clone, Debug, Default)]
pub struct Rows32 {
    /// `[rows][width]`, -127 to 127.
    pub codes: Vec<i8>,
    /// A scale for each block.
    pub scales: Vec<f32>,
    /// The sum of each block's codes, times its scale.
    pub sums: Vec<f32>,
}

impl Activations {
    /// Takes `[rows][width]` floats.
    pub fn new(floats: Vec<f32>, width: usize) -> Self {
        Self { rows: floats.len() / width, width, floats, by256: None, by32: None }
    }

    /// Makes the integer form, unless it is there.
    pub fn quantize(&mut self, kind: Kind) {
        match kind {
            Kind::Rows256 if self.by256.is_none() => self.by256 = Some(rows256(&self.floats)),
            Kind::Rows32 if self.by32.is_none() => self.by32 = Some(rows32(&self.floats)),
            _ => {}
        }
    }
}

fn rows256(floats: &[f32]) -> Rows256 {
    let block = |floats: &[f32]| {
        let mut block = Activations256 { codes: [0; K], sums: [0; GROUP], scale: 0.0 };
        block.scale = quantize(floats, &mut block.codes);
        for (sum, group) in block.sums.iter_mut().zip(block.codes.chunks_exact(GROUP)) {
            *sum = group.iter().map(|code| i16::from(*code)).sum();
        }
        block
    };
    Rows256(floats.par_chunks_exact(K).with_min_len(BLOCKS_PER_TASK).map(block).collect())
}

fn rows32(floats: &[f32]) -> Rows32 {
    let mut rows = Rows32 { codes: vec![0; floats.len()], ..Rows32::default() };
    for (floats, codes) in floats.chunks_exact(SMALL).zip(rows.codes.chunks_exact_mut(SMALL)) {
        let scale = quantize(floats, codes);
        rows.scales.push(scale);
        rows.sums.push(scale * codes.iter().map(|code| i32::from(*code)).sum::<i32>() as f32);
    }
    rows
}

/// Rounds to the nearest of 255 steps; the scale gives the floats back.
fn quantize(floats: &[f32], codes: &mut [i8]) -> f32 {
    let largest = floats.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    if largest == 0.0 || !largest.is_finite() {
        codes.fill(0);
        return 0.0;
    }
    let inverse = 127.0 / largest;
    for (code, value) in codes.iter_mut().zip(floats) {
        // In range by construction; `as` saturates and takes NaN to 0.
        *code = (value * inverse).round_ties_even() as i8;
    }
    largest / 127.0
}
