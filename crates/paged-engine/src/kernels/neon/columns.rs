//! Eight matrix rows side by side: what both kinds of blocks are unpacked with.

use std::arch::aarch64::*;

/// Matrix rows of a tile: two registers with one row in each of four lanes.
pub const TILE: usize = 8;
/// Columns that are unpacked at once: one register of each row.
pub const SPAN: usize = 16;

/// Eight rows' codes of sixteen columns, in the order in which a set multiplies them.
pub type Codes = [uint8x16_t; TILE];
/// A number for each row of the tile.
pub type Lanes = [int32x4_t; 2];

/// One block of each of the tile's rows.
#[derive(Clone, Copy)]
pub struct Blocks<'a, const BYTES: usize>([&'a [u8; BYTES]; TILE]);

/// The blocks of a tile: eight rows of as many blocks each.
pub struct Rows<'a, const BYTES: usize>([&'a [[u8; BYTES]]; TILE]);

impl<'a, const BYTES: usize> Rows<'a, BYTES> {
    /// Eight whole rows of whole blocks, one after the other.
    pub fn new(tile: &'a [u8]) -> Self {
        let (blocks, _) = tile.as_chunks();
        let count = blocks.len() / TILE;
        Self(std::array::from_fn(|row| &blocks[row * count..][..count]))
    }

    /// The first block of every row, then the second, and so on.
    pub fn blocks(&self) -> impl Iterator<Item = Blocks<'a, BYTES>> {
        (0..self.0[0].len()).map(|at| Blocks(self.0.map(|row| &row[at])))
    }
}

impl<const BYTES: usize> Blocks<'_, BYTES> {
    /// Sixteen bytes of each row from `at`.
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn rows(self, at: usize) -> [uint8x16_t; TILE] {
        self.0.map(|block| {
            let bytes = &block[at..at + SPAN];
            // SAFETY: sixteen bytes.
            unsafe { vld1q_u8(bytes.as_ptr()) }
        })
    }

    /// Byte `at` and the fifteen after it, two of each row in a register: the first one's eight
    /// rows, then the second one's.
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn columns(self, at: usize) -> [uint8x16_t; TILE] {
        // Three times the bytes of the upper four rows between those of the lower four: each time
        // the topmost bit of the row's number becomes the lowest of the place.
        let mut rows = self.rows(at);
        for _ in 0..3 {
            let [a, b, c, d, e, f, g, h] = rows;
            rows = [
                vzip1q_u8(a, e),
                vzip2q_u8(a, e),
                vzip1q_u8(b, f),
                vzip2q_u8(b, f),
                vzip1q_u8(c, g),
                vzip2q_u8(c, g),
                vzip1q_u8(d, h),
                vzip2q_u8(d, h),
            ];
        }
        rows
    }

    /// The half-precision number at `at` of each row.
    #[target_feature(enable = "neon")]
    #[inline]
    pub fn halves(self, at: usize) -> [float32x4_t; 2] {
        let bits = self.0.map(|block| u16::from_le_bytes([block[at], block[at + 1]]));
        widened(&bits)
    }

    /// The 32-bit word at `at` of each row.
    #[inline]
    pub fn words(self, at: usize) -> [u32; TILE] {
        self.0.map(|block| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]))
    }
}

/// Half-precision numbers, given by their bits, as floats.
#[target_feature(enable = "neon")]
#[inline]
pub fn widened(bits: &[u16; 8]) -> [float32x4_t; 2] {
    // SAFETY: eight words.
    let halves = vreinterpretq_f16_u16(unsafe { vld1q_u16(bits.as_ptr()) });
    [vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)]
}

/// Four floats.
#[target_feature(enable = "neon")]
#[inline]
pub fn four(floats: &[f32; 4]) -> float32x4_t {
    // SAFETY: four floats.
    unsafe { vld1q_f32(floats.as_ptr()) }
}

/// `sums += weights * values`, for the eight rows of the tile.
#[target_feature(enable = "neon")]
#[inline]
pub fn multiply_add(sums: &mut [f32; TILE], weights: [float32x4_t; 2], values: [float32x4_t; 2]) {
    let (halves, _) = sums.as_chunks_mut::<4>();
    for ((sums, weights), values) in halves.iter_mut().zip(weights).zip(values) {
        let total = vfmaq_f32(four(sums), weights, values);
        // SAFETY: four floats.
        unsafe { vst1q_f32(sums.as_mut_ptr(), total) };
    }
}

/// `bytes & mask`
#[target_feature(enable = "neon")]
#[inline]
pub fn low_bits(bytes: uint8x16_t, mask: u8) -> uint8x16_t {
    vandq_u8(bytes, vdupq_n_u8(mask))
}

/// `(bytes >> SHIFT) & mask`
#[target_feature(enable = "neon")]
#[inline]
pub fn bits<const SHIFT: i32>(bytes: uint8x16_t, mask: u8) -> uint8x16_t {
    vandq_u8(vshrq_n_u8::<SHIFT>(bytes), vdupq_n_u8(mask))
}

/// `(bytes << SHIFT) & mask`
#[target_feature(enable = "neon")]
#[inline]
pub fn raised<const SHIFT: i32>(bytes: uint8x16_t, mask: u8) -> uint8x16_t {
    vandq_u8(vshlq_n_u8::<SHIFT>(bytes), vdupq_n_u8(mask))
}
