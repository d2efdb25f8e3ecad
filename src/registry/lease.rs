//! The right to use a model: while one lives, the model stays loaded.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::domain::ModelId;
use crate::engine::LoadedModel;

/// A loaded model in use. Dropping it ends the use.
pub struct Lease {
    id: ModelId,
    model: Arc<dyn LoadedModel>,
    counter: Counter,
}

impl Lease {
    pub(super) fn new(id: ModelId, model: Arc<dyn LoadedModel>, counter: &Counter) -> Self {
        counter.change(|count| count + 1);
        Self { id, model, counter: counter.clone() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.counter.change(|count| count.saturating_sub(1));
    }
}

impl Deref for Lease {
    type Target = dyn LoadedModel;

    fn deref(&self) -> &Self::Target {
        self.model.as_ref()
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("model", &self.id).finish_non_exhaustive()
    }
}

/// How many leases of one model live, and since when.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    usage: Arc<watch::Sender<Usage>>,
    /// Told when a count falls to zero: room may have become free.
    idle: Arc<Notify>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub count: u32,
    /// When the count last changed.
    pub changed: Instant,
}

impl Counter {
    pub fn new(idle: Arc<Notify>) -> Self {
        Self { usage: Arc::new(watch::Sender::new(Usage { count: 0, changed: Instant::now() })), idle }
    }

    pub fn usage(&self) -> Usage {
        *self.usage.borrow()
    }

    /// Completes when no lease is left.
    pub async fn drained(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.usage.subscribe().wait_for(|usage| usage.count == 0).await;
    }

    fn change(&self, next: impl Fn(u32) -> u32) {
        self.usage.send_modify(|usage| *usage = Usage { count: next(usage.count), changed: Instant::now() });
        if self.usage().count == 0 {
            self.idle.notify_one();
        }
    }
}
