//! `POST /v1/completions`.

use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use uuid::Uuid;

use super::reply::{self, unix_seconds};
use super::stream::{CompletionStream, Head};
use super::types::{Completion, CompletionChoice, CompletionRequest};
use super::{convert, logprobs};
use crate::api::extract::JsonBody;
use crate::api::{ApiError, Shared};

/// Continue a text.
///
/// No chat template is applied: the model sees the prompt as it is.
#[utoipa::path(
    post, path = "/v1/completions", tag = "openai", operation_id = "create_completion", request_body = CompletionRequest,
    responses(
        (status = 200, description = "The answer; with `stream`, chunks of the same shape as server-sent events.", content(
            (Completion = "application/json"), (Completion = "text/event-stream"))),
        ApiError,
    )
)]
pub(in crate::api) async fn create(
    State(context): Shared,
    JsonBody(wire): JsonBody<CompletionRequest>,
) -> Result<Response, ApiError> {
    let model = context.gateway.resolve(&wire.model)?;
    let understood = convert::completion(wire, &model.sampling)?;
    let (id, created) = (format!("cmpl-{}", Uuid::now_v7().simple()), unix_seconds(SystemTime::now()));
    let head = |model, include_usage, choices| {
        CompletionStream::new(Head { id: id.clone(), created, model, include_usage }, choices)
    };
    let whole = |model, answers: Vec<reply::Collected>, usage| Completion {
        id: id.clone(),
        object: "text_completion",
        created,
        model,
        choices: (0..).zip(answers).map(choice).collect(),
        usage: Some(Some(usage)),
    };
    reply::run(&context, model, understood, head, whole).await
}

fn choice((index, answer): (u32, reply::Collected)) -> CompletionChoice {
    CompletionChoice {
        index,
        text: answer.text,
        logprobs: logprobs::completion(&answer.logprobs, &mut 0),
        finish_reason: Some(answer.finish_reason),
    }
}
