//! The OpenAPI documents, made from the handlers. Title, tags and shared schemas live here.

use utoipa::OpenApi;

use super::error::ErrorBody;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "pensieve",
        description = "Many small language models, or one model for many, from one process. This is the public API.",
        license(name = "MIT OR Apache-2.0")
    ),
    servers((url = "http://127.0.0.1:8080")),
    tags((name = "openai", description = "The OpenAI dialect.")),
    components(schemas(ErrorBody))
)]
struct Public;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "pensieve admin",
        description = "Model management, health and metrics. This listener is for operators.",
        license(name = "MIT OR Apache-2.0")
    ),
    servers((url = "http://127.0.0.1:8081")),
    tags((name = "admin", description = "Which models are in memory."), (name = "health", description = "Health and metrics.")),
    components(schemas(ErrorBody))
)]
struct Admin;

pub(super) fn public() -> utoipa::openapi::OpenApi {
    Public::openapi()
}

pub(super) fn admin() -> utoipa::openapi::OpenApi {
    Admin::openapi()
}

/// The document of the public listener.
pub fn public_document() -> utoipa::openapi::OpenApi {
    super::public_routes().into_openapi()
}

/// The document of the admin listener.
pub fn admin_document() -> utoipa::openapi::OpenApi {
    super::admin_routes().into_openapi()
}
