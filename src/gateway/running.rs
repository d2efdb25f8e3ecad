//! A sequence on its way to a client: its events, and everything that is counted for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Lane;
use super::slots::{Slot, Slots};
use crate::domain::ModelId;
use crate::engine::{self, FinishReason, TokenEvent, TokenStream, Usage};
use crate::registry::Lease;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Gauged;

/// The stream of one accepted request. Ends with exactly one `Finished` or one error; dropping it
/// earlier cancels the sequence and counts as cancelled.
#[derive(Debug)]
pub struct Running {
    stream: TokenStream,
    guard: Guard,
    /// Counts the request as inside the house until its stream is dropped.
    _inside: Option<TaskTrackerToken>,
}

impl Running {
    /// Slot, lease and the running gauge stay with the sequence: a client who reads slowly holds
    /// up nobody once the engine is done.
    pub(super) fn new(stream: TokenStream, lease: Lease, slot: Slot, guard: Guard) -> Self {
        stream.occupy((slot, lease, guard.running_gauge()));
        Self { stream, guard, _inside: None }
    }

    /// Reached the caller: from now on it counts as cancelled if it is dropped before its end.
    pub(super) fn delivered(mut self, inside: TaskTrackerToken) -> Self {
        self.guard.departure.arm();
        self._inside = Some(inside);
        self
    }

    /// The id of the model that answers.
    pub fn model(&self) -> &ModelId {
        &self.guard.lane.config.id
    }
}

impl Stream for Running {
    type Item = Result<TokenEvent, engine::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.stream).poll_next(cx);
        match &next {
            Poll::Ready(Some(event)) => self.guard.observe(event.as_ref()),
            // An engine that hangs up without a word has failed; clients must not see a bare end.
            Poll::Ready(None) if !self.guard.ended => {
                let error = engine::Error::Stopped;
                self.guard.observe(Err(&error));
                return Poll::Ready(Some(Err(error)));
            }
            _ => {}
        }
        next
    }
}

/// Counts one sequence: what happened by the end, or that there was none.
pub(super) struct Guard {
    lane: Arc<Lane>,
    arrived: Instant,
    dispatched: Instant,
    last_token: Option<Instant>,
    ended: bool,
    slots: Slots,
    departure: Departure,
}

impl Guard {
    pub fn new(lane: Arc<Lane>, arrived: Instant, dispatched: Instant, slots: Slots) -> Self {
        let (metrics, id) = (lane.metrics.clone(), lane.config.id.clone());
        let waited = dispatched.duration_since(arrived).as_secs_f64();
        metrics.queue_time.with_label_values(&[id.as_str()]).observe(waited);
        let departure = Departure::disarmed(metrics, id, "running");
        Self { lane, arrived, dispatched, last_token: None, ended: false, slots, departure }
    }

    fn running_gauge(&self) -> Gauged {
        Gauged::new(self.lane.metrics.requests_running.with_label_values(&[self.lane.config.id.as_str()]))
    }

    fn observe(&mut self, event: Result<&TokenEvent, &engine::Error>) {
        match event {
            Ok(TokenEvent::Prefill { .. }) => {}
            Ok(TokenEvent::Token { .. }) => self.token(),
            Ok(TokenEvent::Finished { reason, usage, .. }) => self.finished(*reason, *usage),
            Err(error) => {
                let id = self.lane.config.id.as_str();
                tracing::warn!(model = id, %error, "sequence failed");
                self.lane.metrics.failed.with_label_values(&[id]).inc();
                self.end();
            }
        }
    }

    fn token(&mut self) {
        let (now, model) = (Instant::now(), [self.lane.config.id.as_str()]);
        let metrics = &self.lane.metrics;
        match self.last_token.replace(now) {
            None => {
                let waited = now.duration_since(self.arrived).as_secs_f64();
                metrics.time_to_first_token.with_label_values(&model).observe(waited);
            }
            Some(last) => {
                let between = now.duration_since(last).as_secs_f64();
                metrics.inter_token_latency.with_label_values(&model).observe(between);
            }
        }
    }

    fn finished(&mut self, reason: FinishReason, usage: Usage) {
        let (metrics, model) = (&self.lane.metrics, self.lane.config.id.as_str());
        let reason = match reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        };
        metrics.request_success.with_label_values(&[model, reason]).inc();
        let model = [model];
        metrics.prompt_tokens.with_label_values(&model).inc_by(usage.prompt.into());
        metrics.prefix_cache_queries.with_label_values(&model).inc_by(usage.prompt.into());
        metrics.prefix_cache_hits.with_label_values(&model).inc_by(usage.cached.into());
        metrics.generation_tokens.with_label_values(&model).inc_by(usage.completion.into());
        metrics.request_prompt_tokens.with_label_values(&model).observe(usage.prompt.into());
        metrics.request_generation_tokens.with_label_values(&model).observe(usage.completion.into());
        metrics.e2e_latency.with_label_values(&model).observe(self.arrived.elapsed().as_secs_f64());
        self.lane.rate.served(self.dispatched.elapsed(), self.slots.in_use());
        self.end();
    }

    fn end(&mut self) {
        self.ended = true;
        self.departure.disarm();
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("model", &self.lane.config.id).field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// Counts a client who leaves while it is armed.
pub(super) struct Departure {
    metrics: Arc<Metrics>,
    model: ModelId,
    phase: &'static str,
    armed: bool,
}

impl Departure {
    pub fn disarmed(metrics: Arc<Metrics>, model: ModelId, phase: &'static str) -> Self {
        Self { metrics, model, phase, armed: false }
    }

    pub fn arm(&mut self) {
        self.armed = true;
    }

    pub fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if self.armed {
            self.metrics.cancelled.with_label_values(&[self.model.as_str(), self.phase]).inc();
        }
    }
}
