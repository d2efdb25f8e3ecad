//! Attention's inner loops: a row of a tile is one register, multiplied by one coefficient of each
//! of up to sixteen query rows before the next is read. What is done to scores stays AVX2's.

use std::arch::x86_64::*;

use half::f16;

use crate::kernels::attention::AttentionLoops;
use crate::kv::LANES;

/// Query rows whose sums fit the registers and hide the latency of their chains.
const ROWS: usize = 16;

/// For processors with AVX-512F; handed out by [`super::kernels`] alone.
pub fn loops(avx2: AttentionLoops) -> AttentionLoops {
    AttentionLoops { halves, codes, ..avx2 }
}

fn halves(rows: usize, coefficients: &[f32], stride: usize, tile: &[[f16; LANES]], sums: &mut [f32], to: usize) {
    // A closure has the features of the function it stands in, so that it is inlined.
    #[target_feature(enable = "avx512f")]
    fn loops(rows: usize, coefficients: &[f32], stride: usize, tile: &[[f16; LANES]], sums: &mut [f32], to: usize) {
        tile_loop(rows, coefficients, stride, tile, sums, to, |row| sixteen_halves(row));
    }
    // SAFETY: the features are there.
    unsafe { loops(rows, coefficients, stride, tile, sums, to) }
}

fn codes(rows: usize, coefficients: &[f32], stride: usize, tile: &[[i8; LANES]], sums: &mut [f32], to: usize) {
    #[target_feature(enable = "avx512f")]
    fn loops(rows: usize, coefficients: &[f32], stride: usize, tile: &[[i8; LANES]], sums: &mut [f32], to: usize) {
        tile_loop(rows, coefficients, stride, tile, sums, to, |row| sixteen_codes(row));
    }
    // SAFETY: the features are there.
    unsafe { loops(rows, coefficients, stride, tile, sums, to) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn tile_loop<T>(
    rows: usize,
    coefficients: &[f32],
    stride: usize,
    tile: &[[T; LANES]],
    sums: &mut [f32],
    to: usize,
    float: impl Fn(&[T; LANES]) -> __m512 + Copy,
) {
    let last = rows.saturating_sub(1);
    assert!(rows == 0 || (coefficients.len() >= last * stride + tile.len() && sums.len() >= last * to + LANES));
    let mut row = 0;
    while row < rows {
        let (from, into) = (&coefficients[row * stride..], &mut sums[row * to..]);
        // SAFETY: as many rows as are taken were checked above.
        row += unsafe {
            match rows - row {
                1 => rows_loop::<T, 1>(from, stride, tile, into, to, float),
                2 | 3 => rows_loop::<T, 2>(from, stride, tile, into, to, float),
                4..8 => rows_loop::<T, 4>(from, stride, tile, into, to, float),
                8..ROWS => rows_loop::<T, 8>(from, stride, tile, into, to, float),
                _ => rows_loop::<T, ROWS>(from, stride, tile, into, to, float),
            }
        };
    }
}

/// `N` rows; each lane's sum is one chain of additions, however many rows there are.
///
/// # Safety
/// AVX-512F; as many coefficients as the tile has rows at each of `N` strides, 16 sums at each of
/// `N` of theirs.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn rows_loop<T, const N: usize>(
    coefficients: &[f32],
    stride: usize,
    tile: &[[T; LANES]],
    sums: &mut [f32],
    to: usize,
    float: impl Fn(&[T; LANES]) -> __m512,
) -> usize {
    let (coefficients, sums) = (coefficients.as_ptr(), sums.as_mut_ptr());
    let mut totals = [_mm512_setzero_ps(); N];
    for (row, total) in totals.iter_mut().enumerate() {
        // SAFETY: by the contract above.
        *total = unsafe { _mm512_loadu_ps(sums.add(row * to)) };
    }
    for (at, numbers) in tile.iter().enumerate() {
        let numbers = float(numbers);
        for (row, total) in totals.iter_mut().enumerate() {
            // SAFETY: by the contract above.
            let coefficient = unsafe { *coefficients.add(row * stride + at) };
            *total = _mm512_fmadd_ps(_mm512_set1_ps(coefficient), numbers, *total);
        }
    }
    for (row, total) in totals.iter().enumerate() {
        // SAFETY: by the contract above.
        unsafe { _mm512_storeu_ps(sums.add(row * to), *total) };
    }
    N
}

#[target_feature(enable = "avx512f")]
#[inline]
fn sixteen_halves(row: &[f16; LANES]) -> __m512 {
    // SAFETY: sixteen halves, and `f16` is a transparent u16.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(row.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f")]
#[inline]
fn sixteen_codes(row: &[i8; LANES]) -> __m512 {
    // SAFETY: sixteen bytes.
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(row.as_ptr().cast()) }))
}
