//! The rows of one task, walked over the blocks of their sequence.

use half::f16;

use super::{Attention, AttentionLoops, SPAN, exp};
use crate::kv::{BLOCK, LANES, Plane, SCALED};

/// Blocks in a span.
const BLOCKS: usize = SPAN / BLOCK;

/// Query rows of some tokens of a sequence that share keys and values, and what they have summed.
/// A token has `group` rows; the rows of a token stand together.
pub struct Tile {
    head: usize,
    group: usize,
    rows: usize,
    /// Place of the first token in its sequence.
    first: usize,
    /// `[row][head width]`, times the scale.
    queries: Vec<f32>,
    /// `[row][key of the span]`: scores, then weights.
    scores: Vec<f32>,
    /// `[row][head width, filled up]`: values times weights.
    sums: Vec<f32>,
    /// The highest score so far and the sum of the weights.
    softmax: Vec<(f32, f32)>,
    /// `[row][lane]`, for types with scales.
    scratch: Vec<f32>,
}

impl Tile {
    pub fn new(attention: &Attention, head: usize, tokens: &[&[f32]], first: usize) -> Self {
        let queries: Vec<f32> = tokens.iter().flat_map(|token| token.iter().map(|q| q * attention.scale)).collect();
        let rows = queries.len() / head;
        Self {
            head,
            group: rows / tokens.len().max(1),
            rows,
            first,
            queries,
            scores: vec![0.0; rows * SPAN],
            sums: vec![0.0; rows * head.next_multiple_of(LANES)],
            softmax: vec![(f32::NEG_INFINITY, 0.0); rows],
            scratch: vec![0.0; rows * LANES],
        }
    }

    /// Takes in every block that some row sees; `planes` gives a block's keys and values.
    pub fn walk<'a>(
        &mut self,
        attention: &Attention,
        loops: AttentionLoops,
        planes: impl Fn(usize) -> (Plane<'a>, Plane<'a>),
    ) {
        let last = self.first + self.rows / self.group.max(1);
        let begin = visible(attention, self.first).0 / BLOCK;
        let end = last.div_ceil(BLOCK);
        for span in begin / BLOCKS..end.div_ceil(BLOCKS) {
            let blocks = begin.max(span * BLOCKS)..end.min((span + 1) * BLOCKS);
            let seen: Vec<_> = blocks.map(|block| (block % BLOCKS, planes(block))).collect();
            self.scores.fill(0.0);
            for (at, (keys, _)) in &seen {
                self.score(loops, *at, *keys);
            }
            for row in 0..self.rows {
                self.weigh(attention, loops, row, span * SPAN);
            }
            for (at, (_, values)) in &seen {
                self.add(loops, *at, *values);
            }
        }
    }

    /// Every row's result to its token's piece, `[head of the group][head width]`.
    pub fn finish(&self, out: &mut [&mut [f32]]) {
        let sums = self.sums.chunks_exact(self.head.next_multiple_of(LANES)).zip(&self.softmax);
        let rows = out.iter_mut().flat_map(|token| token.chunks_exact_mut(self.head));
        for (out, (sums, (_, total))) in rows.zip(sums) {
            let share = 1.0 / total;
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum * share;
            }
        }
    }

    /// Queries times the keys of block `at` of the span.
    fn score(&mut self, loops: AttentionLoops, at: usize, keys: Plane<'_>) {
        let (rows, head, from) = (self.rows, self.head, at * BLOCK);
        match keys {
            Plane::F16(keys) => (loops.halves)(rows, &self.queries, head, keys, &mut self.scores[from..], SPAN),
            Plane::Q8_0 { codes, scales } => {
                for (group, (codes, scales)) in codes.chunks(SCALED).zip(scales).enumerate() {
                    self.scratch.fill(0.0);
                    (loops.codes)(rows, &self.queries[group * SCALED..], head, codes, &mut self.scratch, LANES);
                    let scales = floats(scales);
                    for (scores, dots) in self.scores.chunks_exact_mut(SPAN).zip(self.scratch.chunks_exact(LANES)) {
                        for (lane, score) in scores[from..from + BLOCK].iter_mut().enumerate() {
                            *score += dots[lane] * scales[lane];
                        }
                    }
                }
            }
        }
    }

    /// Turns a row's scores to weights; what is summed so far shrinks if a higher score came.
    /// `from` is the span's first key.
    fn weigh(&mut self, attention: &Attention, loops: AttentionLoops, row: usize, from: usize) {
        let (low, high) = visible(attention, self.first + row / self.group);
        let (low, high) = (low.saturating_sub(from).min(SPAN), high.saturating_sub(from).min(SPAN));
        let Some(scores) = self.scores[row * SPAN..].first_chunk_mut::<SPAN>() else { return };
        if low >= high {
            scores.fill(0.0);
            return;
        }
        if let Some(cap) = attention.soft_cap {
            (loops.cap)(scores, cap);
        }
        scores[..low].fill(f32::NEG_INFINITY);
        scores[high..].fill(f32::NEG_INFINITY);
        let (before, total) = self.softmax[row];
        let (highest, sum) = (loops.weigh)(scores, before);
        let shrink = exp(before - highest);
        self.softmax[row] = (highest, total * shrink + sum);
        if shrink != 1.0 {
            let width = self.head.next_multiple_of(LANES);
            self.sums[row * width..][..width].iter_mut().for_each(|sum| *sum *= shrink);
        }
    }

    /// Weights times the values of block `at` of the span.
    fn add(&mut self, loops: AttentionLoops, at: usize, values: Plane<'_>) {
        let (rows, width, weights) = (self.rows, self.head.next_multiple_of(LANES), &self.scores[at * BLOCK..]);
        match values {
            Plane::F16(values) => {
                for (part, values) in values.chunks_exact(BLOCK).enumerate() {
                    (loops.halves)(rows, weights, SPAN, values, &mut self.sums[part * LANES..], width);
                }
            }
            Plane::Q8_0 { codes, scales } => {
                let parts = codes.chunks_exact(BLOCK).enumerate();
                for (part, codes) in parts {
                    if part % (SCALED / LANES) == 0 {
                        let scales = floats(&scales[part / (SCALED / LANES)]);
                        for (scaled, weights) in self.scratch.chunks_exact_mut(LANES).zip(weights.chunks(SPAN)) {
                            for (lane, scaled) in scaled.iter_mut().enumerate() {
                                *scaled = weights[lane] * scales[lane];
                            }
                        }
                    }
                    (loops.codes)(rows, &self.scratch, LANES, codes, &mut self.sums[part * LANES..], width);
                }
            }
        }
    }
}

/// The keys that the token at `position` sees: from the first to before the second.
fn visible(attention: &Attention, position: usize) -> (usize, usize) {
    let end = position + 1;
    (attention.window.map_or(0, |window| end.saturating_sub(window)), end)
}

fn floats(halves: &[f16; LANES]) -> [f32; LANES] {
    halves.map(f16::to_f32)
}
