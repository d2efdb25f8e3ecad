//! What the engine's thread and the handles of its models both look at.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::chat::Chat;
use crate::model::Config;
use crate::tokenizer::Tokenizer;

/// One model, as both sides see it.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub tokenizer: Tokenizer,
    pub chat: Chat,
    pub counts: Counts,
    /// Its handle is gone: the engine lets it go before its next step.
    pub dropped: AtomicBool,
    /// Bytes of the file's pages, and bytes of its own.
    pub bytes: (u64, u64),
}

/// Numbers of one model, as of its last step.
#[derive(Debug, Default)]
pub struct Counts {
    pub running: AtomicU64,
    pub waiting: AtomicU64,
    pub prefix_queries: AtomicU64,
    pub prefix_hits: AtomicU64,
    pub preemptions: AtomicU64,
    pub steps: AtomicU64,
    pub tokens: AtomicU64,
}

/// [`Counts`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub running: u64,
    pub waiting: u64,
    /// Blocks of keys and values in use, those kept for prefixes that may come again, and how many
    /// the pool could hold for this model alone.
    pub blocks: u64,
    pub cached_blocks: u64,
    pub pool_blocks: u64,
    /// Tokens of sequences that were let in, and how many of them were found in the cache.
    pub prefix_query_tokens: u64,
    pub prefix_hit_tokens: u64,
    pub preemptions: u64,
    pub steps: u64,
    pub tokens: u64,
}

impl Counts {
    /// The numbers now, without those of blocks.
    pub fn read(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            running: read(&self.running),
            waiting: read(&self.waiting),
            prefix_query_tokens: read(&self.prefix_queries),
            prefix_hit_tokens: read(&self.prefix_hits),
            preemptions: read(&self.preemptions),
            steps: read(&self.steps),
            tokens: read(&self.tokens),
            ..Stats::default()
        }
    }
}
