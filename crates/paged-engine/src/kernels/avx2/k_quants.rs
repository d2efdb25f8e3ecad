//! K-quants on AVX2: a block of eight matrix rows is unpacked into the L1 cache, a row in each
//! lane, and then meets every row of the batch.
//!
//! Codes are unsigned (0 to 63), activations signed: `vpmaddubsw` multiplies four of them in each
//! lane and adds pairs. Small codes let several such sums be added as 16-bit numbers before
//! `vpmaddwd` by the scale widens them, so a product of 32 numbers takes little more than the two
//! instructions for multiplying and adding it.

use std::arch::x86_64::*;

use gguf::TensorType;

use super::columns::{Blocks, TILE, bits, broadcast, join, low_halves};
use crate::quant::{K, PANEL, Panel256, Panels};

/// Quads of codes in a block.
const QUADS: usize = K / 4;

/// A block of each row of the tile, unpacked.
#[repr(C, align(64))]
struct Unpacked {
    codes: [__m256i; QUADS],
    /// Each lane the scale twice, as 16-bit numbers; one for each group of codes that shares one.
    scales: [__m256i; 16],
    /// Each lane the mins of two neighbouring groups.
    mins: [__m256i; 8],
    d: __m256,
    dmin: __m256,
}

/// What the loops must know of a type.
trait Format {
    const BYTES: usize;
    /// Quads whose products may be added as 16-bit numbers: `2 * ADD * highest code * 127 < 2^15`.
    const ADD: usize;
    /// Quads that share a scale.
    const SHARED: usize;
    /// Whether mins have a scale of their own; else they are the codes' offset.
    const OWN_MINS: bool;
}

macro_rules! format {
    ($name:ident: bytes $bytes:literal, add $add:literal, shared $shared:literal, own mins $mins:literal) => {
        struct $name;
        impl Format for $name {
            const BYTES: usize = $bytes;
            const ADD: usize = $add;
            const SHARED: usize = $shared;
            const OWN_MINS: bool = $mins;
        }
    };
}
format!(Q2: bytes 84, add 4, shared 4, own mins true);
format!(Q3: bytes 110, add 4, shared 4, own mins false);
format!(Q4: bytes 144, add 8, shared 8, own mins true);
format!(Q5: bytes 176, add 4, shared 8, own mins true);
format!(Q6: bytes 210, add 2, shared 4, own mins false);

