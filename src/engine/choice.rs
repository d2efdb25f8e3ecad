//! Which engine runs a model: the one the registry file names, or the first that can.

use std::sync::Arc;

use super::{Engine, Support};

/// The engines of this build, in the order `auto` tries them.
#[derive(Clone)]
pub struct Engines(Vec<Arc<dyn Engine>>);

/// An engine and why it was taken.
#[derive(Clone)]
pub struct Choice {
    pub engine: Arc<dyn Engine>,
    pub reason: String,
}

impl Engines {
    /// `auto` never takes an engine that reads no files: the fake must be asked for by name.
    pub fn new(engines: Vec<Arc<dyn Engine>>) -> Self {
        Self(engines)
    }

    /// The names the registry file may use, `auto` first.
    pub fn names(&self) -> Vec<&'static str> {
        std::iter::once("auto").chain(self.0.iter().map(|engine| engine.name())).collect()
    }

    /// The engine called `name`; `None` if there is none, or if it is `auto`.
    pub fn named(&self, name: &str) -> Option<Choice> {
        let engine = self.0.iter().find(|engine| engine.name() == name)?.clone();
        Some(Choice { engine, reason: "named in the registry file".into() })
    }

    /// The engine for a model of this shape.
    ///
    /// # Errors
    /// Why each engine cannot run it.
    pub fn choose(&self, name: &str, model: &gguf::Summary) -> Result<Choice, String> {
        let able = |choice: Choice| match choice.engine.supports(model) {
            Support::Yes => Ok(choice),
            Support::No(why) => Err(format!("engine `{}` cannot run it: {why}", choice.engine.name())),
        };
        if name != "auto" {
            let unknown =
                || format!("there is no engine `{name}` in this build; there are {}", self.names().join(", "));
            return self.named(name).ok_or_else(unknown).and_then(able);
        }
        let mut refusals = Vec::new();
        for engine in self.0.iter().filter(|engine| engine.name() != super::fake::NAME) {
            let reason = match refusals.is_empty() {
                true => format!("auto: the first engine for {} models", model.architecture),
                false => format!("auto: {}", refusals.join("; ")),
            };
            match able(Choice { engine: engine.clone(), reason }) {
                Ok(choice) => return Ok(choice),
                Err(refusal) => refusals.push(refusal),
            }
        }
        match refusals.is_empty() {
            true => Err(
                "this build has no engine for GGUF files: build with the feature `mistralrs`, or write `engine: fake`"
                    .into(),
            ),
            false => Err(refusals.join("; ")),
        }
    }
}
