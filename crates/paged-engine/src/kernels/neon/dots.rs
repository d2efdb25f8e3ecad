//! Integer products: what the two sets have in common, and the two instructions they differ by.
//!
//! Codes are signed bytes here: `sdot` and `smmla` take them so, and types whose codes are stored
//! with an offset have it taken off when they are unpacked.

use std::arch::aarch64::*;
use std::arch::asm;

use super::columns::{Codes, Lanes, TILE};
use crate::quant::{GROUP, K, PANEL, SMALL};

/// The same four codes of each row of a panel.
pub type Quad = [[i8; 4]; PANEL];

/// How one set multiplies a tile's codes by a panel of activations.
///
/// # Safety
/// All functions need the set's extension of the instruction set; [`Dots::there`] tells.
pub trait Dots {
    const NAME: &str;
    /// A scale for each row of the tile, as the set multiplies its sums by it.
    type Scales: Copy;

    /// Whether this processor has the extension.
    fn there() -> bool;

    /// Sixteen bytes of each row, in the order of the set.
    ///
    /// # Safety
    /// As for the trait.
    unsafe fn arrange(rows: [uint8x16_t; TILE]) -> Codes;

    /// Eight scales, in the form of the set.
    ///
    /// # Safety
    /// As for the trait.
    unsafe fn scales(scales: int16x8_t) -> Self::Scales;

    /// Codes times the first `ROWS` rows of a panel. The sums stay in registers if `then` is
    /// inlined, so it gets them instead of the caller.
    ///
    /// # Safety
    /// As for the trait.
    unsafe fn plain<const ROWS: usize>(
        codes: &[Codes; SMALL / GROUP],
        values: &[Quad; SMALL / 4],
        then: impl FnOnce([Lanes; ROWS]),
    );

    /// The same with a scale for every `SHARED` groups of 16 codes.
    ///
    /// # Safety
    /// As for the trait.
    unsafe fn scaled<const SHARED: usize, const ROWS: usize>(
        codes: &[Codes; GROUP],
        scales: &[Self::Scales; GROUP],
        values: &[Quad; K / 4],
        then: impl FnOnce([Lanes; ROWS]),
    );
}

/// A quad of a panel: one batch row in each lane.
#[target_feature(enable = "neon")]
#[inline]
pub fn quad(values: &Quad) -> int8x16_t {
    // SAFETY: sixteen bytes.
    unsafe { vld1q_s8(values.as_ptr().cast()) }
}

/// To each lane of `sums` its four codes times the four codes in lane `ROW` of `values`.
///
/// The intrinsic is not stable (`stdarch_neon_dotprod`).
#[target_feature(enable = "neon,dotprod")]
#[inline]
pub fn sdot<const ROW: usize>(mut sums: int32x4_t, codes: uint8x16_t, values: int8x16_t) -> int32x4_t {
    const { assert!(ROW < PANEL) };
    // SAFETY: reads and writes these registers only, and the instruction is there.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {codes:v}.16b, {values:v}.4b[{row}]",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            values = in(vreg) values,
            row = const ROW,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Two rows of eight values times two rows of eight codes: to `sums` go
/// `[value row 0, code row 0]`, `[0, 1]`, `[1, 0]`, `[1, 1]`.
///
/// The intrinsic is not stable (`stdarch_neon_i8mm`).
#[target_feature(enable = "neon,i8mm")]
#[inline]
pub fn smmla(mut sums: int32x4_t, values: int32x4_t, codes: uint8x16_t) -> int32x4_t {
    // SAFETY: reads and writes these registers only, and the instruction is there.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {values:v}.16b, {codes:v}.16b",
            sums = inout(vreg) sums,
            values = in(vreg) values,
            codes = in(vreg) codes,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
