//! Who has which block: references, the published ones that wait for reuse, and the budget.
//!
//! A block is in use while tables refer to it. A published block that nobody refers to any more is
//! cached: it can be found again, and is given up, the least recently used first, as soon as
//! somebody needs its bytes. Everything else is free and takes no bytes.

use std::collections::BTreeMap;

use super::BLOCK;
use super::prefix::{Link, Place, Prefixes};

/// A block, of whichever model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(u32);

impl BlockId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A model, as far as blocks are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(u64);

/// Blocks of one model, or bytes of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Referred to by some sequence.
    pub used: u64,
    /// Kept for prefixes that may come again.
    pub cached: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    owner: Owner,
    bytes: u64,
    references: u32,
    place: Option<Place>,
    /// When the last reference went; the key into `idle`.
    idle_since: u64,
}

#[derive(Debug)]
struct Ownership {
    block_bytes: u64,
    root: Link,
    caching: bool,
    blocks: Use,
}

/// The books of one pool.
#[derive(Debug)]
pub struct Blocks {
    budget: u64,
    bytes: Use,
    owners: BTreeMap<Owner, Ownership>,
    last_owner: u64,
    entries: Vec<Entry>,
    vacant: Vec<BlockId>,
    /// Given up; an id is used again only after its numbers were dropped.
    freed: Vec<BlockId>,
    /// The cached blocks, the least recently used first.
    idle: BTreeMap<u64, BlockId>,
    clock: u64,
    prefixes: Prefixes,
}

impl Blocks {
    pub fn new(budget: u64) -> Self {
        Self {
            budget,
            bytes: Use::default(),
            owners: BTreeMap::new(),
            last_owner: 0,
            entries: Vec::new(),
            vacant: Vec::new(),
            freed: Vec::new(),
            idle: BTreeMap::new(),
            clock: 0,
            prefixes: Prefixes::default(),
        }
    }

    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes, of all models.
    pub fn bytes(&self) -> Use {
        self.bytes
    }

    /// Blocks of one model.
    pub fn blocks_of(&self, owner: Owner) -> Use {
        self.owners.get(&owner).map_or_else(Use::default, |owner| owner.blocks)
    }

    /// Lets a model in. Its blocks are published only if it is `caching`.
    pub fn open(&mut self, block_bytes: u64, caching: bool) -> Owner {
        self.last_owner += 1;
        let root = self.prefixes.root();
        let owner = Owner(self.last_owner);
        self.owners.insert(owner, Ownership { block_bytes, root, caching, blocks: Use::default() });
        owner
    }

    /// Lets a model go: what it had cached is free, and so is what it still uses once released.
    pub fn close(&mut self, owner: Owner) {
        let mine: Vec<BlockId> =
            self.idle.values().copied().filter(|id| self.entries[id.index()].owner == owner).collect();
        mine.into_iter().for_each(|id| self.give_up(id));
        self.owners.remove(&owner);
    }

    /// Where a model's prefixes begin; `None` if it publishes none.
    pub fn root(&self, owner: Owner) -> Option<Link> {
        self.owners.get(&owner).filter(|owner| owner.caching).map(|owner| owner.root)
    }

    /// Takes `count` blocks, if room for `spare` more would be left. All or none; cached blocks of
    /// anybody are given up for them.
    pub fn take(&mut self, owner: Owner, count: usize, spare: usize) -> Option<Vec<BlockId>> {
        let bytes = self.owners.get(&owner)?.block_bytes;
        let wanted = bytes.checked_mul(count.checked_add(spare)? as u64)?;
        if self.bytes.used.checked_add(wanted)? > self.budget {
            return None;
        }
        let needed = self.bytes.used + bytes * count as u64;
        while needed + self.bytes.cached > self.budget {
            let (_, oldest) = self.idle.first_key_value()?;
            self.give_up(*oldest);
        }
        Some((0..count).map(|_| self.enter(owner, bytes)).collect())
    }

    fn enter(&mut self, owner: Owner, bytes: u64) -> BlockId {
        let entry = Entry { owner, bytes, references: 1, place: None, idle_since: 0 };
        self.count(owner, bytes, |blocks, each| blocks.used += each);
        match self.vacant.pop() {
            Some(id) => {
                self.entries[id.index()] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                // Entries are blocks that fit the machine's memory: far fewer than 2^32.
                BlockId((self.entries.len() - 1) as u32)
            }
        }
    }

    /// One more reference.
    pub fn retain(&mut self, id: BlockId) {
        let entry = &mut self.entries[id.index()];
        entry.references += 1;
        if entry.references == 1 {
            let (owner, bytes) = (entry.owner, entry.bytes);
            self.idle.remove(&entry.idle_since);
            self.count(owner, bytes, |blocks, each| {
                blocks.cached -= each;
                blocks.used += each;
            });
        }
    }

    /// One reference less. With the last one a published block is cached, another is free.
    pub fn release(&mut self, id: BlockId) {
        let entry = &mut self.entries[id.index()];
        entry.references -= 1;
        if entry.references > 0 {
            return;
        }
        let (owner, bytes, published) = (entry.owner, entry.bytes, entry.place.is_some());
        self.clock += 1;
        entry.idle_since = self.clock;
        self.idle.insert(self.clock, id);
        self.count(owner, bytes, |blocks, each| {
            blocks.used -= each;
            blocks.cached += each;
        });
        if !published || !self.owners.contains_key(&owner) {
            self.give_up(id);
        }
    }

    /// Whether writing to a block would be seen by another than its one holder.
    pub fn is_shared(&self, id: BlockId) -> bool {
        let entry = &self.entries[id.index()];
        entry.references > 1 || entry.place.is_some()
    }

    /// The block that was published at this place, with one more reference to it, and the place
    /// behind it.
    pub fn find(&mut self, after: Link, tokens: &[u32; BLOCK]) -> Option<(BlockId, Link)> {
        let found = self.prefixes.find(&Place { after, tokens: *tokens })?;
        self.retain(found.0);
        Some(found)
    }

    /// Publishes a full and computed block at this place. If one with the same tokens is there
    /// already, that one takes its stead: a reference to `id` becomes one to it.
    pub fn publish(&mut self, id: BlockId, after: Link, tokens: &[u32; BLOCK]) -> (BlockId, Link) {
        if let Some(found) = self.find(after, tokens) {
            self.release(id);
            return found;
        }
        let place = Place { after, tokens: *tokens };
        self.entries[id.index()].place = Some(place);
        (id, self.prefixes.insert(place, id))
    }

    /// The blocks that were given up since: their numbers are to be dropped now.
    pub fn take_freed(&mut self) -> Vec<BlockId> {
        let freed = std::mem::take(&mut self.freed);
        self.vacant.extend_from_slice(&freed);
        freed
    }

    /// A cached block becomes a free one.
    fn give_up(&mut self, id: BlockId) {
        let entry = &mut self.entries[id.index()];
        let (owner, bytes) = (entry.owner, entry.bytes);
        self.idle.remove(&entry.idle_since);
        if let Some(place) = entry.place.take() {
            self.prefixes.remove(&place);
        }
        self.freed.push(id);
        self.count(owner, bytes, |blocks, each| blocks.cached -= each);
    }

    /// Changes the sums of bytes and, while the model is there, its number of blocks.
    fn count(&mut self, owner: Owner, bytes: u64, change: impl Fn(&mut Use, u64)) {
        change(&mut self.bytes, bytes);
        if let Some(owner) = self.owners.get_mut(&owner) {
            change(&mut owner.blocks, 1);
        }
    }
}
