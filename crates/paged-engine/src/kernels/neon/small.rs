//! The types with blocks of 32 on NEON, eight matrix rows in the lanes.
//!
//! Codes are signed, so only Q4_1 and Q5_1, whose blocks say their own offset, need more than the
//! products.

use std::arch::aarch64::*;

use gguf::TensorType;

use super::columns::{Blocks, Codes, Lanes, Rows, SPAN, TILE, low_bits, multiply_add};
use super::dots::Dots;
use crate::quant::{NON_LINEAR, PANEL, Panel32, Panels};

/// A block of each row of the tile: weights are `d * code + m`.
struct Unpacked {
    codes: [Codes; 2],
    d: [float32x4_t; 2],
    m: [float32x4_t; 2],
}

/// A tile of matrix rows times every batch row: see [`crate::kernels::Kernels::tile32`].
///
/// # Safety
/// The extension that `D` needs.
#[target_feature(enable = "neon")]
pub unsafe fn tile<D: Dots>(weights: TensorType, rows: &[u8], values: &Panels<Panel32>, out: &mut [f32]) {
    use TensorType as T;
    match weights {
        T::Q4_0 => blocks::<D, 18, false>(rows, values, out, |blocks| without_offset(q4::<D, _>(blocks, 2, 8), blocks)),
        T::Q5_0 => {
            blocks::<D, 22, false>(rows, values, out, |blocks| without_offset(q5::<D, _>(blocks, 2, 16), blocks))
        }
        T::Q4_1 => blocks::<D, 20, true>(rows, values, out, |blocks| with_offset(q4::<D, _>(blocks, 4, 0), blocks)),
        T::Q5_1 => blocks::<D, 24, true>(rows, values, out, |blocks| with_offset(q5::<D, _>(blocks, 4, 0), blocks)),
        T::IQ4_NL => blocks::<D, 18, false>(rows, values, out, |blocks| without_offset(iq4_nl::<D>(blocks), blocks)),
        _ => blocks::<D, 34, false>(rows, values, out, |blocks| {
            without_offset([2, 2 + SPAN].map(|at| span::<D, _>(blocks, at)), blocks)
        }),
    }
}

/// `BYTES` of a block, and whether `m` is anything but zero.
#[target_feature(enable = "neon")]
#[inline]
fn blocks<D: Dots, const BYTES: usize, const OFFSET: bool>(
    rows: &[u8],
    values: &Panels<Panel32>,
    out: &mut [f32],
    unpack: impl Fn(Blocks<'_, BYTES>) -> Unpacked,
) {
    out.fill(0.0);
    let (out, _) = out.as_chunks_mut::<TILE>();
    for (at, blocks) in Rows::new(rows).blocks().enumerate() {
        let unpacked = unpack(blocks);
        for (panel, out) in values.of_block(at).iter().zip(out.chunks_mut(PANEL)) {
            match out {
                [a, b, c, d] => add::<D, OFFSET, 4>(&unpacked, panel, [a, b, c, d]),
                [a, b, c] => add::<D, OFFSET, 3>(&unpacked, panel, [a, b, c]),
                [a, b] => add::<D, OFFSET, 2>(&unpacked, panel, [a, b]),
                [a] => add::<D, OFFSET, 1>(&unpacked, panel, [a]),
                _ => {}
            }
        }
    }
}

/// Adds an unpacked block times the first `ROWS` rows of a panel.
#[target_feature(enable = "neon")]
#[inline]
fn add<D: Dots, const OFFSET: bool, const ROWS: usize>(
    block: &Unpacked,
    values: &Panel32,
    out: [&mut [f32; TILE]; ROWS],
) {
    let finish = |dots: [Lanes; ROWS]| {
        for (row, out) in out.into_iter().enumerate() {
            let scales = block.d.map(|d| vmulq_n_f32(d, values.scales[row]));
            multiply_add(out, scales, dots[row].map(|dots| vcvtq_f32_s32(dots)));
            if OFFSET {
                multiply_add(out, block.m, [vdupq_n_f32(values.sums[row]); 2]);
            }
        }
    };
    // SAFETY: `tile`, the only way in, asks for the extension.
    unsafe { D::plain::<ROWS>(&block.codes, &values.codes, finish) };
}

/// With the block's scale, and no offset but the one taken off the codes.
#[target_feature(enable = "neon")]
#[inline]
fn without_offset<const BYTES: usize>(codes: [Codes; 2], blocks: Blocks<'_, BYTES>) -> Unpacked {
    Unpacked { codes, d: blocks.halves(0), m: [vdupq_n_f32(0.0); 2] }
}

/// With the block's scale, and its offset behind it.
#[target_feature(enable = "neon")]
#[inline]
fn with_offset<const BYTES: usize>(codes: [Codes; 2], blocks: Blocks<'_, BYTES>) -> Unpacked {
    Unpacked { codes, d: blocks.halves(0), m: blocks.halves(2) }
}

/// Sixteen bytes of each row from `at`, in the order of the set.
#[target_feature(enable = "neon")]
#[inline]
fn span<D: Dots, const BYTES: usize>(blocks: Blocks<'_, BYTES>, at: usize) -> Codes {
    // SAFETY: `tile`, the only way in, asks for the extension.
    unsafe { D::arrange(blocks.rows(at)) }
}

/// Low halves of sixteen bytes first, then the high halves.
#[target_feature(enable = "neon")]
#[inline]
fn nibbles<D: Dots, const BYTES: usize>(blocks: Blocks<'_, BYTES>, at: usize) -> [Codes; 2] {
    let codes = span::<D, _>(blocks, at);
    [codes.map(|code| low_bits(code, 15)), codes.map(|code| vshrq_n_u8::<4>(code))]
}

/// Nibbles that are `offset` too large.
#[target_feature(enable = "neon")]
#[inline]
fn q4<D: Dots, const BYTES: usize>(blocks: Blocks<'_, BYTES>, at: usize, offset: u8) -> [Codes; 2] {
    nibbles::<D, _>(blocks, at).map(|codes| codes.map(|code| vsubq_u8(code, vdupq_n_u8(offset))))
}

/// Nibbles behind a 32-bit word with a fifth bit for each, `offset` too large.
#[target_feature(enable = "neon")]
#[inline]
fn q5<D: Dots, const BYTES: usize>(blocks: Blocks<'_, BYTES>, at: usize, offset: u8) -> [Codes; 2] {
    let words = blocks.words(at).map(|word| vreinterpretq_u8_u32(vdupq_n_u32(word)));
    let nibbles = nibbles::<D, _>(blocks, at + 4);
    std::array::from_fn(|half| {
        let first = 2 * half as u8;
        let byte = vcombine_u8(vdup_n_u8(first), vdup_n_u8(first + 1));
        let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
        // SAFETY: `tile`, the only way in, asks for the extension.
        let fifths = unsafe { D::arrange(words.map(|word| vtstq_u8(vqtbl1q_u8(word, byte), bit))) };
        std::array::from_fn(|at| {
            let code = vorrq_u8(nibbles[half][at], low_bits(fifths[at], 16));
            vsubq_u8(code, vdupq_n_u8(offset))
        })
    })
}

#[target_feature(enable = "neon")]
#[inline]
fn iq4_nl<D: Dots>(blocks: Blocks<'_, 18>) -> [Codes; 2] {
    // SAFETY: sixteen bytes.
    let table = unsafe { vld1q_u8(NON_LINEAR.as_ptr().cast()) };
    nibbles::<D, _>(blocks, 2).map(|codes| codes.map(|code| vqtbl1q_u8(table, code)))
}
