//! The worker of one model: queue, lease, slot, sequence, in this order.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::time::Instant;

use super::queue::Job;
use super::running::{Guard, Running};
use super::slots::Slots;
use super::{Error, Lane};
use crate::engine::{self, GenerateRequest};
use crate::registry;

/// Serves the lane's queue until it is dropped.
pub(super) async fn run(lane: Arc<Lane>, registry: registry::Handle) {
    let slots = Slots::new();
    loop {
        let Job { request, arrived, mut reply } = lane.queue.pop().await;
        let starting = start(&lane, &registry, &slots, request, arrived);
        let started = tokio::select! {
            // An engine that panics over one request must not take the queue along.
            started = AssertUnwindSafe(starting).catch_unwind() => started.unwrap_or_else(|_panic| Err(panicked())),
            // The client is gone, or its time in the queue is over: nothing was started.
            () = reply.closed() => continue,
        };
        // A client who left just now drops the stream here, and the sequence with it.
        let _ = reply.send(started);
    }
}

fn panicked() -> Error {
    Error::Engine(engine::Error::Internal("it panicked over this request".into()))
}

async fn start(
    lane: &Arc<Lane>,
    registry: &registry::Handle,
    slots: &Slots,
    request: GenerateRequest,
    arrived: Instant,
) -> Result<Running, Error> {
    let lease = registry.lease(&lane.config.id).await?;
    let slot = slots.take(lease.capabilities().sequences).await;
    let dispatched = Instant::now();
    let stream = lease.generate(request).await?;
    let guard = Guard::new(lane.clone(), arrived, dispatched, slots.clone());
    Ok(Running::new(stream, lease, slot, guard))
}
