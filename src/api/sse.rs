//! Server-sent events: one loop for every dialect.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::ApiError;
use crate::engine::{self, FinishReason, TokenEvent, TokenLogprobs, Usage};
use crate::gateway::Running;

/// Often enough that no proxy closes a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How a dialect writes the events of an answer, which may have several choices.
pub(super) trait Dialect: Send + 'static {
    /// What is sent before the first token.
    fn start(&mut self) -> Vec<Event>;
    /// A token of one choice; its text may be empty.
    fn token(&mut self, index: usize, text: &str, told: Option<TokenLogprobs>) -> Option<Event>;
    /// The end of one choice, with the last of its text.
    fn finish(&mut self, index: usize, text: &str, reason: FinishReason) -> Vec<Event>;
    /// What is sent after the last choice.
    fn end(&mut self, usage: Usage) -> Vec<Event>;
    fn error(&mut self, error: &ApiError) -> Event;
}

/// An event of one of several choices.
type Chosen = (usize, Result<TokenEvent, engine::Error>);

struct Sending<D> {
    /// `None` once the end was seen.
    running: Option<SelectAll<BoxStream<'static, Chosen>>>,
    /// Choices that have not ended, and the tokens of those that have.
    open: usize,
    usage: Option<Usage>,
    dialect: D,
    ready: VecDeque<Event>,
    cut: CancellationToken,
}

/// Streams an answer of one choice or more as they come. A failure of one is one error event and
/// the end of all; so is `cut`.
pub(super) fn answer(running: Vec<Running>, mut dialect: impl Dialect, cut: CancellationToken) -> Response {
    let ready = dialect.start().into();
    let open = running.len();
    let running = futures::stream::select_all(running.into_iter().enumerate().map(indexed));
    let sending = Sending { running: Some(running), open, usage: None, dialect, ready, cut };
    let events = futures::stream::unfold(sending, |mut sending| async move {
        let event = sending.next().await?;
        Some((Ok::<_, Infallible>(event), sending))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    let unbuffered = axum::http::HeaderValue::from_static("no");
    response.headers_mut().insert("x-accel-buffering", unbuffered);
    response
}

fn indexed(
    (index, running): (usize, impl Stream<Item = Result<TokenEvent, engine::Error>> + Send + 'static),
) -> BoxStream<'static, Chosen> {
    running.map(move |event| (index, event)).boxed()
}

/// The tokens of all choices together; their prompt is one and counts once.
pub(super) fn together(all: Option<Usage>, one: Usage) -> Usage {
    let completion = all.map_or(0, |all| all.completion).saturating_add(one.completion);
    Usage { completion, ..all.unwrap_or(one) }
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
                () = self.cut.cancelled() => Err(ApiError::shutting_down()),
                next = running.next() => match next {
                    Some((index, Ok(event))) => Ok((index, event)),
                    Some((_, Err(error))) => Err(ApiError::from(error)),
                    None => return None,
                },
            };
            match next {
                Ok((index, event)) => self.take(index, event),
                Err(error) => {
                    self.ready.push_back(self.dialect.error(&error));
                    self.running = None;
                }
            }
        }
    }

    fn take(&mut self, index: usize, event: TokenEvent) {
        match event {
            TokenEvent::Prefill { .. } => {}
            TokenEvent::Token { text, logprobs, .. } => {
                self.ready.extend(self.dialect.token(index, &text, logprobs.map(|told| *told)));
            }
            TokenEvent::Finished { reason, text, usage, .. } => {
                self.ready.extend(self.dialect.finish(index, &text, reason));
                let usage = together(self.usage, usage);
                self.usage = Some(usage);
                self.open = self.open.saturating_sub(1);
                if self.open == 0 {
                    self.ready.extend(self.dialect.end(usage));
                    self.running = None;
                }
            }
        }
    }
}
