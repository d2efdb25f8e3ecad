//! `pensieve bench synth`: random blocks with sane scales in the shape of a real model.

use std::path::PathBuf;

use clap::Args;
use synthetic::{NAMES, Quant, Shape};

use crate::cli::Failure;

#[derive(Debug, Args)]
pub(super) struct Synth {
    /// The shape of a model that people run.
    #[arg(long, value_name = "NAME", value_parser = shape, help = format!("One of {}", NAMES.join(", ")))]
    shape: Shape,
    /// How its matrices are quantized, as `llama-quantize` does it: `q3_k_m`, `q4_k_m`, `q5_k_m`,
    /// `q2_k`, or one type for all, such as `q8_0`.
    #[arg(long, value_name = "TYPE", default_value = "q3_k_m", value_parser = quant)]
    quant: Quant,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The same seed gives the same file.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Synth {
    pub fn run(self) -> Result<(), Failure> {
        let bytes = synthetic::model(&Shape { seed: self.seed, ..self.shape }, self.quant).to_bytes();
        std::fs::write(&self.out, &bytes)
            .map_err(|error| Failure::Configuration(format!("cannot write {}: {error}", self.out.display())))?;
        println!("{}: {} bytes", self.out.display(), bytes.len());
        Ok(())
    }
}

fn shape(name: &str) -> Result<Shape, String> {
    synthetic::named(name).ok_or_else(|| format!("the shapes are {}", NAMES.join(", ")))
}

fn quant(name: &str) -> Result<Quant, String> {
    Quant::named(name).ok_or_else(|| "not a type that a matrix can have, such as q3_k_m or q8_0".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(shape: &Shape, quant: &str) -> gguf::Summary {
        let bytes = synthetic::model(shape, Quant::named(quant).unwrap()).to_bytes();
        let header = gguf::Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap();
        gguf::Summary::of(&header).unwrap()
    }

    #[test]
    fn every_named_shape_is_one_that_the_paged_engine_runs() {
        for name in NAMES {
            // Fewer layers and tokens: the rest says what a model is.
            let shape = Shape { layers: 1, padding: 10, ..shape(name).unwrap() };
            let summary = summary(&shape, "q3_k_m");
            assert_eq!(paged_engine::model::supported(&summary), Ok(()), "{name}");
            assert_eq!((summary.embedding, summary.vocabulary), (shape.hidden, 273), "{name}");
        }
    }
}
