//! The memory plan: what every model will take, as a table for people.

use comfy_table::{CellAlignment, Table, presets};

use super::{Catalog, ModelConfig};
use crate::domain::Bytes;

/// The plan of a catalog, and whether all of it fits together.
pub fn table(catalog: &Catalog) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["model", "engine", "type", "context", "at start", "weights", "kv", "other", "total"]);
    for config in catalog.models.values() {
        table.add_row(row(config));
    }
    for column in table.column_iter_mut().skip(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n\n{}\n", table.trim_fmt(), verdict(catalog))
}

fn row(config: &ModelConfig) -> [String; 9] {
    let estimate = &config.estimate;
    let kind = config.spec.summary.as_ref().and_then(|summary| summary.main_type());
    [
        config.id.to_string(),
        config.choice.engine.name().to_owned(),
        match kind {
            None => "-".to_owned(),
            Some(kind) if config.declared => format!("{kind} (declared)"),
            Some(kind) => kind.to_string(),
        },
        config.spec.context.to_string(),
        start(config).to_owned(),
        Bytes::b(estimate.weights_mapped.saturating_add(estimate.weights_private)).to_string(),
        keys_and_values(config),
        Bytes::b(estimate.scratch.saturating_add(estimate.tables)).to_string(),
        Bytes::b(estimate.total()).to_string(),
    ]
}

/// What they take of the model's own memory, or a token of the pool that all share.
fn keys_and_values(config: &ModelConfig) -> String {
    match pooled(config) {
        0 => Bytes::b(config.estimate.kv).to_string(),
        token => format!("{}/token", Bytes::b(token)),
    }
}

fn pooled(config: &ModelConfig) -> u64 {
    config.choice.engine.pooled_per_token(&config.spec)
}

fn start(config: &ModelConfig) -> &'static str {
    match (config.preload, config.pin) {
        (_, true) => "pinned",
        (true, false) => "preload",
        (false, false) => "on demand",
    }
}

fn verdict(catalog: &Catalog) -> String {
    let sum = |wanted: fn(&ModelConfig) -> bool| {
        let models = catalog.models.values().filter(|config| wanted(config));
        models.fold(0u64, |sum, config| sum.saturating_add(config.estimate.total()))
    };
    let (all, start) = (sum(|_| true), sum(|config| config.preload || config.pin));
    let together = match all <= catalog.budget {
        true => "all models fit together".to_owned(),
        false => format!("all together would need {}: idle models make room for others", Bytes::b(all)),
    };
    let declared = match catalog.models.values().filter(|config| config.declared).count() {
        0 => String::new(),
        files => format!("\nNot there yet: {files} of the files; their sizes are as declared, and `serve` needs them."),
    };
    format!(
        "mode {}, models: {}; budget {}{}, at start {}, {together}.{declared}",
        catalog.mode.as_str(),
        catalog.models.len(),
        Bytes::b(catalog.budget),
        pool(catalog),
        Bytes::b(start),
    )
}

/// The pool, and how many tokens it holds of the models that need the most for one.
fn pool(catalog: &Catalog) -> String {
    if catalog.kv_pool == 0 {
        return String::new();
    }
    let most = catalog.models.values().map(|config| pooled(config)).max().unwrap_or(0);
    let tokens = catalog.kv_pool.checked_div(most).map_or_else(String::new, |tokens| format!(" ({tokens} tokens)"));
    format!(" beside a pool of {} for keys and values{tokens}", Bytes::b(catalog.kv_pool))
}
