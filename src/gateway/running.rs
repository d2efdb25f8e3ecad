//! A sequence on its way to a client: its events, and everything that is counted for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::time::Instant;

use super::Lane;
use super::slots::Slot;
use crate::domain::ModelId;
use crate::engine::{self, FinishReason, TokenEvent, TokenStream, Usage};
use crate::registry::Lease;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Gauged;

/// The stream of one accepted request. Ends with exactly one `Finished` or one error; dropping it
/// earlier cancels the sequence and counts as cancelled.
#[derive(Debug)]
pub struct Running {
    // Order matters: the sequence is cancelled before its slot and its lease are given back.
    stream: TokenStream,
    guard: Guard,
    lease: Lease,
}

impl Running {
    pub(super) fn new(stream: TokenStream, lease: Lease, guard: Guard) -> Self {
        Self { stream, guard, lease }
    }

    /// Keeps `held` until the stream is dropped.
    #[must_use]
    pub(super) fn holding(self, held: impl Send + Sync + 'static) -> Self {
        Self { stream: self.stream.holding(held), ..self }
    }

    /// The id of the model that answers.
    pub fn model(&self) -> &ModelId {
        self.lease.id()
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
    slot: Slot,
    departure: Departure,
    _running: Gauged,
}

impl Guard {
    pub fn new(lane: Arc<Lane>, arrived: Instant, dispatched: Instant, slot: Slot) -> Self {
        let (metrics, id) = (lane.metrics.clone(), lane.config.id.clone());
        let waited = dispatched.duration_since(arrived).as_secs_f64();
        metrics.queue_time.with_label_values(&[id.as_str()]).observe(waited);
        let running = Gauged::new(metrics.requests_running.with_label_values(&[id.as_str()]));
        let departure = Departure::new(metrics, id, "running");
        Self { lane, arrived, dispatched, last_token: None, ended: false, slot, departure, _running: running }
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
        metrics.generation_tokens.with_label_values(&model).inc_by(usage.completion.into());
        metrics.request_prompt_tokens.with_label_values(&model).observe(usage.prompt.into());
        metrics.request_generation_tokens.with_label_values(&model).observe(usage.completion.into());
        metrics.e2e_latency.with_label_values(&model).observe(self.arrived.elapsed().as_secs_f64());
        self.lane.rate.served(self.dispatched.elapsed(), self.slot.in_use());
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

/// Counts a client who leaves, unless it is disarmed first.
pub(super) struct Departure {
    metrics: Arc<Metrics>,
    model: ModelId,
    phase: &'static str,
    armed: std::sync::atomic::AtomicBool,
}

impl Departure {
    pub fn new(metrics: Arc<Metrics>, model: ModelId, phase: &'static str) -> Self {
        Self { metrics, model, phase, armed: true.into() }
    }

    pub fn disarm(&self) {
        self.armed.store(false, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if self.armed.load(std::sync::atomic::Ordering::Relaxed) {
            self.metrics.cancelled.with_label_values(&[self.model.as_str(), self.phase]).inc();
        }
    }
}
