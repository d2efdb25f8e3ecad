//! A model's file: what it is like, whether it may be missing, and which engine takes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gguf::{Header, Summary};

use super::Check;
use crate::config::declared;
use crate::config::registry_file::{Declared, Model, Settings};
use crate::engine::Choice;

/// Whether model files have to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    Needed,
    MayBeDeclared,
}

/// What a model runs on.
pub(super) struct Found {
    pub source: PathBuf,
    pub summary: Option<Arc<Summary>>,
    pub declared: bool,
    pub choice: Choice,
}

impl Check<'_> {
    /// The model's file, its summary, and the engine that takes it; `engine` is the name asked for
    /// and its line.
    pub(super) fn file(
        &mut self,
        id: &str,
        model: &Model,
        defaults: &Settings,
        line: u64,
        (engine, engine_line): (&str, u64),
    ) -> Option<Found> {
        let Some(named) = &model.source else {
            self.problem(line, format!("models.{id}"), "`source` is missing: name the GGUF file");
            return None;
        };
        let source = self.directory.join(&named.value);
        let declared = model.declared.as_ref().or(defaults.declared.as_ref());
        let read = self.look(&source, declared).map_err(|message| (named.referenced.line(), message));
        let chosen = read.and_then(|(summary, declared)| match self.engines.choose(engine, &summary) {
            Ok(choice) => Ok((summary, declared, choice)),
            Err(message) => Err((engine_line, message)),
        });
        match chosen {
            Ok((summary, declared, choice)) => {
                Some(Found { source, summary: Some(Arc::new(summary)), declared, choice })
            }
            Err((line, message)) => {
                self.problem(line, format!("models.{id}.source"), format!("{}: {message}", source.display()));
                None
            }
        }
    }

    /// What a file is like, and whether that is only declared.
    fn look(&self, file: &Path, declared: Option<&Declared>) -> Result<(Summary, bool), String> {
        let looked = header_of(file).map(|summary| (summary, false));
        let (Err(message), false) = (&looked, file.exists()) else { return looked };
        match (self.files, declared) {
            (Files::MayBeDeclared, Some(declared)) => Ok((declared::summary(declared), true)),
            (Files::MayBeDeclared, None) => Err(format!("{message}; to plan without it, write `declared`")),
            (Files::Needed, Some(_)) => Err(format!("{message}; `declared` serves `validate` only")),
            (Files::Needed, None) => looked,
        }
    }
}

/// The summary of a GGUF file, or what is wrong with the file and what to do.
pub fn header_of(file: &Path) -> Result<Summary, String> {
    match Header::read(file).and_then(|header| Summary::of(&header)) {
        Ok(summary) => Ok(summary),
        Err(gguf::Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("the file is not there: correct `source`, which is relative to the registry file".into())
        }
        Err(error @ gguf::Error::Truncated { .. }) => Err(format!("{error}: download or copy it again")),
        Err(error) => Err(error.to_string()),
    }
}