/// A tile of matrix rows times every batch row: see [`crate::kernels::Kernels::tile256`].
///
/// # Safety
/// AVX2, FMA and F16C; `rows` are eight whole rows of whole blocks.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile(weights: TensorType, rows: &[u8], values: &Panels<Panel256>, out: &mut [f32]) {
    match weights {
        TensorType::Q2_K => blocks::<Q2>(rows, values, out, |blocks, to| q2(blocks, to)),
        TensorType::Q3_K => blocks::<Q3>(rows, values, out, |blocks, to| q3(blocks, to)),
        TensorType::Q4_K => blocks::<Q4>(rows, values, out, |blocks, to| q4(blocks, to)),
        TensorType::Q5_K => blocks::<Q5>(rows, values, out, |blocks, to| q5(blocks, to)),
        _ => blocks::<Q6>(rows, values, out, |blocks, to| q6(blocks, to)),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn blocks<F: Format>(rows: &[u8], values: &Panels<Panel256>, out: &mut [f32], unpack: impl Fn(Blocks, &mut Unpacked)) {
    let stride = rows.len() / TILE;
    let zero = _mm256_setzero_si256();
    let none = _mm256_setzero_ps();
    let mut unpacked = Unpacked { codes: [zero; QUADS], scales: [zero; 16], mins: [zero; 8], d: none, dmin: none };
    out.fill(0.0);
    let (out, _) = out.as_chunks_mut::<TILE>();
    for block in 0..stride / F::BYTES {
        // SAFETY: eight rows of `stride` bytes each, and the block lies inside the first.
        let blocks = unsafe { Blocks::new(rows, stride, block * F::BYTES, F::BYTES) };
        unpack(blocks, &mut unpacked);
        for (panel, out) in values.of_block(block).iter().zip(out.chunks_mut(PANEL)) {
            match out {
                [a, b, c, d] => add::<F, 4>(&unpacked, panel, [a, b, c, d]),
                [a, b, c] => add::<F, 3>(&unpacked, panel, [a, b, c]),
                [a, b] => add::<F, 2>(&unpacked, panel, [a, b]),
                [a] => add::<F, 1>(&unpacked, panel, [a]),
                _ => {}
            }
        }
    }
}

/// Adds an unpacked block times the first `ROWS` rows of a panel.
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn add<F: Format, const ROWS: usize>(block: &Unpacked, values: &Panel256, out: [&mut [f32; TILE]; ROWS]) {
    let mut dots = [_mm256_setzero_si256(); ROWS];
    let mins = mins::<F, ROWS>(block, values);
    for step in 0..QUADS / F::ADD {
        let first = step * F::ADD;
        let scale = block.scales[first / F::SHARED];
        for (row, dots) in dots.iter_mut().enumerate() {
            let mut pairs = _mm256_maddubs_epi16(block.codes[first], broadcast(values.codes[first][row]));
            for quad in first + 1..first + F::ADD {
                let more = _mm256_maddubs_epi16(block.codes[quad], broadcast(values.codes[quad][row]));
                pairs = _mm256_add_epi16(pairs, more);
            }
            *dots = _mm256_add_epi32(*dots, _mm256_madd_epi16(pairs, scale));
        }
    }
    for (row, out) in out.into_iter().enumerate() {
        let scale = _mm256_set1_ps(values.scales[row]);
        // SAFETY: eight floats.
        let total = unsafe { _mm256_loadu_ps(out.as_ptr()) };
        let total = match F::OWN_MINS {
            true => {
                let mins = _mm256_cvtepi32_ps(mins[row]);
                let total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[row]), _mm256_mul_ps(block.d, scale), total);
                _mm256_fnmadd_ps(mins, _mm256_mul_ps(block.dmin, scale), total)
            }
            false => {
                let dots = _mm256_cvtepi32_ps(_mm256_sub_epi32(dots[row], mins[row]));
                _mm256_fmadd_ps(dots, _mm256_mul_ps(block.d, scale), total)
            }
        };
        // SAFETY: eight floats.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), total) };
    }
}

/// The mins times the sums of the groups they hold for.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn mins<F: Format, const ROWS: usize>(block: &Unpacked, values: &Panel256) -> [__m256i; ROWS] {
    let sums: &[[[i16; 2]; PANEL]] = if F::SHARED == 4 { &values.sums16 } else { &values.sums32 };
    let mut mins = [_mm256_setzero_si256(); ROWS];
    for (min, sums) in block.mins.iter().zip(sums) {
        for (mins, [a, b]) in mins.iter_mut().zip(sums) {
            let pair = i32::from(a.cast_unsigned()) | i32::from(*b) << 16;
            *mins = _mm256_add_epi32(*mins, _mm256_madd_epi16(*min, _mm256_set1_epi32(pair)));
        }
    }
    mins
}

/// Puts bytes `at[0]` and `at[1]` of every lane into its two 16-bit halves.
#[target_feature(enable = "avx2")]
#[inline]
fn words(lanes: __m256i, at: [i8; 2]) -> __m256i {
    const NONE: i8 = -128;
    let [a, b] = at;
    let four =
        _mm_setr_epi8(a, NONE, b, NONE, a + 4, NONE, b + 4, NONE, a + 8, NONE, b + 8, NONE, a + 12, NONE, b + 12, NONE);
    _mm256_shuffle_epi8(lanes, _mm256_broadcastsi128_si256(four))
}

