//! AVX2 with FMA and F16C: every x86-64 processor since 2013.
#![allow(unsafe_code, reason = "intrinsics; each function states what it needs")]

use std::arch::x86_64::*;

use half::f16;

use super::{Kernels, scalar};
use crate::quant::{Block32, Block256, K, SMALL};

/// The set, if this processor has it.
pub fn kernels() -> Option<Kernels> {
    let there = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    there.then_some(Kernels { name: "avx2", dot256, dot32, dot_f32, dot_f16, add_f16 })
}

// The functions below are handed out by `kernels` alone, so the features they need are there.

fn dot256(block: &Block256, codes: &[i8], sums: &[i16]) -> f32 {
    assert!(codes.len() >= K && sums.len() >= K / 16);
    // SAFETY: the features are there (see above) and both slices are long enough.
    unsafe { dot256_avx2(block, codes.as_ptr(), sums.as_ptr()) }
}

/// # Safety
/// AVX2 and FMA; 256 readable bytes at `codes`, 16 readable numbers at `sums`.
#[target_feature(enable = "avx2,fma")]
unsafe fn dot256_avx2(block: &Block256, codes: *const i8, sums: *const i16) -> f32 {
    // SAFETY: the block's arrays have 256 and 16 elements; the caller answers for the pointers.
    unsafe {
        let scales = _mm256_loadu_si256(block.scales.as_ptr().cast());
        let mut dots = _mm256_setzero_si256();
        // Two groups of 16 at a time: codes up to 63 times 127, two summed, stay within 16 bits.
        macro_rules! groups {
            ($($pair:literal)*) => {$(
                let weights = _mm256_load_si256(block.codes.as_ptr().add(32 * $pair).cast());
                let activations = _mm256_loadu_si256(codes.add(32 * $pair).cast());
                let products = _mm256_maddubs_epi16(weights, activations);
                dots = _mm256_add_epi32(dots, _mm256_madd_epi16(products, scale_pair::<$pair>(scales)));
            )*};
        }
        groups!(0 1 2 3 4 5 6 7);
        let mins = _mm256_madd_epi16(_mm256_loadu_si256(block.mins.as_ptr().cast()), _mm256_loadu_si256(sums.cast()));
        let scaled = _mm256_mul_ps(_mm256_set1_ps(block.d), _mm256_cvtepi32_ps(dots));
        let total = _mm256_fnmadd_ps(_mm256_set1_ps(block.dmin), _mm256_cvtepi32_ps(mins), scaled);
        horizontal_sum(total)
    }
}

/// The scale of group `2 * PAIR` in the lower half and of the next in the upper half.
#[target_feature(enable = "avx2")]
fn scale_pair<const PAIR: usize>(scales: __m256i) -> __m256i {
    // Scales 0 to 7 lie in the lower half, 8 to 15 in the upper: bring the right half to both.
    let both = match PAIR < 4 {
        true => _mm256_permute2x128_si256::<0x00>(scales, scales),
        false => _mm256_permute2x128_si256::<0x11>(scales, scales),
    };
    let at = (PAIR % 4 * 4) as i8;
    let low = i16::from_le_bytes([at.cast_unsigned(), at.cast_unsigned() + 1]);
    let high = i16::from_le_bytes([at.cast_unsigned() + 2, at.cast_unsigned() + 3]);
    _mm256_shuffle_epi8(both, _mm256_set_m128i(_mm_set1_epi16(high), _mm_set1_epi16(low)))
}

fn dot32(block: &Block32, codes: &[i8]) -> i32 {
    assert!(codes.len() >= SMALL);
    // SAFETY: the features are there and the slice is long enough.
    unsafe { dot32_avx2(block, codes.as_ptr()) }
}

