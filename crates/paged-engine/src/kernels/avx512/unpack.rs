//! K-quants unpacked: sixteen rows' blocks at a time, half a tile.
//!
//! Columns of packed bytes are taken apart only after they were turned over, so a byte with several
//! codes is moved once.

use std::arch::x86_64::*;

use super::columns::{Ahead, Blocks, NONE, bits, broadcast, low_halves, place};
use super::k_quants::Unpacked;

/// Sixteen bytes of 4-bit scale and 4-bit min, 64 bytes of codes, d, dmin.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline(never)]
pub fn q2(mut blocks: Blocks, to: &mut Unpacked, half: usize) -> Ahead {
    let both = blocks.columns(0);
    let mut mins = both;
    for (min, both) in mins.iter_mut().zip(both) {
        *min = bits(both, 4, 4, 0);
    }
    put_pairs(&mins, to, half);
    for upper in 0..2 {
        let codes = blocks.wide_columns(16 + 32 * upper);
        for part in 0..4 {
            for (at, codes) in codes.into_iter().enumerate() {
                let group = 8 * upper + 2 * part + at / 4;
                let from = (group % 4) as i8;
                let scale = bits(place(both[group / 4], [from, NONE, from, NONE]), 0, 4, 0);
                // Two codes at once: no product is more than 3 * 15.
                to.codes[32 * upper + 8 * part + at][half] = _mm512_mullo_epi16(bits(codes, 2 * part, 2, 0), scale);
            }
        }
    }
    let scales = blocks.words(80);
    (to.d[half], to.dmin[half]) = (low_halves(scales), low_halves(_mm512_srli_epi32::<16>(scales)));
    blocks.ahead
}

/// 32 bytes of high bits, 64 bytes of low code bits, twelve bytes of 6-bit scales, d.
///
/// Scales run from -32 to 31 and codes from -4 to 3, so `code * scale + 124` is a byte.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline(never)]
pub fn q3(mut blocks: Blocks, to: &mut Unpacked, half: usize) -> Ahead {
    let columns = blocks.last_columns();
    to.d[half] = low_halves(columns[3]);
    let scales = scales_q3(columns);
    let high = blocks.wide_columns(0);
    for upper in 0..2 {
        let low = blocks.wide_columns(32 + 32 * upper);
        for part in 0..4 {
            for four in 0..2 {
                let group = 8 * upper + 2 * part + four;
                let (scale, offset) = folding_q3(scales[group / 4], (group % 4) as i8);
                for at in 4 * four..4 * four + 4 {
                    let code = _mm512_or_si512(bits(low[at], 2 * part, 2, 0), bits(high[at], 4 * upper + part, 1, 2));
                    let folded = _mm512_add_epi16(_mm512_mullo_epi16(code, scale), offset);
                    to.codes[32 * upper + 8 * part + at][half] = folded;
                }
            }
        }
    }
    blocks.ahead
}

/// The sixteen scales, 32 too large: the low halves lie in the first eight bytes, the high pairs
/// of bits in the last four.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn scales_q3([a, b, c, _]: [__m512i; 4]) -> [__m512i; 4] {
    [
        _mm512_or_si512(bits(a, 0, 4, 0), bits(c, 0, 2, 4)),
        _mm512_or_si512(bits(b, 0, 4, 0), bits(c, 2, 2, 4)),
        _mm512_or_si512(bits(a, 4, 4, 0), bits(c, 4, 2, 4)),
        _mm512_or_si512(bits(b, 4, 4, 0), bits(c, 6, 2, 4)),
    ]
}

/// What codes of 0 to 7 are multiplied by and what is added then, two codes at once. Both sums are
/// bytes, so what one lends the other in between is given back.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn folding_q3(scales: __m512i, at: i8) -> (__m512i, __m512i) {
    let scale = _mm512_sub_epi16(place(scales, [at, NONE, at, NONE]), _mm512_set1_epi16(32));
    // 124 - 4 * (scale - 32) in both bytes.
    let four_times = _mm512_slli_epi16::<2>(place(scales, [at; 4]));
    (scale, _mm512_sub_epi8(_mm512_set1_epi8(252u8.cast_signed()), four_times))
}

