//! A picture of the registry, taken after every step of its loop. Readers look at it; nobody acts
//! on it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::State;
use super::lease::Counter;
use crate::config::ModelConfig;
use crate::domain::ModelId;
use crate::engine::{Capabilities, Footprint, LoadedModel, Stats, Work};

#[derive(Clone)]
pub struct View {
    /// In the order of the registry file.
    pub models: Arc<[ModelView]>,
    pub budget: u64,
    /// Bytes on the books: reserved and committed.
    pub used: u64,
}

#[derive(Clone)]
pub struct ModelView {
    pub config: Arc<ModelConfig>,
    pub state: State,
    /// When this state was entered.
    pub since: Instant,
    /// What the last load took.
    pub load_time: Option<Duration>,
    /// What it holds, as the engine measured it; only while it is loaded.
    pub measured: Option<Footprint>,
    pub capabilities: Option<Capabilities>,
    pub(super) leases: Counter,
    /// The model while it is loaded. Weak: a picture must not keep it in memory.
    pub(super) model: Option<Weak<dyn LoadedModel>>,
    /// What earlier loads of it did.
    pub(super) earlier: Work,
}

impl View {
    pub fn model(&self, id: &ModelId) -> Option<&ModelView> {
        self.models.iter().find(|model| model.config.id == *id)
    }

    /// Preloaded models that were never loaded yet; empty once the server is ready. A model that
    /// has made room for another since then is no reason to send users away.
    pub fn not_ready(&self) -> impl Iterator<Item = &ModelView> {
        self.models.iter().filter(|model| model.config.preload && model.load_time.is_none())
    }
}

impl ModelView {
    /// Requests that use it at this moment.
    pub fn leases(&self) -> u32 {
        self.leases.usage().count
    }

    /// What it is doing and has done; only while it is loaded. Asking is no use of it.
    pub fn stats(&self) -> Option<Stats> {
        Some(self.model.as_ref()?.upgrade()?.stats())
    }

    /// The work of all its loads, of which `now` is what the present one says.
    pub fn work(&self, now: Option<Stats>) -> Work {
        self.earlier.plus(now.unwrap_or_default().work)
    }
}
