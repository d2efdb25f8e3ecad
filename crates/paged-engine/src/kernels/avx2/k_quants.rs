//! K-quants on AVX2: a block is unpacked into registers and one small buffer, then meets every row
//! of the batch.
//!
//! Codes are unsigned (0 to 63), activations signed: `vpmaddubsw` multiplies them and adds pairs
//! without overflow (63 * 127 * 2 < 2^15), `vpmaddwd` by the groups' scales widens to 32 bits. Two
//! instructions do 32 products, and the unpacking is paid once for the whole batch.

use std::arch::x86_64::*;

use gguf::TensorType;
use half::f16;

use super::horizontal_sum;
use crate::quant::{Activations256, GROUP, K, Rows256, scales_q3, scales_q45};

/// Batch rows whose sums stay in L1 while a matrix row is read; more rows read it again.
const TILE: usize = 64;
const SMALL_TILE: usize = 4;
/// Registers that hold a block's codes, 32 each.
const PARTS: usize = K / 32;

/// A block, unpacked: [`crate::quant::Block256`] in the form these kernels read.
struct Unpacked {
    codes: [__m256i; PARTS],
    /// For each part, the scale of its first group eight times and of its second eight times.
    scales: [__m256i; PARTS],
    mins: __m256i,
    d: f32,
    dmin: f32,
}

/// One matrix row times every batch row: see [`crate::kernels::Kernels::row256`].
///
/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn row(weights: TensorType, packed: &[u8], values: &Rows256, out: &mut [f32]) {
    match weights {
        TensorType::Q2_K => rows::<84>(packed, values, out, |block| q2(block)),
        TensorType::Q3_K => rows::<110>(packed, values, out, |block| q3(block)),
        TensorType::Q4_K => rows::<144>(packed, values, out, |block| q4(block)),
        TensorType::Q5_K => rows::<176>(packed, values, out, |block| q5(block)),
        _ => rows::<210>(packed, values, out, |block| q6(block)),
    }
}

/// The loops, compiled once for each type so that `unpack` is inlined.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn rows<const BYTES: usize>(
    packed: &[u8],
    values: &Rows256,
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES]) -> Unpacked,
) {
    let (packed, _) = packed.as_chunks::<BYTES>();
    // A large tile costs more to clear than a single row takes.
    match out.len() {
        ..=SMALL_TILE => tiles::<BYTES, SMALL_TILE>(packed, values, out, unpack),
        _ => tiles::<BYTES, TILE>(packed, values, out, unpack),
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn tiles<const BYTES: usize, const ROWS: usize>(
    packed: &[[u8; BYTES]],
    values: &Rows256,
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES]) -> Unpacked,
) {
    for (tile, out) in out.chunks_mut(ROWS).enumerate() {
        let mut totals = [_mm256_setzero_ps(); ROWS];
        for (at, block) in packed.iter().enumerate() {
            let block = unpack(block);
            let rows = values.0[tile * ROWS * packed.len() + at..].iter().step_by(packed.len());
            for (total, values) in totals[..out.len()].iter_mut().zip(rows) {
                *total = add_block(&block, values, *total);
            }
        }
        for (out, total) in out.iter_mut().zip(&totals) {
            *out = horizontal_sum(*total);
        }
    }
}

/// `total` plus a block times a block of activations, in eight partial sums.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn add_block(block: &Unpacked, values: &Activations256, total: __m256) -> __m256 {
    let mut dots = [_mm256_setzero_si256(); 2];
    for part in 0..PARTS {
        // SAFETY: there are 32 codes for each part, aligned to 64 bytes as a whole.
        let codes = unsafe { _mm256_load_si256(values.codes.as_ptr().add(32 * part).cast()) };
        let pairs = _mm256_maddubs_epi16(block.codes[part], codes);
        dots[part % 2] = _mm256_add_epi32(dots[part % 2], _mm256_madd_epi16(pairs, block.scales[part]));
    }
    // SAFETY: sixteen 16-bit sums are 32 bytes; they follow 256 aligned ones.
    let sums = unsafe { _mm256_load_si256(values.sums.as_ptr().cast()) };
    let mins = _mm256_cvtepi32_ps(_mm256_madd_epi16(block.mins, sums));
    let dots = _mm256_cvtepi32_ps(_mm256_add_epi32(dots[0], dots[1]));
    let total = _mm256_fmadd_ps(dots, _mm256_set1_ps(block.d * values.scale), total);
    _mm256_fnmadd_ps(mins, _mm256_set1_ps(block.dmin * values.scale), total)
}

/// Bytes `at` to `at + 32`.
#[target_feature(enable = "avx2")]
#[inline]
fn load<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> __m256i {
    assert!(at + 32 <= BYTES);
    // SAFETY: asserted above; with constants the check goes away.
    unsafe { _mm256_loadu_si256(block.as_ptr().add(at).cast()) }
}

/// `(bytes >> SHIFT) & mask`; bits from the neighbouring byte are masked away.
#[target_feature(enable = "avx2")]
#[inline]
fn bits<const SHIFT: i32>(bytes: __m256i, mask: i8) -> __m256i {
    _mm256_and_si256(_mm256_srli_epi16::<SHIFT>(bytes), _mm256_set1_epi8(mask))
}

