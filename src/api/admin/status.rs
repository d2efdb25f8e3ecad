//! `GET /admin/v1/status`.

use axum::Json;
use axum::extract::State;

use super::types::{ModelStatus, ServerMemory, Status};
use crate::api::Shared;
use crate::telemetry::metrics::resident_bytes;

/// The whole server at a glance.
#[utoipa::path(
    get, path = "/admin/v1/status", operation_id = "show_status", tag = "admin",
    responses((status = 200, description = "Memory, mode and every model.", body = Status))
)]
pub(in crate::api) async fn show(State(context): Shared) -> Json<Status> {
    let view = context.registry.view();
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        mode: context.catalog.mode.as_str(),
        uptime_seconds: context.started.elapsed().map_or(0, |up| up.as_secs()),
        ready: view.not_ready().next().is_none() && !context.stop.closing.is_cancelled(),
        memory: ServerMemory {
            budget: view.budget,
            used: view.used,
            free: view.budget.saturating_sub(view.used),
            kv_pool: context.catalog.kv_pool,
            resident: resident_bytes(),
        },
        models: view.models.iter().map(ModelStatus::from).collect(),
    })
}
