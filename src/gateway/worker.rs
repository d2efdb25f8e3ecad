//! The worker of one model: queue, lease, slot, sequence, in this order.

use std::sync::Arc;

use tokio::time::Instant;

use super::queue::Job;
use super::running::{Guard, Running};
use super::slots::Slots;
use super::{Error, Lane};
use crate::engine::GenerateRequest;
use crate::registry;

/// Serves the lane's queue until it is dropped.
pub(super) async fn run(lane: Arc<Lane>, registry: registry::Handle) {
    let slots = Slots::new();
    loop {
        let Job { request, arrived, mut reply } = lane.queue.pop().await;
        let started = tokio::select! {
            started = start(&lane, &registry, &slots, request, arrived) => started,
            // The client is gone, or its time in the queue is over: nothing was started.
            () = reply.closed() => continue,
        };
        // A client who left just now drops the stream here, and the sequence with it.
        let _ = reply.send(started);
    }
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
    let guard = Guard::new(lane.clone(), arrived, dispatched, slot);
    Ok(Running::new(stream, lease, guard))
}
