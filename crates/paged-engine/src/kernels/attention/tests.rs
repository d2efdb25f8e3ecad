//! Every set against the reference, the reference against plain attention in double precision, and
//! rows alone against rows in company.

use std::sync::Arc;

use half::f16;

use super::*;
use crate::kernels::Kernels;
use crate::kernels::team::Team;
use crate::kv::{KvType, Layout, Pool, Share, Store, Table};

const PLAIN: Attention = Attention { scale: 0.1, window: None, soft_cap: None };

fn number(seed: usize) -> f32 {
    let mixed = (seed as u64 ^ 0x5DEE_CE66).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    mixed as f32 / (1u64 << 23) as f32 - 1.0
}

/// A sequence of `length` tokens with its keys, values and queries, on one layer.
struct Sequence {
    layout: Layout,
    heads: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
    table: Table,
    store: Store,
}

impl Sequence {
    fn new(kind: KvType, head: usize, kv_heads: usize, group: usize, length: usize) -> Self {
        let layout = Layout { kind, layers: 1, kv_heads, head };
        let share: Arc<Share> = Share::open(&Pool::new(u64::MAX), layout.block_bytes(), false);
        let (mut table, mut store) = (Table::new(&share), Store::default());
        table.reserve(0, length, 0).unwrap();
        store.provide(&layout, table.blocks()).unwrap();
        let numbers = |width: usize, seed: usize| (0..length * width).map(|at| 2.0 * number(at + seed)).collect();
        let (keys, values): (Vec<f32>, Vec<f32>) = (numbers(kv_heads * head, 1), numbers(kv_heads * head, 777_777));
        let queries = numbers(kv_heads * group * head, 55_555);
        let mut step = Step::new(&mut store, layout, vec![table.blocks()]);
        let rows = keys.chunks(kv_heads * head).zip(values.chunks(kv_heads * head));
        rows.enumerate().for_each(|(at, (keys, values))| step.write(0, 0, at, keys, values));
        Self { layout, heads: kv_heads * group, keys, values, queries, table, store }
    }

    /// Attention of the tokens in `rows`, in one call.
    fn attend(&mut self, attention: &Attention, loops: AttentionLoops, rows: Range<usize>) -> Vec<f32> {
        let width = self.heads * self.layout.head;
        let step = Step::new(&mut self.store, self.layout, vec![self.table.blocks()]);
        let (positions, sequences): (Vec<usize>, Vec<usize>) = rows.clone().map(|row| (row, 0)).unzip();
        let numbers = &self.queries[rows.start * width..rows.end * width];
        let mut out = vec![f32::NAN; numbers.len()];
        let queries = Queries { numbers, positions: &positions, sequences: &sequences };
        attention.run(&mut Team::new(1).unwrap(), loops, &step, 0, queries, &mut out);
        out
    }

    /// The definition, in double precision.
    fn exact(&self, attention: &Attention) -> Vec<f64> {
        let (head, kv_heads) = (self.layout.head, self.layout.kv_heads);
        let at = |numbers: &[f32], token: usize, kv_head: usize, i: usize| {
            f64::from(numbers[(token * kv_heads + kv_head) * head + i])
        };
        let mut out = Vec::new();
        for (row, query) in self.queries.chunks(head).enumerate() {
            let (token, kv_head) = (row / self.heads, row % self.heads / (self.heads / kv_heads));
            let first = attention.window.map_or(0, |window| (token + 1).saturating_sub(window));
            let score = |key: usize| {
                let dot: f64 = (0..head).map(|i| f64::from(query[i]) * at(&self.keys, key, kv_head, i)).sum();
                let scaled = dot * f64::from(attention.scale);
                attention.soft_cap.map_or(scaled, |cap| f64::from(cap) * (scaled / f64::from(cap)).tanh())
            };
            let weights: Vec<f64> = (first..=token).map(|key| score(key).exp()).collect();
            let total: f64 = weights.iter().sum();
            let value = |i| {
                let sum = (first..).zip(&weights).map(|(key, weight)| weight * at(&self.values, key, kv_head, i));
                sum.sum::<f64>() / total
            };
            out.extend((0..head).map(value));
        }
        out
    }
}

fn furthest(got: &[f32], want: impl Iterator<Item = f64>) -> f64 {
    got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs()).fold(0.0, f64::max)
}

/// Every set's name and loops, the reference last.
fn sets() -> impl Iterator<Item = (&'static str, AttentionLoops)> {
    Kernels::all().map(|kernels| (kernels.name, kernels.attention))
}

