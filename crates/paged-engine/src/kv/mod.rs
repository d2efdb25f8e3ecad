//! Keys and values in blocks of 16 tokens, from one pool of bytes that all models share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::f16;

use crate::model::Config;

/// Tokens in a block.
pub const BLOCK: usize = 16;

/// Bytes that keys and values of all models may take together.
#[derive(Debug)]
pub struct Pool {
    budget: u64,
    used: AtomicU64,
}

/// Bytes taken from the pool; dropping them gives them back.
#[derive(Debug)]
struct Taken {
    pool: Arc<Pool>,
    bytes: u64,
}

impl Pool {
    pub fn new(budget: u64) -> Arc<Self> {
        Arc::new(Self { budget, used: AtomicU64::new(0) })
    }

    pub fn budget(&self) -> u64 {
        self.budget
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(self: &Arc<Self>, bytes: u64) -> Option<Taken> {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.budget);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Taken { pool: Arc::clone(self), bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// How a model's blocks are laid out: `[layer][keys, values][kv head][token][head width]`.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    kv_heads: usize,
    head: usize,
    numbers: usize,
}

impl Layout {
    pub fn of(config: &Config) -> Self {
        let numbers = config.layers * 2 * config.kv_heads * BLOCK * config.head;
        Self { kv_heads: config.kv_heads, head: config.head, numbers }
    }

    /// Bytes of one block.
    pub fn block_bytes(&self) -> u64 {
        (self.numbers * size_of::<f16>()) as u64
    }

    /// Where the first token of a head lies, in numbers from the block's start.
    fn start(&self, layer: usize, values: bool, kv_head: usize) -> usize {
        ((layer * 2 + usize::from(values)) * self.kv_heads + kv_head) * BLOCK * self.head
    }
}

#[derive(Debug)]
struct Block {
    numbers: Box<[f16]>,
    _taken: Taken,
}

/// The blocks of one sequence, in the order of its tokens.
#[derive(Debug)]
pub struct Table {
    layout: Layout,
    blocks: Vec<Block>,
}

impl Table {
    pub fn new(layout: Layout) -> Self {
        Self { layout, blocks: Vec::new() }
    }

    /// Makes room for `tokens` in all. `false`, and nothing changed, if the pool is empty.
    #[must_use]
    pub fn reserve(&mut self, tokens: usize, pool: &Arc<Pool>) -> bool {
        let missing = tokens.div_ceil(BLOCK).saturating_sub(self.blocks.len());
        let had = self.blocks.len();
        for _ in 0..missing {
            let Some(taken) = pool.take(self.layout.block_bytes()) else {
                self.blocks.truncate(had);
                return false;
            };
            self.blocks.push(Block { numbers: vec![f16::ZERO; self.layout.numbers].into(), _taken: taken });
        }
        true
    }

    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Gives every block back.
    pub fn clear(&mut self) {
        self.blocks.clear();
    }

    /// Writes keys and values of one token, `[kv head][head width]` each.
    pub fn write(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let (layout, head) = (self.layout, self.layout.head);
        let block = &mut self.blocks[position / BLOCK].numbers;
        for (numbers, is_values) in [(keys, false), (values, true)] {
            for (kv_head, numbers) in numbers.chunks_exact(head).enumerate() {
                let start = layout.start(layer, is_values, kv_head) + position % BLOCK * head;
                for (slot, number) in block[start..start + head].iter_mut().zip(numbers) {
                    *slot = f16::from_f32(*number);
                }
            }
        }
    }

    /// Keys (or values) of one head, block by block: `[up to 16 tokens][head width]`.
    pub fn head(&self, layer: usize, values: bool, kv_head: usize) -> impl Iterator<Item = &[f16]> {
        let start = self.layout.start(layer, values, kv_head);
        self.blocks.iter().map(move |block| &block.numbers[start..start + BLOCK * self.layout.head])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { kv_heads: 2, head: 4, numbers: 3 * 2 * 2 * BLOCK * 4 };

    #[test]
    fn blocks_come_from_the_budget_and_return_to_it() {
        let pool = Pool::new(2 * LAYOUT.block_bytes());
        let mut first = Table::new(LAYOUT);
        assert!(first.reserve(BLOCK, &pool));
        let mut second = Table::new(LAYOUT);
        assert!(!second.reserve(BLOCK + 1, &pool), "two blocks are not there");
        assert_eq!((second.blocks(), pool.used()), (0, LAYOUT.block_bytes()));
        assert!(first.reserve(BLOCK + 1, &pool));
        drop(first);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn what_was_written_is_where_it_is_read() {
        let (pool, mut table) = (Pool::new(u64::MAX), Table::new(LAYOUT));
        assert!(table.reserve(40, &pool));
        let numbers = |from: f32| (0..8).map(|at| from + at as f32).collect::<Vec<_>>();
        table.write(1, 35, &numbers(100.0), &numbers(200.0));
        let second_head = table.head(1, true, 1).nth(2).unwrap();
        let token: Vec<f32> = second_head[3 * 4..4 * 4].iter().map(|number| number.to_f32()).collect();
        assert_eq!(token, [204.0, 205.0, 206.0, 207.0]);
        assert!(table.head(0, true, 1).flatten().all(|number| number.to_f32() == 0.0));
    }
}
