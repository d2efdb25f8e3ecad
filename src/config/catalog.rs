//! What the registry file means: every model checked, every default filled in.

mod file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gguf::Summary;
use indexmap::IndexMap;
use serde_saphyr::Spanned;

pub use self::file::header_of;
use self::file::{Files, Found};
use super::registry_file::{ModeName, Model, RegistryFile, Sampling, Settings};
use super::{Problem, Problems};
use crate::domain::{Bytes, ModelId};
use crate::engine::{Choice, Engines, Footprint, LoadSpec};

const DEFAULT_CONTEXT: u32 = 2048;
const DEFAULT_SEQUENCES: u32 = 20;
const DEFAULT_QUEUE_DEPTH: u32 = 64;
const DEFAULT_QUEUE_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_LOAD_TIMEOUT: Duration = Duration::from_secs(300);
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const LONGEST_NAME: usize = 64;

/// The two shapes of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One model, many sequences.
    Single,
    /// Many models under one budget.
    Fleet,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Fleet => "fleet",
        }
    }
}

/// A checked registry file.
#[derive(Clone)]
pub struct Catalog {
    pub mode: Mode,
    /// Bytes that models may take together: the file's budget less its headroom and its pool.
    pub budget: u64,
    /// Bytes of keys and values of all models of the paged engine; 0 if no model uses it.
    pub kv_pool: u64,
    pub models: IndexMap<ModelId, Arc<ModelConfig>>,
    aliases: BTreeMap<String, ModelId>,
}

/// One model of the catalog.
#[derive(Clone)]
pub struct ModelConfig {
    pub id: ModelId,
    pub description: Option<String>,
    pub aliases: Vec<String>,
    pub preload: bool,
    pub pin: bool,
    pub queue: QueueConfig,
    pub load_timeout: Duration,
    pub drain_timeout: Duration,
    pub sampling: Sampling,
    pub choice: Choice,
    pub spec: LoadSpec,
    /// Its file is not there: it can be planned, not loaded.
    pub declared: bool,
    /// What a load will take, by the engine's own reckoning.
    pub estimate: Footprint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Requests that may wait.
    pub depth: usize,
    /// How long one may wait, its model's load included.
    pub timeout: Duration,
}

impl Catalog {
    /// Reads, parses and checks the file at `path`, model files included.
    ///
    /// # Errors
    /// All mistakes found.
    pub fn read(path: &Path, engines: &Engines) -> Result<Self, Problems> {
        Self::of(&RegistryFile::read(path)?, path, engines)
    }

    /// Checks a parsed file, model files included; `path` is where it was read.
    ///
    /// # Errors
    /// All mistakes found.
    pub fn of(file: &RegistryFile, path: &Path, engines: &Engines) -> Result<Self, Problems> {
        Self::with(Files::Needed, file, path, engines)
    }

    /// The same for a look ahead: where a model file is not there, what the registry declares of it
    /// counts.
    ///
    /// # Errors
    /// All mistakes found.
    pub fn planned(file: &RegistryFile, path: &Path, engines: &Engines) -> Result<Self, Problems> {
        Self::with(Files::MayBeDeclared, file, path, engines)
    }

    fn with(files: Files, file: &RegistryFile, path: &Path, engines: &Engines) -> Result<Self, Problems> {
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        let mut check = Check { directory, engines, files, problems: Vec::new() };
        let catalog = check.catalog(file);
        match check.problems.is_empty() {
            true => Ok(catalog),
            false => Err(Problems { file: path.to_owned(), problems: check.problems }),
        }
    }

    /// The model of this id or alias.
    pub fn resolve(&self, name: &str) -> Option<&Arc<ModelConfig>> {
        self.models.get(name).or_else(|| self.models.get(self.aliases.get(name)?))
    }
}

