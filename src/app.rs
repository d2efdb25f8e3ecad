//! The composition root: the only place that knows everyone, and the order in which they stop.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use paged_engine::kernels::Kernels;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Context};
use crate::config::Catalog;
use crate::engine::Engines;
use crate::engine::fake::Fake;
use crate::engine::paged::Paged;
use crate::gateway::{Gateway, Stop};
use crate::registry;
use crate::shutdown::Signals;
use crate::telemetry::Metrics;

/// How long connections may take to close once everything was sent, and models to unload.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The engines of this build, in the order `auto` tries them.
///
/// `kv_bytes` is what keys and values of the paged engine's models may take together, `kernels` what
/// it multiplies with.
///
/// # Errors
/// The system gives an engine no threads.
pub fn engines(kv_bytes: u64, kernels: Kernels) -> std::io::Result<Engines> {
    Ok(Engines::new(vec![
        Arc::new(Paged::with(kv_bytes, kernels)?),
        #[cfg(feature = "mistralrs")]
        Arc::new(crate::engine::mistralrs::MistralRs::new()?),
        Arc::new(Fake::default()),
    ]))
}

/// A running server, all but its listeners.
pub struct App {
    context: Arc<Context>,
    tasks: TaskTracker,
}

impl App {
    /// Starts the registry, which preloads at once, and the gateway.
    ///
    /// # Errors
    /// The metrics contradict each other, which a test rules out.
    pub fn start(catalog: Arc<Catalog>) -> Result<Self, prometheus::Error> {
        let metrics = Arc::new(Metrics::new()?);
        let engines: std::collections::BTreeSet<&str> =
            catalog.models.values().map(|config| config.choice.engine.name()).collect();
        let engines = engines.into_iter().collect::<Vec<_>>().join("+");
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), &engines]).set(1);
        if engines.contains(crate::engine::fake::NAME) {
            tracing::warn!("a model runs on the fake engine: its answers mean nothing");
        }
        let (tasks, stop) = (TaskTracker::new(), Stop::default());
        let registry = registry::start(&catalog, metrics.clone(), &tasks, stop.end.clone());
        let gateway = Gateway::start(catalog.clone(), registry.clone(), metrics.clone(), &tasks, stop.clone());
        let context = Arc::new(Context { gateway, registry, catalog, metrics, started: SystemTime::now(), stop });
        Ok(Self { context, tasks })
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Serves until told to stop, then drains: readiness turns red and new work is refused, running
    /// answers finish until `drain_timeout` (or a second signal), the rest end with an error
    /// event, and every model is unloaded. The admin listener answers until the end.
    pub async fn serve(self, public: TcpListener, admin: TcpListener, mut signals: Signals, drain_timeout: Duration) {
        let close = CancellationToken::new();
        let context = &self.context;
        let public = listen(public, api::public(context.clone()), close.clone());
        let admin = listen(admin, api::admin(context.clone()), close.clone());
        let drain = async {
            signals.next().await;
            tracing::info!("told to stop: draining");
            context.stop.closing.cancel();
            tokio::select! {
                () = context.gateway.idle() => {}
                () = tokio::time::sleep(drain_timeout) => tracing::warn!("drain timeout over: answers are cut"),
                () = signals.next() => tracing::warn!("told to stop again: answers are cut"),
            }
            context.stop.cut.cancel();
            close.cancel();
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            _ = async { tokio::join!(public, admin) } => {}
            () = drain => tracing::warn!("connections did not close in time"),
        }
        self.stop().await;
    }

    /// Ends workers and registry and waits until every model is unloaded.
    pub async fn stop(self) {
        self.context.stop.closing.cancel();
        self.context.stop.cut.cancel();
        self.context.stop.end.cancel();
        self.tasks.close();
        if tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await.is_err() {
            tracing::warn!("models did not unload in time");
        }
        tracing::info!("stopped");
    }
}

async fn listen(listener: TcpListener, router: Router, close: CancellationToken) {
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(close.cancelled_owned()).await {
        tracing::error!(%error, "a listener failed");
    }
}
