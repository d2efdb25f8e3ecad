//! Activations as 8-bit integers: what the integer kernels multiply weights by.
//!
//! Kernels hold several matrix rows in the lanes of a register and meet one activation row at a
//! time, four codes in one broadcast. So four rows of a batch lie together in a panel, and in it
//! the same four codes of each row side by side. Places of rows that are not there hold zeros.

use super::{GROUP, K, SMALL};
use crate::kernels::team::Team;

/// Batch rows in a panel.
pub const PANEL: usize = 4;
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
    pub by256: Option<Panels<Panel256>>,
    pub by32: Option<Panels<Panel32>>,
}

/// All panels of a batch, `[block][panel]`: a block of weights meets its panels in one run.
#[derive(Clone, Debug)]
pub struct Panels<P> {
    panels: usize,
    all: Vec<P>,
}

/// Blocks of 256 activations of four rows.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Panel256 {
    /// `[quad][row]` of four codes each, -127 to 127.
    pub codes: [[[i8; 4]; PANEL]; K / 4],
    /// The sums of two neighbouring groups of 16 codes, `[pair][row]`.
    pub sums16: [[[i16; 2]; PANEL]; K / 32],
    /// The sums of two neighbouring groups of 32 codes, `[pair][row]`.
    pub sums32: [[[i16; 2]; PANEL]; K / 64],
    /// -32 times the sum of each group of 16 codes, `[group][row]`: where a sum begins whose weights
    /// are stored 32 too large.
    pub offsets: [[i32; PANEL]; GROUP],
    /// The sum of all codes of each row.
    pub totals: [i32; PANEL],
    pub scales: [f32; PANEL],
}

/// Blocks of 32 activations of four rows.
#[derive(Clone, Debug)]
#[repr(C, align(32))]
pub struct Panel32 {
    /// `[quad][row]` of four codes each, -127 to 127.
    pub codes: [[[i8; 4]; PANEL]; SMALL / 4],
    /// -128 times the sum of each row's codes: where a sum begins whose weights are stored 128 too
    /// large.
    pub offsets: [i32; PANEL],
    pub scales: [f32; PANEL],
    /// The sum of each row's codes, times its scale.
    pub sums: [f32; PANEL],
}

impl Activations {
    /// Takes `[rows][width]` floats.
    pub fn new(floats: Vec<f32>, width: usize) -> Self {
        Self { rows: floats.len() / width, width, floats, by256: None, by32: None }
    }

    /// Makes the integer form, unless it is there.
    pub fn quantize(&mut self, team: &mut Team, kind: Kind) {
        match kind {
            Kind::Rows256 if self.by256.is_none() => self.by256 = Some(self.panels(team, K, panel256)),
            Kind::Rows32 if self.by32.is_none() => self.by32 = Some(self.panels(team, SMALL, panel32)),
            _ => {}
        }
    }

    fn panels<P: Clone + Default + Send>(
        &self,
        team: &mut Team,
        block: usize,
        fill: fn(&mut P, &[f32], usize),
    ) -> Panels<P> {
        let (panels, blocks) = (self.rows.div_ceil(PANEL), self.width / block);
        let mut all = vec![P::default(); panels * blocks];
        team.chunks(&mut all, BLOCKS_PER_TASK, |task, some| {
            for (at, panel) in (task * BLOCKS_PER_TASK..).zip(some) {
                let (block_at, panel_at) = (at / panels, at % panels);
                fill(panel, &self.floats[panel_at * PANEL * self.width + block_at * block..], self.width);
            }
        });
        Panels { panels, all }
    }
}

impl<P> Panels<P> {
    /// The panels that a block of weights meets, in the order of the batch.
    pub fn of_block(&self, block: usize) -> &[P] {
        &self.all[block * self.panels..][..self.panels]
    }
}

impl Default for Panel256 {
    fn default() -> Self {
        Self {
            codes: [[[0; 4]; PANEL]; K / 4],
            sums16: [[[0; 2]; PANEL]; K / 32],
            sums32: [[[0; 2]; PANEL]; K / 64],
            offsets: [[0; PANEL]; GROUP],
            totals: [0; PANEL],
            scales: [0.0; PANEL],
        }
    }
}

impl Default for Panel32 {
    fn default() -> Self {
        Self { codes: [[[0; 4]; PANEL]; SMALL / 4], offsets: [0; PANEL], scales: [0.0; PANEL], sums: [0.0; PANEL] }
    }
}

/// Fills the panel whose first row begins where `floats` begins; the others follow at `width`.
fn panel256(panel: &mut Panel256, floats: &[f32], width: usize) {
    let mut codes = [0; K];
    for (row, floats) in floats.chunks(width).take(PANEL).enumerate() {
        panel.scales[row] = quantize(&floats[..K], &mut codes);
        for (quad, codes) in panel.codes.iter_mut().zip(codes.as_chunks::<4>().0) {
            quad[row] = *codes;
        }
        let mut sums = [0i16; GROUP];
        for (sum, group) in sums.iter_mut().zip(codes.chunks_exact(K / GROUP)) {
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

/// As [`panel256`].
fn panel32(panel: &mut Panel32, floats: &[f32], width: usize) {
    let mut codes = [0; SMALL];
    for (row, floats) in floats.chunks(width).take(PANEL).enumerate() {
        let scale = quantize(&floats[..SMALL], &mut codes);
        for (quad, codes) in panel.codes.iter_mut().zip(codes.as_chunks::<4>().0) {
            quad[row] = *codes;
        }
        panel.scales[row] = scale;
        let sum = codes.iter().map(|code| i32::from(*code)).sum::<i32>();
        panel.offsets[row] = -128 * sum;
        panel.sums[row] = scale * sum as f32;
    }
}

/// Rounds to the nearest of 255 steps; the scale gives the floats back.
fn quantize<const N: usize>(floats: &[f32], codes: &mut [i8; N]) -> f32 {
    // Eight maxima, so that the loop is not one chain.
    let mut largest = [0.0f32; 8];
    for floats in floats.as_chunks::<8>().0 {
        for (largest, value) in largest.iter_mut().zip(floats) {
            *largest = largest.max(value.abs());
        }
    }
    let largest = largest.iter().fold(0.0f32, |a, b| a.max(*b));
    if largest == 0.0 || !largest.is_finite() {
        codes.fill(0);
        return 0.0;
    }
    let inverse = 127.0 / largest;
    for (code, value) in codes.iter_mut().zip(floats) {
        // In range by construction; `as` saturates and takes NaN to 0.
        *code = (value * inverse).round_ties_even() as i32 as i8;
    }
    largest / 127.0
}
