//! The slow work of the registry, each piece a task that ends in exactly one report.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::mpsc;

use crate::config::ModelConfig;
use crate::config::catalog::header_of;
use crate::domain::{Bytes, ModelId};
use crate::engine::{Error, LoadedModel, Released};
use crate::registry::lease::Counter;
use crate::registry::ledger::Overrun;

/// What a task tells the loop.
pub(super) enum Report {
    Loaded {
        id: ModelId,
        model: Arc<dyn LoadedModel>,
        took: Duration,
    },
    LoadFailed {
        id: ModelId,
        reason: String,
        took: Duration,
        memory_back: bool,
    },
    /// A load that had timed out has ended, and its memory is back.
    LateLoadReleased {
        id: ModelId,
    },
    Drained {
        id: ModelId,
    },
    Unloaded {
        id: ModelId,
        released: Released,
    },
    Swapped {
        succeeded: bool,
    },
}

/// The way back to the loop.
#[derive(Clone)]
pub(super) struct Reports(mpsc::Sender<Report>);

impl Reports {
    pub fn new(sender: mpsc::Sender<Report>) -> Self {
        Self(sender)
    }

    pub async fn send(&self, report: Report) {
        // A closed loop is a server that has shut down: there is nobody to tell.
        let _ = self.0.send(report).await;
    }
}

/// Loads a model within its load timeout.
pub(super) async fn load(config: Arc<ModelConfig>, reports: Reports) {
    let (id, started) = (config.id.clone(), Instant::now());
    let loading = AssertUnwindSafe(load_checked(config.clone())).catch_unwind();
    tokio::pin!(loading);
    let failed = |reason: String, memory_back: bool| {
        let took = started.elapsed();
        Report::LoadFailed { id: id.clone(), reason, took, memory_back }
    };
    match tokio::time::timeout(config.load_timeout, &mut loading).await {
        Ok(Ok(Ok(model))) => reports.send(Report::Loaded { id, model, took: started.elapsed() }).await,
        Ok(Ok(Err(error))) => reports.send(failed(error.to_string(), true)).await,
        Ok(Err(_panic)) => reports.send(failed("the engine panicked while it was loading".into(), true)).await,
        Err(_elapsed) => {
            let limit = humantime::format_duration(config.load_timeout);
            reports.send(failed(format!("not loaded within {limit}: raise load_timeout"), false)).await;
            // A blocking load cannot be stopped: its bytes stay on the books until it ends.
            if let Ok(Ok(model)) = loading.await
                && let Released::No(reason) = released(model).await
            {
                tracing::error!(model = id.as_str(), reason, "a late load did not give its memory back");
                return;
            }
            reports.send(Report::LateLoadReleased { id }).await;
        }
    }
}

/// The file may have changed since the registry was read; then its estimate no longer holds.
async fn load_checked(config: Arc<ModelConfig>) -> Result<Arc<dyn LoadedModel>, Error> {
    if let Some(expected) = config.spec.summary.clone() {
        let source = config.spec.source.clone();
        let found = tokio::task::spawn_blocking(move || header_of(&source))
            .await
            .map_err(|error| Error::Load(format!("reading the header failed: {error}")))?
            .map_err(|problem| Error::Load(format!("{}: {problem}", config.spec.source.display())))?;
        if found != *expected {
            let source = config.spec.source.display();
            return Err(Error::Load(format!("{source} has changed since the registry was read: restart the server")));
        }
    }
    config.choice.engine.load(config.spec.clone()).await
}

/// Waits until nobody uses the model, or its drain timeout is over.
pub(super) async fn drain(config: Arc<ModelConfig>, counter: Counter, reports: Reports) {
    if tokio::time::timeout(config.drain_timeout, counter.drained()).await.is_err() {
        let left = counter.usage().count;
        tracing::warn!(model = config.id.as_str(), left, "drain timeout over: its requests end with an error");
    }
    reports.send(Report::Drained { id: config.id.clone() }).await;
}

pub(super) async fn unload(id: ModelId, model: Arc<dyn LoadedModel>, reports: Reports) {
    let released = released(model).await;
    reports.send(Report::Unloaded { id, released }).await;
}

/// Whether the memory is back; after a panic nobody knows.
async fn released(model: Arc<dyn LoadedModel>) -> Released {
    let unloading = AssertUnwindSafe(model.unload()).catch_unwind();
    unloading.await.unwrap_or_else(|_panic| Released::No("the engine panicked while it was unloading".into()))
}

/// Gives back a load that measured more than the budget allows.
pub(super) async fn undo_load(
    id: ModelId,
    model: Arc<dyn LoadedModel>,
    over: Overrun,
    took: Duration,
    reports: Reports,
) {
    let released = released(model).await;
    let reason = format!(
        "it takes {} where {} were estimated and {} allowed: raise memory.budget",
        Bytes::b(over.measured),
        Bytes::b(over.estimated),
        Bytes::b(over.allowed)
    );
    reports.send(Report::LoadFailed { id, reason, took, memory_back: released == Released::Yes }).await;
}
