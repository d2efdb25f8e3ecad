//! Activations as 8-bit integers: what the integer kernels multiply weights by.
//!
//! Kernels hold several matrix rows in the lanes of a register and meet one activation row at a
//! time, four codes in one broadcast. So four rows of a batch lie together in a panel, and in it
//! the same four codes of each row side by side. Places of rows that are not there hold zeros.

use super::{GROUP, K, SMALL};
use crate::kernels::team::Team;
use crate::kernels::{Buffer, RowLoops};

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

/// The rows of a batch, each `width` numbers long, as floats and in the forms asked for. One value
/// serves many batches: the memory of the forms stays.
#[derive(Debug, Default)]
pub struct Activations {
    pub rows: usize,
    pub width: usize,
    /// `[rows][width]`
    pub floats: Buffer,
    by256: Panels<Panel256>,
    by32: Panels<Panel32>,
}

/// All panels of a batch, `[block][panel]`: a block of weights meets its panels in one run.
#[derive(Clone, Debug)]
pub struct Panels<P> {
    /// Panels of one block; 0 until the form was made.
    panels: usize,
    /// Those of the batch first; more than that if another batch was larger.
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
    /// Takes `[rows][width]` floats in place of those it had, which it gives back.
    pub fn replace(&mut self, floats: Buffer, width: usize) -> Buffer {
        (self.rows, self.width) = (floats.len() / width, width);
        (self.by256.panels, self.by32.panels) = (0, 0);
        std::mem::replace(&mut self.floats, floats)
    }

    /// Makes the integer form, unless it is there.
    pub fn quantize(&mut self, team: &mut Team, loops: RowLoops, kind: Kind) {
        let floats = (&*self.floats, self.width);
        match kind {
            Kind::Rows256 if self.by256.panels == 0 => self.by256.fill(team, floats, K, loops.panel256),
            Kind::Rows32 if self.by32.panels == 0 => self.by32.fill(team, floats, SMALL, loops.panel32),
            _ => {}
        }
    }

    /// The form for k-quants, if it was made.
    pub fn by256(&self) -> Option<&Panels<Panel256>> {
        Some(&self.by256).filter(|panels| panels.panels > 0)
    }

    /// The form for the types with blocks of 32, if it was made.
    pub fn by32(&self) -> Option<&Panels<Panel32>> {
        Some(&self.by32).filter(|panels| panels.panels > 0)
    }
}

impl<P: Clone + Default + Send> Panels<P> {
    fn fill(
        &mut self,
        team: &mut Team,
        (floats, width): (&[f32], usize),
        block: usize,
        fill: fn(&mut P, &[f32], usize),
    ) {
        let (panels, blocks) = ((floats.len() / width).div_ceil(PANEL), width / block);
        let length = panels * blocks;
        if self.all.len() < length {
            self.all.resize(length, P::default());
        }
        self.panels = panels;
        team.chunks(&mut self.all[..length], BLOCKS_PER_TASK, |task, some| {
            for (at, panel) in (task * BLOCKS_PER_TASK..).zip(some) {
                let (block_at, panel_at) = (at / panels, at % panels);
                fill(panel, &floats[panel_at * PANEL * width + block_at * block..], width);
            }
        });
    }
}

impl<P> Default for Panels<P> {
    fn default() -> Self {
        Self { panels: 0, all: Vec::new() }
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
