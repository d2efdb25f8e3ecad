//! Attention's inner loops: a row of a tile is two registers, multiplied by one coefficient of
//! each of up to four query rows before the next is read.

use std::arch::x86_64::*;

use half::f16;

use crate::kernels::attention::{AttentionLoops, HIGHEST, LN2_HIGH, LN2_LOW, LOWEST, POLYNOMIAL, SPAN};
use crate::kv::LANES;

/// For processors with AVX2, FMA and F16C; handed out by [`super::kernels`] alone.
pub const LOOPS: AttentionLoops = AttentionLoops { halves, codes, weigh, cap };

/// Query rows whose sums fit the registers, two each.
const ROWS: usize = 4;

fn halves(rows: usize, coefficients: &[f32], stride: usize, tile: &[[f16; LANES]], sums: &mut [f32], to: usize) {
    check(rows, coefficients.len(), stride, tile.len(), sums.len(), to);
    // SAFETY: the features are there, `check` has seen to the lengths, and `f16` is a transparent
    // u16.
    unsafe { tile_loop::<true>(rows, coefficients, stride, tile.as_ptr().cast(), tile.len(), sums, to) }
}

fn codes(rows: usize, coefficients: &[f32], stride: usize, tile: &[[i8; LANES]], sums: &mut [f32], to: usize) {
    check(rows, coefficients.len(), stride, tile.len(), sums.len(), to);
    // SAFETY: the features are there and `check` has seen to the lengths.
    unsafe { tile_loop::<false>(rows, coefficients, stride, tile.as_ptr().cast(), tile.len(), sums, to) }
}

fn check(rows: usize, coefficients: usize, stride: usize, tile: usize, sums: usize, to: usize) {
    let last = rows.saturating_sub(1);
    assert!(rows == 0 || (coefficients >= last * stride + tile && sums >= last * to + LANES));
}

/// # Safety
/// AVX2, FMA and F16C; what [`check`] checks; `count` rows of 16 halves (`HALVES`) or codes at
/// `tile`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile_loop<const HALVES: bool>(
    rows: usize,
    coefficients: &[f32],
    stride: usize,
    tile: *const u8,
    count: usize,
    sums: &mut [f32],
    to: usize,
) {
    let mut row = 0;
    while row < rows {
        // SAFETY: rows up to `row + taken` are among those that were checked.
        unsafe {
            let from = coefficients.as_ptr().add(row * stride);
            let into = sums.as_mut_ptr().add(row * to);
            let taken = match rows - row {
                1 => rows_loop::<HALVES, 1>(from, stride, tile, count, into, to),
                2 => rows_loop::<HALVES, 2>(from, stride, tile, count, into, to),
                3 => rows_loop::<HALVES, 3>(from, stride, tile, count, into, to),
                _ => rows_loop::<HALVES, ROWS>(from, stride, tile, count, into, to),
            };
            row += taken;
        }
    }
}

/// `N` rows; each lane's sum is one chain of additions, however many rows there are.
///
/// # Safety
/// AVX2, FMA and F16C; `count` numbers at each of `N` rows of coefficients, 16 at each of `N`
/// rows of sums, and a tile as [`tile_loop`] says.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows_loop<const HALVES: bool, const N: usize>(
    coefficients: *const f32,
    stride: usize,
    tile: *const u8,
    count: usize,
    sums: *mut f32,
    to: usize,
) -> usize {
    // SAFETY: by the contract above.
    unsafe {
        let (mut low, mut high) = ([_mm256_setzero_ps(); N], [_mm256_setzero_ps(); N]);
        for row in 0..N {
            low[row] = _mm256_loadu_ps(sums.add(row * to));
            high[row] = _mm256_loadu_ps(sums.add(row * to + 8));
        }
        for at in 0..count {
            let (left, right) = if HALVES { sixteen_halves(tile, at) } else { sixteen_codes(tile, at) };
            for row in 0..N {
                let coefficient = _mm256_broadcast_ss(&*coefficients.add(row * stride + at));
                low[row] = _mm256_fmadd_ps(coefficient, left, low[row]);
                high[row] = _mm256_fmadd_ps(coefficient, right, high[row]);
            }
        }
        for row in 0..N {
            _mm256_storeu_ps(sums.add(row * to), low[row]);
            _mm256_storeu_ps(sums.add(row * to + 8), high[row]);
        }
    }
    N
}

