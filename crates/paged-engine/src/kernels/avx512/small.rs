//! The types with blocks of 32 on AVX-512, 32 matrix rows in the lanes of two registers.
//!
//! Several blocks in a row are unpacked at once, so that a batch row's sums stay in registers for
//! all of them. Signed codes (Q8_0, IQ4_NL) are stored 128 too large.

use std::arch::x86_64::*;
use std::cell::RefCell;

use gguf::TensorType;

use super::columns::{Ahead, Blocks, LANES, TILE, bits, broadcast, place, update};
use crate::quant::{NON_LINEAR, PANEL, Panel32, Panels, SMALL};

const QUADS: usize = SMALL / 4;
/// Blocks unpacked at once.
const RUN: usize = 8;

/// A block of each row of the tile, rows 0 to 15 and 16 to 31 side by side: weights are
/// `d * (code - offset) + m`.
#[repr(C, align(64))]
struct Unpacked {
    codes: [[__m512i; 2]; QUADS],
    d: [__m512; 2],
    m: [__m512; 2],
}

/// The same of sixteen rows.
struct Half {
    codes: [__m512i; QUADS],
    d: __m512,
    /// `None` if the codes have an offset in its place.
    m: Option<__m512>,
}

thread_local! {
    /// The blocks that this thread works on, kept as those of k-quants are.
    static BLOCKS: RefCell<[Unpacked; RUN]> = const {
        // SAFETY: zeros are numbers.
        RefCell::new(unsafe { std::mem::zeroed() })
    };
}

/// A tile of matrix rows times every batch row: see [`crate::kernels::Kernels::tile32`].
///
/// # Safety
/// The features of the set; `rows` are 32 whole rows of whole blocks.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
pub unsafe fn tile(weights: TensorType, rows: &[u8], values: &Panels<Panel32>, out: &mut [f32]) {
    use TensorType as T;
    BLOCKS.with_borrow_mut(|to| match weights {
        T::Q4_0 => blocks::<18, 8>(rows, values, out, to, |blocks| q4_0(blocks)),
        T::Q4_1 => blocks::<20, 0>(rows, values, out, to, |blocks| q4_1(blocks)),
        T::Q5_0 => blocks::<22, 16>(rows, values, out, to, |blocks| q5_0(blocks)),
        T::Q5_1 => blocks::<24, 0>(rows, values, out, to, |blocks| q5_1(blocks)),
        T::IQ4_NL => blocks::<18, 128>(rows, values, out, to, |blocks| iq4_nl(blocks)),
        _ => blocks::<34, 128>(rows, values, out, to, |blocks| q8_0(blocks)),
    });
}

/// `OFFSET`: how much too large codes are, 0 if they have an `m` instead.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn blocks<const BYTES: usize, const OFFSET: u32>(
    rows: &[u8],
    values: &Panels<Panel32>,
    out: &mut [f32],
    run: &mut [Unpacked; RUN],
    unpack: impl Fn(&mut Blocks) -> Half,
) {
    let stride = rows.len() / TILE;
    out.fill(0.0);
    let (out, _) = out.as_chunks_mut::<TILE>();
    let step = Ahead::step(BYTES, out.len().div_ceil(PANEL) * QUADS / 2);
    let mut ahead = Ahead::new(rows.as_ptr_range().end, step);
    for first in (0..stride / BYTES).step_by(RUN) {
        let count = RUN.min(stride / BYTES - first);
        for (at, to) in run.iter_mut().enumerate().take(count) {
            for half in 0..2 {
                // SAFETY: 32 rows of `stride` bytes each, and the block lies inside the first.
                let block = unsafe { rows.as_ptr().add(half * LANES * stride + (first + at) * BYTES) };
                // SAFETY: as above: sixteen rows follow.
                let mut blocks = unsafe { Blocks::new(block, stride, BYTES, ahead) };
                put(unpack(&mut blocks), to, half);
                ahead = blocks.ahead;
            }
        }
        for (panel, out) in out.chunks_mut(PANEL).enumerate() {
            multiply::<OFFSET>(&run[..count], values, (first, panel), out, &mut ahead);
        }
    }
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn put(from: Half, to: &mut Unpacked, half: usize) {
    for (to, codes) in to.codes.iter_mut().zip(from.codes) {
        to[half] = codes;
    }
    to.d[half] = from.d;
    if let Some(m) = from.m {
        to.m[half] = m;
    }
}

/// Adds the blocks, of which the first is number `at.0`, times the rows of panel `at.1`.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn multiply<const OFFSET: u32>(
    run: &[Unpacked],
    values: &Panels<Panel32>,
    at: (usize, usize),
    out: &mut [[f32; TILE]],
    ahead: &mut Ahead,
) {
    match out.len() {
        1 => add::<OFFSET, 1>(run, values, at, out, ahead),
        2 => add::<OFFSET, 2>(run, values, at, out, ahead),
        3 => add::<OFFSET, 3>(run, values, at, out, ahead),
        _ => add::<OFFSET, 4>(run, values, at, out, ahead),
    }
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline(never)]
fn add<const OFFSET: u32, const ROWS: usize>(
    run: &[Unpacked],
    values: &Panels<Panel32>,
    (first, panel): (usize, usize),
    out: &mut [[f32; TILE]],
    ahead: &mut Ahead,
) {
    let Some(out) = out.first_chunk_mut::<ROWS>() else { return };
    let mut totals = [[_mm512_setzero_ps(); 2]; ROWS];
    let mut fetched = *ahead;
    for (at, block) in run.iter().enumerate() {
        let panel = &values.of_block(first + at)[panel];
        let sums = dots::<OFFSET, ROWS>(block, panel, &mut fetched);
        for (row, (total, sum)) in totals.iter_mut().zip(&sums).enumerate() {
            for half in 0..2 {
                let scale = _mm512_mul_ps(block.d[half], _mm512_set1_ps(panel.scales[row]));
                total[half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[half]), scale, total[half]);
                if OFFSET == 0 {
                    total[half] = _mm512_fmadd_ps(block.m[half], _mm512_set1_ps(panel.sums[row]), total[half]);
                }
            }
        }
    }
    *ahead = fetched;
    for (out, totals) in out.iter_mut().zip(&totals) {
        update(out, |half, before| _mm512_add_ps(before, totals[half]));
    }
}

