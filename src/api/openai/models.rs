//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::State;

use super::reply::unix_seconds;
use super::types::{ModelList, ModelObject};
use crate::api::extract::Name;
use crate::api::{ApiError, Context, Shared};
use crate::registry::ModelView;

/// The models there are, loaded or not.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "openai",
    responses((status = 200, description = "All models, in the order of the registry file.", body = ModelList))
)]
pub(in crate::api) async fn list(State(context): Shared) -> Json<ModelList> {
    let view = context.registry.view();
    Json(ModelList { object: "list", data: view.models.iter().map(|model| object(&context, model)).collect() })
}

/// One model, by id or alias. An id with a slash is written with `%2F`.
#[utoipa::path(
    get, path = "/v1/models/{id}", operation_id = "retrieve_model", tag = "openai", params(("id" = String, Path, description = "Id or alias.")),
    responses((status = 200, description = "The model.", body = ModelObject), ApiError)
)]
pub(in crate::api) async fn retrieve(State(context): Shared, Name(id): Name) -> Result<Json<ModelObject>, ApiError> {
    let config = context.model(&id)?;
    let view = context.registry.view();
    let model = view.model(&config.id).ok_or_else(ApiError::shutting_down)?;
    Ok(Json(object(&context, model)))
}

fn object(context: &Context, model: &ModelView) -> ModelObject {
    ModelObject {
        id: model.config.id.to_string(),
        object: "model",
        created: unix_seconds(context.started),
        owned_by: "pensieve",
        description: model.config.description.clone(),
        aliases: model.config.aliases.clone(),
        state: model.state.name(),
        engine: model.config.choice.engine.name(),
        context: model.config.spec.context,
    }
}
