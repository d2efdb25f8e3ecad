//! K-quants on AVX-512: a block of 32 matrix rows is unpacked into the L1 cache, a row in each
//! lane, and then meets every row of the batch.
//!
//! `vpdpbusd` multiplies four unsigned codes by four signed activations in each lane and adds all
//! to a sum. Where code times scale fits a byte (Q2_K, Q3_K) the scale is multiplied in while
//! unpacking, and a block is one sum of integers. The others are summed group by group.

use std::arch::x86_64::*;
use std::cell::RefCell;

use gguf::TensorType;

use super::columns::{Ahead, Blocks, LANES, TILE, broadcast, broadcast_pair, update};
use super::unpack::{q2, q3, q4, q5, q6};
use crate::quant::{K, PANEL, Panel256, Panels};

/// Quads of codes in a block.
pub const QUADS: usize = K / 4;

/// A block of each row of the tile, unpacked; rows 0 to 15 and 16 to 31 side by side.
#[repr(C, align(64))]
pub struct Unpacked {
    /// Unsigned; times their scales where that fits.
    pub codes: [[__m512i; 2]; QUADS],
    /// d times scale, one for each group of codes that shares one.
    pub scales: [[__m512; 2]; 16],
    /// Each lane the mins of two neighbouring groups.
    pub mins: [[__m512i; 2]; 8],
    pub d: [__m512; 2],
    pub dmin: [__m512; 2],
}

thread_local! {
    /// The block that this thread works on. It is kept because zeros for every tile would cost as
    /// much as a good part of the product with a single batch row.
    static BLOCK: RefCell<Unpacked> = const {
        // SAFETY: zeros are numbers.
        RefCell::new(unsafe { std::mem::zeroed() })
    };
}

/// What the loops must know of a type.
trait Format {
    const BYTES: usize;
    /// Whether codes come multiplied by their scales.
    const FOLDED: bool;
    /// What is too much in each code: 124 after folding, 32 before, or nothing.
    const OFFSET: i32;
    /// Quads that share a scale.
    const SHARED: usize;
    /// Whether mins are to be subtracted.
    const MINS: bool;
}

macro_rules! format {
    ($name:ident: bytes $bytes:literal, folded $folded:literal, offset $offset:literal, shared $shared:literal, mins $mins:literal) => {
        struct $name;
        impl Format for $name {
            const BYTES: usize = $bytes;
            const FOLDED: bool = $folded;
            const OFFSET: i32 = $offset;
            const SHARED: usize = $shared;
            const MINS: bool = $mins;
        }
    };
}
format!(Q2: bytes 84, folded true, offset 0, shared 4, mins true);
format!(Q3: bytes 110, folded true, offset 124, shared 4, mins false);
format!(Q4: bytes 144, folded false, offset 0, shared 8, mins true);
format!(Q5: bytes 176, folded false, offset 0, shared 8, mins true);
format!(Q6: bytes 210, folded false, offset 32, shared 4, mins false);

