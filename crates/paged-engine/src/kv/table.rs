//! The blocks of one sequence, counted while the table lives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BLOCK, BlockId, Blocks, Link, Owner, Use};

/// The one pool of all models. Shared, because callers look at its numbers.
#[derive(Debug)]
pub struct Pool(Mutex<Blocks>);

impl Pool {
    /// A pool of `budget` bytes.
    pub fn new(budget: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Blocks::new(budget))))
    }

    pub fn budget(&self) -> u64 {
        self.books().budget()
    }

    /// Bytes in use and cached, of all models.
    pub fn bytes(&self) -> Use {
        self.books().bytes()
    }

    /// Blocks whose numbers are to be dropped.
    pub fn take_freed(&self) -> Vec<BlockId> {
        self.books().take_freed()
    }

    fn books(&self) -> MutexGuard<'_, Blocks> {
        // No change of the books can break off in the middle.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model's access to the pool. Dropping or closing it gives up what the model had cached.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    owner: Owner,
}

impl Share {
    /// For blocks of `block_bytes` each; without `caching` no prefix is ever found again.
    pub fn open(pool: &Arc<Pool>, block_bytes: u64, caching: bool) -> Arc<Self> {
        let owner = pool.books().open(block_bytes, caching);
        Arc::new(Self { pool: Arc::clone(pool), owner })
    }

    /// The model's blocks.
    pub fn blocks(&self) -> Use {
        self.pool.books().blocks_of(self.owner)
    }

    /// Blocks of any model whose numbers are to be dropped, as [`Pool::take_freed`].
    pub fn take_freed(&self) -> Vec<BlockId> {
        self.pool.take_freed()
    }

    pub fn close(&self) {
        self.pool.books().close(self.owner);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.close();
    }
}

/// The blocks of one sequence, in the order of its tokens. Dropping it releases them.
#[derive(Debug)]
pub struct Table {
    share: Arc<Share>,
    blocks: Vec<BlockId>,
    /// How many of the first blocks are published, and the place behind them.
    published: usize,
    tip: Option<Link>,
}

impl Table {
    pub fn new(share: &Arc<Share>) -> Self {
        Self { share: Arc::clone(share), blocks: Vec::new(), published: 0, tip: None }
    }

    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Starts an empty table with the blocks of the longest published prefix of `tokens`, but
    /// never all of them: the last token must be computed for its logits. Gives the tokens that
    /// need not be computed, a multiple of 16.
    pub fn adopt(&mut self, tokens: &[u32]) -> usize {
        if !self.blocks.is_empty() {
            return 0;
        }
        let mut books = self.share.pool.books();
        let Some(mut tip) = books.root(self.share.owner) else { return 0 };
        let (whole, _) = tokens[..tokens.len().saturating_sub(1)].as_chunks::<BLOCK>();
        for chunk in whole {
            let Some((block, behind)) = books.find(tip, chunk) else { break };
            self.blocks.push(block);
            tip = behind;
        }
        self.tip = Some(tip);
        self.published = self.blocks.len();
        self.blocks.len() * BLOCK
    }

    /// Makes room for `tokens` in all, of which those from `first` on will be written, if `spare`
    /// blocks would be left. Gives the blocks whose numbers must be copied before (from, to),
    /// because somebody else sees them; `None`, and nothing changed, if the pool is used up.
    pub fn reserve(&mut self, first: usize, tokens: usize, spare: usize) -> Option<Vec<(BlockId, BlockId)>> {
        let needed = tokens.div_ceil(BLOCK);
        let missing = needed.saturating_sub(self.blocks.len());
        let mut books = self.share.pool.books();
        let written = first / BLOCK..needed.min(self.blocks.len());
        let shared: Vec<usize> = written.filter(|at| books.is_shared(self.blocks[*at])).collect();
        if missing + shared.len() == 0 {
            return Some(Vec::new());
        }
        let mut taken = books.take(self.share.owner, missing + shared.len(), spare)?.into_iter();
        let mut copies = Vec::with_capacity(shared.len());
        for (at, copy) in shared.into_iter().zip(taken.by_ref()) {
            let original = std::mem::replace(&mut self.blocks[at], copy);
            books.release(original);
            copies.push((original, copy));
        }
        self.blocks.extend(taken);
        if first < self.published * BLOCK {
            // What was published stays so; the copies are this table's own.
            (self.published, self.tip) = (0, None);
        }
        Some(copies)
    }

    /// Publishes the full blocks of `computed`, the tokens whose keys and values are there. Call it
    /// only after the step that computed them has succeeded.
    pub fn publish(&mut self, computed: &[u32]) {
        let mut books = self.share.pool.books();
        let Some(mut tip) = self.tip.or_else(|| books.root(self.share.owner)) else { return };
        let (whole, _) = computed.as_chunks::<BLOCK>();
        for (block, tokens) in self.blocks.iter_mut().zip(whole).skip(self.published) {
            (*block, tip) = books.publish(*block, tip, tokens);
            self.published += 1;
        }
        self.tip = Some(tip);
    }

    /// A second table of the first `blocks` blocks. Whoever writes first gets a copy of what it
    /// writes to.
    pub fn fork(&self, blocks: usize) -> Self {
        let mut books = self.share.pool.books();
        let blocks = self.blocks[..blocks.min(self.blocks.len())].to_vec();
        blocks.iter().for_each(|block| books.retain(*block));
        Self { share: Arc::clone(&self.share), blocks, published: 0, tip: None }
    }

    /// Releases every block.
    pub fn clear(&mut self) {
        let mut books = self.share.pool.books();
        // The last first: it is worth nothing without those before it, so it is given up first.
        self.blocks.drain(..).rev().for_each(|block| books.release(block));
        (self.published, self.tip) = (0, None);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.clear();
    }
}
