//! What goes wrong, as HTTP. The only file that writes status codes.
//!
//! Every error is classified once, here: kind, code, whether a retry can help and when. The
//! OpenAI envelope is rendered here too; another dialect renders the same [`ApiError`] its way.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, schema::Schema};

use crate::{engine, gateway, registry};

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    param: Option<String>,
    retry: Retry,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// The status code says it already.
    ByStatus,
    After(Duration),
    /// It will not, whatever the status code lets clients hope.
    Never,
}

/// OpenAI's error envelope.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorObject,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorObject {
    /// What is wrong and, where there is a remedy, what to do.
    message: String,
    /// The class of the error.
    #[schema(example = "invalid_request_error")]
    r#type: &'static str,
    /// The field that is wrong, if one is.
    param: Option<String>,
    /// The error by name, for programs.
    #[schema(example = "model_not_found")]
    code: &'static str,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), param: None, retry: Retry::ByStatus }
    }

    /// The request cannot be: 400 with the field that is wrong.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, "invalid_value", message) }
    }

    /// A field whose effect this server does not have: 400, rather than a silently different answer.
    pub fn unsupported(param: &str, instead: &str) -> Self {
        Self {
            code: "unsupported_parameter",
            ..Self::invalid(param, format!("`{param}` is not supported here: {instead}"))
        }
    }

    /// The body is JSON, but not of the shape that is asked for; no field is to blame.
    pub fn invalid_body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_value", message)
    }

    /// Names the field that held a prompt which was too long.
    #[must_use]
    pub fn about_prompt(self, field: &str) -> Self {
        match self.code {
            "context_length_exceeded" => Self { param: Some(field.to_owned()), ..self },
            _ => self,
        }
    }

    /// Names the field that held a grammar which was refused; engines know OpenAI's name only.
    #[must_use]
    pub fn about_grammar(self, field: &str) -> Self {
        match self.param.as_deref() {
            Some("response_format") => Self { param: Some(field.to_owned()), ..self },
            _ => self,
        }
    }

    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", message)
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body is longer than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    pub fn shutting_down() -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the server is shutting down");
        error.retry_after(Duration::from_secs(1))
    }

    pub fn not_ready(message: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", message).retry_after(Duration::from_secs(1))
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    fn retry_after(self, after: Duration) -> Self {
        Self { retry: Retry::After(after), ..self }
    }

    fn never_retry(self) -> Self {
        Self { retry: Retry::Never, ..self }
    }

    /// The same failure where an admin asked for it: a wish that cannot be granted is a conflict.
    pub fn for_admin(error: registry::Error) -> Self {
        use registry::Error as E;
        match error {
            E::NeverFits { .. } | E::NoRoom { .. } => {
                Self::new(StatusCode::CONFLICT, "model_cannot_fit", error.to_string())
            }
            E::Failed { .. } => Self::new(StatusCode::CONFLICT, "model_failed", error.to_string()),
            error => gateway::Error::Registry(error).into(),
        }
    }

    /// The class that OpenAI's clients know.
    fn class(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The body in OpenAI's envelope, for an answer or for an event in a stream.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorObject {
                message: self.message.clone(),
                r#type: self.class(),
                param: self.param.clone(),
                code: self.code,
            },
        }
    }
}

impl From<gateway::Error> for ApiError {
    fn from(error: gateway::Error) -> Self {
        use gateway::Error as E;
        use registry::Error as R;
        let (code, message) = (error.code(), error.to_string());
        let with = |status| Self::new(status, code, message.clone());
        match error {
            E::UnknownModel { .. } | E::Registry(R::UnknownModel(_)) => {
                Self { param: Some("model".into()), ..with(StatusCode::NOT_FOUND) }
            }
            E::QueueFull { retry_after, .. } => with(StatusCode::TOO_MANY_REQUESTS).retry_after(retry_after),
            E::QueueTimeout { retry_after, .. } | E::Loading { retry_after, .. } => {
                with(StatusCode::SERVICE_UNAVAILABLE).retry_after(retry_after)
            }
            E::ShuttingDown | E::Registry(R::ShuttingDown) => Self::shutting_down(),
            E::Registry(R::NeverFits { .. } | R::NoRoom { .. } | R::Failed { .. }) => {
                with(StatusCode::SERVICE_UNAVAILABLE).never_retry()
            }
            E::Registry(R::Illegal { .. } | R::SwapRunning | R::RolledBack { .. }) => with(StatusCode::CONFLICT),
            E::Engine(error) => error.into(),
        }
    }
}

