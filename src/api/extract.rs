//! Bodies, read so that every mistake is an answer in our envelope.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;

use super::{ApiError, BODY_LIMIT};

/// A JSON body. The content type is not looked at, as clients often leave it out.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(unreadable)?;
        parse(&bytes).map(Self)
    }
}

fn unreadable(rejection: BytesRejection) -> ApiError {
    let message = rejection.body_text();
    match rejection.into_response().status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        true => ApiError::too_large(BODY_LIMIT),
        false => ApiError::malformed(message),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        match error.classify() {
            serde_json::error::Category::Data => wrong_field(&path, &error.to_string()),
            _ => ApiError::malformed(format!("the body is not JSON: {error}")),
        }
    })?;
    json.end().map_err(|error| ApiError::malformed(format!("the body goes on after its end: {error}")))?;
    Ok(value)
}

/// A missing field is named in the message only; a wrong one is the path.
fn wrong_field(path: &str, message: &str) -> ApiError {
    let message = message.split(" at line ").next().unwrap_or(message);
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    match (path, missing) {
        (".", Some(field)) => ApiError::invalid(field, format!("`{field}` is missing")),
        (".", None) => ApiError::invalid_body(message),
        (path, Some(field)) => ApiError::invalid(format!("{path}.{field}"), format!("`{path}.{field}` is missing")),
        (path, None) => ApiError::invalid(path, format!("`{path}`: {message}")),
    }
}

/// The one part of a path that varies: a model's id or alias.
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        name.map(|Path(name)| Self(name)).map_err(|rejection| ApiError::invalid("id", rejection.body_text()))
    }
}
