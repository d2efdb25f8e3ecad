//! The tree of published prefixes: which block holds these 16 tokens after those before them.
//!
//! A block is found by the place it follows and its own tokens, compared in full: two prefixes can
//! share a hash and never a block.

use std::collections::HashMap;

use super::{BLOCK, BlockId};

/// A place in the tree: everything that comes before a block. No two prefixes ever have the same,
/// not even one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link(u64);

/// What a published block is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub after: Link,
    pub tokens: [u32; BLOCK],
}

#[derive(Debug, Default)]
pub struct Prefixes {
    blocks: HashMap<Place, (BlockId, Link)>,
    links: u64,
}

impl Prefixes {
    /// A new place with nothing before it: where a model's prefixes begin.
    pub fn root(&mut self) -> Link {
        self.links += 1;
        Link(self.links)
    }

    /// The block at a place, and the place behind it.
    pub fn find(&self, place: &Place) -> Option<(BlockId, Link)> {
        self.blocks.get(place).copied()
    }

    /// Puts a block where none is; gives the place behind it.
    pub fn insert(&mut self, place: Place, block: BlockId) -> Link {
        let behind = self.root();
        self.blocks.insert(place, (block, behind));
        behind
    }

    pub fn remove(&mut self, place: &Place) {
        self.blocks.remove(place);
    }
}