impl From<engine::Error> for ApiError {
    fn from(error: engine::Error) -> Self {
        use engine::Error as E;
        let message = error.to_string();
        match error {
            E::InvalidRequest { param, .. } => {
                Self { param: param.map(str::to_owned), ..Self::new(StatusCode::BAD_REQUEST, "invalid_value", message) }
            }
            E::ContextLength { .. } => Self::new(StatusCode::BAD_REQUEST, "context_length_exceeded", message),
            E::Stopped => {
                let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "model_stopped", message);
                error.retry_after(Duration::from_secs(1))
            }
            E::Unsupported(_) | E::Load(_) | E::OutOfMemory(_) | E::Internal(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "engine_error", message)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self.retry {
            Retry::ByStatus => {}
            Retry::After(after) => {
                let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Retry::Never => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
        }
        if self.code == "shutting_down" {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl utoipa::IntoResponses for ApiError {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let table = [
            (StatusCode::BAD_REQUEST, "The request is malformed or asks for something that cannot be."),
            (StatusCode::NOT_FOUND, "There is no such model; the message names those there are."),
            (StatusCode::CONFLICT, "The state of things does not allow it, or it can never fit the budget."),
            (StatusCode::PAYLOAD_TOO_LARGE, "The body is too long."),
            (StatusCode::TOO_MANY_REQUESTS, "The model's queue is full; Retry-After says when to come again."),
            (StatusCode::INTERNAL_SERVER_ERROR, "The engine failed."),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "Loading, overdue, failed or shutting down; Retry-After where a retry helps.",
            ),
        ];
        let body =
            || ContentBuilder::new().schema(Some(RefOr::<Schema>::Ref(Ref::from_schema_name("ErrorBody")))).build();
        table
            .into_iter()
            .map(|(status, description)| {
                let response = ResponseBuilder::new().description(description).content("application/json", body());
                (status.as_u16().to_string(), response.build().into())
            })
            .collect()
    }
}

pub(super) async fn no_such_route(uri: axum::http::Uri) -> ApiError {
    let message = format!("there is no route {}: GET /openapi.json lists those there are", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "route_not_found", message)
}

pub(super) async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    let message = format!("{} does not take {method}: GET /openapi.json says what it takes", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ModelId;

    /// Status, class, code, retry.
    type Told = (u16, &'static str, &'static str, Retry);

    fn told(error: impl Into<ApiError>) -> Told {
        let error = error.into();
        (error.status.as_u16(), error.class(), error.code, error.retry)
    }

    #[test]
    fn every_failure_has_the_status_of_the_matrix() {
        use gateway::Error as G;
        use registry::Error as R;
        let (wait, model) = (Duration::from_secs(3), || ModelId::from("m"));
        let later = Retry::After(wait);
        let soon = Retry::After(Duration::from_secs(1));
        let (client, server) = ("invalid_request_error", "server_error");
        let never_fits = || R::NeverFits { model: model(), needed: 2, free_at_most: 1, budget: 1 };
        let failed = || R::Failed { model: model(), reason: "why".into() };
        let table: Vec<(G, Told)> = vec![
            (G::UnknownModel { name: "x".into(), known: vec![] }, (404, client, "model_not_found", Retry::ByStatus)),
            (G::QueueFull { depth: 1, retry_after: wait }, (429, "rate_limit_error", "queue_full", later)),
            (G::QueueTimeout { waited: wait, retry_after: wait }, (503, server, "queue_timeout", later)),
            (G::Loading { state: "loading", waited: wait, retry_after: wait }, (503, server, "model_loading", later)),
            (G::ShuttingDown, (503, server, "shutting_down", soon)),
            (G::Registry(never_fits()), (503, server, "model_cannot_fit", Retry::Never)),
            (G::Registry(failed()), (503, server, "model_failed", Retry::Never)),
            (G::Registry(R::SwapRunning), (409, client, "conflict", Retry::ByStatus)),
            (
                G::Engine(engine::Error::ContextLength { prompt: 9, max_tokens: 1, context: 8 }),
                (400, client, "context_length_exceeded", Retry::ByStatus),
            ),
            (G::Engine(engine::Error::invalid("no", "stop")), (400, client, "invalid_value", Retry::ByStatus)),
            (G::Engine(engine::Error::Stopped), (503, server, "model_stopped", soon)),
            (G::Engine(engine::Error::Internal("x".into())), (500, server, "engine_error", Retry::ByStatus)),
        ];
        for (error, expected) in table {
            assert_eq!(told(error.clone()), expected, "{error:?}");
        }
        assert_eq!(told(ApiError::for_admin(never_fits())), (409, client, "model_cannot_fit", Retry::ByStatus));
        assert_eq!(told(ApiError::for_admin(failed())), (409, client, "model_failed", Retry::ByStatus));
        assert_eq!(told(ApiError::too_large(1)), (413, client, "request_too_large", Retry::ByStatus));
    }

    #[test]
    fn a_part_of_a_second_is_rounded_up() {
        let response = ApiError::shutting_down().retry_after(Duration::from_millis(1200)).into_response();
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["connection"], "close");
    }
}
