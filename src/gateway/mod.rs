//! WHO GOES WHERE: from a model's name to a stream of tokens.
//!
//! [`Gateway::submit`] resolves the name, puts the request into the model's bounded queue and
//! returns once the model has accepted it. One [`worker`] a model takes requests from the queue,
//! gets a lease from the registry (which loads the model if need be) and a sequence slot, and
//! starts the sequence. Lease and slot stay with the sequence until the engine is done with it, the
//! counts with the returned [`Running`] stream until it is dropped. A caller who leaves, at any point, takes everything along.
//!
//! The gateway knows the registry and the seam. It knows no HTTP.

mod error;
mod queue;
mod rate;
mod running;
mod slots;
mod worker;

use std::sync::Arc;

use indexmap::IndexMap;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::Error;
use running::Departure;
pub use running::Running;

use crate::config::{Catalog, ModelConfig};
use crate::domain::ModelId;
use crate::engine::GenerateRequest;
use crate::registry::{self, State};
use crate::telemetry::Metrics;
use queue::{Job, Queue};
use rate::ServiceRate;

/// The one way in for every dialect. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

struct Shared {
    catalog: Arc<Catalog>,
    registry: registry::Handle,
    lanes: IndexMap<ModelId, Arc<Lane>>,
    metrics: Arc<Metrics>,
    stop: Stop,
    /// One token for each request in the house, from its arrival to the end of its stream.
    inside: TaskTracker,
}

/// How a server stops, step by step.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Cancelled first: new requests are refused.
    pub closing: CancellationToken,
    /// Cancelled when the drain deadline is over: who still waits is refused, open streams end
    /// with an error.
    pub cut: CancellationToken,
    /// Cancelled last: workers and registry end.
    pub end: CancellationToken,
}

/// What belongs to one model: its queue and how fast it is served.
struct Lane {
    config: Arc<ModelConfig>,
    queue: Queue,
    rate: ServiceRate,
    metrics: Arc<Metrics>,
}

impl Gateway {
    /// Starts one worker a model on `tasks`.
    pub fn start(
        catalog: Arc<Catalog>,
        registry: registry::Handle,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        stop: Stop,
    ) -> Self {
        let lanes: IndexMap<ModelId, Arc<Lane>> = catalog
            .models
            .iter()
            .map(|(id, config)| {
                let queue = Queue::new(config.queue.depth, metrics.requests_waiting.with_label_values(&[id.as_str()]));
                let lane =
                    Lane { config: config.clone(), queue, rate: ServiceRate::default(), metrics: metrics.clone() };
                (id.clone(), Arc::new(lane))
            })
            .collect();
        for lane in lanes.values() {
            let worker = worker::run(lane.clone(), registry.clone());
            tasks.spawn(stop.end.clone().run_until_cancelled_owned(worker));
        }
        Self { shared: Arc::new(Shared { catalog, registry, lanes, metrics, stop, inside: TaskTracker::new() }) }
    }

    /// Completes when no request is in the house any more; for the shutdown, as it may be called
    /// only once no new ones are let in.
    pub async fn idle(&self) {
        self.shared.inside.close();
        self.shared.inside.wait().await;
    }

    /// The configuration of the model called `name`; a miss counts as a rejected request.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] with the names there are.
    pub fn resolve(&self, name: &str) -> Result<&Arc<ModelConfig>, Error> {
        self.shared.catalog.resolve(name).ok_or_else(|| {
            let known = self.shared.catalog.models.keys().map(ToString::to_string).collect();
            self.rejected("unknown", Error::UnknownModel { name: name.to_owned(), known })
        })
    }

    /// Brings a request to its model and returns the answer's stream once the model has accepted
    /// it. Dropping the future leaves the queue; dropping the stream ends the sequence.
    ///
    /// # Errors
    /// [`Error`]; nothing was generated then.
    pub async fn submit(&self, model: &ModelConfig, request: GenerateRequest) -> Result<Running, Error> {
        self.try_submit(&model.id, request).await.map_err(|error| self.rejected(model.id.as_str(), error))
    }

    fn rejected(&self, model: &str, error: Error) -> Error {
        self.shared.metrics.rejected.with_label_values(&[model, error.code()]).inc();
        error
    }

    async fn try_submit(&self, id: &ModelId, request: GenerateRequest) -> Result<Running, Error> {
        let shared = &self.shared;
        if shared.stop.closing.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        let inside = shared.inside.token();
        let lane = shared.lanes.get(id).ok_or(Error::ShuttingDown)?;
        let (reply, answer) = oneshot::channel();
        let job = Job { request, arrived: Instant::now(), reply };
        let place = lane.queue.push(job).map_err(|_| Error::QueueFull {
            depth: lane.config.queue.depth,
            retry_after: lane.rate.until_free(lane.queue.len()),
        })?;
        let mut departure = Departure::disarmed(lane.metrics.clone(), id.clone(), "queued");
        departure.arm();
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(lane.config.queue.timeout, answer) => accepted,
            () = shared.stop.cut.cancelled() => Ok(Ok(Err(Error::ShuttingDown))),
        };
        departure.disarm();
        drop(place);
        match accepted {
            Ok(Ok(result)) => result.map(|running| running.delivered(inside)),
            Ok(Err(_worker_gone)) => Err(Error::ShuttingDown),
            Err(_elapsed) => Err(self.overdue(id, lane)),
        }
    }

    /// Why a request waited in vain: its model is still loading, or others were before it.
    fn overdue(&self, id: &ModelId, lane: &Lane) -> Error {
        let view = self.shared.registry.view();
        let model = view.model(id);
        let waited = lane.config.queue.timeout;
        match model.map(|model| &model.state) {
            Some(State::Ready) | None => {
                Error::QueueTimeout { waited, retry_after: lane.rate.until_free(lane.queue.len()) }
            }
            Some(state) => Error::Loading {
                state: state.name(),
                waited,
                retry_after: rate::until_loaded(model.and_then(|model| model.load_time)),
            },
        }
    }
}
