//! What a planner wants to know of a model, read from its header alone.

use std::collections::BTreeMap;

use crate::{Array, Error, Header, TensorInfo, TensorType, Value};

const TOKENS: &str = "tokenizer.ggml.tokens";
/// As Llama 3.1 writes them, and as Phi-3 does.
const ROPE_FACTORS: [&str; 3] = ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];

/// The shape and the weights of a decoder model.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// `general.architecture`, for example `llama`.
    pub architecture: String,
    /// `general.name`, if the file has one.
    pub name: Option<String>,
    /// The longest context the model was made for, in tokens.
    pub context_length: u64,
    pub layers: u64,
    /// Width of the hidden state.
    pub embedding: u64,
    pub heads: u64,
    /// Key/value heads; the largest, where layers differ.
    pub kv_heads: u64,
    /// Whether layers differ in their number of key/value heads.
    pub kv_heads_vary: bool,
    /// Width of one key head and of one value head.
    pub key_length: u64,
    pub value_length: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: u64,
    /// Bytes of all their names.
    pub token_bytes: u64,
    /// Merges of a byte-pair vocabulary.
    pub merges: u64,
    /// `tokenizer.ggml.model`, for example `gpt2`.
    pub tokenizer: String,
    /// `tokenizer.ggml.pre`: how texts are cut before merging, if the file says.
    pub pre_tokenizer: Option<String>,
    /// `rope.scaling.type`: how positions are stretched, if the file says; `none` if they are not.
    pub rope_scaling: Option<String>,
    /// The first tensor that stretches each rotated pair by a factor of its own, if there is one.
    pub rope_factors: Option<String>,
    /// Experts a layer; 0 for a dense model.
    pub experts: u64,
    pub has_chat_template: bool,
    /// Tensor bytes in the file by type.
    pub bytes_by_type: BTreeMap<TensorType, u64>,
    /// Elements of all tensors of one dimension: norms, biases, factors.
    pub vector_elements: u64,
    /// Bytes of those tensors.
    pub vector_bytes: u64,
    /// Bytes of the whole file.
    pub file_len: u64,
}

impl Summary {
    /// Reads the summary out of a header.
    ///
    /// # Errors
    /// A key that every decoder model has is missing, has the wrong type or makes no sense.
    pub fn of(header: &Header) -> Result<Self, Error> {
        let architecture = header.str("general.architecture")?.to_owned();
        let key = |name: &str| format!("{architecture}.{name}");
        let positive = |name: &str| match header.u64(&key(name))? {
            0 => Err(Error::key(key(name), "must not be zero")),
            n => Ok(n),
        };
        let embedding = positive("embedding_length")?;
        let heads = positive("attention.head_count")?;
        let head_width = |name: &str| match header.metadata.contains_key(&key(name)) {
            true => positive(name),
            false => Ok(embedding / heads),
        };
        let text = |key: &str| header.metadata.get(key).and_then(Value::as_str).map(str::to_owned);
        let (kv_heads, kv_heads_vary) = kv_heads(header, &key("attention.head_count_kv"), heads)?;
        let vectors = || header.tensors.iter().filter(|tensor| tensor.dims.len() == 1);
        Ok(Self {
            name: text("general.name"),
            context_length: positive("context_length")?,
            layers: positive("block_count")?,
            embedding,
            heads,
            kv_heads,
            kv_heads_vary,
            key_length: head_width("attention.key_length")?,
            value_length: head_width("attention.value_length")?,
            vocabulary: vocabulary(header)?,
            token_bytes: strings(header, TOKENS).iter().map(|name| name.len() as u64).sum(),
            merges: strings(header, "tokenizer.ggml.merges").len() as u64,
            tokenizer: header.str("tokenizer.ggml.model")?.to_owned(),
            pre_tokenizer: text("tokenizer.ggml.pre"),
            rope_scaling: text(&key("rope.scaling.type")),
            rope_factors: ROPE_FACTORS.iter().find(|name| header.tensor(name).is_some()).map(ToString::to_string),
            experts: header.metadata.get(&key("expert_count")).and_then(Value::as_u64).unwrap_or(0),
            has_chat_template: header.metadata.contains_key("tokenizer.chat_template"),
            bytes_by_type: bytes_by_type(header),
            vector_elements: vectors().map(TensorInfo::elements).sum(),
            vector_bytes: vectors().map(|tensor| tensor.bytes).sum(),
            file_len: header.file_len,
            architecture,
        })
    }

    /// Bytes that one token takes in the KV cache at `element_bytes` per number.
    pub fn kv_bytes_per_token(&self, element_bytes: u64) -> u64 {
        let per_layer = self.kv_heads.saturating_mul(self.key_length.saturating_add(self.value_length));
        self.layers.saturating_mul(per_layer).saturating_mul(element_bytes)
    }

    /// The type that holds the most bytes: how people name the quantization of a file.
    pub fn main_type(&self) -> Option<TensorType> {
        self.bytes_by_type.iter().max_by_key(|(_, bytes)| **bytes).map(|(kind, _)| *kind)
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.bytes_by_type.values().sum()
    }
}

/// One number, or one number a layer, or absent: then as many as query heads. The largest, and
/// whether there are others.
fn kv_heads(header: &Header, key: &str, heads: u64) -> Result<(u64, bool), Error> {
    let found = match header.metadata.get(key) {
        None => vec![heads],
        Some(Value::Array(array)) => array.to_u64s().unwrap_or_default(),
        Some(value) => value.as_u64().into_iter().collect(),
    };
    let largest = found.iter().copied().max().filter(|n| *n > 0);
    let largest = largest.ok_or_else(|| Error::key(key, "must be a positive integer, or one for each layer"))?;
    Ok((largest, found.iter().any(|n| *n != largest)))
}

fn vocabulary(header: &Header) -> Result<u64, Error> {
    let tokens = header.metadata.get(TOKENS).ok_or_else(|| Error::key(TOKENS, "is missing"))?;
    match tokens.as_array() {
        Some(array) if !array.is_empty() => Ok(array.len() as u64),
        _ => Err(Error::key(TOKENS, "must be a list of strings")),
    }
}

/// The list of strings at `key`; empty if there is none.
fn strings<'h>(header: &'h Header, key: &str) -> &'h [String] {
    header.metadata.get(key).and_then(Value::as_array).and_then(Array::as_strings).unwrap_or_default()
}

fn bytes_by_type(header: &Header) -> BTreeMap<TensorType, u64> {
    let mut bytes = BTreeMap::new();
    for tensor in &header.tensors {
        *bytes.entry(tensor.kind).or_default() += tensor.bytes;
    }
    bytes
}
