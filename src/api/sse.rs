//! Server-sent events: one loop for every dialect.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::ApiError;
use crate::engine::{FinishReason, TokenEvent, Usage};
use crate::gateway::Running;

/// Often enough that no proxy closes a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How a dialect writes the events of an answer.
pub(super) trait Dialect: Send + 'static {
    /// What is sent before the first token.
    fn start(&mut self) -> Vec<Event>;
    fn token(&mut self, text: &str) -> Event;
    /// What is sent after the last token.
    fn finish(&mut self, reason: FinishReason, usage: Usage) -> Vec<Event>;
    fn error(&mut self, error: &ApiError) -> Event;
}

struct Sending<D> {
    /// `None` once the end was seen.
    running: Option<Running>,
    dialect: D,
    ready: VecDeque<Event>,
    cut: CancellationToken,
}

/// Streams an answer. A failure is one error event and the end; so is `cut`.
pub(super) fn answer(running: Running, mut dialect: impl Dialect, cut: CancellationToken) -> Response {
    let ready = dialect.start().into();
    let sending = Sending { running: Some(running), dialect, ready, cut };
    let events = futures::stream::unfold(sending, |mut sending| async move {
        let event = sending.next().await?;
        Some((Ok::<_, Infallible>(event), sending))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    let unbuffered = axum::http::HeaderValue::from_static("no");
    response.headers_mut().insert("x-accel-buffering", unbuffered);
    response
}

impl<D: Dialect> Sending<D> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let running = self.running.as_mut()?;
            let next = tokio::select! {
                biased;
                () = self.cut.cancelled() => Some(Err(ApiError::shutting_down())),
                next = running.next() => next.map(|event| event.map_err(ApiError::from)),
            };
            self.take(next);
        }
    }

    fn take(&mut self, next: Option<Result<TokenEvent, ApiError>>) {
        match next {
            Some(Ok(TokenEvent::Prefill { .. })) => {}
            Some(Ok(TokenEvent::Token { text, .. })) => self.text(&text),
            Some(Ok(TokenEvent::Finished { reason, text, usage, .. })) => {
                self.text(&text);
                self.ready.extend(self.dialect.finish(reason, usage));
                self.running = None;
            }
            Some(Err(error)) => {
                self.ready.push_back(self.dialect.error(&error));
                self.running = None;
            }
            None => self.running = None,
        }
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.ready.push_back(self.dialect.token(text));
        }
    }
}
