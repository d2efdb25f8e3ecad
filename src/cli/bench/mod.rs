//! `pensieve bench`: how fast, and the synthetic models to measure it on.

mod engine;
mod synth;

use clap::{Args, Subcommand};

use super::Failure;

#[derive(Debug, Args)]
pub(super) struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a synthetic GGUF of a real shape: speed does not depend on the values.
    Synth(synth::Synth),
    /// Measure the paged engine on a model: prefill and decode, by number of sequences.
    Engine(engine::EngineBench),
}

impl Bench {
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Synth(synth) => synth.run(),
            Command::Engine(engine) => engine.run(),
        }
    }
}
