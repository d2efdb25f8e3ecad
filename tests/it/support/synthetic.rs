//! Small synthetic models in files: real ones for real engines, in milliseconds.
//!
//! Greedy answers are printable ASCII and never end by themselves.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::path::PathBuf;
use std::sync::Arc;

use gguf::{TensorType, Writer};
use pensieve::engine::LoadSpec;
use synthetic::Quant;
pub use synthetic::Shape;
use tempfile::TempDir;

/// A model file that lives as long as this value.
pub struct SyntheticModel {
    _dir: TempDir,
    pub path: PathBuf,
    pub shape: Shape,
}

impl SyntheticModel {
    /// In Q8_0.
    pub fn new(shape: Shape) -> Self {
        Self::of(shape, TensorType::Q8_0)
    }

    /// With all matrices of this type.
    pub fn of(shape: Shape, kind: TensorType) -> Self {
        Self::from(shape, &synthetic::model(&shape, Quant::Plain(kind)))
    }

    pub fn from(shape: Shape, writer: &Writer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synthetic.gguf");
        std::fs::write(&path, writer.to_bytes()).unwrap();
        Self { _dir: dir, path, shape }
    }

    pub fn file_len(&self) -> u64 {
        std::fs::metadata(&self.path).unwrap().len()
    }

    pub fn spec(&self, name: &str) -> LoadSpec {
        spec(name, self.path.clone(), u32::try_from(self.shape.context).unwrap())
    }
}

/// A spec for a model file.
pub fn spec(name: &str, source: PathBuf, context: u32) -> LoadSpec {
    let header = gguf::Header::read(&source).unwrap();
    let summary = Some(Arc::new(gguf::Summary::of(&header).unwrap()));
    LoadSpec { model: name.into(), source, summary, context, sequences: 1, kv_type: Default::default() }
}
