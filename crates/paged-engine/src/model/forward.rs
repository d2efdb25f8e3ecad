//! One step of a decoder over a batch of tokens, whatever sequences they belong to.
//!
//! Tokens of different sequences share every matrix product; only attention looks at whose they
//! are. A token's numbers never depend on the other tokens of the batch but through its own
//! sequence's keys and values, so a sequence gives the same text alone and in company.

use super::Decoder;
use super::layer::{Layer, Linear};
use super::rope::Rope;
use super::rows::{add, add_bias, gate, normed, soft_cap};
use super::workspace::Workspace;
use crate::kernels::{Buffer, Queries};
use crate::kv::Step;

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
    pub fn forward(&self, workspace: &mut Workspace, batch: &Batch, step: &mut Step<'_>) -> Buffer {
        let hidden = self.config.hidden;
        let mut state = self.embed(workspace, &batch.tokens);
        let rows = Rows::new(self, batch);
        for (at, layer) in self.layers.iter().enumerate() {
            let attended = self.attend(workspace, at, layer, &state, &rows, step);
            let [change] = self.linear(workspace, [&layer.output], attended, self.config.heads * self.config.head);
            self.add(workspace, &mut state, change, layer.post_attention_norm.as_deref());
            let change = self.feed_forward(workspace, layer, &state);
            self.add(workspace, &mut state, change, layer.post_feed_forward_norm.as_deref());
        }
        let mut wanted = workspace.take(batch.logits.len() * hidden);
        for (out, row) in wanted.chunks_exact_mut(hidden).zip(&batch.logits) {
            out.copy_from_slice(&state[row * hidden..][..hidden]);
        }
        workspace.give(state);
        let normed = self.normed(workspace, wanted, &self.norm);
        let [mut logits] = self.linear(workspace, [&self.head], normed, hidden);
        if let Some(cap) = self.config.logit_cap {
            soft_cap(&mut logits, cap);
        }
        logits
    }

    /// The embeddings of these tokens, `[token][hidden]`.
    fn embed(&self, workspace: &mut Workspace, tokens: &[u32]) -> Buffer {
        let hidden = self.config.hidden;
        let mut state = workspace.take(tokens.len() * hidden);
        let scale = self.config.architecture.scaled_embedding.then_some((hidden as f32).sqrt());
        workspace.team.chunks(&mut state, TOKENS_PER_TASK * hidden, |task, rows| {
            for (token, row) in tokens[task * TOKENS_PER_TASK..].iter().zip(rows.chunks_exact_mut(hidden)) {
                self.weights.row(&self.embedding, *token as usize, row);
                if let Some(scale) = scale {
                    row.iter_mut().for_each(|value| *value *= scale);
                }
            }
        });
        state
    }

    /// Adds what a part of a layer gives to the state, normed where the model wants that.
    fn add(&self, workspace: &mut Workspace, state: &mut [f32], change: Buffer, norm: Option<&[f32]>) {
        let change = match norm {
            Some(norm) => self.normed(workspace, change, norm),
            None => change,
        };
        add(workspace, state, change);
    }

    /// Attention's sum for every token, before the output matrix: `[token][head][head width]`.
    fn attend(
        &self,
        workspace: &mut Workspace,
        at: usize,
        layer: &Layer,
        state: &[f32],
        rows: &Rows<'_>,
        step: &mut Step<'_>,
    ) -> Buffer {
        let (config, batch) = (&self.config, rows.batch);
        let (query, key, value) = self.attention_inputs(workspace, layer, state, rows);
        let kv_width = config.kv_heads * config.head;
        for (row, (key, value)) in key.chunks_exact(kv_width).zip(value.chunks_exact(kv_width)).enumerate() {
            step.write(batch.sequences[row], at, batch.positions[row], key, value);
        }
        let mut out = workspace.take(query.len());
        let queries = Queries { numbers: &query, positions: &batch.positions, sequences: &batch.sequences };
        let loops = workspace.kernels.attention;
        layer.attention.run(&mut workspace.team, loops, step, at, queries, &mut out);
        [query, key, value].into_iter().for_each(|buffer| workspace.give(buffer));
        out
    }

    /// Queries, keys and values of every token, rotated to its position.
    fn attention_inputs(
        &self,
        workspace: &mut Workspace,
        layer: &Layer,
        state: &[f32],
        rows: &Rows<'_>,
    ) -> (Buffer, Buffer, Buffer) {
        let normed = normed(workspace, state, &layer.attention_norm, self.config.norm_epsilon);
        let matrices = [&layer.query, &layer.key, &layer.value];
        let [mut query, mut key, value] = self.linear(workspace, matrices, normed, self.config.hidden);
        if let (Some(query_norm), Some(key_norm)) = (&layer.query_norm, &layer.key_norm) {
            query = self.normed(workspace, query, query_norm);
            key = self.normed(workspace, key, key_norm);
        }
        self.rotate(workspace, layer, rows, (&mut query, &mut key));
        (query, key, value)
    }

    /// Rotates the queries and keys of every token to its position.
    fn rotate(
        &self,
        workspace: &mut Workspace,
        layer: &Layer,
        rows: &Rows<'_>,
        (query, key): (&mut [f32], &mut [f32]),
    ) {
        let config = &self.config;
        let (rope, turns) = match &self.local_rope {
            Some(local) if layer.attention.window.is_some() => (local, &rows.local_turns),
            _ => (&self.rope, &rows.turns),
        };
        let queries = query.chunks_exact_mut(config.heads * config.head);
        let mut tokens: Vec<_> = queries.zip(key.chunks_exact_mut(config.kv_heads * config.head)).collect();
        workspace.team.chunks(&mut tokens, TOKENS_PER_TASK, |task, tokens| {
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
    fn feed_forward(&self, workspace: &mut Workspace, layer: &Layer, state: &[f32]) -> Buffer {
        let normed = normed(workspace, state, &layer.feed_forward_norm, self.config.norm_epsilon);
        let [mut gated, up] = self.linear(workspace, [&layer.gate, &layer.up], normed, self.config.hidden);
        gate(workspace, self.config.architecture.activation, &mut gated, up);
        let [out] = self.linear(workspace, [&layer.down], gated, self.config.feed_forward);
        out
    }

    /// As [`normed`], in place of the rows.
    fn normed(&self, workspace: &mut Workspace, rows: Buffer, weights: &[f32]) -> Buffer {
        let out = normed(workspace, &rows, weights, self.config.norm_epsilon);
        workspace.give(rows);
        out
    }

    /// What some matrices make of the same rows, `[rows][width]`, with their biases.
    fn linear<const N: usize>(
        &self,
        workspace: &mut Workspace,
        linear: [&Linear; N],
        floats: Buffer,
        width: usize,
    ) -> [Buffer; N] {
        let matrices = linear.map(|linear| self.weights.matrix(&linear.weight));
        let mut out = workspace.products(matrices, floats, width);
        for (rows, linear) in out.iter_mut().zip(linear) {
            if let Some(bias) = &linear.bias {
                add_bias(workspace, rows, bias);
            }
        }
        out
    }
}
