//! Attention over paged blocks: all query rows that share keys and values go through a block
//! together, with the softmax kept up to date on the way (<https://arxiv.org/abs/1805.02867>).
//!
//! A row's numbers never depend on the rows beside it nor on where a prompt was cut: the key axis
//! is walked in spans that begin at multiples of 64, each score and each sum is one chain of
//! additions in the order of the tokens, and what a row does not see enters with weight zero.

mod exp;
mod row;
pub mod scalar;
#[cfg(test)]
mod tests;

use std::ops::Range;

use half::f16;

pub use exp::exp;
pub(super) use exp::{HIGHEST, LN2_HIGH, LN2_LOW, LOWEST, POLYNOMIAL};

use super::team::Team;
use crate::kv::{LANES, Step};
use row::Tile;

/// Keys that one update of the softmax takes in.
pub const SPAN: usize = 64;
/// Query rows that one task works on, if a token has fewer.
const TASK_ROWS: usize = 32;

/// How a layer attends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// What a query times a key is multiplied by.
    pub scale: f32,
    /// How many tokens a token sees, itself included; all before it if `None`.
    pub window: Option<usize>,
    /// Scores go through `cap * tanh(score / cap)` (<https://arxiv.org/abs/2408.00118>).
    pub soft_cap: Option<f32>,
}

/// `sums[row][lane] += coefficients[row][i] * tile[i][lane]` over all `i` in order, for `rows`
/// rows; rows of coefficients and of sums begin at multiples of their strides.
pub type TileLoop<T> =
    fn(rows: usize, coefficients: &[f32], stride: usize, tile: &[[T; LANES]], sums: &mut [f32], sums_stride: usize);

/// The inner loops of attention of one instruction set.
#[derive(Clone, Copy)]
pub struct AttentionLoops {
    pub halves: TileLoop<f16>,
    pub codes: TileLoop<i8>,
    /// Turns scores to `exp(score - highest)`, the highest being that of these and of those
    /// before; gives it and the sum.
    pub weigh: fn(scores: &mut [f32; SPAN], highest: f32) -> (f32, f32),
    /// Turns scores to `cap * tanh(score / cap)`.
    pub cap: fn(scores: &mut [f32; SPAN], cap: f32),
}

/// The query rows of a step, `[token][head][head width]`, and where each token stands.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    pub numbers: &'a [f32],
    /// Each token's place in its sequence, from 0.
    pub positions: &'a [usize],
    /// Each token's sequence: an index into the step's tables. A sequence's tokens stand together
    /// and in order.
    pub sequences: &'a [usize],
}

/// Query rows of one sequence and one key/value head.
struct Task<'a> {
    sequence: usize,
    kv_head: usize,
    /// A piece for each token, `[head of the group][head width]`.
    queries: Vec<&'a [f32]>,
    out: Vec<&'a mut [f32]>,
    first: usize,
}

impl Attention {
    /// Attention of every token over its own sequence, whose keys and values are written up to
    /// that token. `out` is `[token][head][head width]`, as the queries are.
    pub fn run(
        &self,
        team: &mut Team,
        loops: AttentionLoops,
        step: &Step<'_>,
        layer: usize,
        queries: Queries<'_>,
        out: &mut [f32],
    ) {
        let mut tasks = tasks(step.layout.kv_heads, step.layout.head, queries, out);
        team.chunks(&mut tasks, 1, |_, task| {
            let Some(task) = task.first_mut() else { return };
            let mut tile = Tile::new(self, step.layout.head, &task.queries, task.first);
            tile.walk(self, loops, |block| step.planes(task.sequence, block, layer, task.kv_head));
            tile.finish(&mut task.out);
        });
    }
}

/// The work in pieces of their own.
fn tasks<'a>(kv_heads: usize, head: usize, queries: Queries<'a>, out: &'a mut [f32]) -> Vec<Task<'a>> {
    let piece = queries.numbers.len() / queries.positions.len().max(1) / kv_heads;
    let mut pieces = queries.numbers.chunks(piece.max(1)).zip(out.chunks_mut(piece.max(1)));
    let most = (TASK_ROWS * head / piece.max(1)).max(1);
    let mut tasks = Vec::new();
    for rows in cuts(queries.sequences, most) {
        let (sequence, first) = (queries.sequences[rows.start], queries.positions[rows.start]);
        let begin = tasks.len();
        tasks.extend((0..kv_heads).map(|kv_head| Task { sequence, kv_head, queries: vec![], out: vec![], first }));
        for _ in rows {
            for (task, (query, out)) in tasks[begin..].iter_mut().zip(pieces.by_ref()) {
                task.queries.push(query);
                task.out.push(out);
            }
        }
    }
    tasks
}

/// Runs of tokens of one sequence, of `most` tokens at most.
fn cuts(sequences: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut cuts: Vec<Range<usize>> = Vec::new();
    for (row, sequence) in sequences.iter().enumerate() {
        match cuts.last_mut() {
            Some(last) if sequences[last.start] == *sequence && last.len() < most => last.end = row + 1,
            _ => cuts.push(row..row + 1),
        }
    }
    cuts
}
