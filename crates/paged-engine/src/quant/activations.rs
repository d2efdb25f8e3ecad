//! Activations as 8-bit integers, one scale a block: what the integer kernels multiply weights by.

use super::{GROUP, K, SMALL};

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
pub struct Rows256 {
    /// `[rows][width]`, -127 to 127.
    pub codes: Vec<i8>,
    /// A scale for each block.
    pub scales: Vec<f32>,
    /// The sum of each group of 16 codes.
    pub sums: Vec<i16>,
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
    let mut rows = Rows256 { codes: vec![0; floats.len()], ..Rows256::default() };
    for (floats, codes) in floats.chunks_exact(K).zip(rows.codes.chunks_exact_mut(K)) {
        rows.scales.push(quantize(floats, codes));
        let sum = |group: &[i8]| group.iter().map(|code| i16::from(*code)).sum::<i16>();
        rows.sums.extend(codes.chunks_exact(GROUP).map(sum));
    }
    rows
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
