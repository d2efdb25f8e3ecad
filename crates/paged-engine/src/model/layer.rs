//! The tensors of one layer, and what it does with them, as data.

use super::Config;
use crate::Error;
use crate::kernels::Attention;
use crate::weights::{Loader, Tensor};

/// A vector that not every model has.
type Maybe = Option<Box<[f32]>>;

/// A matrix and what is added to its product.
#[derive(Debug)]
pub struct Linear {
    pub weight: Tensor,
    pub bias: Maybe,
}

#[derive(Debug)]
pub struct Layer {
    pub attention: Attention,
    pub attention_norm: Box<[f32]>,
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    /// Norms of each query head and of each key head.
    pub query_norm: Maybe,
    pub key_norm: Maybe,
    pub output: Linear,
    pub post_attention_norm: Maybe,
    pub feed_forward_norm: Box<[f32]>,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
    pub post_feed_forward_norm: Maybe,
}

impl Layer {
    /// # Errors
    /// As [`Loader::matrix`].
    pub fn new(loader: &mut Loader<'_>, config: &Config, at: usize) -> Result<Self, Error> {
        let mut part = Part { loader, at };
        let (hidden, head) = (config.hidden, config.head);
        let [query, key, value] = part.attention_inputs(config)?;
        let [gate, up] = part.feed_forward_inputs(config)?;
        let traits = config.architecture;
        Ok(Self {
            attention: config.attention(at),
            attention_norm: part.vector("attn_norm", hidden)?,
            query,
            key,
            value,
            query_norm: part.vector_if(traits.head_norms, "attn_q_norm", head)?,
            key_norm: part.vector_if(traits.head_norms, "attn_k_norm", head)?,
            output: part.linear("attn_output", hidden, config.heads * head)?,
            post_attention_norm: part.vector_if(traits.post_norms, "post_attention_norm", hidden)?,
            feed_forward_norm: part.vector("ffn_norm", hidden)?,
            gate,
            up,
            down: part.linear("ffn_down", hidden, config.feed_forward)?,
            post_feed_forward_norm: part.vector_if(traits.post_norms, "post_ffw_norm", hidden)?,
        })
    }

    /// Bytes of the vectors it keeps.
    pub fn bytes(&self) -> usize {
        let maybe = [&self.query_norm, &self.key_norm, &self.post_attention_norm, &self.post_feed_forward_norm];
        let linear = [&self.query, &self.key, &self.value, &self.output, &self.gate, &self.up, &self.down];
        let biases = linear.map(|linear| &linear.bias);
        let vectors = maybe.into_iter().chain(biases).flatten().chain([&self.attention_norm, &self.feed_forward_norm]);
        vectors.map(|vector| size_of_val(&**vector)).sum()
    }
}

/// Reads the tensors of layer `at`.
struct Part<'a, 'w> {
    loader: &'a mut Loader<'w>,
    at: usize,
}

impl Part<'_, '_> {
    fn name(&self, part: &str, what: &str) -> String {
        format!("blk.{}.{part}.{what}", self.at)
    }

    fn vector(&mut self, part: &str, width: usize) -> Result<Box<[f32]>, Error> {
        self.loader.vector(&self.name(part, "weight"), width)
    }

    fn vector_if(&mut self, wanted: bool, part: &str, width: usize) -> Result<Maybe, Error> {
        if wanted { self.vector(part, width).map(Some) } else { Ok(None) }
    }

    fn linear(&mut self, part: &str, rows: usize, width: usize) -> Result<Linear, Error> {
        let weight = self.loader.matrix(&self.name(part, "weight"), rows, width)?;
        let bias = self.loader.optional_vector(&self.name(part, "bias"), rows)?;
        Ok(Linear { weight, bias })
    }

    /// Several matrices over the same numbers that stand in one tensor, each with its rows.
    fn fused<const N: usize>(&mut self, part: &str, rows: [usize; N], width: usize) -> Result<[Linear; N], Error> {
        let whole = self.linear(part, rows.iter().sum(), width)?;
        let mut start = 0;
        Ok(rows.map(|rows| {
            let range = start..start + rows;
            start = range.end;
            let bias = whole.bias.as_ref().and_then(|bias| bias.get(range.clone())).map(Box::from);
            Linear { weight: whole.weight.part(range), bias }
        }))
    }

    /// Query, key and value: one tensor or three, as the file has them.
    fn attention_inputs(&mut self, config: &Config) -> Result<[Linear; 3], Error> {
        let (query, kv, hidden) = (config.heads * config.head, config.kv_heads * config.head, config.hidden);
        if self.loader.has(&self.name("attn_qkv", "weight")) {
            return self.fused("attn_qkv", [query, kv, kv], hidden);
        }
        Ok([
            self.linear("attn_q", query, hidden)?,
            self.linear("attn_k", kv, hidden)?,
            self.linear("attn_v", kv, hidden)?,
        ])
    }

    fn feed_forward_inputs(&mut self, config: &Config) -> Result<[Linear; 2], Error> {
        let (rows, hidden) = (config.feed_forward, config.hidden);
        match config.architecture.fused_gate {
            true => self.fused("ffn_up", [rows, rows], hidden),
            false => Ok([self.linear("ffn_gate", rows, hidden)?, self.linear("ffn_up", rows, hidden)?]),
        }
    }
}
