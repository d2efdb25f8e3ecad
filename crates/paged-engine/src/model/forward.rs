//! One step of a decoder over a batch of tokens, whatever sequences they belong to.
//!
//! Tokens of different sequences share every matrix product; only attention looks at whose they
//! are. A token's numbers never depend on the other tokens of the batch but through its own
//! sequence's keys and values, so a sequence gives the same text alone and in company.

use super::Config;
use crate::Error;
use crate::kernels::team::Team;
use crate::kernels::{Kernels, matmul};
use crate::kv::{BLOCK, Table};
use crate::quant::{Activations, kind_of};
use crate::weights::{Tensor, Weights};

/// Numbers that one task of a cheap loop works on at least.
const ELEMENTS_PER_TASK: usize = 4096;

/// The tokens of one step, in rows.
#[derive(Debug, Default)]
pub struct Batch {
    pub tokens: Vec<u32>,
    /// Each token's place in its sequence, from 0.
    pub positions: Vec<usize>,
    /// Each token's sequence: an index into the step's tables. A sequence's tokens stand together
    /// and in order.
    pub sequences: Vec<usize>,
    /// Rows whose logits are wanted.
    pub logits: Vec<usize>,
}

/// A loaded decoder model.
#[derive(Debug)]
pub struct Decoder {
    pub config: Config,
    weights: Weights,
    kernels: Kernels,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Tensor,
    /// Angle per position of each rotated pair.
    frequencies: Vec<f32>,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Vec<f32>,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    feed_forward_norm: Vec<f32>,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

impl Decoder {
    /// # Errors
    /// As [`Config::of`] and [`Weights::tensor`].
    pub fn new(weights: Weights) -> Result<Self, Error> {
        let config = Config::of(&weights.header)?;
        let (hidden, vocabulary) = (config.hidden, config.vocabulary);
        let embedding = weights.tensor("token_embd.weight", vocabulary, hidden)?;
        let head = match weights.header.tensor("output.weight") {
            Some(_) => weights.tensor("output.weight", vocabulary, hidden)?,
            None => embedding.clone(),
        };
        let layers = (0..config.layers).map(|at| Layer::new(&weights, &config, at)).collect::<Result<_, _>>()?;
        let pairs = (0..config.rope_width / 2).map(|pair| 2.0 * pair as f32 / config.rope_width as f32);
        Ok(Self {
            norm: weights.vector("output_norm.weight", hidden)?,
            frequencies: pairs.map(|exponent| config.rope_base.powf(-exponent)).collect(),
            kernels: Kernels::best(),
            embedding,
            head,
            layers,
            config,
            weights,
        })
    }

    /// Bytes of the file's pages it computes with, and bytes of its own.
    pub fn bytes(&self) -> (u64, u64) {
        let vectors = self.norm.len() + self.frequencies.len() + self.layers.len() * 2 * self.config.hidden;
        (self.weights.tensor_bytes(), (vectors * size_of::<f32>()) as u64)
    }

    /// Runs a step: writes keys and values of every token into its sequence's table, which has the
    /// room, and gives the logits of the rows that want them, `[wanted][vocabulary]`.
    pub fn forward(&self, team: &mut Team, batch: &Batch, tables: &mut [&mut Table]) -> Vec<f32> {
        let hidden = self.config.hidden;
        let mut state = vec![0.0; batch.tokens.len() * hidden];
        for (token, row) in batch.tokens.iter().zip(state.chunks_exact_mut(hidden)) {
            self.weights.row(&self.embedding, *token as usize, row);
        }
        for (at, layer) in self.layers.iter().enumerate() {
            let attended = self.attend(team, at, layer, &state, batch, tables);
            let [attention] = self.products(team, [&layer.output], attended, self.config.heads * self.config.head);
            add(&mut state, &attention);
            let change = self.feed_forward(team, layer, &state);
            add(&mut state, &change);
        }
        let wanted: Vec<f32> = batch.logits.iter().flat_map(|row| &state[row * hidden..][..hidden]).copied().collect();
        let normed = self.normed(team, &wanted, &self.norm);
        let [logits] = self.products(team, [&self.head], normed, hidden);
        logits
    }

    /// Attention's sum for every token, before the output matrix: `[token][head][head width]`.
    fn attend(
        &self,
        team: &mut Team,
        at: usize,
        layer: &Layer,
        state: &[f32],
        batch: &Batch,
        tables: &mut [&mut Table],
    ) -> Vec<f32> {
        let config = &self.config;
        let normed = self.normed(team, state, &layer.attention_norm);
        let [mut query, mut key, value] =
            self.products(team, [&layer.query, &layer.key, &layer.value], normed, config.hidden);
        let kv_width = config.kv_heads * config.head;
        self.rotate(&mut query, &batch.positions);
        self.rotate(&mut key, &batch.positions);
        let rows = key.chunks_exact(kv_width).zip(value.chunks_exact(kv_width));
        for (row, (key, value)) in rows.enumerate() {
            tables[batch.sequences[row]].write(at, batch.positions[row], key, value);
        }
        let tables: &[&mut Table] = tables;
        let group = config.heads / config.kv_heads * config.head;
        let mut out = vec![0.0; query.len()];
        team.chunks(&mut out, group, |at_head, out| {
            let query = &query[at_head * group..][..group];
            let (row, kv_head) = (at_head / config.kv_heads, at_head % config.kv_heads);
            let table = &*tables[batch.sequences[row]];
            self.attend_group(at, kv_head, table, batch.positions[row] + 1, query, out);
        });
        out
    }

