//! The stream of events of one sequence, and the sink an engine fills.
//!
//! The channel holds a whole answer, so an engine's `send` never waits: a slow reader costs memory
//! bounded by its own `max_tokens` and nothing else. What a sequence occupies (a slot, a lease) is
//! held until the engine is done with it, however slowly its answer is read.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;

use super::{Error, TokenEvent};

/// Room beside the tokens: the prefill event, the end, and one to spare.
const BESIDE_TOKENS: usize = 3;

/// A sink and its stream with room for an answer of `max_tokens`.
pub fn token_channel(max_tokens: u32) -> (TokenSink, TokenStream) {
    let (sender, receiver) = mpsc::channel(max_tokens as usize + BESIDE_TOKENS);
    let occupied = Arc::new(Occupied(Mutex::new(Some(Vec::new()))));
    (TokenSink { sender, occupied: Arc::clone(&occupied) }, TokenStream { receiver, occupied })
}

/// What a sequence occupies while it lives in the engine; `None` once it has left.
struct Occupied(Mutex<Option<Vec<Box<dyn Send>>>>);

/// The engine's end. It drops it when nothing of the sequence is left in it.
pub struct TokenSink {
    sender: mpsc::Sender<Result<TokenEvent, Error>>,
    occupied: Arc<Occupied>,
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

impl Drop for TokenSink {
    fn drop(&mut self) {
        // Out of the lock before what is held is dropped: that may do anything.
        let held = self.occupied.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(held);
    }
}

/// The caller's end. Dropping it cancels the sequence.
pub struct TokenStream {
    receiver: mpsc::Receiver<Result<TokenEvent, Error>>,
    occupied: Arc<Occupied>,
}

impl TokenStream {
    /// Keeps `held` until the engine has dropped its sink: until the sequence is really out. If it
    /// is out already, `held` is dropped at once.
    pub fn occupy(&self, held: impl Send + 'static) {
        let mut occupied = self.occupied.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(occupied) = occupied.as_mut() {
            occupied.push(Box::new(held));
        }
    }
}

impl Stream for TokenStream {
    type Item = Result<TokenEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx)
    }
}

impl std::fmt::Debug for TokenSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSink").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TokenStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenStream").finish_non_exhaustive()
    }
}
