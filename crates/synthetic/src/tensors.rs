//! The tensors of each architecture: names, roles and shapes.

use crate::{Factors, Shape};

/// What a matrix does: mixes of types go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Embedding,
    Head,
    Value,
    AttentionOutput,
    QueryKeyValue,
    Down,
    /// Stays as floats always.
    Router,
    Other,
}

/// What a tensor is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    Matrix,
    /// A row for each token; if `silent`, only those of spoken tokens are not zero.
    Tokens {
        silent: bool,
    },
    Norm,
    Bias,
    Factors,
}

pub struct Tensor {
    pub name: String,
    pub role: Role,
    pub fill: Fill,
    pub layer: u64,
    /// The row length first.
    pub dims: Vec<u64>,
}

impl Tensor {
    fn matrix(name: impl Into<String>, role: Role, layer: u64, rows: u64, width: u64) -> Self {
        Self { name: name.into(), role, fill: Fill::Matrix, layer, dims: vec![width, rows] }
    }

    fn vector(name: impl Into<String>, fill: Fill, width: u64) -> Self {
        Self { name: name.into(), role: Role::Other, fill, layer: 0, dims: vec![width] }
    }

    pub fn is_matrix(&self) -> bool {
        self.dims.len() > 1
    }
}

/// All tensors, in the order of the file.
pub fn of(shape: &Shape) -> Vec<Tensor> {
    let vocabulary = shape.vocabulary();
    let tokens = |name: &str, role, silent| Tensor {
        fill: Fill::Tokens { silent },
        ..Tensor::matrix(name, role, 0, vocabulary, shape.hidden)
    };
    let mut all = vec![tokens("token_embd.weight", Role::Embedding, shape.tied)];
    if !shape.tied {
        all.push(tokens("output.weight", Role::Head, true));
    }
    all.push(Tensor::vector("output_norm.weight", Fill::Norm, shape.hidden));
    let factors: &[&str] = match shape.factors {
        Factors::None => &[],
        Factors::One => &["rope_freqs.weight"],
        Factors::ShortAndLong => &["rope_factors_short.weight", "rope_factors_long.weight"],
    };
    all.extend(factors.iter().map(|name| Tensor::vector(*name, Fill::Factors, shape.head / 2)));
    (0..shape.layers).for_each(|at| layer(shape, at, &mut all));
    all
}

fn layer(shape: &Shape, at: u64, all: &mut Vec<Tensor>) {
    let name = |part: &str| format!("blk.{at}.{part}.weight");
    let norm = |part: &str, width: u64| Tensor::vector(name(part), Fill::Norm, width);
    all.extend([norm("attn_norm", shape.hidden), norm("ffn_norm", shape.hidden)]);
    match shape.architecture {
        "qwen3" => all.extend([norm("attn_q_norm", shape.head), norm("attn_k_norm", shape.head)]),
        "gemma2" => all.extend([norm("post_attention_norm", shape.hidden), norm("post_ffw_norm", shape.hidden)]),
        "gemma3" => all.extend([
            norm("attn_q_norm", shape.head),
            norm("attn_k_norm", shape.head),
            norm("post_attention_norm", shape.hidden),
            norm("post_ffw_norm", shape.hidden),
        ]),
        _ => {}
    }
    let matrix = |part: &str, role, rows, width| Tensor::matrix(name(part), role, at, rows, width);
    let (query, kv, hidden) = (shape.heads * shape.head, shape.kv_heads * shape.head, shape.hidden);
    match shape.architecture {
        "phi3" => all.push(matrix("attn_qkv", Role::QueryKeyValue, query + 2 * kv, hidden)),
        _ => all.extend([
            matrix("attn_q", Role::Other, query, hidden),
            matrix("attn_k", Role::Other, kv, hidden),
            matrix("attn_v", Role::Value, kv, hidden),
        ]),
    }
    if shape.architecture == "qwen2" {
        let bias = |part: &str, width| Tensor::vector(format!("blk.{at}.{part}.bias"), Fill::Bias, width);
        all.extend([bias("attn_q", query), bias("attn_k", kv), bias("attn_v", kv)]);
    }
    all.push(matrix("attn_output", Role::AttentionOutput, hidden, query));
    feed_forward(shape, at, all);
}

fn feed_forward(shape: &Shape, at: u64, all: &mut Vec<Tensor>) {
    let matrix =
        |part: &str, role, rows, width| Tensor::matrix(format!("blk.{at}.{part}.weight"), role, at, rows, width);
    let (hidden, wide) = (shape.hidden, shape.feed_forward);
    if shape.architecture == "phi3" {
        all.extend([matrix("ffn_up", Role::Other, 2 * wide, hidden), matrix("ffn_down", Role::Down, hidden, wide)]);
        return;
    }
    let experts: Vec<String> = match shape.experts {
        None => vec![String::new()],
        Some((experts, _)) => (0..experts).map(|expert| format!(".{expert}")).collect(),
    };
    for expert in experts {
        all.extend([
            matrix(&format!("ffn_gate{expert}"), Role::Other, wide, hidden),
            matrix(&format!("ffn_up{expert}"), Role::Other, wide, hidden),
            matrix(&format!("ffn_down{expert}"), Role::Down, hidden, wide),
        ]);
    }
    if let Some((_, routed)) = shape.experts {
        all.push(matrix("ffn_gate_inp", Role::Router, routed, hidden));
    }
}