/// d, dmin, twelve bytes of scales and mins, 128 bytes of codes.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline(never)]
pub fn q4(mut blocks: Blocks, to: &mut Unpacked, half: usize) -> Ahead {
    scales_and_mins(&mut blocks, to, half);
    for part in 0..4 {
        for (at, codes) in blocks.wide_columns(16 + 32 * part).into_iter().enumerate() {
            to.codes[16 * part + at][half] = low_nibbles(codes);
            to.codes[16 * part + 8 + at][half] = bits(codes, 4, 4, 0);
        }
    }
    blocks.ahead
}

/// d, dmin, twelve bytes of scales and mins, 32 bytes of high bits, 128 bytes of low code bits.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline(never)]
pub fn q5(mut blocks: Blocks, to: &mut Unpacked, half: usize) -> Ahead {
    scales_and_mins(&mut blocks, to, half);
    let high = blocks.wide_columns(16);
    for part in 0..4 {
        for (at, (low, high)) in blocks.wide_columns(48 + 32 * part).into_iter().zip(high).enumerate() {
            let quad = 16 * part + at;
            to.codes[quad][half] = _mm512_or_si512(low_nibbles(low), bits(high, 2 * part, 1, 4));
            to.codes[quad + 8][half] = _mm512_or_si512(bits(low, 4, 4, 0), bits(high, 2 * part + 1, 1, 4));
        }
    }
    blocks.ahead
}

/// 128 bytes of low code bits, 64 bytes of high ones, sixteen signed scales, d.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline(never)]
pub fn q6(mut blocks: Blocks, to: &mut Unpacked, half: usize) -> Ahead {
    for upper in 0..2 {
        let high = blocks.wide_columns(128 + 32 * upper);
        for part in 0..2 {
            let low = blocks.wide_columns(64 * upper + 32 * part);
            for (at, (low, high)) in low.into_iter().zip(high).enumerate() {
                let quad = 32 * upper + 8 * part + at;
                to.codes[quad][half] = _mm512_or_si512(low_nibbles(low), bits(high, 2 * part, 2, 4));
                to.codes[quad + 16][half] = _mm512_or_si512(bits(low, 4, 4, 0), bits(high, 2 * part + 4, 2, 4));
            }
        }
    }
    let d = blocks.halves(208);
    let columns = blocks.columns(192);
    for (group, to) in to.scales.iter_mut().enumerate() {
        // Signed: to the top of the lane, and down with its sign.
        let scale = place(columns[group / 4], [NONE, NONE, NONE, (group % 4) as i8]);
        to[half] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(scale)), d);
    }
    blocks.ahead
}

/// Q4_K and Q5_K: d, dmin, and eight 6-bit scales and mins in twelve bytes, one for 32 weights.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn scales_and_mins(blocks: &mut Blocks, to: &mut Unpacked, half: usize) {
    let [both, a, b, c] = blocks.columns(0);
    let d = low_halves(both);
    to.dmin[half] = low_halves(_mm512_srli_epi32::<16>(both));
    let scales = [bits(a, 0, 6, 0), _mm512_or_si512(bits(c, 0, 4, 0), bits(a, 6, 2, 4))];
    for group in 0..8 {
        let scale = place(scales[group / 4], [(group % 4) as i8, NONE, NONE, NONE]);
        to.scales[group][half] = _mm512_mul_ps(_mm512_cvtepi32_ps(scale), d);
    }
    put_pairs(&[bits(b, 0, 6, 0), _mm512_or_si512(bits(c, 4, 4, 0), bits(b, 6, 2, 4))], to, half);
}

/// The bytes of columns as mins of two neighbouring groups.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn put_pairs(columns: &[__m512i], to: &mut Unpacked, half: usize) {
    for (to, column) in to.mins.as_chunks_mut::<2>().0.iter_mut().zip(columns) {
        to[0][half] = place(*column, [0, NONE, 1, NONE]);
        to[1][half] = place(*column, [2, NONE, 3, NONE]);
    }
}

/// The low halves of bytes; needs no port that shuffles.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn low_nibbles(bytes: __m512i) -> __m512i {
    _mm512_and_si512(bytes, broadcast([15; 4]))
}
