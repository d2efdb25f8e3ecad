//! The command line. Every flag has an environment form, `PENSIEVE_*`.

// First, as its macros are for those that follow.
#[macro_use]
mod stdout;

mod bench;
mod openapi;
mod schema;
mod serve;
mod validate;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use paged_engine::kernels::Kernels;

use crate::app;
use crate::config::registry_file::RegistryFile;
use crate::config::{Catalog, Problems};
use crate::engine::Engines;
use crate::telemetry::logging;

/// Serve many small language models, or one model to many users, from one process.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    logs: Logs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the models of the registry file.
    Serve(serve::Serve),
    /// Check the registry file and its models, and print the memory plan.
    Validate(validate::Validate),
    /// Measure speed, and write synthetic models to measure it on.
    Bench(bench::Bench),
    /// Print the OpenAPI document.
    Openapi(openapi::OpenApi),
    /// Print the JSON schema of the registry file.
    Schema(schema::Schema),
}

/// The registry file, which `serve` and `validate` read.
#[derive(Debug, Args)]
struct Registry {
    /// The registry file.
    #[arg(long = "registry", value_name = "FILE", default_value = "model-registry.yaml", env = "PENSIEVE_REGISTRY")]
    file: PathBuf,
    #[command(flatten)]
    kernels: KernelsFlag,
}

/// What the paged engine multiplies with.
#[derive(Debug, Args)]
struct KernelsFlag {
    /// The set of kernels, such as `avx2`; without it the fastest of this processor.
    #[arg(long = "kernels", value_name = "SET", env = "PENSIEVE_KERNELS")]
    set: Option<String>,
}

impl KernelsFlag {
    fn kernels(&self) -> Result<Kernels, Failure> {
        let Some(name) = &self.set else { return Ok(Kernels::best()) };
        Kernels::named(name).ok_or_else(|| {
            let names: Vec<&str> = Kernels::all().map(|kernels| kernels.name).collect();
            Failure::Configuration(format!("no kernels `{name}` on this processor; there are {}", names.join(", ")))
        })
    }
}

#[derive(Debug, Args)]
struct Logs {
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value = "pretty", env = "PENSIEVE_LOG_FORMAT")]
    log_format: logging::Format,
    /// What is logged: a level, or `target=level` pairs.
    #[arg(long, global = true, default_value = "info", env = "PENSIEVE_LOG")]
    log: String,
}

/// Why the program ends without having done what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Registry(#[from] Problems),
    /// Something else in the configuration, with the remedy.
    #[error("{0}")]
    Configuration(String),
    #[error("{0}")]
    Internal(String),
}

impl Registry {
    /// The checked catalog of the file.
    fn catalog(&self) -> Result<Catalog, Failure> {
        let (file, engines) = self.read()?;
        Ok(Catalog::of(&file, &self.file, &engines)?)
    }

    /// The same for a look ahead, in which declared sizes stand in for files that are not there.
    fn plan(&self) -> Result<Catalog, Failure> {
        let (file, engines) = self.read()?;
        Ok(Catalog::planned(&file, &self.file, &engines)?)
    }

    fn read(&self) -> Result<(RegistryFile, Engines), Failure> {
        let file = RegistryFile::read(&self.file)?;
        let engines = app::engines(file.memory.kv_pool_bytes(), self.kernels.kernels()?)
            .map_err(|error| Failure::Internal(format!("an engine cannot start: {error}")))?;
        Ok((file, engines))
    }
}

impl Failure {
    /// EX_USAGE of sysexits.h: the configuration is wrong; no port was bound.
    pub const CONFIGURATION: u8 = 64;
    /// EX_SOFTWARE of sysexits.h.
    pub const INTERNAL: u8 = 70;

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Registry(_) | Self::Configuration(_) => Self::CONFIGURATION,
            Self::Internal(_) => Self::INTERNAL,
        }
    }
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// [`Failure`], which knows its exit code.
    pub fn run(self) -> Result<(), Failure> {
        logging::install(self.logs.log_format, &self.logs.log).map_err(Failure::Configuration)?;
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Validate(validate) => validate.run(),
            Command::Bench(bench) => bench.run(),
            Command::Openapi(openapi) => openapi.run(),
            Command::Schema(schema) => schema.run(),
        }
    }
}
