//! Mistakes in a registry file, told so that they can be mended.

use std::fmt;
use std::path::{Path, PathBuf};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; 0 where there is none.
    pub line: u64,
    /// The YAML path, for example `models.reverse.source`.
    pub path: String,
    pub message: String,
}

/// All mistakes of one file; printed one a line as `file:line: path: message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    pub file: PathBuf,
    pub problems: Vec<Problem>,
}

impl Problems {
    pub fn one(file: &Path, line: u64, path: impl Into<String>, message: impl Into<String>) -> Self {
        let problem = Problem { line, path: path.into(), message: message.into() };
        Self { file: file.to_owned(), problems: vec![problem] }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file.display())?;
            if problem.line > 0 {
                write!(f, ":{}", problem.line)?;
            }
            if !problem.path.is_empty() {
                write!(f, ": {}", problem.path)?;
            }
            write!(f, ": {}", problem.message)?;
        }
        Ok(())
    }
}