/// One pass over a file that keeps going after a mistake.
struct Check<'a> {
    directory: &'a Path,
    engines: &'a Engines,
    files: Files,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, line: u64, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { line, path: path.into(), message: message.into() });
    }

    fn catalog(&mut self, file: &RegistryFile) -> Catalog {
        if file.version.value != 1 {
            let line = file.version.referenced.line();
            self.problem(line, "version", format!("version {} is not known: write `version: 1`", file.version.value));
        }
        if file.models.is_empty() {
            self.problem(0, "models", "there is no model: add one with its `source`");
        }
        let wanted = self.wanted(file);
        let mut models = IndexMap::new();
        for (id, entry) in file.models.iter().filter(|(id, _)| wanted.is_none_or(|only| only == id.as_str())) {
            if let Some(mut config) = self.model(id, &entry.value, entry.referenced.line(), &file.defaults) {
                if file.mode == ModeName::Single {
                    config.preload = true;
                    if let Some(sequences) = file.single.as_ref().and_then(|single| single.sequences.as_ref()) {
                        config.spec.sequences = self.at_least_one(sequences, "single.sequences");
                    }
                    config.estimate = config.choice.engine.estimate(&config.spec);
                }
                models.insert(config.id.clone(), Arc::new(config));
            }
        }
        let aliases = self.aliases(file, &models);
        let paged = models.values().any(|config| config.choice.engine.name() == crate::engine::paged::NAME);
        let kv_pool = if paged { file.memory.kv_pool_bytes() } else { 0 };
        let taken = file.memory.headroom.as_u64().saturating_add(kv_pool);
        let budget = file.memory.budget.value.as_u64().saturating_sub(taken);
        self.budget(file, budget, &models);
        let mode = match file.mode {
            ModeName::Fleet => Mode::Fleet,
            ModeName::Single => Mode::Single,
        };
        Catalog { mode, budget, kv_pool, models, aliases }
    }

    /// The one model of `mode: single`; `None` means all.
    fn wanted<'f>(&mut self, file: &'f RegistryFile) -> Option<&'f str> {
        if file.mode == ModeName::Fleet {
            return None;
        }
        match file.single.as_ref().and_then(|single| single.model.as_ref()) {
            Some(name) if file.models.contains_key(&name.value) => Some(&name.value),
            Some(name) => {
                self.problem(name.referenced.line(), "single.model", format!("there is no model `{}`", name.value));
                None
            }
            None => {
                if file.models.len() > 1 {
                    self.problem(
                        0,
                        "single",
                        "several models are listed: name the one to serve as `single: {model: ...}`",
                    );
                }
                file.models.keys().next().map(String::as_str)
            }
        }
    }

    fn model(&mut self, id: &str, model: &Model, line: u64, defaults: &Settings) -> Option<ModelConfig> {
        self.queue(id, model, defaults);
        if !good_name(id) {
            self.problem(line, format!("models.{id}"), NAME_RULE);
        }
        let engine = model.engine.as_ref().or(defaults.engine.as_ref());
        let engine_line = engine.map_or(line, |name| name.referenced.line());
        let Found { source, summary, declared, choice } = match engine.map_or("auto", |name| name.value.as_str()) {
            fake @ crate::engine::fake::NAME => {
                let Some(choice) = self.engines.named(fake) else {
                    let message = "the fake engine is not in this server";
                    self.problem(engine_line, format!("models.{id}.engine"), message);
                    return None;
                };
                Found { source: PathBuf::new(), summary: None, declared: false, choice }
            }
            name => self.file(id, model, defaults, line, (name, engine_line))?,
        };
        let spec = LoadSpec {
            model: id.into(),
            context: self.context(id, model, defaults, summary.as_deref()),
            sequences: self.sequences(id, model, defaults),
            kv_type: model.kv_type.or(defaults.kv_type).unwrap_or_default(),
            source,
            summary,
        };
        Some(ModelConfig { declared, ..settle(id, model, defaults, choice, spec) })
    }

    fn context(&mut self, id: &str, model: &Model, defaults: &Settings, summary: Option<&Summary>) -> u32 {
        let most = summary.map_or(u32::MAX, |summary| u32::try_from(summary.context_length).unwrap_or(u32::MAX));
        let asked = model.context.as_ref();
        if let Some(asked) = asked
            && (asked.value == 0 || asked.value > most)
        {
            let message = format!("the model's context goes from 1 to {most} tokens");
            self.problem(asked.referenced.line(), format!("models.{id}.context"), message);
        }
        let default = defaults.context.as_ref().map_or(DEFAULT_CONTEXT, |context| context.value);
        asked.map_or(default, |asked| asked.value).min(most)
    }

    fn sequences(&mut self, id: &str, model: &Model, defaults: &Settings) -> u32 {
        let asked = model.sequences.as_ref().or(defaults.sequences.as_ref());
        asked.map_or(DEFAULT_SEQUENCES, |asked| self.at_least_one(asked, format!("models.{id}.sequences")))
    }

    fn at_least_one(&mut self, asked: &Spanned<u32>, path: impl Into<String>) -> u32 {
        if asked.value == 0 {
            self.problem(asked.referenced.line(), path, "must be at least 1");
        }
        asked.value
    }

    fn queue(&mut self, id: &str, model: &Model, defaults: &Settings) {
        if let Some(zero) = asked_depth(model, defaults).filter(|depth| depth.value == 0) {
            let message = "must be at least 1: every request passes through the queue";
            self.problem(zero.referenced.line(), format!("models.{id}.queue.depth"), message);
        }
    }

    fn aliases(
        &mut self,
        file: &RegistryFile,
        models: &IndexMap<ModelId, Arc<ModelConfig>>,
    ) -> BTreeMap<String, ModelId> {
        let mut taken: BTreeMap<String, ModelId> = BTreeMap::new();
        for (id, entry) in file.models.iter().filter(|(id, _)| models.contains_key(id.as_str())) {
            for alias in &entry.value.aliases {
                let (line, name) = (alias.referenced.line(), alias.value.clone());
                let path = format!("models.{id}.aliases");
                if !good_name(&name) {
                    self.problem(line, path, NAME_RULE);
                } else if file.models.contains_key(&name) {
                    self.problem(line, path, format!("`{name}` is the id of a model: an alias must be another name"));
                } else if let Some(other) = taken.insert(name.clone(), id.as_str().into()) {
                    self.problem(line, path, format!("`{name}` is an alias of `{other}` already"));
                }
            }
        }
        taken
    }

    fn budget(&mut self, file: &RegistryFile, budget: u64, models: &IndexMap<ModelId, Arc<ModelConfig>>) {
        let line = |id: &ModelId| file.models.get(id.as_str()).map_or(0, |entry| entry.referenced.line());
        for config in models.values().filter(|config| config.estimate.total() > budget) {
            let message = format!(
                "it needs {} and can never fit the budget of {}: raise memory.budget, or lower its context",
                Bytes::b(config.estimate.total()),
                Bytes::b(budget)
            );
            self.problem(line(&config.id), format!("models.{}", config.id), message);
        }
        let staying = models.values().filter(|config| config.preload || config.pin);
        let together = staying.fold(0u64, |sum, config| sum.saturating_add(config.estimate.total()));
        if together > budget && models.values().all(|config| config.estimate.total() <= budget) {
            let message = format!(
                "the preloaded and pinned models need {} together, the budget less headroom is {}: raise it to {}, or preload fewer",
                Bytes::b(together),
                Bytes::b(budget),
                Bytes::b(together.saturating_add(file.memory.headroom.as_u64()))
            );
            self.problem(file.memory.budget.referenced.line(), "memory.budget", message);
        }
    }
}

