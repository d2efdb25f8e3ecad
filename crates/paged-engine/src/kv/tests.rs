//! The books against a simple model of them, and the store against what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const BYTES: u64 = 100;

fn share(blocks: u64) -> (Arc<Pool>, Arc<Share>) {
    let pool = Pool::new(blocks * BYTES);
    let share = Share::open(&pool, BYTES, true);
    (pool, share)
}

/// A table that holds these tokens, computed and published.
fn computed(share: &Arc<Share>, tokens: &[u32]) -> Table {
    let mut table = Table::new(share);
    let cached = table.adopt(tokens);
    table.reserve(cached, tokens.len(), 0).unwrap();
    table.publish(tokens);
    table
}

fn tokens(from: u32, count: u32) -> Vec<u32> {
    (from..from + count).collect()
}

#[test]
fn a_prefix_is_found_again_while_it_is_used_and_after() {
    let (pool, share) = share(10);
    let first = computed(&share, &tokens(0, 40));
    let mut second = Table::new(&share);
    assert_eq!(second.adopt(&tokens(0, 40)), 32, "the third block was not full");
    assert_eq!(second.blocks(), &first.blocks()[..2]);
    assert_eq!(pool.bytes(), Use { used: 3 * BYTES, cached: 0 }, "a shared block counts once");
    drop((first, second));
    assert_eq!(pool.bytes(), Use { used: 0, cached: 2 * BYTES });
    assert_eq!(Table::new(&share).adopt(&tokens(0, 33)), 32);
}

#[test]
fn the_last_token_is_never_taken_from_the_cache() {
    let (_pool, share) = share(10);
    drop(computed(&share, &tokens(0, 32)));
    assert_eq!(Table::new(&share).adopt(&tokens(0, 32)), 16, "its logits are wanted");
    assert_eq!(Table::new(&share).adopt(&tokens(0, 33)), 32);
    assert_eq!(Table::new(&share).adopt(&[]), 0);
}

#[test]
fn what_was_not_published_is_not_found() {
    let (pool, share) = share(10);
    let mut table = Table::new(&share);
    table.reserve(0, 48, 0).unwrap();
    assert_eq!(Table::new(&share).adopt(&tokens(0, 48)), 0);
    table.publish(&tokens(0, 20));
    assert_eq!(Table::new(&share).adopt(&tokens(0, 48)), 16);
    drop(table);
    assert_eq!(pool.bytes(), Use { used: 0, cached: BYTES });
}

#[test]
fn the_same_tokens_after_others_are_another_prefix() {
    let (_pool, share) = share(10);
    let _first = computed(&share, &[tokens(0, 16), tokens(50, 17)].concat());
    assert_eq!(Table::new(&share).adopt(&[tokens(1, 16), tokens(50, 17)].concat()), 0);
    assert_eq!(Table::new(&share).adopt(&tokens(50, 17)), 0);
}

#[test]
fn who_computed_the_same_at_the_same_time_ends_with_one_block() {
    let (pool, share) = share(10);
    let (mut first, mut second) = (Table::new(&share), Table::new(&share));
    first.reserve(0, 33, 0).unwrap();
    second.reserve(0, 33, 0).unwrap();
    assert_eq!(pool.bytes().used, 6 * BYTES);
    first.publish(&tokens(0, 33));
    second.publish(&tokens(0, 33));
    assert_eq!(pool.bytes().used, 4 * BYTES);
    assert_eq!(first.blocks()[..2], second.blocks()[..2]);
}