/// A tile of matrix rows times every batch row: see [`crate::kernels::Kernels::tile256`].
///
/// # Safety
/// The features of the set; `rows` are 32 whole rows of whole blocks.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
pub unsafe fn tile(weights: TensorType, rows: &[u8], values: &Panels<Panel256>, out: &mut [f32]) {
    BLOCK.with_borrow_mut(|to| match weights {
        TensorType::Q2_K => blocks::<Q2>(rows, values, out, to, |blocks, to, half| q2(blocks, to, half)),
        TensorType::Q3_K => blocks::<Q3>(rows, values, out, to, |blocks, to, half| q3(blocks, to, half)),
        TensorType::Q4_K => blocks::<Q4>(rows, values, out, to, |blocks, to, half| q4(blocks, to, half)),
        TensorType::Q5_K => blocks::<Q5>(rows, values, out, to, |blocks, to, half| q5(blocks, to, half)),
        _ => blocks::<Q6>(rows, values, out, to, |blocks, to, half| q6(blocks, to, half)),
    });
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn blocks<F: Format>(
    rows: &[u8],
    values: &Panels<Panel256>,
    out: &mut [f32],
    unpacked: &mut Unpacked,
    unpack: impl Fn(Blocks, &mut Unpacked, usize) -> Ahead,
) {
    let stride = rows.len() / TILE;
    out.fill(0.0);
    let (out, _) = out.as_chunks_mut::<TILE>();
    let products = out.len().div_ceil(PANEL * panels_at_once::<F>());
    let step = Ahead::step(F::BYTES, products * QUADS / 2);
    for block in 0..stride / F::BYTES {
        let next = rows.as_ptr_range().end.wrapping_add(block * TILE * F::BYTES);
        let mut ahead = Ahead::new(next, step);
        for half in 0..2 {
            // SAFETY: 32 rows of `stride` bytes each, and the block lies inside the first.
            let first = unsafe { rows.as_ptr().add(half * LANES * stride + block * F::BYTES) };
            // SAFETY: as above: sixteen rows follow.
            ahead = unpack(unsafe { Blocks::new(first, stride, F::BYTES, ahead) }, unpacked, half);
        }
        multiply::<F>(unpacked, values.of_block(block), out, &mut ahead);
    }
}

/// Panels that meet the block together: as many as there are registers for their sums.
const fn panels_at_once<F: Format>() -> usize {
    if F::FOLDED { 2 } else { 1 }
}

/// Adds an unpacked block times every batch row.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn multiply<F: Format>(block: &Unpacked, panels: &[Panel256], out: &mut [[f32; TILE]], ahead: &mut Ahead) {
    let at_once = panels_at_once::<F>();
    for (panels, out) in panels.chunks(at_once).zip(out.chunks_mut(at_once * PANEL)) {
        let panels = match panels {
            [first, second] => [first, second],
            [only] => [only, only],
            _ => return,
        };
        match (F::FOLDED, out.len()) {
            (true, 1) => folded::<F, 1>(block, panels, out, ahead),
            (true, 2) => folded::<F, 2>(block, panels, out, ahead),
            (true, 3) => folded::<F, 3>(block, panels, out, ahead),
            (true, 4) => folded::<F, 4>(block, panels, out, ahead),
            (true, 5) => folded::<F, 5>(block, panels, out, ahead),
            (true, 6) => folded::<F, 6>(block, panels, out, ahead),
            (true, 7) => folded::<F, 7>(block, panels, out, ahead),
            (true, _) => folded::<F, 8>(block, panels, out, ahead),
            (false, 1) => grouped::<F, 1>(block, panels, out, ahead),
            (false, 2) => grouped::<F, 2>(block, panels, out, ahead),
            (false, 3) => grouped::<F, 3>(block, panels, out, ahead),
            (false, _) => grouped::<F, 4>(block, panels, out, ahead),
        }
    }
}

/// Sums of few rows are kept in several parts, so that one addition need not wait for another.
const fn chains(rows: usize) -> usize {
    match rows {
        1 => 4,
        2 | 3 => 2,
        _ => 1,
    }
}

/// Adds the block times the first `ROWS` rows of the panels, scales folded in.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline(never)]
fn folded<F: Format, const ROWS: usize>(
    block: &Unpacked,
    panels: [&Panel256; 2],
    out: &mut [[f32; TILE]],
    ahead: &mut Ahead,
) {
    let Some(out) = out.first_chunk_mut::<ROWS>() else { return };
    if F::MINS {
        subtract_mins::<F, ROWS>(block, panels, out);
    }
    let mut sums = [[[_mm512_setzero_si512(); 2]; ROWS]; 4];
    for (row, sum) in sums[0].iter_mut().enumerate() {
        *sum = [_mm512_set1_epi32(-F::OFFSET * panels[row / PANEL].totals[row % PANEL]); 2];
    }
    let mut fetched = *ahead;
    for step in 0..QUADS / 4 {
        for at in 0..4 {
            if at % 2 == 0 {
                fetched.fetch();
            }
            add_quad(block, panels, 4 * step + at, &mut sums[at % chains(ROWS)]);
        }
    }
    *ahead = fetched;
    for (row, out) in out.iter_mut().enumerate() {
        let scale = _mm512_set1_ps(panels[row / PANEL].scales[row % PANEL]);
        update(out, |half, total| {
            let low = _mm512_add_epi32(sums[0][row][half], sums[1][row][half]);
            let high = _mm512_add_epi32(sums[2][row][half], sums[3][row][half]);
            let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(low, high));
            _mm512_fmadd_ps(sum, _mm512_mul_ps(block.d[half], scale), total)
        });
    }
}

