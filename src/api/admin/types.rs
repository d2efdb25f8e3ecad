//! What goes over the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::{Capabilities, Footprint, Stats};
use crate::registry::{ModelView, State, Strategy};

/// One model, as an operator wants to know it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelStatus {
    #[schema(example = "reverse")]
    pub id: String,
    pub aliases: Vec<String>,
    /// `unloaded`, `loading`, `ready`, `draining`, `unloading` or `failed`.
    #[schema(example = "ready")]
    pub state: &'static str,
    /// Why it failed.
    pub reason: Option<String>,
    pub seconds_in_state: f64,
    pub preload: bool,
    pub pin: bool,
    pub engine: &'static str,
    /// Why this engine was taken.
    pub engine_reason: String,
    /// The file, as the registry names it.
    pub source: String,
    pub context: u32,
    /// Requests that use it at this moment.
    pub in_use: u32,
    /// What it truly does; null unless it is loaded.
    pub capabilities: Option<Capabilities>,
    /// What its engine is doing and has done since the load; null unless it is loaded.
    pub stats: Option<Stats>,
    /// Seconds the last load took.
    pub load_seconds: Option<f64>,
    pub memory: ModelMemory,
}

/// Bytes of one model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelMemory {
    /// Reckoned from the file's header.
    pub estimated: Footprint,
    /// As the engine measured it; null unless it is loaded.
    pub measured: Option<Footprint>,
    pub estimated_total: u64,
    pub measured_total: Option<u64>,
    /// How far the estimate was off, in percent of what was measured.
    pub error_percent: Option<f64>,
}

/// The whole server.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    pub version: &'static str,
    /// `fleet` or `single`.
    pub mode: &'static str,
    pub uptime_seconds: u64,
    /// Whether every preloaded model is ready.
    pub ready: bool,
    pub memory: ServerMemory,
    pub models: Vec<ModelStatus>,
}

/// The books, beside what the system says.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerMemory {
    /// Bytes that models may take together.
    pub budget: u64,
    /// Bytes on the books: reserved for loads that run, committed to models that are loaded.
    pub used: u64,
    pub free: u64,
    /// Bytes set aside for keys and values of the paged engine's models; not part of the budget.
    pub kv_pool: u64,
    /// Bytes of physical memory the process holds; null where the system does not tell.
    pub resident: Option<u64>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SwapRequest {
    /// The model that leaves; it must be ready.
    #[schema(example = "reverse")]
    pub from: String,
    /// The model that comes; it must not be loaded.
    #[schema(example = "roman")]
    pub to: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SwapResponse {
    pub strategy: Strategy,
    pub seconds: f64,
    pub from: ModelStatus,
    pub to: ModelStatus,
}

impl From<&ModelView> for ModelStatus {
    fn from(model: &ModelView) -> Self {
        let config = &model.config;
        Self {
            id: config.id.to_string(),
            aliases: config.aliases.clone(),
            state: model.state.name(),
            reason: match &model.state {
                State::Failed(reason) => Some(reason.clone()),
                _ => None,
            },
            seconds_in_state: model.since.elapsed().as_secs_f64(),
            preload: config.preload,
            pin: config.pin,
            engine: config.choice.engine.name(),
            engine_reason: config.choice.reason.clone(),
            source: config.spec.source.display().to_string(),
            context: config.spec.context,
            in_use: model.leases(),
            capabilities: model.capabilities.clone(),
            stats: model.stats(),
            load_seconds: model.load_time.map(|time| time.as_secs_f64()),
            memory: ModelMemory::new(config.estimate, model.measured),
        }
    }
}

impl ModelMemory {
    fn new(estimated: Footprint, measured: Option<Footprint>) -> Self {
        let estimated_total = estimated.total();
        let measured_total = measured.map(|measured| measured.total());
        let off = |measured: u64| (estimated_total as f64 - measured as f64) / measured as f64 * 100.0;
        Self {
            estimated,
            measured,
            estimated_total,
            measured_total,
            error_percent: measured_total.filter(|measured| *measured > 0).map(off),
        }
    }
}
