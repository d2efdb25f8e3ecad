//! The architectures, as data: what a file of each does not say of itself.
//!
//! Everything else (widths, windows, scales) stands in the file. The facts are those of the
//! models' own code and of llama.cpp, which most files are written for
//! (<https://github.com/ggml-org/llama.cpp/tree/master/src/models>).

/// Which numbers of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// The first with the second, the third with the fourth.
    Neighbours,
    /// The first with the first of the second half, and so on.
    Halves,
}

/// What the gate of the feed-forward network goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// GELU in its approximation by tanh.
    Gelu,
}

/// What distinguishes a decoder of one architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    pub pairing: Pairing,
    pub activation: Activation,
    /// Gate and up matrix stand in one tensor, the gate first.
    pub fused_gate: bool,
    /// Every query and key head is normed before it is rotated.
    pub head_norms: bool,
    /// What attention and feed-forward network add is normed once more.
    pub post_norms: bool,
    /// Embeddings are multiplied by the root of their width.
    pub scaled_embedding: bool,
    /// Tokens a layer with a window sees, where the file does not say; 0 for all.
    pub window: u64,
    /// Of so many layers the last has no window; with 0 all have one.
    pub period: u64,
    /// The rope base of layers with a window, where it is not that of the others.
    pub local_rope_base: Option<f32>,
    /// Soft cap of attention scores, where the file does not say; 0 for none, always.
    pub attention_cap: f32,
    /// Soft cap of the logits, where the file does not say; 0 for none.
    pub logit_cap: f32,
    /// With so many layers scores are scaled by `hidden / heads` and not by the head's width.
    pub wide_scale_layers: Option<usize>,
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    pairing: Pairing::Neighbours,
    activation: Activation::Silu,
    fused_gate: false,
    head_norms: false,
    post_norms: false,
    scaled_embedding: false,
    window: 0,
    period: 0,
    local_rope_base: None,
    attention_cap: 0.0,
    logit_cap: 0.0,
    wide_scale_layers: None,
};

const QWEN2: Architecture = Architecture { name: "qwen2", pairing: Pairing::Halves, ..LLAMA };

const GEMMA2: Architecture = Architecture {
    name: "gemma2",
    activation: Activation::Gelu,
    post_norms: true,
    scaled_embedding: true,
    window: 4096,
    period: 2,
    attention_cap: 50.0,
    logit_cap: 30.0,
    wide_scale_layers: Some(46),
    ..QWEN2
};

/// All that there are.
pub const ARCHITECTURES: [Architecture; 7] = [
    LLAMA,
    Architecture { name: "mistral3", ..LLAMA },
    QWEN2,
    Architecture { name: "qwen3", head_norms: true, ..QWEN2 },
    Architecture { name: "phi3", fused_gate: true, ..QWEN2 },
    GEMMA2,
    Architecture {
        name: "gemma3",
        head_norms: true,
        window: 0,
        period: 6,
        local_rope_base: Some(10_000.0),
        attention_cap: 0.0,
        logit_cap: 0.0,
        wide_scale_layers: Some(62),
        ..GEMMA2
    },
];

impl Architecture {
    /// The architecture of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|architecture| architecture.name == name)
    }
}
