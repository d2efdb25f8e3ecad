//! `POST /v1/chat/completions`.

use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use uuid::Uuid;

use super::reply::{self, unix_seconds};
use super::stream::{ChatStream, Head};
use super::types::{AssistantMessage, ChatChoice, ChatChunk, ChatCompletion, ChatRequest};
use super::{convert, logprobs};
use crate::api::extract::JsonBody;
use crate::api::{ApiError, Shared};

/// Continue a conversation.
///
/// The model is loaded if it is not; the request waits in the model's queue until its turn.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "openai", operation_id = "create_chat_completion", request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer; with `stream`, chunks as server-sent events.", content(
            (ChatCompletion = "application/json"), (ChatChunk = "text/event-stream"))),
        ApiError,
    )
)]
pub(in crate::api) async fn create(
    State(context): Shared,
    JsonBody(wire): JsonBody<ChatRequest>,
) -> Result<Response, ApiError> {
    let model = context.gateway.resolve(&wire.model)?;
    let understood = convert::chat(wire, &model.sampling)?;
    let (id, created) = (format!("chatcmpl-{}", Uuid::now_v7().simple()), unix_seconds(SystemTime::now()));
    let head = |model, include_usage, choices| {
        ChatStream::new(Head { id: id.clone(), created, model, include_usage }, choices)
    };
    let whole = |model, answers: Vec<reply::Collected>, usage| ChatCompletion {
        id: id.clone(),
        object: "chat.completion",
        created,
        model,
        choices: (0..).zip(answers).map(choice).collect(),
        usage,
    };
    reply::run(&context, model, understood, head, whole).await
}

fn choice((index, answer): (u32, reply::Collected)) -> ChatChoice {
    ChatChoice {
        index,
        message: AssistantMessage { role: "assistant", content: answer.text, refusal: None },
        logprobs: logprobs::chat(&answer.logprobs),
        finish_reason: answer.finish_reason,
    }
}