/// # Safety
/// AVX2; 32 readable bytes at `codes`.
#[target_feature(enable = "avx2")]
unsafe fn dot32_avx2(block: &Block32, codes: *const i8) -> i32 {
    // SAFETY: the block has 32 codes; the caller answers for the pointer.
    unsafe {
        let weights = _mm256_load_si256(block.codes.as_ptr().cast());
        let activations = _mm256_loadu_si256(codes.cast());
        let mut sum = _mm256_setzero_si256();
        // As 16-bit numbers: 127 * 127 * 2 would not fit the saturating byte product.
        for (weights, activations) in [
            (_mm256_castsi256_si128(weights), _mm256_castsi256_si128(activations)),
            (_mm256_extracti128_si256::<1>(weights), _mm256_extracti128_si256::<1>(activations)),
        ] {
            let products = _mm256_madd_epi16(_mm256_cvtepi8_epi16(weights), _mm256_cvtepi8_epi16(activations));
            sum = _mm256_add_epi32(sum, products);
        }
        let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
        _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter)))
    }
}

fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let (whole, _) = a.as_chunks::<8>();
    // SAFETY: the features are there; both slices hold `whole.len() * 8` numbers.
    let sum = unsafe { dot_f32_avx2(a.as_ptr(), b.as_ptr(), whole.len()) };
    let tail = whole.len() * 8;
    sum + (scalar::KERNELS.dot_f32)(&a[tail..], &b[tail..])
}

/// # Safety
/// AVX2 and FMA; `8 * eights` readable numbers at both pointers.
#[target_feature(enable = "avx2,fma")]
unsafe fn dot_f32_avx2(a: *const f32, b: *const f32, eights: usize) -> f32 {
    let mut sum = _mm256_setzero_ps();
    for at in 0..eights {
        // SAFETY: by the contract above.
        unsafe { sum = _mm256_fmadd_ps(_mm256_loadu_ps(a.add(8 * at)), _mm256_loadu_ps(b.add(8 * at)), sum) };
    }
    horizontal_sum(sum)
}

fn dot_f16(query: &[f32], key: &[f16]) -> f32 {
    assert_eq!(query.len(), key.len());
    let (whole, _) = query.as_chunks::<8>();
    // SAFETY: the features are there; both slices hold `whole.len() * 8` numbers, and `f16` is a
    // transparent u16.
    let sum = unsafe { dot_f16_avx2(query.as_ptr(), key.as_ptr().cast(), whole.len()) };
    let tail = whole.len() * 8;
    sum + (scalar::KERNELS.dot_f16)(&query[tail..], &key[tail..])
}

/// # Safety
/// AVX2, FMA and F16C; `8 * eights` readable numbers at both pointers.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot_f16_avx2(query: *const f32, key: *const u16, eights: usize) -> f32 {
    let mut sum = _mm256_setzero_ps();
    for at in 0..eights {
        // SAFETY: by the contract above.
        unsafe {
            let key = _mm256_cvtph_ps(_mm_loadu_si128(key.add(8 * at).cast()));
            sum = _mm256_fmadd_ps(_mm256_loadu_ps(query.add(8 * at)), key, sum);
        }
    }
    horizontal_sum(sum)
}

fn add_f16(sum: &mut [f32], weight: f32, value: &[f16]) {
    assert_eq!(sum.len(), value.len());
    let eights = sum.len() / 8;
    // SAFETY: the features are there; both slices hold `eights * 8` numbers.
    unsafe { add_f16_avx2(sum.as_mut_ptr(), weight, value.as_ptr().cast(), eights) };
    (scalar::KERNELS.add_f16)(&mut sum[eights * 8..], weight, &value[eights * 8..]);
}

/// # Safety
/// AVX2, FMA and F16C; `8 * eights` numbers writable at `sum` and readable at `value`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_f16_avx2(sum: *mut f32, weight: f32, value: *const u16, eights: usize) {
    let weight = _mm256_set1_ps(weight);
    for at in 0..eights {
        // SAFETY: by the contract above.
        unsafe {
            let value = _mm256_cvtph_ps(_mm_loadu_si128(value.add(8 * at).cast()));
            let sum = sum.add(8 * at);
            _mm256_storeu_ps(sum, _mm256_fmadd_ps(weight, value, _mm256_loadu_ps(sum)));
        }
    }
}

#[target_feature(enable = "avx2")]
fn horizontal_sum(values: __m256) -> f32 {
    let half = _mm_add_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values));
    let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
}