/// # Safety
/// AVX2 and F16C; a row `at` of 16 halves.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn sixteen_halves(tile: *const u8, at: usize) -> (__m256, __m256) {
    // SAFETY: by the contract above.
    unsafe {
        let row = tile.add(at * 2 * LANES).cast::<__m128i>();
        (_mm256_cvtph_ps(_mm_loadu_si128(row)), _mm256_cvtph_ps(_mm_loadu_si128(row.add(1))))
    }
}

/// # Safety
/// AVX2; a row `at` of 16 codes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sixteen_codes(tile: *const u8, at: usize) -> (__m256, __m256) {
    // SAFETY: by the contract above.
    unsafe {
        let row = tile.add(at * LANES).cast::<__m128i>();
        let (left, right) = (_mm_loadl_epi64(row), _mm_loadl_epi64(tile.add(at * LANES + 8).cast()));
        (_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(left)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(right)))
    }
}

fn weigh(scores: &mut [f32; SPAN], highest: f32) -> (f32, f32) {
    // SAFETY: the features are there.
    unsafe { weigh_avx2(scores, highest) }
}

#[target_feature(enable = "avx2,fma")]
fn weigh_avx2(scores: &mut [f32; SPAN], highest: f32) -> (f32, f32) {
    let mut most = _mm256_set1_ps(highest);
    for eight in scores.as_chunks::<8>().0 {
        most = _mm256_max_ps(load(eight), most);
    }
    let most = _mm256_max_ps(most, _mm256_permute2f128_ps::<1>(most, most));
    let most = _mm256_max_ps(most, _mm256_shuffle_ps::<0b01_00_11_10>(most, most));
    let most = _mm256_max_ps(most, _mm256_shuffle_ps::<0b10_11_00_01>(most, most));
    let mut sum = _mm256_setzero_ps();
    for eight in scores.as_chunks_mut::<8>().0 {
        let weights = exp(_mm256_sub_ps(load(eight), most));
        sum = _mm256_add_ps(sum, weights);
        store(eight, weights);
    }
    (_mm256_cvtss_f32(most), super::horizontal_sum(sum))
}

fn cap(scores: &mut [f32; SPAN], cap: f32) {
    // SAFETY: the features are there.
    unsafe { cap_avx2(scores, cap) }
}

#[target_feature(enable = "avx2,fma")]
fn cap_avx2(scores: &mut [f32; SPAN], cap: f32) {
    let (one, two) = (_mm256_set1_ps(1.0), _mm256_set1_ps(2.0));
    let (factor, cap) = (_mm256_set1_ps(2.0 / cap), _mm256_set1_ps(cap));
    for eight in scores.as_chunks_mut::<8>().0 {
        let below = _mm256_add_ps(exp(_mm256_mul_ps(load(eight), factor)), one);
        store(eight, _mm256_mul_ps(cap, _mm256_sub_ps(one, _mm256_div_ps(two, below))));
    }
}

/// [`crate::kernels::attention::exp`] of eight numbers.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp(x: __m256) -> __m256 {
    let in_range = _mm256_cmp_ps::<_CMP_GE_OQ>(x, _mm256_set1_ps(LOWEST));
    let x = _mm256_min_ps(x, _mm256_set1_ps(HIGHEST));
    let n = _mm256_mul_ps(x, _mm256_set1_ps(std::f32::consts::LOG2_E));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(n);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2_HIGH), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2_LOW), r);
    let mut power = _mm256_set1_ps(POLYNOMIAL[0]);
    for factor in &POLYNOMIAL[1..] {
        power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(*factor));
    }
    let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    let scaled = _mm256_mul_ps(power, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)));
    _mm256_and_ps(scaled, in_range)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(eight: &[f32; 8]) -> __m256 {
    // SAFETY: eight numbers are there.
    unsafe { _mm256_loadu_ps(eight.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(eight: &mut [f32; 8], numbers: __m256) {
    // SAFETY: there is room for eight numbers.
    unsafe { _mm256_storeu_ps(eight.as_mut_ptr(), numbers) }
}
