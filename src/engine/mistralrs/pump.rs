//! A request's way through the engine: wait for the slot, hand it in, see it out.
//!
//! The slot is the heart of it. mistral.rs mixes up sequences that decode together on a CPU and
//! does not keep its own limit (an idle scheduler starts all that wait), so a slot may be given on
//! only when the sequence before has left the engine: cancelled is not gone. It is gone when the
//! engine has dropped its end of the response channel, which the sequence alone holds.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use mistralrs::core::{
    Constraint, CustomLogitsProcessor, NormalRequest, Request, RequestMessage, Response, SamplingParams,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::load::SEQUENCES;
use super::processor::{Processor, Shared, lock};
use super::sequence::{Parts, Sequence};
use crate::engine::{Error, Stats, TokenSink};

/// What the requests of one model share.
pub struct Gate {
    slots: Semaphore,
    running: Arc<AtomicU32>,
    waiting: Arc<AtomicU32>,
    broken: AtomicBool,
    /// Cancelled when the model is to be unloaded.
    pub stopping: CancellationToken,
    pub tasks: TaskTracker,
}

impl Gate {
    pub fn new() -> Self {
        Self {
            slots: Semaphore::new(SEQUENCES as usize),
            running: Arc::default(),
            waiting: Arc::default(),
            broken: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    pub fn stats(&self) -> Stats {
        Stats {
            running: self.running.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }

    /// Whether requests may come in.
    ///
    /// # Errors
    /// [`Error::Stopped`] after an unload, [`Error::Internal`] once the engine has died.
    pub fn check(&self) -> Result<(), Error> {
        if self.stopping.is_cancelled() {
            return Err(Error::Stopped);
        }
        if self.broken.load(Ordering::Relaxed) {
            return Err(dead());
        }
        Ok(())
    }

    /// Counts a request as waiting from now on.
    pub fn waiting(&self) -> Counted {
        Counted::new(&self.waiting)
    }

    fn mark_dead(&self) -> Error {
        self.broken.store(true, Ordering::Relaxed);
        dead()
    }
}

/// A panic inside a step leaves locks poisoned that an engine started anew would share.
fn dead() -> Error {
    Error::Internal("the mistral.rs engine of this model has died: reload the model".into())
}

/// One of something, for as long as it lives.
pub struct Counted(Arc<AtomicU32>);

impl Counted {
    fn new(counter: &Arc<AtomicU32>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that was accepted.
pub struct Job {
    pub prompt: Vec<u32>,
    pub end_token: u32,
    /// Makes the sequence once the slot is there; its clock starts then.
    pub parts: Box<dyn FnOnce(TokenSink) -> Parts + Send>,
    pub max_tokens: u32,
    pub requests: mpsc::Sender<Request>,
}

/// Sees one request through. Returns when nothing of it is left in the engine.
pub async fn run(gate: Arc<Gate>, job: Job, sink: TokenSink, waiting: Counted) {
    let slot = tokio::select! {
        biased;
        () = gate.stopping.cancelled() => None,
        () = sink.closed() => return,
        slot = gate.slots.acquire() => slot.ok(),
    };
    let Some(slot) = slot else {
        // The caller may have left as well.
        let _ = sink.send(Err(Error::Stopped));
        return;
    };
    let running = Counted::new(&gate.running);
    drop(waiting);
    let sequence = Arc::new(Mutex::new(Sequence::new((job.parts)(sink))));
    let (request, responses) = request(job.prompt, job.max_tokens, job.end_token, &sequence);
    if job.requests.send(request).await.is_ok() {
        see_out(&gate, &sequence, responses).await;
    } else {
        lock(&sequence).fail(gate.mark_dead());
    }
    drop(running);
    drop(slot);
}

/// Waits until the sequence has left the engine, and ends it if it has not ended itself.
async fn see_out(gate: &Gate, sequence: &Shared, mut responses: mpsc::Receiver<Response>) {
    let mut failure = None;
    let mut stopping = false;
    loop {
        tokio::select! {
            response = responses.recv() => match response {
                Some(response) => failure = failure.or_else(|| problem(response)),
                None => break,
            },
            // Its next step sees the end and leaves.
            () = gate.stopping.cancelled(), if !stopping => {
                stopping = true;
                lock(sequence).fail(Error::Stopped);
            }
        }
    }
    let mut sequence = lock(sequence);
    if !sequence.has_ended() {
        // Gone without a word: the engine's thread has ended.
        let error = failure.unwrap_or_else(|| gate.mark_dead());
        sequence.fail(error);
    }
}

/// The failure a response tells of. Its chunks tell nothing: we have seen the tokens before it.
fn problem(response: Response) -> Option<Error> {
    match response {
        Response::ValidationError(error) => Some(Error::InvalidRequest { message: error.to_string(), param: None }),
        Response::InternalError(error) => Some(Error::Internal(error.to_string())),
        Response::ModelError(message, _) | Response::CompletionModelError(message, _) => Some(Error::Internal(message)),
        _ => None,
    }
}

fn request(
    prompt: Vec<u32>,
    max_tokens: u32,
    end_token: u32,
    sequence: &Shared,
) -> (Request, mpsc::Receiver<Response>) {
    /// Responses beside the tokens: an error and some to spare. The engine waits, with all its
    /// sequences, when a response channel is full.
    const BESIDE_TOKENS: usize = 16;
    let (sender, responses) = mpsc::channel(max_tokens as usize + BESIDE_TOKENS);
    let processor: Arc<dyn CustomLogitsProcessor> = Arc::new(Processor { sequence: Arc::clone(sequence), end_token });
    let request = NormalRequest {
        messages: RequestMessage::CompletionTokens(prompt),
        // No temperature would mean 1.0; 0 takes the largest logit.
        sampling_params: SamplingParams {
            temperature: Some(0.0),
            max_len: Some(max_tokens as usize),
            ..SamplingParams::neutral()
        },
        response: sender,
        return_logprobs: false,
        // Always: a request that is not streamed and whose receiver is gone panics the engine.
        is_streaming: true,
        id: 0,
        constraint: Constraint::None,
        suffix: None,
        tools: None,
        tool_choice: None,
        logits_processors: Some(vec![processor]),
        return_raw_logits: false,
        web_search_options: None,
        model_id: None,
        truncate_sequence: false,
    };
    (Request::Normal(Box::new(request)), responses)
}

#[cfg(test)]
mod tests;
