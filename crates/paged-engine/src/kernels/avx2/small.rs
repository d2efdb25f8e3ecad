//! The types with blocks of 32 on AVX2, eight matrix rows in the lanes.
//!
//! Unsigned codes (Q4_0 to Q5_1) go through `vpmaddubsw` as they are, their offset in `m`. Signed
//! ones (Q8_0, IQ4_NL) give their sign to the activations first.

use std::arch::x86_64::*;

use gguf::TensorType;

use super::columns::{Blocks, TILE, bits, broadcast, join};
use crate::quant::{NON_LINEAR, PANEL, Panel32, Panels, SMALL};

const QUADS: usize = SMALL / 4;

/// A block of each row of the tile: weights are `d * code + m`.
struct Unpacked {
    codes: [__m256i; QUADS],
    d: __m256,
    m: __m256,
}

/// A tile of matrix rows times every batch row: see [`crate::kernels::Kernels::tile32`].
///
/// # Safety
/// AVX2, FMA and F16C; `rows` are eight whole rows of whole blocks.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile(weights: TensorType, rows: &[u8], values: &Panels<Panel32>, out: &mut [f32]) {
    use TensorType as T;
    match weights {
        T::Q4_0 => blocks::<18, 8>(rows, values, out, |blocks| q4(blocks, 2, Offset::Codes(8.0))),
        T::Q4_1 => blocks::<20, 8>(rows, values, out, |blocks| q4(blocks, 4, Offset::Stored)),
        T::Q5_0 => blocks::<22, 4>(rows, values, out, |blocks| q5(blocks, 2, Offset::Codes(16.0))),
        T::Q5_1 => blocks::<24, 4>(rows, values, out, |blocks| q5(blocks, 4, Offset::Stored)),
        T::IQ4_NL => blocks::<18, 0>(rows, values, out, |blocks| iq4_nl(blocks)),
        _ => blocks::<34, 0>(rows, values, out, |blocks| q8(blocks)),
    }
}

/// `ADD`: quads whose products may be added as 16-bit numbers; 0 for signed codes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn blocks<const BYTES: usize, const ADD: usize>(
    rows: &[u8],
    values: &Panels<Panel32>,
    out: &mut [f32],
    unpack: impl Fn(Blocks) -> Unpacked,
) {
    let stride = rows.len() / TILE;
    out.fill(0.0);
    let (out, _) = out.as_chunks_mut::<TILE>();
    for block in 0..stride / BYTES {
        // SAFETY: eight rows of `stride` bytes each, and the block lies inside the first.
        let unpacked = unpack(unsafe { Blocks::new(rows, stride, block * BYTES, BYTES) });
        for (panel, out) in values.of_block(block).iter().zip(out.chunks_mut(PANEL)) {
            for (row, out) in out.iter_mut().enumerate() {
                add::<ADD>(&unpacked, panel, row, out);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn add<const ADD: usize>(block: &Unpacked, values: &Panel32, row: usize, out: &mut [f32; TILE]) {
    let dots = if ADD == 0 { signed(block, values, row) } else { unsigned::<ADD>(block, values, row) };
    // SAFETY: eight floats.
    let total = unsafe { _mm256_loadu_ps(out.as_ptr()) };
    let scale = _mm256_mul_ps(block.d, _mm256_set1_ps(values.scales[row]));
    let total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, total);
    let total = _mm256_fmadd_ps(block.m, _mm256_set1_ps(values.sums[row]), total);
    // SAFETY: eight floats.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), total) };
}

#[target_feature(enable = "avx2")]
#[inline]
fn unsigned<const ADD: usize>(block: &Unpacked, values: &Panel32, row: usize) -> __m256i {
    let mut dots = _mm256_setzero_si256();
    for step in 0..QUADS / ADD {
        let mut pairs = _mm256_setzero_si256();
        for quad in step * ADD..(step + 1) * ADD {
            let more = _mm256_maddubs_epi16(block.codes[quad], broadcast(values.codes[quad][row]));
            pairs = _mm256_add_epi16(pairs, more);
        }
        dots = _mm256_add_epi32(dots, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    dots
}

/// `|w| * sign(w) a`: at most 128 * 127 * 2, which fits.
#[target_feature(enable = "avx2")]
#[inline]
fn signed(block: &Unpacked, values: &Panel32, row: usize) -> __m256i {
    let mut dots = _mm256_setzero_si256();
    for (codes, values) in block.codes.iter().zip(&values.codes) {
        let values = _mm256_sign_epi8(broadcast(values[row]), *codes);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(*codes), values);
        dots = _mm256_add_epi32(dots, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    dots
}

/// Where the offset of unsigned codes comes from.
enum Offset {
    /// Codes are this much too large.
    Codes(f32),
    /// The block says it, behind its scale.
    Stored,
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn scale_and_offset(blocks: Blocks, offset: Offset) -> (__m256, __m256) {
    let d = blocks.halves(0);
    match offset {
        Offset::Codes(by) => (d, _mm256_mul_ps(d, _mm256_set1_ps(-by))),
        Offset::Stored => (d, blocks.halves(2)),
    }
}

/// Low halves of sixteen bytes first, then the high halves.
#[target_feature(enable = "avx2")]
#[inline]
fn nibbles(blocks: Blocks, at: usize) -> [__m256i; QUADS] {
    let columns = blocks.columns(at);
    let ([a, b, c, d], [e, f, g, h]) =
        (columns.map(|column| bits::<0>(column, 15)), columns.map(|column| bits::<4>(column, 15)));
    [a, b, c, d, e, f, g, h]
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn q4(blocks: Blocks, at: usize, offset: Offset) -> Unpacked {
    let (d, m) = scale_and_offset(blocks, offset);
    Unpacked { codes: nibbles(blocks, at), d, m }
}

/// Nibbles behind a 32-bit word with a fifth bit for each.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn q5(blocks: Blocks, at: usize, offset: Offset) -> Unpacked {
    let (d, m) = scale_and_offset(blocks, offset);
    let mut top = blocks.words(at);
    let mut codes = nibbles(blocks, at + 4);
    // Four bits of the word at a time, one into each byte of the lane.
    let spread = _mm256_set1_epi32(0x0020_4081);
    for codes in &mut codes {
        let four = _mm256_and_si256(top, _mm256_set1_epi32(15));
        let ones = _mm256_and_si256(_mm256_mullo_epi32(four, spread), _mm256_set1_epi8(1));
        *codes = join::<4>(*codes, ones);
        top = _mm256_srli_epi32::<4>(top);
    }
    Unpacked { codes, d, m }
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn iq4_nl(blocks: Blocks) -> Unpacked {
    // SAFETY: sixteen bytes.
    let table = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(NON_LINEAR.as_ptr().cast()) });
    let codes = nibbles(blocks, 2).map(|codes| _mm256_shuffle_epi8(table, codes));
    Unpacked { codes, d: blocks.halves(0), m: _mm256_setzero_ps() }
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn q8(blocks: Blocks) -> Unpacked {
    Unpacked { codes: blocks.wide_columns(2), d: blocks.halves(0), m: _mm256_setzero_ps() }
}
