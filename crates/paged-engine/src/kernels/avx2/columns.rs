//! Eight matrix rows turned into lanes: what both kinds of blocks are unpacked with.

use std::arch::x86_64::*;

use half::f16;

/// Matrix rows of a tile: one for each lane of a register.
pub const TILE: usize = 8;

/// One block of each of the tile's rows.
#[derive(Clone, Copy)]
pub struct Blocks {
    /// The first row's block.
    first: *const u8,
    /// Bytes from one row's block to the next row's.
    stride: usize,
    /// Bytes of a block.
    length: usize,
    /// What is asked for while this is worked on.
    ahead: *const u8,
}

impl Blocks {
    /// The blocks at `at` in the rows of a tile, `stride` bytes each.
    ///
    /// # Safety
    /// The tile has eight rows, and the block lies inside the first.
    pub unsafe fn new(tile: &[u8], stride: usize, at: usize, length: usize) -> Self {
        let first = tile.as_ptr().wrapping_add(at);
        // The next tile lies behind this one; each block fetches as much of it as it is long.
        let ahead = tile.as_ptr().wrapping_add(tile.len() + TILE * at);
        Self { first, stride, length, ahead }
    }

    /// Sixteen bytes of each row from `at`, as four columns of four bytes with a row in each lane.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn columns(self, at: usize) -> [__m256i; 4] {
        debug_assert!(at + 16 <= self.length);
        let row = |row: usize| {
            // SAFETY: by the contract of `new`; `at` is a constant of a format that fits its block.
            unsafe { _mm_loadu_si128(self.first.add(row * self.stride + at).cast()) }
        };
        transposed([0, 1, 2, 3].map(|at| _mm256_set_m128i(row(at + 4), row(at))))
    }

    /// Thirty-two bytes of each row from `at`, as eight columns.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn wide_columns(self, at: usize) -> [__m256i; 8] {
        let ([a, b, c, d], [e, f, g, h]) = (self.columns(at), self.columns(at + 16));
        [a, b, c, d, e, f, g, h]
    }

    /// The half-precision number at `at` of each row.
    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    pub fn halves(self, at: usize) -> __m256 {
        debug_assert!(at + 2 <= self.length);
        let row = |row: usize| {
            // SAFETY: as above.
            unsafe { self.first.add(row * self.stride + at).cast::<f16>().read_unaligned() }.to_bits().cast_signed()
        };
        _mm256_cvtph_ps(_mm_setr_epi16(row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)))
    }

    /// The 32-bit word at `at` of each row.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn words(self, at: usize) -> __m256i {
        debug_assert!(at + 4 <= self.length);
        let row = |row: usize| {
            // SAFETY: as above.
            unsafe { self.first.add(row * self.stride + at).cast::<i32>().read_unaligned() }
        };
        _mm256_setr_epi32(row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7))
    }

    /// Asks for the part of the next tile that `step` of `steps` is to fetch. Spread over the work:
    /// many lines asked for at once would be waited for.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn fetch(self, step: usize, steps: usize) {
        let at = step * (TILE * self.length).div_ceil(steps);
        // A prefetch never faults, wherever it points.
        _mm_prefetch::<_MM_HINT_T0>(self.ahead.wrapping_add(at).cast());
    }
}

/// Rows `[0 | 4]`, `[1 | 5]`, `[2 | 6]`, `[3 | 7]` in halves, to columns with rows 0 to 7 in lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn transposed([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab_low, cd_low),
        _mm256_unpackhi_epi64(ab_low, cd_low),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The low halves of the lanes as half-precision numbers.
#[target_feature(enable = "avx2,f16c")]
#[inline]
pub fn low_halves(lanes: __m256i) -> __m256 {
    let packed = _mm256_packus_epi32(_mm256_and_si256(lanes, _mm256_set1_epi32(0xffff)), _mm256_setzero_si256());
    let low = _mm256_castsi256_si128(packed);
    let high = _mm256_extracti128_si256::<1>(packed);
    _mm256_cvtph_ps(_mm_unpacklo_epi64(low, high))
}

/// `(bytes >> SHIFT) & mask`; bits from the neighbouring byte are masked away.
#[target_feature(enable = "avx2")]
#[inline]
pub fn bits<const SHIFT: i32>(bytes: __m256i, mask: i8) -> __m256i {
    _mm256_and_si256(_mm256_srli_epi16::<SHIFT>(bytes), _mm256_set1_epi8(mask))
}

/// `low | (high << SHIFT)`, for high bits that do not leave their byte.
#[target_feature(enable = "avx2")]
#[inline]
pub fn join<const SHIFT: i32>(low: __m256i, high: __m256i) -> __m256i {
    _mm256_or_si256(low, _mm256_slli_epi16::<SHIFT>(high))
}

/// The same four codes of one batch row in every lane.
#[target_feature(enable = "avx2")]
#[inline]
pub fn broadcast(codes: [i8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_ne_bytes(codes.map(i8::cast_unsigned)))
}
