//! Health and metrics: reads that wake nothing.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{ApiError, Shared};
use crate::registry::ModelView;
use crate::telemetry::metrics::EngineReading;

/// Whether the process runs.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "It runs.", body = String)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether every preloaded model is ready and the server takes requests.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses(
        (status = 200, description = "Ready.", body = String),
        (status = 503, description = "Not ready; the message names the models that are not.", body = super::error::ErrorBody),
    )
)]
pub(super) async fn readyz(State(context): Shared) -> Result<&'static str, ApiError> {
    if context.stop.closing.is_cancelled() {
        return Err(ApiError::shutting_down());
    }
    let view = context.registry.view();
    let missing: Vec<String> =
        view.not_ready().map(|model| format!("{} is {}", model.config.id, model.state)).collect();
    match missing.is_empty() {
        true => Ok("ready\n"),
        false => Err(ApiError::not_ready(missing.join(", "))),
    }
}

/// All metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Metrics.", body = String, content_type = "text/plain; version=0.0.4"))
)]
pub(super) async fn metrics(State(context): Shared) -> Result<Response, ApiError> {
    let view = context.registry.view();
    let readings = view.models.iter().map(|model| (model.config.id.as_str(), reading(model)));
    let text = context.metrics.render(readings).map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// What the model's engine says; of a model that is not loaded, what it did when it was.
fn reading(model: &ModelView) -> EngineReading {
    let stats = model.stats();
    let (kv, work) = (stats.unwrap_or_default().kv, model.work(stats));
    EngineReading {
        blocks_used: kv.used,
        blocks_cached: kv.cached,
        blocks_total: kv.total,
        preemptions: work.preemptions,
        steps: work.steps,
        tokens: work.tokens,
    }
}