#[test]
fn cached_blocks_go_at_once_when_another_model_needs_room_the_oldest_first() {
    let (pool, share) = share(4);
    drop(computed(&share, &tokens(0, 33)));
    drop(computed(&share, &tokens(100, 17)));
    assert_eq!(pool.bytes().cached, 3 * BYTES);
    let other = Share::open(&pool, 2 * BYTES, true);
    let mut table = Table::new(&other);
    assert_eq!(table.reserve(0, 16, 0), Some(vec![]));
    assert_eq!(pool.bytes(), Use { used: 2 * BYTES, cached: 2 * BYTES });
    assert_eq!(Table::new(&share).adopt(&tokens(0, 33)), 16, "the end of the oldest went first");
    assert_eq!(Table::new(&share).adopt(&tokens(100, 17)), 16);
    assert_eq!(table.reserve(16, 48, 0), None, "two blocks of 200 bytes more are not there");
    assert_eq!(pool.bytes(), Use { used: 2 * BYTES, cached: 2 * BYTES }, "and nothing was given up for it");
}

#[test]
fn spare_blocks_are_left_to_those_who_run() {
    let (_pool, share) = share(4);
    let mut table = Table::new(&share);
    assert_eq!(table.reserve(0, 48, 2), None);
    assert_eq!(table.reserve(0, 48, 1), Some(vec![]));
}

#[test]
fn a_model_that_leaves_leaves_nothing() {
    let (pool, share) = share(10);
    let table = computed(&share, &tokens(0, 33));
    drop(computed(&share, &tokens(100, 33)));
    share.close();
    assert_eq!(pool.bytes(), Use { used: 3 * BYTES, cached: 0 });
    drop(table);
    assert_eq!(pool.bytes(), Use::default());
    assert_eq!(Table::new(&share).adopt(&tokens(0, 33)), 0);
}

#[test]
fn without_a_cache_nothing_is_kept() {
    let pool = Pool::new(10 * BYTES);
    let share = Share::open(&pool, BYTES, false);
    drop(computed(&share, &tokens(0, 40)));
    assert_eq!(pool.bytes(), Use::default());
}

#[test]
fn a_fork_copies_what_it_writes_to() {
    let (pool, share) = share(10);
    let mut table = computed(&share, &tokens(0, 20));
    let mut fork = table.fork(usize::MAX);
    assert_eq!(pool.bytes().used, 2 * BYTES);
    let copies = fork.reserve(20, 21, 0).unwrap();
    assert_eq!(copies, [(table.blocks()[1], fork.blocks()[1])]);
    assert_eq!((table.blocks()[0], pool.bytes().used), (fork.blocks()[0], 3 * BYTES));
    assert_eq!(table.reserve(20, 21, 0), Some(vec![]), "now it is the only one");
}

/// What happens to the books; numbers choose among what is there.
#[derive(Clone, Debug)]
enum Act {
    Admit { model: usize, prefix: usize, length: usize },
    Extend { table: usize, count: usize },
    Fork(usize),
    Free(usize),
    Reopen(usize),
    DropFreed,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0usize..2, 0usize..4, 1usize..90).prop_map(|(model, prefix, length)| Act::Admit { model, prefix, length }),
        4 => (any::<usize>(), 1usize..40).prop_map(|(table, count)| Act::Extend { table, count }),
        2 => any::<usize>().prop_map(Act::Fork),
        3 => any::<usize>().prop_map(Act::Free),
        1 => (0usize..2).prop_map(Act::Reopen),
        1 => Just(Act::DropFreed),
    ];
    proptest::collection::vec(act, 1..120)
}

/// A sequence and what it expects to read at each place: all tokens up to there, which is what
/// keys and values depend on.
struct Held {
    share: Arc<Share>,
    model: usize,
    table: Table,
    tokens: Vec<u32>,
}

/// The pool, and the contents of its blocks by (block, token).
struct World {
    pool: Arc<Pool>,
    shares: Vec<Arc<Share>>,
    sizes: [u64; 2],
    held: Vec<Held>,
    contents: BTreeMap<(BlockId, usize), (usize, Vec<u32>)>,
}