/// The bytes of four columns as the scales of sixteen groups.
#[target_feature(enable = "avx2")]
#[inline]
fn each_scale(columns: [__m256i; 4]) -> [__m256i; 16] {
    std::array::from_fn(|group| words(columns[group / 4], [(group % 4) as i8; 2]))
}

/// The bytes of columns as pairs of neighbouring groups.
#[target_feature(enable = "avx2")]
#[inline]
fn each_pair(columns: &[__m256i], pairs: &mut [__m256i; 8]) {
    for (at, pair) in pairs.iter_mut().enumerate().take(columns.len() * 2) {
        let first = (at % 2 * 2) as i8;
        *pair = words(columns[at / 2], [first, first + 1]);
    }
}

/// Sixteen bytes of 4-bit scale and 4-bit min, 64 bytes of codes, d, dmin.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn q2(blocks: Blocks, to: &mut Unpacked) {
    let both = blocks.columns(0);
    to.scales = each_scale(both.map(|byte| bits::<0>(byte, 15)));
    each_pair(&both.map(|byte| bits::<4>(byte, 15)), &mut to.mins);
    for half in 0..2 {
        for (at, codes) in blocks.wide_columns(16 + 32 * half).into_iter().enumerate() {
            blocks.fetch(8 * half + at, 16);
            let to = &mut to.codes[32 * half + at..];
            (to[0], to[8]) = (bits::<0>(codes, 3), bits::<2>(codes, 3));
            (to[16], to[24]) = (bits::<4>(codes, 3), bits::<6>(codes, 3));
        }
    }
    (to.d, to.dmin) = (blocks.halves(80), blocks.halves(82));
}

/// 32 bytes of high bits, 64 bytes of low code bits, twelve bytes of 6-bit scales, d.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn q3(blocks: Blocks, to: &mut Unpacked) {
    let high = blocks.wide_columns(0);
    for half in 0..2 {
        let low = blocks.wide_columns(32 + 32 * half);
        for (at, (low, high)) in low.into_iter().zip(high).enumerate() {
            blocks.fetch(8 * half + at, 16);
            let to = &mut to.codes[32 * half + at..];
            // The high bits of this half's four parts, each at bit 2 of its byte.
            let high = if half == 0 { high } else { bits::<4>(high, 15) };
            let four = |high| _mm256_and_si256(high, _mm256_set1_epi8(4));
            to[0] = _mm256_or_si256(bits::<0>(low, 3), four(_mm256_slli_epi16::<2>(high)));
            to[8] = _mm256_or_si256(bits::<2>(low, 3), four(_mm256_slli_epi16::<1>(high)));
            to[16] = _mm256_or_si256(bits::<4>(low, 3), four(high));
            to[24] = _mm256_or_si256(bits::<6>(low, 3), four(_mm256_srli_epi16::<1>(high)));
        }
    }
    // The last sixteen bytes: two of codes, the scales, d.
    let [a, b, c, d] = blocks.columns(94);
    let (a, b, c, d) = (next_bytes(a, b), next_bytes(b, c), next_bytes(c, d), _mm256_srli_epi32::<16>(d));
    to.d = low_halves(d);
    let scale = |low, high| _mm256_or_si256(bits::<0>(low, 15), _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
    let columns = [
        scale(a, _mm256_slli_epi16::<4>(c)),
        scale(b, _mm256_slli_epi16::<2>(c)),
        scale(_mm256_srli_epi16::<4>(a), c),
        scale(_mm256_srli_epi16::<4>(b), _mm256_srli_epi16::<2>(c)),
    ];
    let offset = _mm256_set1_epi16(32);
    to.scales = each_scale(columns).map(|scale| _mm256_sub_epi16(scale, offset));
    each_pair(&columns, &mut to.mins);
    // Codes are 4 too large.
    to.mins = to.mins.map(|scale| _mm256_slli_epi16::<2>(_mm256_sub_epi16(scale, offset)));
}

