//! `sdot`: four codes of four matrix rows times four codes of one batch row.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::columns::{Codes, Lanes, TILE};
use super::dots::{Dots, Quad, quad, sdot};
use crate::quant::{GROUP, K, SMALL};

/// Armv8.2 with the dot product instructions.
pub struct DotProd;

impl Dots for DotProd {
    const NAME: &str = "neon-dotprod";
    type Scales = Lanes;

    fn there() -> bool {
        is_aarch64_feature_detected!("dotprod")
    }

    /// `[quad][half of the tile]`: four bytes of a row in each lane.
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn arrange([a, b, c, d, e, f, g, h]: [uint8x16_t; TILE]) -> Codes {
        let [low, high] = [transposed([a, b, c, d]), transposed([e, f, g, h])];
        [low[0], high[0], low[1], high[1], low[2], high[2], low[3], high[3]]
    }

    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn scales(scales: int16x8_t) -> Lanes {
        [vmovl_s16(vget_low_s16(scales)), vmovl_high_s16(scales)]
    }

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn plain<const ROWS: usize>(
        codes: &[Codes; SMALL / GROUP],
        values: &[Quad; SMALL / 4],
        then: impl FnOnce([Lanes; ROWS]),
    ) {
        let mut sums = [[vdupq_n_s32(0); 2]; ROWS];
        for (codes, values) in quads(codes).zip(values) {
            add(&mut sums, codes, values);
        }
        then(sums);
    }

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn scaled<const SHARED: usize, const ROWS: usize>(
        codes: &[Codes; GROUP],
        scales: &[Lanes; GROUP],
        values: &[Quad; K / 4],
        then: impl FnOnce([Lanes; ROWS]),
    ) {
        let mut totals = [[vdupq_n_s32(0); 2]; ROWS];
        let groups = codes.chunks_exact(SHARED).zip(values.chunks_exact(4 * SHARED));
        for ((codes, values), scales) in groups.zip(scales) {
            let mut sums = [[vdupq_n_s32(0); 2]; ROWS];
            for (codes, values) in quads(codes).zip(values) {
                add(&mut sums, codes, values);
            }
            for (totals, sums) in totals.iter_mut().zip(sums) {
                *totals = [vmlaq_s32(totals[0], sums[0], scales[0]), vmlaq_s32(totals[1], sums[1], scales[1])];
            }
        }
        then(totals);
    }
}

/// Both halves of the tile for one quad after the other.
fn quads(codes: &[Codes]) -> impl Iterator<Item = &[uint8x16_t; 2]> {
    codes.as_flattened().as_chunks().0.iter()
}

/// A quad's codes times the first `ROWS` rows of the panel. The loops around it stand in the two
/// functions above: one of them with four rows is too long to be inlined, and its sums would go
/// through memory.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn add<const ROWS: usize>(sums: &mut [Lanes; ROWS], codes: &[uint8x16_t; 2], values: &Quad) {
    let values = quad(values);
    row::<0>(sums.get_mut(0), codes, values);
    row::<1>(sums.get_mut(1), codes, values);
    row::<2>(sums.get_mut(2), codes, values);
    row::<3>(sums.get_mut(3), codes, values);
}

/// One batch row, if there is one.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn row<const ROW: usize>(sums: Option<&mut Lanes>, codes: &[uint8x16_t; 2], values: int8x16_t) {
    if let Some(sums) = sums {
        *sums = [sdot::<ROW>(sums[0], codes[0], values), sdot::<ROW>(sums[1], codes[1], values)];
    }
}

/// Four rows of four words, as four columns.
#[target_feature(enable = "neon")]
#[inline]
fn transposed(rows: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
    let [a, b, c, d] = rows.map(|row| vreinterpretq_u32_u8(row));
    let wide = |pair| vreinterpretq_u64_u32(pair);
    let (ab_low, ab_high) = (wide(vzip1q_u32(a, b)), wide(vzip2q_u32(a, b)));
    let (cd_low, cd_high) = (wide(vzip1q_u32(c, d)), wide(vzip2q_u32(c, d)));
    [vzip1q_u64(ab_low, cd_low), vzip2q_u64(ab_low, cd_low), vzip1q_u64(ab_high, cd_high), vzip2q_u64(ab_high, cd_high)]
        .map(|column| vreinterpretq_u8_u64(column))
}
