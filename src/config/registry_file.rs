//! `model-registry.yaml` as it is written. Unknown keys, duplicate keys and wrong types are errors
//! with their line; what the values mean is decided in [`super::catalog`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::Problems;
use crate::domain::Bytes;
use crate::engine::KvType;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryFile {
    pub version: Spanned<u32>,
    #[serde(default)]
    pub mode: ModeName,
    pub single: Option<Single>,
    pub memory: Memory,
    #[serde(default)]
    pub defaults: Settings,
    pub models: IndexMap<String, Spanned<Model>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    #[default]
    Fleet,
    Single,
}

/// `single:`, what `mode: single` serves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Single {
    pub model: Option<Spanned<String>>,
    pub sequences: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Bytes that models may take together.
    pub budget: Spanned<Bytes>,
    /// Bytes of the budget kept free for everything that is no model.
    #[serde(default = "no_bytes")]
    pub headroom: Bytes,
    /// Bytes of the budget for keys and values of all models of the `paged` engine.
    pub kv_pool: Option<Bytes>,
}

impl Memory {
    /// Bytes of the pool: as written, or a quarter of the budget.
    pub fn kv_pool_bytes(&self) -> u64 {
        self.kv_pool.map_or(self.budget.value.as_u64() / 4, |pool| pool.as_u64())
    }
}

/// Keys that `defaults:` and every model share; a model's own win.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub engine: Option<Spanned<String>>,
    pub context: Option<Spanned<u32>>,
    pub sequences: Option<Spanned<u32>>,
    pub kv_type: Option<KvType>,
    #[serde(default)]
    pub queue: Queue,
    #[serde(default, deserialize_with = "duration")]
    pub load_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub drain_timeout: Option<Duration>,
    #[serde(default)]
    pub sampling: Sampling,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub depth: Option<Spanned<u32>>,
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
}

/// What a request that does not say gets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<u32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
}

/// One entry of `models:`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The GGUF file, relative to the registry file.
    pub source: Option<Spanned<PathBuf>>,
    pub description: Option<String>,
    #[serde(default)]
    pub aliases: Vec<Spanned<String>>,
    /// Loaded at start; the server is ready once all of these are.
    #[serde(default)]
    pub preload: bool,
    /// Never evicted to make room.
    #[serde(default)]
    pub pin: bool,
    // The shared keys stand here once more, because serde cannot flatten and refuse unknown keys.
    pub engine: Option<Spanned<String>>,
    pub context: Option<Spanned<u32>>,
    pub sequences: Option<Spanned<u32>>,
    pub kv_type: Option<KvType>,
    #[serde(default)]
    pub queue: Queue,
    #[serde(default, deserialize_with = "duration")]
    pub load_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub drain_timeout: Option<Duration>,
    #[serde(default)]
    pub sampling: Sampling,
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

/// Times as `30s`, `10m`, `1h 30m`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map(Some)
        .map_err(|error| serde::de::Error::custom(format!("`{text}` is no time ({error}): write it as 30s or 10m")))
}
