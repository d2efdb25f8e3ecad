//! `smmla`: eight codes of two matrix rows times eight codes of two batch rows, twice the work of
//! an `sdot`. With a single batch row half of it is lost, and it is as good as `sdot`.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::columns::{Codes, Lanes, TILE};
use super::dots::{Dots, Quad, quad, smmla};
use crate::quant::{GROUP, K, PANEL, SMALL};

/// Armv8.2 with the 8-bit matrix product instructions.
pub struct I8mm;

/// `[pair of matrix rows]` of `[batch row][matrix row]`, two by two.
type Pairs = [int32x4_t; 4];

impl Dots for I8mm {
    const NAME: &str = "neon-i8mm";
    type Scales = Pairs;

    fn there() -> bool {
        is_aarch64_feature_detected!("i8mm")
    }

    /// `[half of the span][pair of rows]`: eight bytes of the first row, then of the second.
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn arrange(rows: [uint8x16_t; TILE]) -> Codes {
        let [a, b, c, d, e, f, g, h] = rows.map(|row| vreinterpretq_u64_u8(row));
        let [first, second] = [
            [vzip1q_u64(a, b), vzip1q_u64(c, d), vzip1q_u64(e, f), vzip1q_u64(g, h)],
            [vzip2q_u64(a, b), vzip2q_u64(c, d), vzip2q_u64(e, f), vzip2q_u64(g, h)],
        ];
        let [[a, b, c, d], [e, f, g, h]] = [first, second];
        [a, b, c, d, e, f, g, h].map(|pair| vreinterpretq_u8_u64(pair))
    }

    /// Each pair of scales twice: for both batch rows.
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn scales(scales: int16x8_t) -> Pairs {
        let [low, high] = [vmovl_s16(vget_low_s16(scales)), vmovl_high_s16(scales)].map(|s| vreinterpretq_s64_s32(s));
        [vdupq_laneq_s64::<0>(low), vdupq_laneq_s64::<1>(low), vdupq_laneq_s64::<0>(high), vdupq_laneq_s64::<1>(high)]
            .map(|pair| vreinterpretq_s32_s64(pair))
    }

    #[target_feature(enable = "neon,i8mm")]
    unsafe fn plain<const ROWS: usize>(
        codes: &[Codes; SMALL / GROUP],
        values: &[Quad; SMALL / 4],
        then: impl FnOnce([Lanes; ROWS]),
    ) {
        then(by_row(products::<ROWS>(codes, values)));
    }

    #[target_feature(enable = "neon,i8mm")]
    unsafe fn scaled<const SHARED: usize, const ROWS: usize>(
        codes: &[Codes; GROUP],
        scales: &[Pairs; GROUP],
        values: &[Quad; K / 4],
        then: impl FnOnce([Lanes; ROWS]),
    ) {
        let mut totals = [[vdupq_n_s32(0); 4]; 2];
        let groups = codes.chunks_exact(SHARED).zip(values.chunks_exact(4 * SHARED));
        for ((codes, values), scales) in groups.zip(scales) {
            let sums = products::<ROWS>(codes, values);
            for (totals, sums) in totals.iter_mut().zip(sums).take(ROWS.div_ceil(2)) {
                for ((total, sum), scale) in totals.iter_mut().zip(sums).zip(scales) {
                    *total = vmlaq_s32(*total, sum, *scale);
                }
            }
        }
        then(by_row(totals));
    }
}

/// Codes times the first `ROWS` rows of the panel, for its two pairs of rows. A row that is not
/// there but stands beside one that is costs nothing: it is zeros.
#[target_feature(enable = "neon,i8mm")]
#[inline]
fn products<const ROWS: usize>(codes: &[Codes], values: &[Quad]) -> [Pairs; 2] {
    let [mut first, mut second] = [[vdupq_n_s32(0); 4]; 2];
    for (codes, values) in codes.iter().zip(values.as_chunks::<4>().0) {
        for (codes, values) in codes.as_chunks::<4>().0.iter().zip(values.as_chunks::<2>().0) {
            let [a, b] = [quad(&values[0]), quad(&values[1])].map(|quad| vreinterpretq_s32_s8(quad));
            let (low, high) = (vzip1q_s32(a, b), vzip2q_s32(a, b));
            for ((first, second), codes) in first.iter_mut().zip(&mut second).zip(codes) {
                *first = smmla(*first, low, *codes);
                if ROWS > 2 {
                    *second = smmla(*second, high, *codes);
                }
            }
        }
    }
    [first, second]
}

/// Two by two sums, put together for each batch row.
#[target_feature(enable = "neon")]
#[inline]
fn by_row<const ROWS: usize>(pairs: [Pairs; 2]) -> [Lanes; ROWS] {
    let [[a, b], [c, d]] = pairs.map(|pairs| {
        let [a, b, c, d] = pairs.map(|pair| vreinterpretq_s64_s32(pair));
        let rows = [[vzip1q_s64(a, b), vzip1q_s64(c, d)], [vzip2q_s64(a, b), vzip2q_s64(c, d)]];
        rows.map(|row| row.map(|half| vreinterpretq_s32_s64(half)))
    });
    let rows: [Lanes; PANEL] = [a, b, c, d];
    std::array::from_fn(|row| rows[row])
}
