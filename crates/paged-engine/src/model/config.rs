//! The shape of a model, read from its header.

use gguf::{Array, Header, Summary, Value};

use super::architecture::{ARCHITECTURES, Architecture};
use super::keys::{Keys, bounded};
use super::rope;
use crate::kernels::Attention;
use crate::quant::kind_of;
use crate::{Error, tokenizer};

/// Layers that a model may have: real ones have up to 130.
const MOST_LAYERS: usize = 1 << 12;
/// Bytes that keys and values of one token may take.
const MOST_KV_BYTES: usize = 1 << 32;

/// What one decoder needs to know. Lengths count numbers, not bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub architecture: &'static Architecture,
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
    pub rope: rope::Scaling,
    /// What queries grow by on long texts.
    pub temperature: Option<Temperature>,
    /// What the product of a query and a key is multiplied by.
    pub attention_scale: f32,
    pub attention_cap: Option<f32>,
    pub logit_cap: Option<f32>,
    /// Tokens that each layer sees; all, where there is no window.
    pub windows: Vec<Option<usize>>,
}

/// Queries are multiplied by `1 + scale * ln(1 + floor(position / tokens))`
/// (<https://arxiv.org/abs/2501.19399>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    pub scale: f32,
    pub tokens: usize,
}

impl Config {
    /// # Errors
    /// [`Error::Unsupported`] names an architecture or a feature this engine does not have,
    /// [`Error::File`] a key that is missing or makes no sense.
    pub fn of(header: &Header) -> Result<Self, Error> {
        let summary = Summary::of(header)?;
        let architecture = judge(&summary).map_err(Error::Unsupported)?;
        let keys = Keys::of(header)?;
        let (layers, hidden) =
            (bounded("block_count", summary.layers)?, bounded("embedding_length", summary.embedding)?);
        let (heads, head) =
            (bounded("attention.head_count", summary.heads)?, bounded("attention.key_length", summary.key_length)?);
        let kv_heads = bounded("attention.head_count_kv", summary.kv_heads)?;
        let context = bounded("context_length", summary.context_length)?;
        check_shape(layers, hidden, heads, kv_heads, head)?;
        let rope = rope::Scaling::of(&keys, head, context)?;
        let wide = architecture.wide_scale_layers == Some(layers);
        let scaled_by = if wide { hidden / heads } else { head };
        let cap = |name: &str, default: f32| -> Result<_, Error> {
            Ok(Some(keys.float(name)?.unwrap_or(default)).filter(|cap| *cap > 0.0))
        };
        Ok(Self {
            feed_forward: bounded("feed_forward_length", keys.size("feed_forward_length")? as u64)?,
            vocabulary: bounded("vocabulary", summary.vocabulary)?,
            norm_epsilon: keys
                .float("attention.layer_norm_rms_epsilon")?
                .ok_or_else(|| keys.wrong("attention.layer_norm_rms_epsilon", "is missing"))?,
            temperature: temperature(&keys, rope.original_context)?,
            attention_scale: 1.0 / (scaled_by as f32).sqrt(),
            attention_cap: match architecture.attention_cap {
                0.0 => None,
                default => cap("attn_logit_softcapping", default)?,
            },
            logit_cap: cap("final_logit_softcapping", architecture.logit_cap)?,
            windows: windows(&keys, architecture, layers)?,
            architecture,
            layers,
            hidden,
            heads,
            kv_heads,
            head,
            context,
            rope,
        })
    }

    /// What attention of a layer is like.
    pub fn attention(&self, layer: usize) -> Attention {
        let window = self.windows.get(layer).copied().flatten();
        Attention { scale: self.attention_scale, window, soft_cap: self.attention_cap }
    }
}

impl Temperature {
    /// What a query at this position is multiplied by.
    pub fn at(&self, position: usize) -> f32 {
        1.0 + self.scale * ((1 + position / self.tokens) as f32).ln()
    }
}

fn check_shape(layers: usize, hidden: usize, heads: usize, kv_heads: usize, head: usize) -> Result<(), Error> {
    if layers > MOST_LAYERS {
        return Err(Error::File(format!("`block_count` is {layers}: {MOST_LAYERS} at most can be")));
    }
    if !heads.is_multiple_of(kv_heads) || hidden < heads {
        let message = format!("{heads} heads, {kv_heads} key/value heads and width {hidden} do not go together");
        return Err(Error::File(message));
    }
    let kv = kv_heads.checked_mul(head).and_then(|width| width.checked_mul(layers * 4));
    match kv.filter(|bytes| *bytes <= MOST_KV_BYTES).and_then(|_| heads.checked_mul(head)) {
        Some(_) => Ok(()),
        None => Err(Error::File(format!("{layers} layers of {heads} heads of {head} numbers cannot be"))),
    }
}

fn temperature(keys: &Keys<'_>, tokens: usize) -> Result<Option<Temperature>, Error> {
    let scale = keys.float("attention.temperature_scale")?.filter(|scale| *scale > 0.0);
    Ok(scale.map(|scale| Temperature { scale, tokens }))
}

/// Each layer's window: from a list of layers that have one, or from the period.
fn windows(keys: &Keys<'_>, architecture: &Architecture, layers: usize) -> Result<Vec<Option<usize>>, Error> {
    const PATTERN: &str = "attention.sliding_window_pattern";
    let window = keys.optional_size("attention.sliding_window")?;
    let window = window.unwrap_or(architecture.window as usize);
    if window == 0 {
        return Ok(vec![None; layers]);
    }
    let local: Vec<bool> = match keys.get(PATTERN) {
        Some(Value::Array(Array::Bool(list))) if list.len() == layers => list.clone(),
        Some(Value::Array(_)) => return Err(keys.wrong(PATTERN, "must be a number, or a truth for each layer")),
        _ => {
            let period = keys.optional_size(PATTERN)?.unwrap_or(architecture.period as usize);
            (0..layers).map(|layer| period == 0 || layer % period < period - 1).collect()
        }
    };
    Ok(local.into_iter().map(|local| local.then_some(window)).collect())
}

/// Why a model cannot be run here, if it cannot; judged by its header's summary alone.
///
/// # Errors
/// A sentence for the person who wants to run it.
pub fn supported(model: &Summary) -> Result<(), String> {
    judge(model).map(|_| ())
}

fn judge(model: &Summary) -> Result<&'static Architecture, String> {
    let refused = |what: String| Err(format!("the paged engine does not run {what} yet"));
    let Some(architecture) = Architecture::named(&model.architecture) else {
        let known = ARCHITECTURES.map(|known| known.name).join(", ");
        return refused(format!("the architecture `{}` (it runs {known})", model.architecture));
    };
    if model.key_length != model.value_length {
        return refused("models whose keys and values differ in width".into());
    }
    if model.kv_heads_vary {
        return refused("models whose layers differ in their key/value heads".into());
    }
    if model.experts > 0 {
        return refused("models with experts".into());
    }
    if let Some(scaling) = model.rope_scaling.as_deref().filter(|name| !rope::is_known(name)) {
        return refused(format!("rope scaling `{scaling}`"));
    }
    if let Some(kind) = model.bytes_by_type.keys().find(|kind| kind_of(**kind).is_none()) {
        return refused(format!("tensors of type {kind}"));
    }
    tokenizer::supported(&model.tokenizer, model.pre_tokenizer.as_deref()).map(|()| architecture)
}
