//! `model-registry.yaml` as it is written. Unknown keys, duplicate keys and wrong types are errors
//! with their line; what the values mean is decided in [`super::catalog`].

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gguf::TensorType;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::Problems;
use super::schema::{Size, Time};
use crate::domain::Bytes;
use crate::engine::KvType;

/// The models a pensieve server knows, and what they may take. Reference: docs/MODEL-REGISTRY.md.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryFile {
    /// The version of this format: 1.
    #[schemars(with = "u32", range(min = 1, max = 1))]
    pub version: Spanned<u32>,
    #[serde(default)]
    pub mode: ModeName,
    pub single: Option<Single>,
    pub memory: Memory,
    #[serde(default)]
    pub defaults: Settings,
    /// The models by id.
    #[schemars(with = "BTreeMap<String, Model>", length(min = 1))]
    #[schemars(extend("propertyNames" = {"pattern": "^[a-zA-Z0-9._:/-]{1,64}$"}))]
    pub models: IndexMap<String, Spanned<Model>>,
}

/// Which of the two servers this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    /// All models under the budget.
    #[default]
    Fleet,
    /// One model, preloaded.
    Single,
}

/// `single:`, what `mode: single` serves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Single {
    /// The model; may be left out where only one is listed.
    #[schemars(with = "Option<String>")]
    pub model: Option<Spanned<String>>,
    /// Its `sequences` in that mode.
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub sequences: Option<Spanned<u32>>,
}

/// What models may take.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Bytes that models may take together.
    #[schemars(with = "Size")]
    pub budget: Spanned<Bytes>,
    /// Bytes of the budget kept free for everything that is no model.
    #[serde(default = "no_bytes")]
    #[schemars(with = "Option<Size>")]
    pub headroom: Bytes,
    /// Bytes of the budget for keys and values of all models of the `paged` engine.
    #[schemars(with = "Option<Size>")]
    pub kv_pool: Option<Bytes>,
}

impl Memory {
    /// Bytes of the pool: as written, or a quarter of the budget.
    pub fn kv_pool_bytes(&self) -> u64 {
        self.kv_pool.map_or(self.budget.value.as_u64() / 4, |pool| pool.as_u64())
    }
}

/// Keys that `defaults:` and every model share; a model's own win.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `auto`, which takes the first engine that can run the model, or one by name.
    #[schemars(with = "Option<String>")]
    pub engine: Option<Spanned<String>>,
    /// Tokens of prompt and answer together.
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub context: Option<Spanned<u32>>,
    /// Sequences at once.
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub sequences: Option<Spanned<u32>>,
    /// What the `paged` engine keeps keys and values as.
    pub kv_type: Option<KvType>,
    #[serde(default)]
    pub queue: Queue,
    /// A load that takes longer has failed.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<Time>")]
    pub load_timeout: Option<Duration>,
    /// How long requests may still run when the model is to leave.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<Time>")]
    pub drain_timeout: Option<Duration>,
    #[serde(default)]
    pub sampling: Sampling,
    pub declared: Option<Declared>,
}

/// Where requests wait for their model.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// Requests that may wait; one more is answered 429.
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub depth: Option<Spanned<u32>>,
    /// How long one may wait, its model's load included.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<Time>")]
    pub timeout: Option<Duration>,
}

/// What a request that does not say gets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<u32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
}

/// One entry of `models:`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The GGUF file, relative to the registry file.
    #[schemars(with = "Option<String>")]
    pub source: Option<Spanned<PathBuf>>,
    /// Shown by `GET /v1/models`.
    pub description: Option<String>,
    /// Other names that requests may use.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub aliases: Vec<Spanned<String>>,
    /// Loaded at start; the server is ready once all of these are.
    #[serde(default)]
    pub preload: bool,
    /// Never evicted to make room.
    #[serde(default)]
    pub pin: bool,
    // The shared keys stand here once more, because serde cannot flatten and refuse unknown keys.
    #[schemars(with = "Option<String>")]
    pub engine: Option<Spanned<String>>,
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub context: Option<Spanned<u32>>,
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub sequences: Option<Spanned<u32>>,
    pub kv_type: Option<KvType>,
    #[serde(default)]
    pub queue: Queue,
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<Time>")]
    pub load_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<Time>")]
    pub drain_timeout: Option<Duration>,
    #[serde(default)]
    pub sampling: Sampling,
    pub declared: Option<Declared>,
}

/// What a file is like that is not there yet, for `pensieve validate` to plan with. `serve` wants the
/// file, and where it is there it is looked at instead.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// Bytes of the file.
    #[schemars(with = "Size")]
    pub weights: Bytes,
    /// The type of most of its tensors, for example `Q3_K`.
    #[serde(rename = "type", deserialize_with = "tensor_type")]
    #[schemars(with = "String")]
    pub kind: TensorType,
    /// `general.architecture` of the file.
    #[serde(default = "llama")]
    pub architecture: String,
    /// Layers.
    pub layers: NonZeroU32,
    /// Width of the hidden state.
    pub embedding: NonZeroU32,
    /// Query heads.
    pub heads: NonZeroU32,
    /// Key/value heads.
    pub kv_heads: NonZeroU32,
    /// Width of one head.
    pub head: NonZeroU32,
    /// Tokens in the vocabulary.
    pub vocabulary: NonZeroU32,
    /// Tokens that the model was made for; without it, as many as the registry asks for.
    pub context: Option<NonZeroU32>,
}

impl RegistryFile {
    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    /// As [`RegistryFile::parse`], or that it cannot be read.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Problems::one(path, 0, "", format!("the registry file cannot be read ({error}): name one with --registry"))
        })?;
        Self::parse(&text, path)
    }

    /// Parses the text of a file; `file` is only named in problems.
    ///
    /// # Errors
    /// The first mistake, with its line and YAML path.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Problems> {
        // The parser knows the line, the wrapper around it the path; together they make the message.
        let mut path = String::new();
        serde_saphyr::with_deserializer_from_str(text, |de| {
            serde_path_to_error::deserialize(de).map_err(|error| {
                path = error.path().to_string();
                error.into_inner()
            })
        })
        .map_err(|error| {
            let error = error.without_snippet();
            let line = error.location().map_or(0, |location| location.line());
            Problems::one(file, line, written(&path), short(&error.to_string()))
        })
    }
}

/// A path as its writer knows it: without the layer that keeps line numbers (`models.a.value.pin`).
fn written(path: &str) -> String {
    let segments = path.trim_end_matches(['?', '.']).split('.').enumerate();
    segments.filter(|(depth, name)| *depth < 2 || *name != "value").map(|(_, name)| name).collect::<Vec<_>>().join(".")
}

/// The parser's message without the place, which stands in front of it already.
fn short(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    message.lines().next().unwrap_or(message).trim_end_matches(['.', ':', ',']).to_owned()
}

fn no_bytes() -> Bytes {
    Bytes::b(0)
}

fn llama() -> String {
    "llama".to_owned()
}

/// A tensor type by its name.
fn tensor_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TensorType, D::Error> {
    let name = String::deserialize(deserializer)?;
    TensorType::named(&name)
        .ok_or_else(|| serde::de::Error::custom(format!("`{name}` is no tensor type: write one such as Q3_K or Q8_0")))
}

/// Times as `30s`, `10m`, `1h 30m`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map(Some)
        .map_err(|error| serde::de::Error::custom(format!("`{text}` is no time ({error}): write it as 30s or 10m")))
}
