//! What both endpoints do with an understood request: submit it, then stream or collect.

use axum::Json;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::future::try_join_all;
use serde::Serialize;

use super::convert::Understood;
use super::logprobs::Aligned;
use super::types::{PromptTokensDetails, UsageBody};
use crate::api::sse::{self, Dialect};
use crate::api::{ApiError, Context};
use crate::config::ModelConfig;
use crate::engine::{FinishReason, GenerateRequest, TokenEvent, TokenLogprobs, Usage};
use crate::gateway::Running;

/// A collected choice.
pub struct Collected {
    pub text: String,
    pub logprobs: Vec<TokenLogprobs>,
    pub finish_reason: &'static str,
    usage: Usage,
}

/// Runs a request, as one sequence for each answer it wants. `dialect` is used if it asked for a
/// stream, `whole` if not; both get the name of the model that answers.
pub async fn run<D: Dialect, W: Serialize>(
    context: &Context,
    model: &ModelConfig,
    understood: Understood,
    dialect: impl FnOnce(String, bool, usize) -> D,
    whole: impl FnOnce(String, Vec<Collected>, UsageBody) -> W,
) -> Result<Response, ApiError> {
    let (prompt, grammar) = (understood.prompt_field, understood.grammar_field);
    let sequences = sequences(understood.request, understood.answers);
    // Each has its own place in the queue; if one is refused, the others leave it.
    let running = try_join_all(sequences.map(|request| context.gateway.submit(model, request))).await;
    let running = running.map_err(|error| ApiError::from(error).about_prompt(prompt).about_grammar(grammar))?;
    let id = model.id.clone();
    let mut response = if understood.stream {
        let dialect = dialect(id.to_string(), understood.include_usage, running.len());
        sse::answer(running, dialect, context.stop.cut.clone())
    } else {
        let collected = tokio::select! {
            biased;
            () = context.stop.cut.cancelled() => return Err(ApiError::shutting_down()),
            collected = try_join_all(running.into_iter().map(collect)) => collected?,
        };
        let usage = collected.iter().fold(None, |all, one| Some(sse::together(all, one.usage))).unwrap_or_default();
        Json(whole(id.to_string(), collected, usage_body(usage))).into_response()
    };
    if let Ok(ignored) = HeaderValue::from_str(&understood.ignored.join(", "))
        && !ignored.is_empty()
    {
        response.headers_mut().insert("x-ignored-params", ignored);
    }
    response.extensions_mut().insert(id);
    Ok(response)
}

/// One request for each answer. With a seed, each has the next one; else they draw their own.
fn sequences(request: GenerateRequest, answers: u32) -> impl Iterator<Item = GenerateRequest> {
    (0..u64::from(answers)).map(move |at| {
        let mut one = request.clone();
        one.sampling.seed = one.sampling.seed.map(|seed| seed.wrapping_add(at));
        one
    })
}

async fn collect(mut running: Running) -> Result<Collected, ApiError> {
    let (mut all, mut told, mut aligned) = (String::new(), Vec::new(), Aligned::default());
    while let Some(event) = running.next().await {
        match event? {
            TokenEvent::Prefill { .. } => {}
            TokenEvent::Token { text, logprobs, .. } => {
                told.extend(aligned.token(logprobs.map(|told| *told), &text));
                all.push_str(&text);
            }
            TokenEvent::Finished { reason, text, usage, .. } => {
                told.extend(aligned.finish(&text, reason));
                all.push_str(&text);
                return Ok(Collected { text: all, logprobs: told, finish_reason: finish_reason(reason), usage });
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
