//! The numbers of the blocks, in the machine's memory, and how a step writes and reads them.
//!
//! A block is a mapping of its own: its memory comes when its first token is computed, and the
//! system has it back as soon as the books give it up, however the blocks around it are used.

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::MmapMut;

use super::layout::{KvType, LANES, Layout, SCALED};
use super::{BLOCK, BlockId};
use crate::Error;

/// The largest number of half precision: what is larger is kept as this, so that no number of a
/// block is ever infinite.
const LARGEST: f32 = 65504.0;

/// Rows of halves, then rows of codes.
#[derive(Debug)]
struct Block {
    map: MmapMut,
    /// Rows of halves: keys and values in F16, their scales in Q8_0.
    halves: usize,
}

/// The numbers of all blocks, found by id.
#[derive(Debug, Default)]
pub struct Store {
    blocks: Vec<Option<Block>>,
}

/// Keys or values of one head in one block.
#[derive(Clone, Copy, Debug)]
pub enum Plane<'a> {
    F16(&'a [[f16; LANES]]),
    Q8_0 {
        codes: &'a [[i8; LANES]],
        /// Of the 16 tokens, a row for every 32 numbers of the head.
        scales: &'a [[f16; LANES]],
    },
}

/// What one step of one model works on: the blocks of its sequences.
#[derive(Debug)]
pub struct Step<'a> {
    store: &'a mut Store,
    pub layout: Layout,
    tables: Vec<&'a [BlockId]>,
}

impl Store {
    /// Sees that these blocks have memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system gives none.
    pub fn provide(&mut self, layout: &Layout, blocks: &[BlockId]) -> Result<(), Error> {
        for id in blocks {
            if self.blocks.len() <= id.index() {
                self.blocks.resize_with(id.index() + 1, || None);
            }
            if self.blocks[id.index()].is_none() {
                self.blocks[id.index()] = Some(Block::new(layout)?);
            }
        }
        Ok(())
    }

    /// Copies all numbers of a block to another.
    ///
    /// # Errors
    /// As [`Store::provide`].
    pub fn copy(&mut self, layout: &Layout, from: BlockId, to: BlockId) -> Result<(), Error> {
        self.provide(layout, &[to])?;
        if let Ok([Some(from), Some(to)]) = self.blocks.get_disjoint_mut([from.index(), to.index()]) {
            to.map.copy_from_slice(&from.map);
        }
        Ok(())
    }

    /// Returns the memory of these blocks.
    pub fn drop_blocks(&mut self, blocks: &[BlockId]) {
        for id in blocks {
            if let Some(block) = self.blocks.get_mut(id.index()) {
                *block = None;
            }
        }
    }

    /// Blocks that have memory.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.blocks.iter().flatten().count()
    }

    /// The block of a table whose room was provided for.
    fn block(&self, id: BlockId) -> &Block {
        self.blocks[id.index()].as_ref().unwrap_or_else(|| unreachable!("a step provides for its blocks"))
    }
}

impl<'a> Step<'a> {
    /// `tables` hold the room for all that the step writes, and the store provides for it.
    pub fn new(store: &'a mut Store, layout: Layout, tables: Vec<&'a [BlockId]>) -> Self {
        Self { store, layout, tables }
    }

    /// Writes keys and values of one token, `[kv head][head width]` each.
    pub fn write(&mut self, table: usize, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let (layout, token) = (self.layout, position % BLOCK);
        let id = self.tables[table][position / BLOCK];
        let Some(Some(block)) = self.store.blocks.get_mut(id.index()) else { return };
        let heads = keys.chunks_exact(layout.head).zip(values.chunks_exact(layout.head));
        for (kv_head, (keys, values)) in heads.enumerate() {
            let at = layout.head_at(layer, kv_head);
            match layout.kind {
                KvType::F16 => block.write_halves(&layout, at, token, keys, values),
                KvType::Q8_0 => block.write_codes(&layout, at, token, keys, values),
            }
        }
    }

    /// Keys and values of one head in a table's block.
    pub fn planes(&self, table: usize, block: usize, layer: usize, kv_head: usize) -> (Plane<'_>, Plane<'_>) {
        let layout = &self.layout;
        let block = self.store.block(self.tables[table][block]);
        let at = layout.head_at(layer, kv_head);
        match layout.kind {
            KvType::F16 => {
                let rows = &block.halves()[at * layout.head_rows()..][..layout.head_rows()];
                let (keys, values) = rows.split_at(layout.head);
                (Plane::F16(keys), Plane::F16(values))
            }
            KvType::Q8_0 => {
                let codes = &block.codes()[at * layout.head_rows()..][..layout.head_rows()];
                let scales = &block.halves()[at * 2 * layout.scale_rows()..][..2 * layout.scale_rows()];
                let ((keys, values), (key_scales, value_scales)) =
                    (codes.split_at(layout.head), scales.split_at(layout.scale_rows()));
                (Plane::Q8_0 { codes: keys, scales: key_scales }, Plane::Q8_0 { codes: values, scales: value_scales })
            }
        }
    }
}

