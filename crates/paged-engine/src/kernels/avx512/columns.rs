//! Sixteen matrix rows turned into lanes: what both kinds of blocks are unpacked with.

use std::arch::x86_64::*;

use half::f16;

/// Matrix rows in the lanes of a register.
pub const LANES: usize = 16;
/// Matrix rows of a tile: two registers, so that each broadcast of activations serves both.
pub const TILE: usize = 2 * LANES;
/// For [`place`]: no byte, a zero.
pub const NONE: i8 = -128;
/// Bytes of a line of the cache.
const LINE: usize = 64;

/// The bytes behind a tile, where the next tile of the matrix lies. They are asked for little by
/// little while this tile is worked on: many at once would stand in each other's way.
#[derive(Clone, Copy)]
pub struct Ahead {
    next: *const u8,
    step: usize,
}

impl Ahead {
    pub fn new(next: *const u8, step: usize) -> Self {
        Self { next, step }
    }

    /// How far one fetch goes on, at most a line, so that unpacking a tile's blocks of `length`
    /// bytes and `more` fetches beside that cover as many bytes of the next tile.
    pub fn step(length: usize, more: usize) -> usize {
        let bytes = TILE * length;
        bytes.div_ceil(bytes / LINE + more)
    }

    #[inline]
    pub fn fetch(&mut self) {
        // SAFETY: every x86-64 processor has it, and a prefetch never faults, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(self.next.cast()) };
        self.next = self.next.wrapping_add(self.step);
    }
}

/// One block of each of sixteen rows. As many bytes as are read here are asked for ahead.
pub struct Blocks {
    /// The first row's block.
    first: *const u8,
    /// Bytes from one row's block to the next row's.
    stride: usize,
    /// Bytes of a block.
    length: usize,
    pub ahead: Ahead,
}

impl Blocks {
    /// # Safety
    /// `length` bytes are readable at `first` and at each of the fifteen places `stride` further on.
    pub unsafe fn new(first: *const u8, stride: usize, length: usize, ahead: Ahead) -> Self {
        Self { first, stride, length, ahead }
    }

    /// Sixteen bytes of each row from `at`, as four columns of four bytes with a row in each lane.
    #[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
    #[inline]
    pub fn columns(&mut self, at: usize) -> [__m512i; 4] {
        self.fetch(4);
        transposed([self.fourths(0, at), self.fourths(1, at), self.fourths(2, at), self.fourths(3, at)])
    }