/// Adds the block times the first `ROWS` rows of the first panel, group by group.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline(never)]
fn grouped<F: Format, const ROWS: usize>(
    block: &Unpacked,
    panels: [&Panel256; 2],
    out: &mut [[f32; TILE]],
    ahead: &mut Ahead,
) {
    let Some(out) = out.first_chunk_mut::<ROWS>() else { return };
    if F::MINS {
        subtract_mins::<F, ROWS>(block, panels, out);
    }
    let mut totals = [[_mm512_setzero_ps(); 2]; ROWS];
    let mut fetched = *ahead;
    for group in 0..QUADS / F::SHARED {
        let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
        if F::OFFSET == 32 {
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = [_mm512_set1_epi32(panels[0].offsets[group][row]); 2];
            }
        }
        for at in 0..F::SHARED {
            if at % 2 == 0 {
                fetched.fetch();
            }
            add_quad(block, panels, F::SHARED * group + at, &mut sums);
        }
        for (total, sum) in totals.iter_mut().zip(&sums) {
            for half in 0..2 {
                total[half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[half]), block.scales[group][half], total[half]);
            }
        }
    }
    *ahead = fetched;
    for (row, out) in out.iter_mut().enumerate() {
        let scale = _mm512_set1_ps(panels[0].scales[row]);
        update(out, |half, total| _mm512_fmadd_ps(totals[row][half], scale, total));
    }
}

/// Adds four codes times four activations of each row.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline]
fn add_quad<const ROWS: usize>(block: &Unpacked, panels: [&Panel256; 2], quad: usize, sums: &mut [[__m512i; 2]; ROWS]) {
    let [low, high] = block.codes[quad];
    for (row, sum) in sums.iter_mut().enumerate() {
        let values = broadcast(panels[row / PANEL].codes[quad][row % PANEL]);
        *sum = [_mm512_dpbusd_epi32(sum[0], low, values), _mm512_dpbusd_epi32(sum[1], high, values)];
    }
}

/// Subtracts the mins times the sums of the activations they hold for. Part of the loops above, it
/// would take registers from them.
#[target_feature(enable = "avx512bw,avx512vl,avx512vnni,gfni")]
#[inline(never)]
fn subtract_mins<F: Format, const ROWS: usize>(
    block: &Unpacked,
    panels: [&Panel256; 2],
    out: &mut [[f32; TILE]; ROWS],
) {
    let mut mins = [[_mm512_setzero_si512(); 2]; ROWS];
    for pair in 0..QUADS / F::SHARED / 2 {
        let [low, high] = block.mins[pair];
        for (row, mins) in mins.iter_mut().enumerate() {
            let panel = panels[row / PANEL];
            let pairs = if F::SHARED == 4 { &panel.sums16[pair] } else { &panel.sums32[pair] };
            let sums = broadcast_pair(pairs[row % PANEL]);
            *mins = [_mm512_dpwssd_epi32(mins[0], low, sums), _mm512_dpwssd_epi32(mins[1], high, sums)];
        }
    }
    for (row, out) in out.iter_mut().enumerate() {
        let scale = _mm512_set1_ps(panels[row / PANEL].scales[row % PANEL]);
        update(out, |half, total| {
            let mins = _mm512_cvtepi32_ps(mins[row][half]);
            _mm512_fnmadd_ps(mins, _mm512_mul_ps(block.dmin[half], scale), total)
        });
    }
}