#[test]
fn it_is_the_attention_of_the_definition() {
    let capped = Attention { soft_cap: Some(2.0), window: Some(50), ..PLAIN };
    for attention in [PLAIN, Attention { window: Some(17), ..PLAIN }, capped] {
        for (kind, tolerance) in [(KvType::F16, 2e-3), (KvType::Q8_0, 6e-2)] {
            for (head, group) in [(64, 4), (80, 1), (96, 3), (128, 2), (256, 1), (20, 5)] {
                let mut sequence = Sequence::new(kind, head, 2, group, 150);
                let exact = sequence.exact(&attention);
                for (name, loops) in sets() {
                    let got = sequence.attend(&attention, loops, 0..150);
                    let error = furthest(&got, exact.iter().copied());
                    assert!(error < tolerance, "{name} {attention:?} {kind:?} head {head}: {error}");
                }
            }
        }
    }
}

#[test]
fn every_set_agrees_with_the_reference() {
    for kind in [KvType::F16, KvType::Q8_0] {
        for (head, group) in [(64, 4), (80, 3), (128, 1), (256, 1), (4, 1)] {
            let mut sequence = Sequence::new(kind, head, 1, group, 140);
            for soft_cap in [None, Some(3.0)] {
                let attention = Attention { scale: 0.2, window: Some(70), soft_cap };
                let reference = sequence.attend(&attention, scalar::LOOPS, 0..140);
                for (name, loops) in sets().filter(|(name, _)| *name != "scalar") {
                    let got = sequence.attend(&attention, loops, 0..140);
                    let error = furthest(&got, reference.iter().map(|value| f64::from(*value)));
                    assert!(error < 2e-5, "{name} {kind:?} head {head}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_chunks_nor_on_company() {
    for kind in [KvType::F16, KvType::Q8_0] {
        for attention in [PLAIN, Attention { window: Some(40), soft_cap: Some(5.0), scale: 0.3 }] {
            for (head, group) in [(64, 3), (80, 1), (16, 6)] {
                let mut sequence = Sequence::new(kind, head, 2, group, 100);
                for (name, loops) in sets() {
                    let together = sequence.attend(&attention, loops, 0..100);
                    for rows in [1, 7, 16, 33, 64].into_iter().flat_map(|chunk| chunks(100, chunk)) {
                        let alone = sequence.attend(&attention, loops, rows.clone());
                        let width = sequence.heads * head;
                        let want = &together[rows.start * width..rows.end * width];
                        assert!(alone == want, "{name} {kind:?} {attention:?} head {head} x {group}, rows {rows:?}");
                    }
                }
            }
        }
    }
}

fn chunks(length: usize, chunk: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length).step_by(chunk).map(move |from| from..(from + chunk).min(length))
}

#[test]
fn later_tokens_and_extreme_numbers_change_nothing() {
    for (name, loops) in sets() {
        let mut sequence = Sequence::new(KvType::F16, 64, 1, 4, 100);
        let before = sequence.attend(&PLAIN, loops, 50..60);
        let mut step = Step::new(&mut sequence.store, sequence.layout, vec![sequence.table.blocks()]);
        for at in 60..100 {
            step.write(0, 0, at, &[1e30; 64], &[f32::INFINITY; 64]);
        }
        assert_eq!(before, sequence.attend(&PLAIN, loops, 50..60), "{name}");
        let later = sequence.attend(&PLAIN, loops, 90..91);
        assert!(later.iter().all(|value| value.is_finite()), "{name} {later:?}");
    }
}

#[test]
fn tokens_are_cut_where_the_sequence_changes() {
    assert_eq!(cuts(&[0, 0, 0, 1, 2, 2], 2), [0..2, 2..3, 3..4, 4..6]);
    assert!(cuts(&[], 4).is_empty());
}

#[test]
fn tile_loops_take_any_number_of_rows_and_any_stride() {
    let tile: Vec<[f16; LANES]> =
        (0..9).map(|row| std::array::from_fn(|lane| f16::from_f32(number(row * 16 + lane)))).collect();
    let coefficients: Vec<f32> = (0..200).map(number).collect();
    for rows in 0..12 {
        let product = |loops: AttentionLoops| {
            let mut sums: Vec<f32> = (0..400).map(|at| number(at + 9000)).collect();
            (loops.halves)(rows, &coefficients, 11, &tile, &mut sums, 23);
            sums
        };
        let reference = product(scalar::LOOPS);
        for (name, loops) in sets() {
            let got = product(loops);
            let error = furthest(&got, reference.iter().map(|value| f64::from(*value)));
            assert!(error < 1e-5, "{name}, {rows} rows: {error}");
            let untouched = rows * 23;
            assert_eq!(got[untouched..], (untouched..400).map(|at| number(at + 9000)).collect::<Vec<_>>());
        }
    }
}