/// Fills in what the model does not say, from `defaults:` and then from the house.
fn settle(id: &str, model: &Model, defaults: &Settings, choice: Choice, spec: LoadSpec) -> ModelConfig {
    ModelConfig {
        id: id.into(),
        description: model.description.clone(),
        aliases: model.aliases.iter().map(|alias| alias.value.clone()).collect(),
        preload: model.preload,
        pin: model.pin,
        queue: QueueConfig {
            depth: asked_depth(model, defaults).map_or(DEFAULT_QUEUE_DEPTH, |depth| depth.value) as usize,
            timeout: model.queue.timeout.or(defaults.queue.timeout).unwrap_or(DEFAULT_QUEUE_TIMEOUT),
        },
        load_timeout: model.load_timeout.or(defaults.load_timeout).unwrap_or(DEFAULT_LOAD_TIMEOUT),
        drain_timeout: model.drain_timeout.or(defaults.drain_timeout).unwrap_or(DEFAULT_DRAIN_TIMEOUT),
        sampling: model.sampling.over(&defaults.sampling),
        estimate: choice.engine.estimate(&spec),
        choice,
        spec,
        declared: false,
    }
}

fn asked_depth<'s>(model: &'s Model, defaults: &'s Settings) -> Option<&'s Spanned<u32>> {
    model.queue.depth.as_ref().or(defaults.queue.depth.as_ref())
}

impl Sampling {
    fn over(&self, below: &Self) -> Self {
        Self {
            temperature: self.temperature.or(below.temperature),
            top_p: self.top_p.or(below.top_p),
            top_k: self.top_k.or(below.top_k),
            min_p: self.min_p.or(below.min_p),
            repetition_penalty: self.repetition_penalty.or(below.repetition_penalty),
        }
    }
}

const NAME_RULE: &str = "a name has 1 to 64 of the characters a-z A-Z 0-9 . _ - : /";

fn good_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte))
}

#[cfg(test)]
mod tests;