impl World {
    fn new(budget: u64) -> Self {
        let (pool, sizes) = (Pool::new(budget), [100, 160]);
        let shares = sizes.iter().map(|bytes| Share::open(&pool, *bytes, true)).collect();
        Self { pool, shares, sizes, held: Vec::new(), contents: BTreeMap::new() }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Admit { model, prefix, length } => self.admit(model, prefix, length),
            Act::Extend { table, count } if !self.held.is_empty() => self.extend(table % self.held.len(), count),
            Act::Fork(table) if !self.held.is_empty() => {
                let held = &self.held[table % self.held.len()];
                let (share, model, tokens) = (Arc::clone(&held.share), held.model, held.tokens.clone());
                let table = held.table.fork(usize::MAX);
                self.held.push(Held { share, model, table, tokens });
            }
            Act::Free(table) if !self.held.is_empty() => drop(self.held.remove(table % self.held.len())),
            Act::Reopen(model) => {
                self.shares[model].close();
                self.shares[model] = Share::open(&self.pool, self.sizes[model], true);
            }
            Act::DropFreed => {
                let freed = self.pool.take_freed();
                self.contents.retain(|(block, _), _| !freed.contains(block));
            }
            _ => {}
        }
    }

    /// A sequence whose tokens branch off a few common prefixes at every place.
    fn admit(&mut self, model: usize, prefix: usize, length: usize) {
        let tokens: Vec<u32> = (0..length).map(|at| (at + 1000 * (prefix >> (at / BLOCK % 2) & 1)) as u32).collect();
        let mut table = Table::new(&self.shares[model]);
        let cached = table.adopt(&tokens);
        assert!(cached.is_multiple_of(BLOCK) && cached < tokens.len());
        let share = Arc::clone(&self.shares[model]);
        self.held.push(Held { share, model, table, tokens: tokens[..cached].to_vec() });
        self.check();
        self.write(self.held.len() - 1, &tokens[cached..]);
    }

    fn extend(&mut self, at: usize, count: usize) {
        let from = self.held[at].tokens.len() as u32;
        let more: Vec<u32> = (0..count as u32).map(|more| from + more % 3).collect();
        self.write(at, &more);
    }

    /// Computes more tokens of a sequence, as a step does.
    fn write(&mut self, at: usize, more: &[u32]) {
        let held = &mut self.held[at];
        let first = held.tokens.len();
        let before = self.pool.bytes();
        let Some(copies) = held.table.reserve(first, first + more.len(), 0) else {
            assert_eq!(self.pool.bytes(), before, "a refusal changes nothing");
            return;
        };
        for (from, to) in copies {
            for token in 0..BLOCK {
                if let Some(content) = self.contents.get(&(from, token)).cloned() {
                    self.contents.insert((to, token), content);
                }
            }
        }
        for token in more {
            held.tokens.push(*token);
            let place = held.tokens.len() - 1;
            let content = (held.model, held.tokens.clone());
            self.contents.insert((held.table.blocks()[place / BLOCK], place % BLOCK), content);
        }
        let tokens = held.tokens.clone();
        held.table.publish(&tokens);
    }

    fn check(&self) {
        let mut used: BTreeMap<BlockId, u64> = BTreeMap::new();
        for held in &self.held {
            for (place, block) in (0..held.tokens.len()).map(|place| (place, held.table.blocks()[place / BLOCK])) {
                let expected = (held.model, held.tokens[..=place].to_vec());
                assert_eq!(self.contents.get(&(block, place % BLOCK)), Some(&expected), "place {place}");
            }
            for block in held.table.blocks() {
                let bytes = self.sizes[held.model];
                assert_eq!(*used.entry(*block).or_insert(bytes), bytes, "one block of two models");
            }
        }
        let bytes = self.pool.bytes();
        assert_eq!(bytes.used, used.values().sum::<u64>(), "each physical block counts once");
        assert!(bytes.used + bytes.cached <= self.pool.budget());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_every_sequence_reads_its_own_prefix(acts in acts(), budget in 400u64..6000) {
        let mut world = World::new(budget);
        for act in acts {
            world.act(act);
            world.check();
        }
        world.held.clear();
        prop_assert_eq!(world.pool.bytes().used, 0);
        world.shares.clear();
        prop_assert_eq!(world.pool.bytes(), Use::default());
        let freed = world.pool.take_freed();
        let twice = freed.iter().collect::<BTreeSet<_>>().len() != freed.len();
        prop_assert!(!twice, "given up twice");
    }
}