    /// The last fourteen bytes of each row and two zeros, as four columns.
    #[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
    #[inline]
    pub fn last_columns(&mut self) -> [__m512i; 4] {
        self.fetch(4);
        let at = self.length - 16;
        let moved = _mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, NONE, NONE);
        let moved = _mm512_broadcast_i32x4(moved);
        let four = |row: usize| _mm512_shuffle_epi8(self.fourths(row, at), moved);
        transposed([four(0), four(1), four(2), four(3)])
    }

    /// Thirty-two bytes of each row from `at`, as eight columns.
    #[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
    #[inline]
    pub fn wide_columns(&mut self, at: usize) -> [__m512i; 8] {
        self.fetch(8);
        let two = |row: usize| self.two_wide(row, at);
        // Lanes of a register: rows 0 to 3 of column c, of column c + 4, rows 4 to 7 of both.
        let [a, b, c, d] = transposed([two(0), two(1), two(2), two(3)]);
        let [e, f, g, h] = transposed([two(8), two(9), two(10), two(11)]);
        let first = |low, high| _mm512_shuffle_i64x2::<0b10_00_10_00>(low, high);
        let second = |low, high| _mm512_shuffle_i64x2::<0b11_01_11_01>(low, high);
        [first(a, e), first(b, f), first(c, g), first(d, h), second(a, e), second(b, f), second(c, g), second(d, h)]
    }

    /// The half-precision number at `at` of each row.
    #[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
    #[inline]
    pub fn halves(&self, at: usize) -> __m512 {
        debug_assert!(at + 2 <= self.length);
        let row = |row: usize| {
            // SAFETY: by the contract of `new`; `at` is a constant of a format that fits its block.
            unsafe { self.first.add(row * self.stride + at).cast::<f16>().read_unaligned() }.to_bits().cast_signed()
        };
        let (low, high) = (
            _mm_setr_epi16(row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)),
            _mm_setr_epi16(row(8), row(9), row(10), row(11), row(12), row(13), row(14), row(15)),
        );
        _mm512_cvtph_ps(_mm256_set_m128i(high, low))
    }

    /// The 32-bit word at `at` of each row.
    #[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
    #[inline]
    pub fn words(&mut self, at: usize) -> __m512i {
        debug_assert!(at + 4 <= self.length);
        self.fetch(1);
        let row = |row: usize| {
            // SAFETY: as above.
            unsafe { self.first.add(row * self.stride + at).cast::<i32>().read_unaligned() }
        };
        let four = |first: usize| _mm_setr_epi32(row(first), row(first + 1), row(first + 2), row(first + 3));
        let rows = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(four(0)), four(4));
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(rows, four(8)), four(12))
    }

    fn fetch(&mut self, lines: usize) {
        (0..lines).for_each(|_| self.ahead.fetch());
    }

    /// Sixteen bytes from `at` of rows `row`, `row + 4`, `row + 8` and `row + 12`.
    #[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
    #[inline]
    fn fourths(&self, row: usize, at: usize) -> __m512i {
        debug_assert!(at + 16 <= self.length);
        let load = |row: usize| {
            // SAFETY: as above.
            unsafe { _mm_loadu_si128(self.first.add(row * self.stride + at).cast()) }
        };
        let rows = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(load(row)), load(row + 4));
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(rows, load(row + 8)), load(row + 12))
    }

    /// Thirty-two bytes from `at` of rows `row` and `row + 4`.
    #[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
    #[inline]
    fn two_wide(&self, row: usize, at: usize) -> __m512i {
        debug_assert!(at + 32 <= self.length);
        let load = |row: usize| {
            // SAFETY: as above.
            unsafe { _mm256_loadu_si256(self.first.add(row * self.stride + at).cast()) }
        };
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load(row)), load(row + 4))
    }
}

/// In each quarter of the registers, a square of four by four words is turned over.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn transposed([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The low halves of the lanes as half-precision numbers.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
pub fn low_halves(lanes: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(lanes))
}

/// Of each byte the `width` bits from bit `from`, moved to bit `to`.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
pub fn bits(bytes: __m512i, from: usize, width: usize, to: usize) -> __m512i {
    // A matrix of bits: row i of it, in byte 7 - i, picks what is added up to bit i.
    let matrix = (0..width).fold(0u64, |matrix, bit| matrix | 1 << (from + bit) << (8 * (7 - to - bit)));
    _mm512_gf2p8affine_epi64_epi8::<0>(bytes, _mm512_set1_epi64(matrix.cast_signed()))
}

/// The bytes of every lane in another order: byte `from[i]`, or [`NONE`], in place i.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
pub fn place(lanes: __m512i, from: [i8; 4]) -> __m512i {
    let first = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c));
    _mm512_shuffle_epi8(lanes, _mm512_add_epi8(broadcast(from), first))
}

/// The same four bytes in every lane.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
pub fn broadcast(bytes: [i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_ne_bytes(bytes.map(i8::cast_unsigned)))
}

/// The same two 16-bit numbers in every lane.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
pub fn broadcast_pair(pair: [i16; 2]) -> __m512i {
    // SAFETY: any four bytes are a number. Put together by arithmetic they would not be one load.
    _mm512_set1_epi32(unsafe { std::mem::transmute::<[i16; 2], i32>(pair) })
}

/// Puts `change(half, numbers)` in place of each half of a batch row's numbers.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
pub fn update(out: &mut [f32; TILE], change: impl Fn(usize, __m512) -> __m512) {
    let (halves, _) = out.as_chunks_mut::<LANES>();
    for (half, out) in halves.iter_mut().enumerate() {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), change(half, _mm512_loadu_ps(out.as_ptr()))) };
    }
}
