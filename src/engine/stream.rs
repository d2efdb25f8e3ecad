//! The stream of events of one sequence, and the sink an engine fills.
//!
//! The channel holds a whole answer, so an engine's `send` never waits: a slow reader costs memory
//! bounded by its own `max_tokens` and nothing else.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;

use super::{Error, TokenEvent};

/// Room beside the tokens: the prefill event, the end, and one to spare.
const BESIDE_TOKENS: usize = 3;

/// A sink and its stream with room for an answer of `max_tokens`.
pub fn token_channel(max_tokens: u32) -> (TokenSink, TokenStream) {
    let (sender, receiver) = mpsc::channel(max_tokens as usize + BESIDE_TOKENS);
    (TokenSink { sender }, TokenStream { receiver, on_drop: None })
}

/// The engine's end.
#[derive(Debug)]
pub struct TokenSink {
    sender: mpsc::Sender<Result<TokenEvent, Error>>,
}

impl TokenSink {
    /// Hands an event on. `false` means nobody listens: stop the sequence.
    #[must_use]
    pub fn send(&self, event: Result<TokenEvent, Error>) -> bool {
        self.sender.try_send(event).is_ok()
    }

    /// Completes when the stream was dropped: the sequence is cancelled.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// The caller's end. Dropping it cancels the sequence.
pub struct TokenStream {
    receiver: mpsc::Receiver<Result<TokenEvent, Error>>,
    on_drop: Option<Box<dyn Send + Sync>>,
}

impl TokenStream {
    /// Keeps `held` until the stream is dropped: leases, slots, gauges.
    #[must_use]
    pub fn holding(mut self, held: impl Send + Sync + 'static) -> Self {
        self.on_drop = Some(Box::new((self.on_drop.take(), held)));
        self
    }
}

impl Stream for TokenStream {
    type Item = Result<TokenEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx)
    }
}

impl std::fmt::Debug for TokenStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenStream").finish_non_exhaustive()
    }
}
