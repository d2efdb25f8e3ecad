//! One sequence, from its first logits to its end: sampling, text, stop texts, usage.
//!
//! It runs inside the engine's step, called by [`super::processor`], and not on the stream of
//! chunks that mistral.rs sends. So an end that only we can see (a stop text, a caller who left)
//! takes effect in the same step, and no chunk's quirk touches the text: mistral.rs sends no last
//! chunk at all when the answer ends inside a character.

use std::sync::Arc;
use std::time::Instant;

use decoding::{AnswerText, Matched, Sampler};

use super::vocabulary::Vocabulary;
use crate::engine::{Error, FinishReason, Timings, TokenEvent, TokenSink, Usage};

/// What the engine is to do after a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on behind this token.
    Continue(u32),
    /// The sequence is over, whatever the reason; no more logits are wanted.
    End,
}

/// What a sequence is made of.
pub struct Parts {
    pub sink: TokenSink,
    pub sampler: Sampler,
    pub text: AnswerText,
    pub vocabulary: Arc<Vocabulary>,
    /// The tokens with which the model ends an answer.
    pub end_tokens: Arc<[u32]>,
    pub prompt_tokens: u32,
    pub max_tokens: u32,
}

/// The state of one sequence. It sends its end exactly once: whoever ends it takes the sink.
pub struct Sequence {
    sink: Option<TokenSink>,
    sampler: Sampler,
    text: AnswerText,
    vocabulary: Arc<Vocabulary>,
    end_tokens: Arc<[u32]>,
    prompt_tokens: u32,
    max_tokens: u32,
    generated: u32,
    accepted: Instant,
    first_token: Option<Instant>,
}

impl Sequence {
    /// A sequence that the engine accepts now.
    pub fn new(parts: Parts) -> Self {
        Self {
            sink: Some(parts.sink),
            sampler: parts.sampler,
            text: parts.text,
            vocabulary: parts.vocabulary,
            end_tokens: parts.end_tokens,
            prompt_tokens: parts.prompt_tokens,
            max_tokens: parts.max_tokens,
            generated: 0,
            accepted: Instant::now(),
            first_token: None,
        }
    }

    /// Chooses the next token from `logits` and tells the caller of it.
    pub fn step(&mut self, logits: &mut [f32]) -> Step {
        if self.sink.as_ref().is_none_or(TokenSink::is_closed) {
            self.sink = None;
            return Step::End;
        }
        if self.first_token.is_none() {
            self.first_token = Some(Instant::now());
            self.send(TokenEvent::Prefill { tokens: self.prompt_tokens, cached: 0 });
        }
        // The output matrix may have more rows than the vocabulary has tokens; those are no tokens.
        let tokens = logits.len().min(self.vocabulary.len());
        let token = self.sampler.next(&mut logits[..tokens]);
        self.generated += 1;
        let (text, end) = self.advance(token);
        self.send(TokenEvent::Token { id: token, text, logprobs: None });
        match end {
            Some((reason, rest)) => {
                self.finish(reason, rest);
                Step::End
            }
            None if self.sink.is_none() => Step::End,
            None => Step::Continue(token),
        }
    }

    /// Ends the sequence with an error, unless it has ended before.
    pub fn fail(&mut self, error: Error) {
        if let Some(sink) = self.sink.take() {
            // A caller who left needs no error.
            let _ = sink.send(Err(error));
        }
    }

    pub fn has_ended(&self) -> bool {
        self.sink.is_none()
    }

    /// The text that may go out with this token and, at the end, the reason and the rest.
    fn advance(&mut self, token: u32) -> (String, Option<(FinishReason, String)>) {
        if self.end_tokens.contains(&token) {
            return (String::new(), Some((FinishReason::Stop, self.text.finish())));
        }
        match self.text.push(self.vocabulary.bytes(token)) {
            Matched::Stop(text) => (text, Some((FinishReason::Stop, String::new()))),
            Matched::Text(text) if self.generated >= self.max_tokens => {
                (text, Some((FinishReason::Length, self.text.finish())))
            }
            Matched::Text(text) => (text, None),
        }
    }

    fn finish(&mut self, reason: FinishReason, text: String) {
        let usage = Usage { prompt: self.prompt_tokens, cached: 0, completion: self.generated };
        let now = Instant::now();
        let first = self.first_token.unwrap_or(now);
        let timings = Timings { prefill: first - self.accepted, decode: now - first };
        self.send(TokenEvent::Finished { reason, text, usage, timings });
        self.sink = None;
    }

    /// A caller who left takes the sink with them; the next look at it ends the sequence.
    fn send(&mut self, event: TokenEvent) {
        if self.sink.as_ref().is_some_and(|sink| !sink.send(Ok(event))) {
            self.sink = None;
        }
    }
}

#[cfg(test)]
mod tests;
