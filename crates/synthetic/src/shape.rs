//! What a model is like, and the shapes of models that people run.

use crate::vocabulary::{OWN_TOKENS, PRINTABLE};

/// A model's shape. Lengths count numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// `general.architecture`.
    pub architecture: &'static str,
    pub layers: u64,
    pub hidden: u64,
    pub heads: u64,
    pub kv_heads: u64,
    /// Width of one head.
    pub head: u64,
    pub feed_forward: u64,
    pub context: u64,
    /// Tokens beyond the vocabulary's own, whose names no text contains.
    pub padding: u64,
    /// Without an output matrix of its own the embedding serves as one.
    pub tied: bool,
    pub rope_base: f32,
    /// Tokens that layers with a window see.
    pub window: Option<u64>,
    /// Tensors that stretch positions.
    pub factors: Factors,
    /// `tokenizer.ggml.pre`.
    pub pre_tokenizer: Option<&'static str>,
    /// Experts that there are, and experts that the router names.
    pub experts: Option<(u64, u64)>,
    /// Tokens that greedy answers consist of: the first of them, and the first after them.
    pub spoken: (u64, u64),
    pub seed: u64,
}

/// How a file states a factor for each rotated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factors {
    None,
    /// As Llama 3.1.
    One,
    /// For short and for long texts, as Phi-3.
    ShortAndLong,
}

impl Default for Shape {
    /// A llama of 0.1 million weights.
    fn default() -> Self {
        Self {
            architecture: "llama",
            layers: 2,
            hidden: 64,
            heads: 4,
            kv_heads: 2,
            head: 16,
            feed_forward: 128,
            context: 1024,
            padding: 0,
            tied: false,
            rope_base: 10_000.0,
            window: None,
            factors: Factors::None,
            pre_tokenizer: None,
            experts: None,
            spoken: PRINTABLE,
            seed: 1,
        }
    }
}

impl Shape {
    /// Tokens in the vocabulary.
    pub fn vocabulary(&self) -> u64 {
        OWN_TOKENS + self.padding
    }
}

/// What [`named`] knows.
pub const NAMES: [&str; 7] =
    ["llama-200m", "tinyllama-1.1b", "llama-3.2-1b", "qwen2.5-0.5b", "qwen3-0.6b", "gemma3-270m", "gemma3-1b"];

/// The shape of a model that people run, from its published configuration.
pub fn named(name: &str) -> Option<Shape> {
    let llama = Shape { context: 8192, pre_tokenizer: Some("llama-bpe"), ..Shape::default() };
    let qwen = Shape { tied: true, rope_base: 1e6, pre_tokenizer: Some("qwen2"), ..llama };
    let gemma = Shape { architecture: "gemma3", tied: true, rope_base: 1e6, window: Some(512), ..llama };
    let sized = |shape: Shape, layers, hidden, heads, kv_heads, head, feed_forward, vocabulary: u64| {
        let padding = vocabulary - OWN_TOKENS;
        Some(Shape { layers, hidden, heads, kv_heads, head, feed_forward, padding, ..shape })
    };
    match name {
        "llama-200m" => sized(llama, 12, 1024, 16, 4, 64, 2816, 32_000),
        "tinyllama-1.1b" => sized(llama, 22, 2048, 32, 4, 64, 5632, 32_000),
        "llama-3.2-1b" => {
            let llama = Shape { tied: true, rope_base: 500_000.0, factors: Factors::One, ..llama };
            sized(llama, 16, 2048, 32, 8, 64, 8192, 128_256)
        }
        "qwen2.5-0.5b" => sized(Shape { architecture: "qwen2", ..qwen }, 24, 896, 14, 2, 64, 4864, 151_936),
        "qwen3-0.6b" => sized(Shape { architecture: "qwen3", ..qwen }, 28, 1024, 16, 8, 128, 3072, 151_936),
        "gemma3-270m" => sized(gemma, 18, 640, 4, 1, 256, 2048, 262_144),
        "gemma3-1b" => sized(gemma, 26, 1152, 4, 1, 256, 6912, 262_144),
        _ => None,
    }
}
