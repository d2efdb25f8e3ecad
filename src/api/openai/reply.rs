//! What both endpoints do with an understood request: submit it, then stream or collect.

use axum::Json;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Serialize;

use super::convert::Understood;
use super::types::{PromptTokensDetails, UsageBody};
use crate::api::sse::{self, Dialect};
use crate::api::{ApiError, Context};
use crate::config::ModelConfig;
use crate::engine::{FinishReason, TokenEvent, Usage};
use crate::gateway::Running;

/// A collected answer.
pub struct Collected {
    pub text: String,
    pub finish_reason: &'static str,
    pub usage: UsageBody,
}

/// Runs a request. `dialect` is used if it asked for a stream, `whole` if not; both get the name
/// of the model that answers.
pub async fn run<D: Dialect, W: Serialize>(
    context: &Context,
    model: &ModelConfig,
    understood: Understood,
    dialect: impl FnOnce(String, bool) -> D,
    whole: impl FnOnce(String, Collected) -> W,
) -> Result<Response, ApiError> {
    let prompt_field = understood.prompt_field;
    let running = context.gateway.submit(model, understood.request).await;
    let running = running.map_err(|error| ApiError::from(error).about_prompt(prompt_field))?;
    let id = running.model().clone();
    let mut response = if understood.stream {
        sse::answer(running, dialect(id.to_string(), understood.include_usage), context.stop.cut.clone())
    } else {
        let collected = tokio::select! {
            biased;
            () = context.stop.cut.cancelled() => return Err(ApiError::shutting_down()),
            collected = collect(running) => collected?,
        };
        Json(whole(id.to_string(), collected)).into_response()
    };
    if let Ok(ignored) = HeaderValue::from_str(&understood.ignored.join(", "))
        && !ignored.is_empty()
    {
        response.headers_mut().insert("x-ignored-params", ignored);
    }
    response.extensions_mut().insert(id);
    Ok(response)
}

async fn collect(mut running: Running) -> Result<Collected, ApiError> {
    let mut all = String::new();
    while let Some(event) = running.next().await {
        match event? {
            TokenEvent::Prefill { .. } => {}
            TokenEvent::Token { text, .. } => all.push_str(&text),
            TokenEvent::Finished { reason, text, usage, .. } => {
                all.push_str(&text);
                return Ok(Collected { text: all, finish_reason: finish_reason(reason), usage: usage_body(usage) });
            }
        }
    }
    // The gateway's stream never ends without one of the two; if it did, it would be our mistake.
    Err(ApiError::internal("the answer broke off"))
}

pub fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

pub fn usage_body(usage: Usage) -> UsageBody {
    UsageBody {
        prompt_tokens: usage.prompt,
        completion_tokens: usage.completion,
        total_tokens: usage.prompt.saturating_add(usage.completion),
        prompt_tokens_details: PromptTokensDetails { cached_tokens: usage.cached },
    }
}

/// Seconds since 1970.
pub fn unix_seconds(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
