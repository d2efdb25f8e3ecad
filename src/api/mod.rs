//! HTTP: two listeners, two route tables, one way to fail.
//!
//! The public listener speaks the dialects; the admin listener holds model management, health and
//! metrics. A dialect turns its wire types into the seam's request and the seam's events into its
//! wire types; what lies between is the gateway's. No file but [`error`] writes a status code.

pub mod admin;
mod error;
mod extract;
mod health;
mod middleware;
pub mod openai;
pub mod openapi;
mod sse;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use error::ApiError;

use crate::config::{Catalog, ModelConfig};
use crate::gateway::{self, Gateway, Stop};
use crate::registry;
use crate::telemetry::Metrics;

/// A request's body may be this long; the longest context in use fits many times.
const BODY_LIMIT: usize = 8 << 20;

/// What handlers work with.
pub struct Context {
    pub gateway: Gateway,
    pub registry: registry::Handle,
    pub catalog: Arc<Catalog>,
    pub metrics: Arc<Metrics>,
    pub started: SystemTime,
    pub stop: Stop,
}

impl Context {
    /// The model of this id or alias, for those who only look.
    fn model(&self, name: &str) -> Result<&Arc<ModelConfig>, ApiError> {
        let known = || self.catalog.models.keys().map(ToString::to_string).collect();
        let unknown = || gateway::Error::UnknownModel { name: name.to_owned(), known: known() }.into();
        self.catalog.resolve(name).ok_or_else(unknown)
    }
}

type Shared = axum::extract::State<Arc<Context>>;

/// The routes of the public listener.
fn public_routes() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::with_openapi(openapi::public())
        .routes(routes!(openai::chat::create))
        .routes(routes!(openai::completions::create))
        .routes(routes!(openai::models::list))
        .routes(routes!(openai::models::retrieve))
}

/// The routes of the admin listener.
fn admin_routes() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::with_openapi(openapi::admin())
        .routes(routes!(admin::status::show))
        .routes(routes!(admin::models::list))
        .routes(routes!(admin::models::retrieve))
        .routes(routes!(admin::models::load))
        .routes(routes!(admin::models::unload))
        .routes(routes!(admin::swap::swap))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}

/// The public listener's service.
pub fn public(context: Arc<Context>) -> Router {
    service(public_routes(), context)
}

/// The admin listener's service.
pub fn admin(context: Arc<Context>) -> Router {
    service(admin_routes(), context)
}

fn service(routes: OpenApiRouter<Arc<Context>>, context: Arc<Context>) -> Router {
    let (router, document) = routes.split_for_parts();
    let router = router
        .merge(utoipa_swagger_ui::SwaggerUi::new("/docs").url("/openapi.json", document))
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT));
    middleware::around(router, context.clone()).with_state(context)
}
