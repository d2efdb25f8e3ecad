//! K-quants on NEON: a block of eight matrix rows is unpacked into the L1 cache, a row in each
//! lane, and then meets every row of the batch.
//!
//! The products of each group that shares a scale are added up, multiplied by it, and added to the
//! block's total, all as 32-bit integers. Q3_K and Q6_K have signed codes and need nothing more;
//! the others have mins, which meet the sums of the activations.

use std::arch::aarch64::*;

use gguf::TensorType;

use super::columns::{Blocks, Codes, Lanes, Rows, SPAN, TILE, bits, low_bits, multiply_add, raised};
use super::dots::Dots;
use crate::quant::{GROUP, PANEL, Panel256, Panels};

/// A block of each row of the tile, unpacked.
struct Unpacked<D: Dots> {
    codes: [Codes; GROUP],
    /// For each group of codes that shares one.
    scales: [D::Scales; GROUP],
    mins: [int16x8_t; GROUP],
    d: [float32x4_t; 2],
    dmin: [float32x4_t; 2],
}

/// A tile of matrix rows times every batch row: see [`crate::kernels::Kernels::tile256`].
///
/// # Safety
/// The extension that `D` needs.
#[target_feature(enable = "neon")]
pub unsafe fn tile<D: Dots>(weights: TensorType, rows: &[u8], values: &Panels<Panel256>, out: &mut [f32]) {
    match weights {
        TensorType::Q2_K => blocks::<D, 84, 1, true>(rows, values, out, |blocks, to| q2(blocks, to)),
        TensorType::Q3_K => blocks::<D, 110, 1, false>(rows, values, out, |blocks, to| q3(blocks, to)),
        TensorType::Q4_K => blocks::<D, 144, 2, true>(rows, values, out, |blocks, to| q4(blocks, to)),
        TensorType::Q5_K => blocks::<D, 176, 2, true>(rows, values, out, |blocks, to| q5(blocks, to)),
        _ => blocks::<D, 210, 1, false>(rows, values, out, |blocks, to| q6(blocks, to)),
    }
}

