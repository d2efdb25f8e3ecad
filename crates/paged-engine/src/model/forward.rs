//! One step of a decoder over a batch of tokens, whatever sequences they belong to.
//!
//! Tokens of different sequences share every matrix product; only attention looks at whose they
//! are. A token's numbers never depend on the other tokens of the batch but through its own
//! sequence's keys and values, so a sequence gives the same text alone and in company.

use super::Decoder;
use super::layer::{Layer, Linear};
use super::rope::Rope;
use super::rows::{add, add_bias, gate, normed, soft_cap};
use crate::kernels::team::Team;
use crate::kernels::{Queries, matmul};
use crate::kv::Step;
use crate::quant::{Activations, kind_of};
use crate::weights::Tensor;

/// Tokens that one task rotates.
const TOKENS_PER_TASK: usize = 4;

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

/// A batch, and what is the same for every layer.
struct Rows<'a> {
    batch: &'a Batch,
    /// Of every token, as [`Rope::turns`] gives them.
    turns: Vec<(f32, f32)>,
    /// The same for layers with a rotation of their own.
    local_turns: Vec<(f32, f32)>,
}

impl<'a> Rows<'a> {
    fn new(decoder: &Decoder, batch: &'a Batch) -> Self {
        let turns = |rope: &Rope| rope.turns(&batch.positions);
        let local_turns = decoder.local_rope.as_ref().map(turns).unwrap_or_default();
        Self { batch, turns: turns(&decoder.rope), local_turns }
    }
}

impl Decoder {
    /// Runs a step: writes keys and values of every token into its sequence's blocks, which have the
    /// room, and gives the logits of the rows that want them, `[wanted][vocabulary]`.
    pub fn forward(&self, team: &mut Team, batch: &Batch, step: &mut Step<'_>) -> Vec<f32> {
        let hidden = self.config.hidden;
        let mut state = self.embed(&batch.tokens);
        let rows = Rows::new(self, batch);
        for (at, layer) in self.layers.iter().enumerate() {
            let attended = self.attend(team, at, layer, &state, &rows, step);
            let [change] = self.linear(team, [&layer.output], attended, self.config.heads * self.config.head);
            self.add(team, &mut state, change, layer.post_attention_norm.as_deref());
            let change = self.feed_forward(team, layer, &state);
            self.add(team, &mut state, change, layer.post_feed_forward_norm.as_deref());
        }
        let wanted: Vec<f32> = batch.logits.iter().flat_map(|row| &state[row * hidden..][..hidden]).copied().collect();
        let normed = self.normed(team, &wanted, &self.norm);
        let [mut logits] = self.linear(team, [&self.head], normed, hidden);
        if let Some(cap) = self.config.logit_cap {
            soft_cap(&mut logits, cap);
        }
        logits
    }

    /// The embeddings of these tokens, `[token][hidden]`.
    fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let hidden = self.config.hidden;
        let mut state = vec![0.0; tokens.len() * hidden];
        for (token, row) in tokens.iter().zip(state.chunks_exact_mut(hidden)) {
            self.weights.row(&self.embedding, *token as usize, row);
        }
        if self.config.architecture.scaled_embedding {
            let scale = (hidden as f32).sqrt();
            state.iter_mut().for_each(|value| *value *= scale);
        }
        state
    }

    /// Adds what a part of a layer gives to the state, normed where the model wants that.
    fn add(&self, team: &mut Team, state: &mut [f32], change: Vec<f32>, norm: Option<&[f32]>) {
        match norm {
            Some(norm) => add(state, &self.normed(team, &change, norm)),
            None => add(state, &change),
        }
    }

    /// Attention's sum for every token, before the output matrix: `[token][head][head width]`.
    fn attend(
        &self,
        team: &mut Team,
        at: usize,
        layer: &Layer,
        state: &[f32],
        rows: &Rows<'_>,
        step: &mut Step<'_>,
    ) -> Vec<f32> {
        let (config, batch) = (&self.config, rows.batch);
        let (query, key, value) = self.attention_inputs(team, layer, state, rows);
        let kv_width = config.kv_heads * config.head;
        for (row, (key, value)) in key.chunks_exact(kv_width).zip(value.chunks_exact(kv_width)).enumerate() {
            step.write(batch.sequences[row], at, batch.positions[row], key, value);
        }
        let mut out = vec![0.0; query.len()];
        let queries = Queries { numbers: &query, positions: &batch.positions, sequences: &batch.sequences };
        layer.attention.run(team, self.kernels.attention, step, at, queries, &mut out);
        out
    }

    /// Queries, keys and values of every token, rotated to its position.
    fn attention_inputs(
        &self,
        team: &mut Team,
        layer: &Layer,
        state: &[f32],
        rows: &Rows<'_>,
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let config = &self.config;
        let normed = self.normed(team, state, &layer.attention_norm);
        let [mut query, mut key, value] =
            self.linear(team, [&layer.query, &layer.key, &layer.value], normed, config.hidden);
        if let (Some(query_norm), Some(key_norm)) = (&layer.query_norm, &layer.key_norm) {
            query = self.normed(team, &query, query_norm);
            key = self.normed(team, &key, key_norm);
        }
        self.rotate(team, layer, rows, (&mut query, &mut key));
        (query, key, value)
    }

    /// Rotates the queries and keys of every token to its position.
    fn rotate(&self, team: &mut Team, layer: &Layer, rows: &Rows<'_>, (query, key): (&mut [f32], &mut [f32])) {
        let config = &self.config;
        let (rope, turns) = match &self.local_rope {
            Some(local) if layer.attention.window.is_some() => (local, &rows.local_turns),
            _ => (&self.rope, &rows.turns),
        };
        let queries = query.chunks_exact_mut(config.heads * config.head);
        let mut tokens: Vec<_> = queries.zip(key.chunks_exact_mut(config.kv_heads * config.head)).collect();
        team.chunks(&mut tokens, TOKENS_PER_TASK, |task, tokens| {
            for (at, (query, key)) in (task * TOKENS_PER_TASK..).zip(tokens) {
                let turns = &turns[at * rope.pairs()..][..rope.pairs()];
                rope.rotate(query, config.head, turns);
                rope.rotate(key, config.head, turns);
                if let Some(temperature) = config.temperature {
                    let by = temperature.at(rows.batch.positions[at]);
                    query.iter_mut().for_each(|value| *value *= by);
                }
            }
        });
    }

    /// The gated feed-forward network: `down(activation(gate(x)) * up(x))`.
    fn feed_forward(&self, team: &mut Team, layer: &Layer, state: &[f32]) -> Vec<f32> {
        let normed = self.normed(team, state, &layer.feed_forward_norm);
        let [mut gated, up] = self.linear(team, [&layer.gate, &layer.up], normed, self.config.hidden);
        gate(team, self.config.architecture.activation, &mut gated, &up);
        let [out] = self.linear(team, [&layer.down], gated, self.config.feed_forward);
        out
    }

    /// What some matrices make of the same activations, `[rows][width]`, with their biases.
    fn linear<const N: usize>(
        &self,
        team: &mut Team,
        linear: [&Linear; N],
        floats: Vec<f32>,
        width: usize,
    ) -> [Vec<f32>; N] {
        let mut out = self.products(team, linear.map(|linear| &linear.weight), floats, width);
        for (rows, linear) in out.iter_mut().zip(linear) {
            if let Some(bias) = &linear.bias {
                add_bias(rows, bias);
            }
        }
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

    fn normed(&self, team: &mut Team, rows: &[f32], weights: &[f32]) -> Vec<f32> {
        normed(team, rows, weights, self.config.norm_epsilon)
    }
}
