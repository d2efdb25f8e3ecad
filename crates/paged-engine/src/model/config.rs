//! The shape of a model, read from its header.

use gguf::{Header, Summary, Value};

use crate::quant::kind_of;
use crate::{Error, tokenizer};

/// What one decoder needs to know. Lengths count numbers, not bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Width of one head.
    pub head: usize,
    pub feed_forward: usize,
    pub vocabulary: usize,
    /// Tokens the model was made for.
    pub context: usize,
    pub norm_epsilon: f32,
    pub rope_base: f32,
    /// How many numbers of a head are rotated.
    pub rope_width: usize,
}

impl Config {
    /// # Errors
    /// [`Error::Unsupported`] names an architecture or a feature this engine does not have,
    /// [`Error::File`] a key that is missing or makes no sense.
    pub fn of(header: &Header) -> Result<Self, Error> {
        let summary = Summary::of(header)?;
        supported(&summary).map_err(Error::Unsupported)?;
        let key = |name: &str| format!("{}.{name}", summary.architecture);
        let float = |name: &str| header.metadata.get(&key(name)).and_then(as_f32);
        let small = |name: &str, value: u64| {
            usize::try_from(value)
                .ok()
                .filter(|value| *value <= 1 << 24)
                .ok_or_else(|| Error::File(format!("{name} is absurd")))
        };
        let head = small("head width", summary.key_length)?;
        let rope_width = match header.metadata.contains_key(&key("rope.dimension_count")) {
            true => small("rope.dimension_count", header.u64(&key("rope.dimension_count"))?)?,
            false => head,
        };
        let config = Self {
            layers: small("block_count", summary.layers)?,
            hidden: small("embedding_length", summary.embedding)?,
            heads: small("head_count", summary.heads)?,
            kv_heads: small("head_count_kv", summary.kv_heads)?,
            head,
            feed_forward: small("feed_forward_length", header.u64(&key("feed_forward_length"))?)?,
            vocabulary: small("vocabulary", summary.vocabulary)?,
            context: small("context_length", summary.context_length)?,
            norm_epsilon: float("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
            rope_base: float("rope.freq_base").unwrap_or(10_000.0),
            rope_width,
        };
        if !config.heads.is_multiple_of(config.kv_heads) || config.rope_width > head || !rope_width.is_multiple_of(2) {
            return Err(Error::File("heads, key/value heads and rope width do not go together".into()));
        }
        Ok(config)
    }

    /// Bytes of keys and values for one token, in half precision.
    pub fn kv_bytes_per_token(&self) -> usize {
        self.layers * 2 * self.kv_heads * self.head * 2
    }
}

/// Why a model cannot be run here, if it cannot; judged by its header's summary alone.
///
/// # Errors
/// A sentence for the person who wants to run it.
pub fn supported(model: &Summary) -> Result<(), String> {
    let refused = |what: String| Err(format!("the paged engine does not run {what} yet"));
    if model.architecture != "llama" {
        return refused(format!("the architecture `{}`", model.architecture));
    }
    if model.key_length != model.value_length {
        return refused("models whose keys and values differ in width".into());
    }
    if model.experts > 0 {
        return refused("models with experts".into());
    }
    if model.scales_rope {
        return refused("models with scaled positions".into());
    }
    match model.bytes_by_type.keys().find(|kind| kind_of(**kind).is_none()) {
        Some(kind) => refused(format!("tensors of type {kind}")),
        None => tokenizer::supported(&model.tokenizer, model.pre_tokenizer.as_deref()),
    }
}

fn as_f32(value: &Value) -> Option<f32> {
    match value {
        Value::F32(value) => Some(*value),
        Value::F64(value) => Some(*value as f32),
        _ => None,
    }
}
