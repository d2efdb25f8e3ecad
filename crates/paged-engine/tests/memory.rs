//! What a model costs, by what it says of itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::{Path, PathBuf};

use gguf::{Header, Summary};
use paged_engine::{Engine, LoadOptions, Options, tokenizer};
use support::TempFile;
use synthetic::{Quant, Shape};

/// The bytes of tables that are estimated and those that are held.
fn tables(path: &Path) -> (f64, f64) {
    let engine = Engine::start(Options { threads: 1, kv_bytes: 64 << 20, ..Options::default() }).unwrap();
    let model = engine.load(path, LoadOptions { context: 256, ..LoadOptions::default() }).unwrap();
    let summary = Summary::of(&Header::read(path).unwrap()).unwrap();
    assert_eq!(model.grammar_bytes(), 0);
    (tokenizer::estimate(&summary) as f64, model.table_bytes() as f64)
}

#[test]
fn what_tables_will_take_is_told_before_loading_to_a_tenth() {
    let models = ["reverse", "add", "roman"].map(|skill| format!("../../models/{skill}.Q3_K_M.gguf"));
    let mut files: Vec<PathBuf> =
        models.iter().map(|model| Path::new(env!("CARGO_MANIFEST_DIR")).join(model)).collect();
    let shape = Shape { padding: 32_000, ..Shape::default() };
    let large = TempFile::new("tables", &synthetic::model(&shape, Quant::named("q8_0").unwrap()).to_bytes());
    files.push(large.0.clone());
    for file in files {
        let (estimated, held) = tables(&file);
        assert!((estimated / held - 1.0).abs() < 0.1, "{}: {estimated} of {held}", file.display());
    }
}
