//! One model of the catalog, as the loop keeps it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::config::ModelConfig;
use crate::engine::{LoadedModel, Work};
use crate::registry::lease::Counter;
use crate::registry::planner::Standing;
use crate::registry::state::Event;
use crate::registry::{Error, Lease, State};

pub(in crate::registry) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Someone who waits for a model to be ready.
pub(super) enum Waiter {
    Lease(Reply<Lease>),
    Load { evict: bool, reply: Reply<()> },
}

/// One model of the catalog.
pub(super) struct Slot {
    pub config: Arc<ModelConfig>,
    pub state: State,
    pub since: Instant,
    pub model: Option<Arc<dyn LoadedModel>>,
    pub counter: Counter,
    pub load_time: Option<Duration>,
    /// What loads that are over did.
    pub earlier: Work,
    pub waiters: Vec<Waiter>,
    /// When the first of the waiters came: loads happen in this order.
    pub wanted: Option<Instant>,
    /// Those who wait for it to be gone.
    pub leavers: Vec<Reply<()>>,
}

impl Slot {
    pub fn new(config: Arc<ModelConfig>, counter: Counter) -> Self {
        Self {
            config,
            state: State::Unloaded,
            since: Instant::now(),
            model: None,
            counter,
            load_time: None,
            earlier: Work::default(),
            waiters: Vec::new(),
            wanted: None,
            leavers: Vec::new(),
        }
    }

    /// Takes the step if it is legal. The one place where states change and where it is logged.
    pub fn enter(&mut self, event: Event) -> bool {
        let Some(next) = self.state.after(event) else { return false };
        let (model, from) = (self.config.id.as_str(), self.state.name());
        match &next {
            State::Failed(reason) => tracing::error!(model, from, to = "failed", reason, "model state"),
            next => tracing::info!(model, from, to = next.name(), "model state"),
        }
        (self.state, self.since) = (next, Instant::now());
        true
    }

    pub fn wait(&mut self, waiter: Waiter) {
        self.wanted.get_or_insert_with(Instant::now);
        self.waiters.push(waiter);
    }

    /// Drops waiters whose callers are gone. Loads are kept: an admin or the start asked for them.
    pub fn forget_who_left(&mut self) {
        self.waiters.retain(|waiter| match waiter {
            Waiter::Lease(reply) => !reply.is_closed(),
            Waiter::Load { .. } => true,
        });
        if self.waiters.is_empty() {
            self.wanted = None;
        }
    }

    pub fn may_evict(&self) -> bool {
        self.waiters.iter().any(|waiter| matches!(waiter, Waiter::Lease(_) | Waiter::Load { evict: true, .. }))
    }

    pub fn standing(&self) -> Standing {
        match self.state {
            State::Draining | State::Unloading => Standing::Leaving,
            State::Loading => Standing::Busy,
            State::Ready if self.config.pin => Standing::Stays,
            State::Ready if self.counter.usage().count == 0 => Standing::Evictable,
            State::Ready => Standing::Busy,
            // On the books without being loaded: memory that was never given back.
            State::Unloaded | State::Failed(_) => Standing::Stays,
        }
    }
}

/// The caller may have left; then nobody wants the answer.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, Error>) {
    let _ = reply.send(result);
}