/// `low | (high << SHIFT)`, for high bits that do not leave their byte.
#[target_feature(enable = "avx2")]
#[inline]
fn join<const SHIFT: i32>(low: __m256i, high: __m256i) -> __m256i {
    _mm256_or_si256(low, _mm256_slli_epi16::<SHIFT>(high))
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn q2(block: &[u8; 84]) -> Unpacked {
    let (first, second) = (load(block, 16), load(block, 48));
    let part = |q| [bits::<0>(q, 3), bits::<2>(q, 3), bits::<4>(q, 3), bits::<6>(q, 3)];
    let ([a, b, c, d], [e, f, g, h]) = (part(first), part(second));
    // SAFETY: the block begins with sixteen bytes of scales and mins.
    let both = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
    let nibble = _mm_set1_epi8(15);
    let scales = _mm256_cvtepu8_epi16(_mm_and_si128(both, nibble));
    let mins = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16::<4>(both), nibble));
    finish([a, b, c, d, e, f, g, h], scales, mins, half_at(block, 80), half_at(block, 82))
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn q3(block: &[u8; 110]) -> Unpacked {
    let (high, first, second) = (load(block, 0), load(block, 32), load(block, 64));
    let codes = [
        join::<2>(bits::<0>(first, 3), bits::<0>(high, 1)),
        join::<2>(bits::<2>(first, 3), bits::<1>(high, 1)),
        join::<2>(bits::<4>(first, 3), bits::<2>(high, 1)),
        join::<2>(bits::<6>(first, 3), bits::<3>(high, 1)),
        join::<2>(bits::<0>(second, 3), bits::<4>(high, 1)),
        join::<2>(bits::<2>(second, 3), bits::<5>(high, 1)),
        join::<2>(bits::<4>(second, 3), bits::<6>(high, 1)),
        join::<2>(bits::<6>(second, 3), bits::<7>(high, 1)),
    ];
    let scales = _mm256_sub_epi16(bytes_to_words(scales_q3(&block[96..108])), _mm256_set1_epi16(32));
    let d = half_at(block, 108);
    finish(codes, scales, _mm256_slli_epi16::<2>(scales), d, d)
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn q4(block: &[u8; 144]) -> Unpacked {
    let part = |at| {
        let q = load(block, at);
        [bits::<0>(q, 15), bits::<4>(q, 15)]
    };
    let [[a, b], [c, d], [e, f], [g, h]] = [part(16), part(48), part(80), part(112)];
    let (scales, mins) = scales_q45(&block[4..16]);
    finish([a, b, c, d, e, f, g, h], bytes_to_words(scales), bytes_to_words(mins), half_at(block, 0), half_at(block, 2))
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn q5(block: &[u8; 176]) -> Unpacked {
    let high = load(block, 16);
    let low = |at| {
        let q = load(block, at);
        [bits::<0>(q, 15), bits::<4>(q, 15)]
    };
    let [[a, b], [c, d], [e, f], [g, h]] = [low(48), low(80), low(112), low(144)];
    let codes = [
        join::<4>(a, bits::<0>(high, 1)),
        join::<4>(b, bits::<1>(high, 1)),
        join::<4>(c, bits::<2>(high, 1)),
        join::<4>(d, bits::<3>(high, 1)),
        join::<4>(e, bits::<4>(high, 1)),
        join::<4>(f, bits::<5>(high, 1)),
        join::<4>(g, bits::<6>(high, 1)),
        join::<4>(h, bits::<7>(high, 1)),
    ];
    let (scales, mins) = scales_q45(&block[4..16]);
    finish(codes, bytes_to_words(scales), bytes_to_words(mins), half_at(block, 0), half_at(block, 2))
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn q6(block: &[u8; 210]) -> Unpacked {
    let half = |low: usize, high: usize| {
        let (a, b, high) = (load(block, low), load(block, low + 32), load(block, high));
        [
            join::<4>(bits::<0>(a, 15), bits::<0>(high, 3)),
            join::<4>(bits::<0>(b, 15), bits::<2>(high, 3)),
            join::<4>(bits::<4>(a, 15), bits::<4>(high, 3)),
            join::<4>(bits::<4>(b, 15), bits::<6>(high, 3)),
        ]
    };
    let ([a, b, c, d], [e, f, g, h]) = (half(0, 128), half(64, 160));
    // SAFETY: sixteen signed scales end the block before its last two bytes.
    let scales = _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(block.as_ptr().add(192).cast()) });
    let scale = half_at(block, 208);
    finish([a, b, c, d, e, f, g, h], scales, _mm256_slli_epi16::<5>(scales), scale, scale)
}

/// Spreads the sixteen scales over the parts.
#[target_feature(enable = "avx2")]
#[inline]
fn finish(codes: [__m256i; PARTS], scales: __m256i, mins: __m256i, d: f32, dmin: f32) -> Unpacked {
    let low = _mm256_permute2x128_si256::<0x00>(scales, scales);
    let high = _mm256_permute2x128_si256::<0x11>(scales, scales);
    // Words 2n and 2n + 1 of each half, spread over one lane each.
    let spread = |n: i8| {
        let pair = |at: i8| i16::from_le_bytes([(2 * at).cast_unsigned(), (2 * at + 1).cast_unsigned()]);
        _mm256_set_m128i(_mm_set1_epi16(pair(2 * n + 1)), _mm_set1_epi16(pair(2 * n)))
    };
    let spreads = [spread(0), spread(1), spread(2), spread(3)];
    let scales = std::array::from_fn(|part| {
        let half = if part < 4 { low } else { high };
        _mm256_shuffle_epi8(half, spreads[part % 4])
    });
    Unpacked { codes, scales, mins, d, dmin }
}

#[target_feature(enable = "avx2")]
#[inline]
fn bytes_to_words(bytes: [u8; GROUP]) -> __m256i {
    // SAFETY: sixteen bytes.
    _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

fn half_at<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