/// The four bytes of every lane that begin two bytes further on.
#[target_feature(enable = "avx2")]
#[inline]
fn next_bytes(lanes: __m256i, following: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_srli_epi32::<16>(lanes), _mm256_slli_epi32::<16>(following))
}

/// Q4_K and Q5_K: d, dmin, and eight 6-bit scales and mins in twelve bytes, one for 32 weights.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn scales_and_mins(blocks: Blocks, to: &mut Unpacked) {
    let [both, a, b, c] = blocks.columns(0);
    (to.d, to.dmin) = (low_halves(both), low_halves(_mm256_srli_epi32::<16>(both)));
    let high = |low, high| _mm256_or_si256(low, _mm256_and_si256(_mm256_srli_epi16::<2>(high), _mm256_set1_epi8(0x30)));
    let scales = [bits::<0>(a, 63), high(bits::<0>(c, 15), a)];
    for (group, scale) in to.scales.iter_mut().enumerate().take(8) {
        *scale = words(scales[group / 4], [(group % 4) as i8; 2]);
    }
    each_pair(&[bits::<0>(b, 63), high(bits::<4>(c, 15), b)], &mut to.mins);
}

/// d, dmin, twelve bytes of scales and mins, 128 bytes of codes.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn q4(blocks: Blocks, to: &mut Unpacked) {
    scales_and_mins(blocks, to);
    for part in 0..4 {
        for (at, codes) in blocks.wide_columns(16 + 32 * part).into_iter().enumerate() {
            blocks.fetch(8 * part + at, 32);
            let to = &mut to.codes[16 * part + at..];
            (to[0], to[8]) = (bits::<0>(codes, 15), bits::<4>(codes, 15));
        }
    }
}

/// d, dmin, twelve bytes of scales and mins, 32 bytes of high bits, 128 bytes of low code bits.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn q5(blocks: Blocks, to: &mut Unpacked) {
    scales_and_mins(blocks, to);
    let mut high = blocks.wide_columns(16);
    for part in 0..4 {
        for (at, (codes, high)) in blocks.wide_columns(48 + 32 * part).into_iter().zip(&mut high).enumerate() {
            blocks.fetch(8 * part + at, 32);
            let to = &mut to.codes[16 * part + at..];
            to[0] = join::<4>(bits::<0>(codes, 15), bits::<0>(*high, 1));
            to[8] = join::<4>(bits::<4>(codes, 15), bits::<1>(*high, 1));
            *high = _mm256_srli_epi16::<2>(*high);
        }
    }
}

/// 128 bytes of low code bits, 64 bytes of high ones, sixteen signed scales, d.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn q6(blocks: Blocks, to: &mut Unpacked) {
    for half in 0..2 {
        let high = blocks.wide_columns(128 + 32 * half);
        for part in 0..2 {
            let low = blocks.wide_columns(64 * half + 32 * part);
            for (at, (low, high)) in low.into_iter().zip(high).enumerate() {
                blocks.fetch(16 * half + 8 * part + at, 32);
                let to = &mut to.codes[32 * half + 8 * part + at..];
                let high = if part == 0 { high } else { _mm256_srli_epi16::<2>(high) };
                to[0] = join::<4>(bits::<0>(low, 15), bits::<0>(high, 3));
                to[16] = join::<4>(bits::<4>(low, 15), bits::<4>(high, 3));
            }
        }
    }
    let columns = blocks.columns(192);
    // Signed bytes, so the upper halves of the words are filled by their sign.
    let signed = |words| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(words));
    to.scales = each_scale(columns).map(signed);
    each_pair(&columns, &mut to.mins);
    // Codes are 32 too large.
    to.mins = to.mins.map(|scale| _mm256_slli_epi16::<5>(signed(scale)));
    to.d = blocks.halves(208);
}
