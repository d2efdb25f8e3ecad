//! `POST /admin/v1/swap`.

use axum::Json;
use axum::extract::State;

use super::types::{SwapRequest, SwapResponse};
use crate::api::extract::JsonBody;
use crate::api::{ApiError, Shared};

/// Put one model in the place of another. Requests on the old one finish; if the new one fails,
/// the old one serves on. The swap goes on if the caller leaves.
#[utoipa::path(
    post, path = "/admin/v1/swap", operation_id = "swap_models", tag = "admin", request_body = SwapRequest,
    responses((status = 200, description = "The new one is ready, the old one is gone.", body = SwapResponse), ApiError)
)]
pub(in crate::api) async fn swap(
    State(context): Shared,
    JsonBody(request): JsonBody<SwapRequest>,
) -> Result<Json<SwapResponse>, ApiError> {
    let from = &context.model(&request.from)?.id;
    let to = &context.model(&request.to)?.id;
    let swapped = context.registry.swap(from, to).await.map_err(ApiError::for_admin)?;
    let view = context.registry.view();
    let status = |id| view.model(id).map(Into::into).ok_or_else(ApiError::shutting_down);
    Ok(Json(SwapResponse {
        strategy: swapped.strategy,
        seconds: swapped.took.as_secs_f64(),
        from: status(from)?,
        to: status(to)?,
    }))
}
