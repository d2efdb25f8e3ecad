//! The log subscriber. Lines go to standard error; prompts, completions and keys never do.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Pretty,
    Json,
}

/// Installs the subscriber for the whole process. A second call changes nothing.
///
/// `filter` is a level or a list of `target=level`, as `tracing_subscriber` reads it.
///
/// # Errors
/// The filter cannot be parsed.
pub fn install(format: Format, filter: &str) -> Result<(), String> {
    // mistral.rs logs its own progress, and warns of PagedAttention on every load; our lines say what users need.
    let filter = EnvFilter::try_new(format!("{filter},mistralrs_core=error,mistralrs_quant=error"))
        .map_err(|error| format!("the log filter `{filter}` cannot be read: {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _ = match format {
        Format::Pretty => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}
