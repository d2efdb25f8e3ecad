//! `/admin/v1/models`: look at models, load and unload them.

use axum::Json;
use axum::extract::State;

use super::types::ModelStatus;
use crate::api::extract::Name;
use crate::api::{ApiError, Context, Shared};
use crate::domain::ModelId;

/// Every model of the registry.
#[utoipa::path(
    get, path = "/admin/v1/models", operation_id = "list_models", tag = "admin",
    responses((status = 200, description = "In the order of the registry file.", body = Vec<ModelStatus>))
)]
pub(in crate::api) async fn list(State(context): Shared) -> Json<Vec<ModelStatus>> {
    Json(context.registry.view().models.iter().map(ModelStatus::from).collect())
}

/// One model, by id or alias.
#[utoipa::path(
    get, path = "/admin/v1/models/{id}", operation_id = "retrieve_model", tag = "admin", params(("id" = String, Path, description = "Id or alias.")),
    responses((status = 200, description = "The model.", body = ModelStatus), ApiError)
)]
pub(in crate::api) async fn retrieve(State(context): Shared, Name(id): Name) -> Result<Json<ModelStatus>, ApiError> {
    status(&context, &context.model(&id)?.id)
}

/// Load a model, evicting idle ones if it needs their room. Answers once it is ready.
#[utoipa::path(
    post, path = "/admin/v1/models/{id}/load", operation_id = "load_model", tag = "admin", params(("id" = String, Path, description = "Id or alias.")),
    responses((status = 200, description = "It is ready, or was already.", body = ModelStatus), ApiError)
)]
pub(in crate::api) async fn load(State(context): Shared, Name(id): Name) -> Result<Json<ModelStatus>, ApiError> {
    let id = &context.model(&id)?.id;
    context.registry.load(id, true).await.map_err(ApiError::for_admin)?;
    status(&context, id)
}

/// Unload a model. Its requests finish first; answers once its memory is back.
#[utoipa::path(
    post, path = "/admin/v1/models/{id}/unload", operation_id = "unload_model", tag = "admin", params(("id" = String, Path, description = "Id or alias.")),
    responses((status = 200, description = "It is unloaded.", body = ModelStatus), ApiError)
)]
pub(in crate::api) async fn unload(State(context): Shared, Name(id): Name) -> Result<Json<ModelStatus>, ApiError> {
    let id = &context.model(&id)?.id;
    context.registry.unload(id).await.map_err(ApiError::for_admin)?;
    status(&context, id)
}

fn status(context: &Context, id: &ModelId) -> Result<Json<ModelStatus>, ApiError> {
    let view = context.registry.view();
    view.model(id).map(|model| Json(model.into())).ok_or_else(ApiError::shutting_down)
}