/// A block times rows of a panel, without scales.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn dots<const OFFSET: u32, const ROWS: usize>(
    block: &Unpacked,
    panel: &Panel32,
    ahead: &mut Ahead,
) -> [[__m512i; 2]; ROWS] {
    let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
    // What the panel has is for 128; offsets are powers of two.
    if let Some(parts) = 128u32.checked_div(OFFSET) {
        let shift = _mm512_set1_epi32(parts.trailing_zeros().cast_signed());
        for (sum, offset) in sums.iter_mut().zip(panel.offsets) {
            *sum = [_mm512_srav_epi32(_mm512_set1_epi32(offset), shift); 2];
        }
    }
    for (quad, [low, high]) in block.codes.iter().enumerate() {
        if quad % 2 == 0 {
            ahead.fetch();
        }
        for (sum, codes) in sums.iter_mut().zip(panel.codes[quad]) {
            let values = broadcast(codes);
            *sum = [_mm512_dpbusd_epi32(sum[0], *low, values), _mm512_dpbusd_epi32(sum[1], *high, values)];
        }
    }
    sums
}

/// Low halves of sixteen bytes first, then the high halves.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn nibbles(blocks: &mut Blocks, at: usize) -> [__m512i; QUADS] {
    let [a, b, c, d] = blocks.columns(at);
    let (low, high) = (|column| bits(column, 0, 4, 0), |column| bits(column, 4, 4, 0));
    [low(a), low(b), low(c), low(d), high(a), high(b), high(c), high(d)]
}

/// Nibbles behind a 32-bit word with a fifth bit for each.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn fives(blocks: &mut Blocks, at: usize) -> [__m512i; QUADS] {
    let top = blocks.words(at);
    let mut codes = nibbles(blocks, at + 4);
    for (quad, codes) in codes.iter_mut().enumerate() {
        // The byte with the quad's four bits beside each of its codes, and of it one bit each.
        let byte = place(top, [(quad / 2) as i8; 4]);
        let bit = _mm512_set1_epi32(if quad % 2 == 0 { 0x0804_0201 } else { 0x8040_2010u32.cast_signed() });
        *codes = _mm512_mask_add_epi8(*codes, _mm512_test_epi8_mask(byte, bit), *codes, _mm512_set1_epi8(16));
    }
    codes
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn q4_0(blocks: &mut Blocks) -> Half {
    Half { codes: nibbles(blocks, 2), d: blocks.halves(0), m: None }
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn q4_1(blocks: &mut Blocks) -> Half {
    Half { codes: nibbles(blocks, 4), d: blocks.halves(0), m: Some(blocks.halves(2)) }
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn q5_0(blocks: &mut Blocks) -> Half {
    Half { codes: fives(blocks, 2), d: blocks.halves(0), m: None }
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn q5_1(blocks: &mut Blocks) -> Half {
    Half { codes: fives(blocks, 4), d: blocks.halves(0), m: Some(blocks.halves(2)) }
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn iq4_nl(blocks: &mut Blocks) -> Half {
    // SAFETY: sixteen bytes.
    let table = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(NON_LINEAR.as_ptr().cast()) });
    let table = _mm512_xor_si512(table, broadcast([i8::MIN; 4]));
    let mut codes = nibbles(blocks, 2);
    for codes in &mut codes {
        *codes = _mm512_shuffle_epi8(table, *codes);
    }
    Half { codes, d: blocks.halves(0), m: None }
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn q8_0(blocks: &mut Blocks) -> Half {
    let mut codes = blocks.wide_columns(2);
    for codes in &mut codes {
        // 128 more, as an unsigned number.
        *codes = _mm512_xor_si512(*codes, broadcast([i8::MIN; 4]));
    }
    Half { codes, d: blocks.halves(0), m: None }
}