/// `BYTES` of a block, `SHARED` groups of 16 codes that share a scale, and whether there are mins.
#[target_feature(enable = "neon")]
#[inline]
fn blocks<D: Dots, const BYTES: usize, const SHARED: usize, const MINS: bool>(
    rows: &[u8],
    values: &Panels<Panel256>,
    out: &mut [f32],
    unpack: impl Fn(Blocks<'_, BYTES>, &mut Unpacked<D>),
) {
    let mut unpacked = Unpacked::<D>::zeros();
    out.fill(0.0);
    let (out, _) = out.as_chunks_mut::<TILE>();
    for (at, blocks) in Rows::new(rows).blocks().enumerate() {
        unpack(blocks, &mut unpacked);
        for (panel, out) in values.of_block(at).iter().zip(out.chunks_mut(PANEL)) {
            match out {
                [a, b, c, d] => add::<D, SHARED, MINS, 4>(&unpacked, panel, [a, b, c, d]),
                [a, b, c] => add::<D, SHARED, MINS, 3>(&unpacked, panel, [a, b, c]),
                [a, b] => add::<D, SHARED, MINS, 2>(&unpacked, panel, [a, b]),
                [a] => add::<D, SHARED, MINS, 1>(&unpacked, panel, [a]),
                _ => {}
            }
        }
    }
}

/// Adds an unpacked block times the first `ROWS` rows of a panel.
#[target_feature(enable = "neon")]
#[inline]
fn add<D: Dots, const SHARED: usize, const MINS: bool, const ROWS: usize>(
    block: &Unpacked<D>,
    values: &Panel256,
    out: [&mut [f32; TILE]; ROWS],
) {
    let mins: [Lanes; ROWS] = if MINS { mins::<D, SHARED, ROWS>(block, values) } else { [[vdupq_n_s32(0); 2]; ROWS] };
    let finish = |dots: [Lanes; ROWS]| {
        for (row, out) in out.into_iter().enumerate() {
            let scale = values.scales[row];
            multiply_add(out, block.d.map(|d| vmulq_n_f32(d, scale)), dots[row].map(|dots| vcvtq_f32_s32(dots)));
            if MINS {
                let mins = mins[row].map(|mins| vcvtq_f32_s32(mins));
                multiply_add(out, block.dmin.map(|dmin| vmulq_n_f32(dmin, -scale)), mins);
            }
        }
    };
    // SAFETY: `tile`, the only way in, asks for the extension.
    unsafe { D::scaled::<SHARED, ROWS>(&block.codes, &block.scales, &values.codes, finish) };
}

/// The mins times the sums of the groups they hold for.
#[target_feature(enable = "neon")]
#[inline]
fn mins<D: Dots, const SHARED: usize, const ROWS: usize>(block: &Unpacked<D>, values: &Panel256) -> [Lanes; ROWS] {
    let sums: &[[[i16; 2]; PANEL]] = if SHARED == 1 { &values.sums16 } else { &values.sums32 };
    let mut totals = [[vdupq_n_s32(0); 2]; ROWS];
    for (mins, sums) in block.mins.as_chunks().0.iter().zip(sums) {
        // SAFETY: eight 16-bit numbers.
        let sums = unsafe { vld1q_s16(sums.as_ptr().cast()) };
        row_mins::<0, 1>(totals.get_mut(0), mins, sums);
        row_mins::<2, 3>(totals.get_mut(1), mins, sums);
        row_mins::<4, 5>(totals.get_mut(2), mins, sums);
        row_mins::<6, 7>(totals.get_mut(3), mins, sums);
    }
    totals
}

/// Two groups' mins times the sums at `A` and `B`: those of one batch row, if there is one.
#[target_feature(enable = "neon")]
#[inline]
fn row_mins<const A: i32, const B: i32>(totals: Option<&mut Lanes>, mins: &[int16x8_t; 2], sums: int16x8_t) {
    if let Some([low, high]) = totals {
        *low = vmlal_laneq_s16::<A>(*low, vget_low_s16(mins[0]), sums);
        *low = vmlal_laneq_s16::<B>(*low, vget_low_s16(mins[1]), sums);
        *high = vmlal_high_laneq_s16::<A>(*high, mins[0], sums);
        *high = vmlal_high_laneq_s16::<B>(*high, mins[1], sums);
    }
}

impl<D: Dots> Unpacked<D> {
    #[target_feature(enable = "neon")]
    #[inline]
    fn zeros() -> Self {
        // SAFETY: `tile`, the only way in, asks for the extension.
        let scales = unsafe { D::scales(vdupq_n_s16(0)) };
        let (codes, none) = ([vdupq_n_u8(0); TILE], [vdupq_n_f32(0.0); 2]);
        Self { codes: [codes; GROUP], scales: [scales; GROUP], mins: [vdupq_n_s16(0); GROUP], d: none, dmin: none }
    }

    /// Sets the scales of groups, two of them in a register: signed bytes.
    #[target_feature(enable = "neon")]
    #[inline]
    fn set_scales(&mut self, columns: &[uint8x16_t]) {
        for (scales, column) in self.scales.as_chunks_mut().0.iter_mut().zip(columns) {
            // SAFETY: as above.
            *scales = pair(*column).map(|pair| unsafe { D::scales(pair) });
        }
    }

    /// The same for the mins.
    #[target_feature(enable = "neon")]
    #[inline]
    fn set_mins(&mut self, columns: &[uint8x16_t]) {
        for (mins, column) in self.mins.as_chunks_mut().0.iter_mut().zip(columns) {
            *mins = pair(*column);
        }
    }
}

/// Sixteen signed bytes as 16-bit numbers.
#[target_feature(enable = "neon")]
#[inline]
fn pair(column: uint8x16_t) -> [int16x8_t; 2] {
    let column = vreinterpretq_s8_u8(column);
    [vmovl_s8(vget_low_s8(column)), vmovl_high_s8(column)]
}

/// Sixteen bytes of each row from `at`, in the order of the set.
#[target_feature(enable = "neon")]
#[inline]
fn span<D: Dots, const BYTES: usize>(blocks: Blocks<'_, BYTES>, at: usize) -> Codes {
    // SAFETY: `tile`, the only way in, asks for the extension.
    unsafe { D::arrange(blocks.rows(at)) }
}

/// `work` on each register of two spans.
#[target_feature(enable = "neon")]
#[inline]
fn both(low: Codes, high: Codes, work: impl Fn(uint8x16_t, uint8x16_t) -> uint8x16_t) -> Codes {
    std::array::from_fn(|at| work(low[at], high[at]))
}

/// Sixteen bytes of 4-bit scale and 4-bit min, 64 bytes of codes, d, dmin.
#[target_feature(enable = "neon")]
#[inline]
fn q2<D: Dots>(blocks: Blocks<'_, 84>, to: &mut Unpacked<D>) {
    let columns = blocks.columns(0);
    to.set_scales(&columns.map(|byte| low_bits(byte, 15)));
    to.set_mins(&columns.map(|byte| vshrq_n_u8::<4>(byte)));
    for at in 0..4 {
        let codes = span::<D, _>(blocks, 16 + SPAN * at);
        let to = &mut to.codes[at / 2 * 8 + at % 2..];
        (to[0], to[2]) = (codes.map(|code| low_bits(code, 3)), codes.map(|code| bits::<2>(code, 3)));
        (to[4], to[6]) = (codes.map(|code| bits::<4>(code, 3)), codes.map(|code| vshrq_n_u8::<6>(code)));
    }
    (to.d, to.dmin) = (blocks.halves(80), blocks.halves(82));
}

/// 32 bytes of high bits, 64 bytes of low code bits, twelve bytes of 6-bit scales, d.
#[target_feature(enable = "neon")]
#[inline]
fn q3<D: Dots>(blocks: Blocks<'_, 110>, to: &mut Unpacked<D>) {
    // Codes are 4 too large.
    let join = |low, high| vsubq_u8(vorrq_u8(low, high), vdupq_n_u8(4));
    for at in 0..4 {
        let low = span::<D, _>(blocks, 32 + SPAN * at);
        let high = span::<D, _>(blocks, SPAN * (at % 2));
        // The high bits of this half's four parts, in the lower half of the byte.
        let high = if at < 2 { high } else { high.map(|high| vshrq_n_u8::<4>(high)) };
        let to = &mut to.codes[at / 2 * 8 + at % 2..];
        to[0] = both(low, high, |low, high| join(low_bits(low, 3), raised::<2>(high, 4)));
        to[2] = both(low, high, |low, high| join(bits::<2>(low, 3), raised::<1>(high, 4)));
        to[4] = both(low, high, |low, high| join(bits::<4>(low, 3), low_bits(high, 4)));
        to[6] = both(low, high, |low, high| join(vshrq_n_u8::<6>(low), bits::<1>(high, 4)));
    }
    to.set_scales(&q3_scales(blocks));
    to.d = blocks.halves(108);
}

/// Four at a time: the low halves lie in the first eight bytes, the high pairs of bits in the last
/// four.
#[target_feature(enable = "neon")]
#[inline]
fn q3_scales(blocks: Blocks<'_, 110>) -> [uint8x16_t; 8] {
    // The block's last sixteen bytes: two of codes, the scales, d.
    let [_, a, b, c, d, e, f, _] = blocks.columns(94);
    let join = |low, high| vsubq_u8(vorrq_u8(low, high), vdupq_n_u8(32));
    let [low, upper] = [|low| low_bits(low, 15), |low| vshrq_n_u8::<4>(low)];
    [
        join(low(a), raised::<4>(e, 0x30)),
        join(low(b), raised::<4>(f, 0x30)),
        join(low(c), raised::<2>(e, 0x30)),
        join(low(d), raised::<2>(f, 0x30)),
        join(upper(a), low_bits(e, 0x30)),
        join(upper(b), low_bits(f, 0x30)),
        join(upper(c), bits::<2>(e, 0x30)),
        join(upper(d), bits::<2>(f, 0x30)),
    ]
}

/// Q4_K and Q5_K: d, dmin, and eight 6-bit scales and mins in twelve bytes, one for 32 weights.
#[target_feature(enable = "neon")]
#[inline]
fn scales_and_mins<D: Dots, const BYTES: usize>(blocks: Blocks<'_, BYTES>, to: &mut Unpacked<D>) {
    let [_, _, a, b, c, d, e, f] = blocks.columns(0);
    let high = |low, high| vorrq_u8(low, bits::<2>(high, 0x30));
    let (first, second) = (|byte| low_bits(byte, 15), |byte| vshrq_n_u8::<4>(byte));
    to.set_scales(&[low_bits(a, 63), low_bits(b, 63), high(first(e), a), high(first(f), b)]);
    to.set_mins(&[low_bits(c, 63), low_bits(d, 63), high(second(e), c), high(second(f), d)]);
    (to.d, to.dmin) = (blocks.halves(0), blocks.halves(2));
}

/// d, dmin, twelve bytes of scales and mins, 128 bytes of codes.
#[target_feature(enable = "neon")]
#[inline]
fn q4<D: Dots>(blocks: Blocks<'_, 144>, to: &mut Unpacked<D>) {
    scales_and_mins(blocks, to);
    for at in 0..8 {
        let codes = span::<D, _>(blocks, 16 + SPAN * at);
        let to = &mut to.codes[at / 2 * 4 + at % 2..];
        (to[0], to[2]) = (codes.map(|code| low_bits(code, 15)), codes.map(|code| vshrq_n_u8::<4>(code)));
    }
}

/// d, dmin, twelve bytes of scales and mins, 32 bytes of high bits, 128 bytes of low code bits.
#[target_feature(enable = "neon")]
#[inline]
fn q5<D: Dots>(blocks: Blocks<'_, 176>, to: &mut Unpacked<D>) {
    scales_and_mins(blocks, to);
    for at in 0..2 {
        let mut high = span::<D, _>(blocks, 16 + SPAN * at);
        for part in 0..4 {
            let low = span::<D, _>(blocks, 48 + 32 * part + SPAN * at);
            let to = &mut to.codes[4 * part + at..];
            to[0] = both(low, high, |low, high| vorrq_u8(low_bits(low, 15), raised::<4>(high, 16)));
            to[2] = both(low, high, |low, high| vorrq_u8(vshrq_n_u8::<4>(low), raised::<3>(high, 16)));
            high = high.map(|high| vshrq_n_u8::<2>(high));
        }
    }
}

/// 128 bytes of low code bits, 64 bytes of high ones, sixteen signed scales, d.
#[target_feature(enable = "neon")]
#[inline]
fn q6<D: Dots>(blocks: Blocks<'_, 210>, to: &mut Unpacked<D>) {
    // Codes are 32 too large.
    let join = |low, high| vsubq_u8(vorrq_u8(low, high), vdupq_n_u8(32));
    for at in 0..4 {
        let [first, second] = [0, 32].map(|part| span::<D, _>(blocks, at / 2 * 64 + at % 2 * SPAN + part));
        let high = span::<D, _>(blocks, 128 + SPAN * at);
        let to = &mut to.codes[at / 2 * 8 + at % 2..];
        to[0] = both(first, high, |low, high| join(low_bits(low, 15), raised::<4>(high, 0x30)));
        to[2] = both(second, high, |low, high| join(low_bits(low, 15), raised::<2>(high, 0x30)));
        to[4] = both(first, high, |low, high| join(vshrq_n_u8::<4>(low), low_bits(high, 0x30)));
        to[6] = both(second, high, |low, high| join(vshrq_n_u8::<4>(low), bits::<2>(high, 0x30)));
    }
    to.set_scales(&blocks.columns(192));
    to.d = blocks.halves(208);
}