    /// All query heads that share a key/value head, over the first `length` tokens of a sequence.
    fn attend_group(&self, layer: usize, kv_head: usize, table: &Table, length: usize, query: &[f32], out: &mut [f32]) {
        let head = self.config.head;
        let scale = 1.0 / (head as f32).sqrt();
        let mut scores = vec![0.0; query.len() / head * length];
        for (block, keys) in table.head(layer, false, kv_head).enumerate() {
            let first = block * BLOCK;
            let tokens = keys.chunks_exact(head).take(length.saturating_sub(first));
            for (token, key) in tokens.enumerate() {
                for (query, scores) in query.chunks_exact(head).zip(scores.chunks_exact_mut(length)) {
                    scores[first + token] = scale * (self.kernels.dot_f16)(query, key);
                }
            }
        }
        scores.chunks_exact_mut(length).for_each(softmax);
        for (block, values) in table.head(layer, true, kv_head).enumerate() {
            let first = block * BLOCK;
            let tokens = values.chunks_exact(head).take(length.saturating_sub(first));
            for (token, value) in tokens.enumerate() {
                for (out, scores) in out.chunks_exact_mut(head).zip(scores.chunks_exact(length)) {
                    (self.kernels.add_f16)(out, scores[first + token], value);
                }
            }
        }
    }

    /// The gated feed-forward network: `down(silu(gate(x)) * up(x))`.
    fn feed_forward(&self, team: &mut Team, layer: &Layer, state: &[f32]) -> Vec<f32> {
        let normed = self.normed(team, state, &layer.feed_forward_norm);
        let [mut gate, up] = self.products(team, [&layer.gate, &layer.up], normed, self.config.hidden);
        team.chunks(&mut gate, ELEMENTS_PER_TASK, |at, gate| {
            for (gate, up) in gate.iter_mut().zip(&up[at * ELEMENTS_PER_TASK..]) {
                *gate = *gate / (1.0 + (-*gate).exp()) * up;
            }
        });
        let [out] = self.products(team, [&layer.down], gate, self.config.feed_forward);
        out
    }

    /// The products of some matrices with the same activations, `[rows][width]`.
    fn products<const N: usize>(
        &self,
        team: &mut Team,
        tensors: [&Tensor; N],
        floats: Vec<f32>,
        width: usize,
    ) -> [Vec<f32>; N] {
        let mut activations = Activations::new(floats, width);
        for kind in tensors.iter().filter_map(|tensor| kind_of(tensor.kind).flatten()) {
            activations.quantize(team, kind);
        }
        matmul(team, self.kernels, tensors.map(|tensor| self.weights.matrix(tensor)), &activations)
    }

    /// RMS norm (<https://arxiv.org/abs/1910.07467>) of every row, times `weights`.
    fn normed(&self, team: &mut Team, state: &[f32], weights: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; state.len()];
        let width = weights.len();
        let rows = ELEMENTS_PER_TASK.div_ceil(width);
        team.chunks(&mut out, rows * width, |at, out| {
            for (out, row) in out.chunks_exact_mut(width).zip(state[at * rows * width..].chunks_exact(width)) {
                let mean = row.iter().map(|value| value * value).sum::<f32>() / width as f32;
                let scale = 1.0 / (mean + self.config.norm_epsilon).sqrt();
                for ((out, value), weight) in out.iter_mut().zip(row).zip(weights) {
                    *out = value * scale * weight;
                }
            }
        });
        out
    }

    /// Rotary positions (<https://arxiv.org/abs/2104.09864>) on neighbouring pairs, as GGUF files
    /// of the llama architecture are laid out. `heads` is `[token][head][head width]`.
    fn rotate(&self, heads: &mut [f32], positions: &[usize]) {
        let width = heads.len() / positions.len();
        for (row, position) in heads.chunks_exact_mut(width).zip(positions) {
            let turns: Vec<(f32, f32)> = self.frequencies.iter().map(|f| (*position as f32 * f).sin_cos()).collect();
            for head in row.chunks_exact_mut(self.config.head) {
                for (pair, (sin, cos)) in head.as_chunks_mut::<2>().0.iter_mut().zip(&turns) {
                    let [a, b] = *pair;
                    *pair = [a * cos - b * sin, a * sin + b * cos];
                }
            }
        }
    }
}

impl Layer {
    fn new(weights: &Weights, config: &Config, at: usize) -> Result<Self, Error> {
        let name = |part: &str| format!("blk.{at}.{part}.weight");
        let (hidden, query, kv) = (config.hidden, config.heads * config.head, config.kv_heads * config.head);
        let tensor = |part: &str, rows, width| weights.tensor(&name(part), rows, width);
        Ok(Self {
            attention_norm: weights.vector(&name("attn_norm"), hidden)?,
            query: tensor("attn_q", query, hidden)?,
            key: tensor("attn_k", kv, hidden)?,
            value: tensor("attn_v", kv, hidden)?,
            output: tensor("attn_output", hidden, query)?,
            feed_forward_norm: weights.vector(&name("ffn_norm"), hidden)?,
            gate: tensor("ffn_gate", config.feed_forward, hidden)?,
            up: tensor("ffn_up", config.feed_forward, hidden)?,
            down: tensor("ffn_down", hidden, config.feed_forward)?,
        })
    }
}

fn add(state: &mut [f32], change: &[f32]) {
    for (state, change) in state.iter_mut().zip(change) {
        *state += change;
    }
}

fn softmax(scores: &mut [f32]) {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - highest).exp();
        sum += *score;
    }
    for score in scores.iter_mut() {
        *score /= sum;
    }
}