fn layout(kind: KvType, head: usize) -> Layout {
    Layout { kind, layers: 3, kv_heads: 2, head }
}

#[test]
fn a_block_takes_the_bytes_its_layout_says() {
    // Layers, heads, keys and values, tokens, width; two bytes, or one and a scale for each 32.
    assert_eq!(layout(KvType::F16, 64).block_bytes(), 3 * 2 * 2 * 16 * 64 * 2);
    assert_eq!(layout(KvType::Q8_0, 64).block_bytes(), 3 * 2 * 2 * 16 * (64 + 2 * 2));
    assert_eq!(layout(KvType::Q8_0, 80).block_bytes(), 3 * 2 * 2 * 16 * (80 + 3 * 2));
}

#[test]
fn a_block_of_whatever_a_header_says_has_a_size() {
    let most = Layout { kind: KvType::Q8_0, layers: usize::MAX, kv_heads: usize::MAX, head: usize::MAX };
    assert_eq!(most.block_bytes(), u64::MAX);
}

/// One number of a plane, as a float.
fn number(plane: Plane<'_>, row: usize, lane: usize, token: usize, place: usize) -> f32 {
    match plane {
        Plane::F16(rows) => rows[row][lane].to_f32(),
        Plane::Q8_0 { codes, scales } => f32::from(codes[row][lane]) * scales[place / SCALED][token].to_f32(),
    }
}

#[test]
fn what_was_written_is_where_it_is_read() {
    for (kind, head) in [(KvType::F16, 64), (KvType::F16, 4), (KvType::Q8_0, 64), (KvType::Q8_0, 80)] {
        let (layout, pool) = (layout(kind, head), Pool::new(u64::MAX));
        let share = Share::open(&pool, layout.block_bytes(), true);
        let mut table = Table::new(&share);
        table.reserve(0, 40, 0).unwrap();
        let mut store = Store::default();
        store.provide(&layout, table.blocks()).unwrap();
        let mut step = Step::new(&mut store, layout, vec![table.blocks()]);
        let keys: Vec<f32> = (0..2 * head).map(|at| at as f32 / 8.0 - 3.0).collect();
        let values: Vec<f32> = keys.iter().map(|key| 1.0 - key).collect();
        step.write(0, 1, 35, &keys, &values);
        let (key_plane, value_plane) = step.planes(0, 2, 1, 1);
        let tolerance = if kind == KvType::F16 { 0.01 } else { 0.15 };
        for at in 0..head {
            let key = number(key_plane, at, 3, 3, at);
            let value = number(value_plane, at / LANES * BLOCK + 3, at % LANES, 3, at);
            assert!((key - keys[head + at]).abs() <= tolerance, "{kind:?} {head} key {at}: {key}");
            assert!((value - values[head + at]).abs() <= tolerance, "{kind:?} {head} value {at}: {value}");
        }
        let (other_head, _) = step.planes(0, 2, 1, 0);
        assert_eq!(number(other_head, 0, 4, 4, 0), 0.0, "another token was not touched");
    }
}

#[test]
fn memory_comes_with_the_first_use_and_goes_when_the_books_say_so() {
    let (layout, pool) = (layout(KvType::F16, 16), Pool::new(u64::MAX));
    let share = Share::open(&pool, layout.block_bytes(), false);
    let mut store = Store::default();
    let mut table = Table::new(&share);
    table.reserve(0, 60, 0).unwrap();
    assert_eq!(store.held(), 0);
    store.provide(&layout, &table.blocks()[..2]).unwrap();
    assert_eq!(store.held(), 2);
    drop(table);
    store.drop_blocks(&pool.take_freed());
    assert_eq!(store.held(), 0);
}
