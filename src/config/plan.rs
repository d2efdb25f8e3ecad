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
        kind.map_or_else(|| "-".to_owned(), |kind| kind.to_string()),
        config.spec.context.to_string(),
        start(config).to_owned(),
        Bytes::b(estimate.weights_mapped.saturating_add(estimate.weights_private)).to_string(),
        Bytes::b(estimate.kv).to_string(),
        Bytes::b(estimate.scratch.saturating_add(estimate.tables)).to_string(),
        Bytes::b(estimate.total()).to_string(),
    ]
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
    let pool = match catalog.kv_pool {
        0 => String::new(),
        pool => format!(" beside a pool of {} for keys and values", Bytes::b(pool)),
    };
    format!(
        "mode {}, models: {}; budget {}{pool}, at start {}, {together}.",
        catalog.mode.as_str(),
        catalog.models.len(),
        Bytes::b(catalog.budget),
        Bytes::b(start),
    )
}