impl Block {
    fn new(layout: &Layout) -> Result<Self, Error> {
        let bytes = layout.block_bytes() as usize;
        let refused = |error| Error::OutOfMemory(format!("{bytes} bytes for keys and values: {error}"));
        let (halves, _) = layout.rows();
        MmapMut::map_anon(bytes).map(|map| Self { map, halves }).map_err(refused)
    }

    fn halves(&self) -> &[[f16; LANES]] {
        rows_of(&self.map[..self.halves * size_of::<[f16; LANES]>()])
    }

    fn codes(&self) -> &[[i8; LANES]] {
        rows_of(&self.map[self.halves * size_of::<[f16; LANES]>()..])
    }

    /// The halves and the codes.
    fn parts(&mut self) -> (&mut [[f16; LANES]], &mut [[i8; LANES]]) {
        let (halves, codes) = self.map.split_at_mut(self.halves * size_of::<[f16; LANES]>());
        (rows_of_mut(halves), rows_of_mut(codes))
    }

    fn write_halves(&mut self, layout: &Layout, at: usize, token: usize, keys: &[f32], values: &[f32]) {
        let rows = &mut self.parts().0[at * layout.head_rows()..][..layout.head_rows()];
        let (key_rows, value_rows) = rows.split_at_mut(layout.head);
        for (rows, keys) in key_rows.chunks_mut(LANES).zip(keys.chunks(LANES)) {
            for (row, key) in rows.iter_mut().zip(half_precision(keys)) {
                row[token] = key;
            }
        }
        for (rows, values) in value_rows.chunks_exact_mut(BLOCK).zip(values.chunks(LANES)) {
            rows[token][..values.len()].copy_from_slice(&half_precision(values)[..values.len()]);
        }
    }

    fn write_codes(&mut self, layout: &Layout, at: usize, token: usize, keys: &[f32], values: &[f32]) {
        let scale_rows = layout.scale_rows();
        let (rows, scales) = (at * layout.head_rows(), at * 2 * scale_rows);
        let (all_scales, all_codes) = self.parts();
        for (group, (keys, values)) in keys.chunks(SCALED).zip(values.chunks(SCALED)).enumerate() {
            let (scale, codes) = quantized(keys);
            all_scales[scales + group][token] = scale;
            for (row, code) in all_codes[rows + group * SCALED..].iter_mut().zip(&codes[..keys.len()]) {
                row[token] = *code;
            }
            let (scale, codes) = quantized(values);
            all_scales[scales + scale_rows + group][token] = scale;
            let first = rows + layout.head + group * (SCALED / LANES) * BLOCK;
            for (part, codes) in codes[..values.len()].chunks(LANES).enumerate() {
                all_codes[first + part * BLOCK + token][..codes.len()].copy_from_slice(codes);
            }
        }
    }
}

/// Numbers that any bytes make.
trait Number {}
impl Number for f16 {}
impl Number for i8 {}

/// Bytes of a mapping as the rows they hold.
fn rows_of<T: Number>(bytes: &[u8]) -> &[[T; LANES]] {
    #[expect(unsafe_code, reason = "a mapping is bytes")]
    // SAFETY: any bytes are such numbers. Only whole rows come back.
    let (_, rows, _) = unsafe { bytes.align_to() };
    rows
}

/// As [`rows_of`].
fn rows_of_mut<T: Number>(bytes: &mut [u8]) -> &mut [[T; LANES]] {
    #[expect(unsafe_code, reason = "a mapping is bytes")]
    // SAFETY: any bytes are such numbers, and any such numbers are bytes.
    let (_, rows, _) = unsafe { bytes.align_to_mut() };
    rows
}

/// Up to 16 numbers in half precision; zeros behind them.
fn half_precision(numbers: &[f32]) -> [f16; LANES] {
    let (mut within, mut halves) = ([0.0; LANES], [f16::ZERO; LANES]);
    for (within, number) in within.iter_mut().zip(numbers) {
        *within = number.clamp(-LARGEST, LARGEST);
    }
    halves.convert_from_f32_slice(&within);
    halves
}

/// Up to 32 numbers as codes and the scale they share. The scale is rounded first, so that the
/// codes fit the scale that is kept.
fn quantized(numbers: &[f32]) -> (f16, [i8; SCALED]) {
    let largest = numbers.iter().fold(0.0f32, |largest, number| largest.max(number.abs()));
    let scale = f16::from_f32((largest / 127.0).min(LARGEST));
    let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    let mut codes = [0; SCALED];
    for (code, number) in codes.iter_mut().zip(numbers) {
        *code = (number * inverse).round().clamp(-127.0, 127.0) as i8;
    }
    (scale, codes)
}
