//! One sequence, from its first logits to its end: sampling, text, stop texts, usage.
//!
//! It runs inside the engine's step, called by [`super::processor`], and not on the stream of
//! chunks that mistral.rs sends. So an end that only we can see (a stop text, a caller who left)
//! takes effect in the same step, and no chunk's quirk touches the text: mistral.rs sends no last
//! chunk at all when the answer ends inside a character.

use std::sync::Arc;
use std::time::Instant;

use super::vocabulary::Vocabulary;
use crate::engine::sampler::Sampler;
use crate::engine::stop::{Matched, StopMatcher};
use crate::engine::utf8::Utf8Stream;
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
    pub stops: StopMatcher,
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
    stops: StopMatcher,
    text: Utf8Stream,
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
            stops: parts.stops,
            text: Utf8Stream::default(),
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
        self.send(TokenEvent::Token { id: token, text });
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
            return (String::new(), Some((FinishReason::Stop, self.rest())));
        }
        let piece = self.text.push(self.vocabulary.bytes(token));
        match self.stops.push(&piece) {
            Matched::Stop(text) => (text, Some((FinishReason::Stop, String::new()))),
            Matched::Text(text) if self.generated >= self.max_tokens => {
                (text, Some((FinishReason::Length, self.rest())))
            }
            Matched::Text(text) => (text, None),
        }
    }

    /// What was held back and now belongs to the answer.
    fn rest(&mut self) -> String {
        let piece = self.text.finish();
        match self.stops.push(&piece) {
            Matched::Stop(text) => text,
            Matched::Text(text) => text + &self.stops.finish(),
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
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::engine::{Sampling, TokenStream, token_channel};

    const END: u32 = 0;

    /// A vocabulary of `</s>`, then one token for each of these.
    fn vocabulary(tokens: &[&str]) -> Arc<Vocabulary> {
        let mut names = vec!["</s>".to_owned()];
        names.extend(tokens.iter().map(|token| (*token).to_owned()));
        let kinds = (0..names.len()).map(|index| if index == 0 { 3 } else { 4 }).collect();
        let bytes = gguf::Writer::new()
            .key("tokenizer.ggml.tokens", gguf::Array::String(names))
            .key("tokenizer.ggml.token_type", gguf::Array::I32(kinds))
            .to_bytes();
        let header = gguf::Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap();
        Arc::new(Vocabulary::of(&header).unwrap())
    }

    fn sequence(tokens: &[&str], stops: &[&str], max_tokens: u32) -> (Sequence, TokenStream) {
        let (sink, stream) = token_channel(max_tokens);
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let greedy = Sampling { temperature: 0.0, ..Default::default() };
        let parts = Parts {
            sink,
            sampler: Sampler::new(greedy, &[]),
            stops: StopMatcher::new(&stops),
            vocabulary: vocabulary(tokens),
            end_tokens: [END].into(),
            prompt_tokens: 7,
            max_tokens,
        };
        (Sequence::new(parts), stream)
    }

    fn favour(token: u32) -> [f32; 6] {
        std::array::from_fn(|index| if index == token as usize { 1.0 } else { 0.0 })
    }

    /// Steps until the end; gives the events without timings.
    fn run(tokens: &[&str], stops: &[&str], max_tokens: u32, choices: &[u32]) -> (String, FinishReason, Usage, usize) {
        let (mut sequence, stream) = sequence(tokens, stops, max_tokens);
        let steps = choices.iter().take_while(|token| sequence.step(&mut favour(**token)) != Step::End).count();
        assert!(sequence.has_ended(), "after {steps} steps");
        let events: Vec<_> = futures::executor::block_on(stream.collect());
        let (mut text, mut count, mut end) = (String::new(), 0, None);
        for event in events {
            match event.unwrap() {
                TokenEvent::Prefill { tokens, cached } => assert_eq!((tokens, cached, count), (7, 0, 0)),
                TokenEvent::Token { text: piece, .. } => {
                    text += &piece;
                    count += 1;
                }
                TokenEvent::Finished { reason, text: rest, usage, .. } => {
                    text += &rest;
                    assert!(end.replace((reason, usage)).is_none());
                }
            }
        }
        let (reason, usage) = end.unwrap();
        (text, reason, usage, count)
    }

    #[test]
    fn the_end_token_counts_and_has_no_text() {
        let (text, reason, usage, events) = run(&["a", "b"], &[], 10, &[1, 2, END]);
        assert_eq!((text.as_str(), reason, events), ("ab", FinishReason::Stop, 3));
        assert_eq!(usage, Usage { prompt: 7, cached: 0, completion: 3 });
    }

    #[test]
    fn max_tokens_end_the_sequence_in_the_same_step() {
        let (text, reason, usage, events) = run(&["a", "b"], &[], 2, &[1, 2, 1]);
        assert_eq!((text.as_str(), reason, events, usage.completion), ("ab", FinishReason::Length, 2, 2));
    }

    #[test]
    fn a_stop_text_over_tokens_is_trimmed_and_what_only_looked_like_one_is_not() {
        let (text, reason, ..) = run(&["xE", "N", "Dy"], &["END"], 10, &[1, 2, 3]);
        assert_eq!((text.as_str(), reason), ("x", FinishReason::Stop));
        let (text, reason, ..) = run(&["xE", "N", "Dy"], &["END"], 2, &[1, 2]);
        assert_eq!((text.as_str(), reason), ("xEN", FinishReason::Length));
    }

    #[test]
    fn rows_beyond_the_vocabulary_are_never_chosen() {
        let (mut sequence, _stream) = sequence(&["a"], &[], 4);
        assert_eq!(sequence.step(&mut [0.0, 1.0, 9.0, 9.0]), Step::Continue(1));
    }

    #[test]
    fn a_dropped_stream_ends_the_sequence_at_the_next_step() {
        let (mut sequence, stream) = sequence(&["a"], &[], 4);
        assert_eq!(sequence.step(&mut favour(1)), Step::Continue(1));
        drop(stream);
        assert_eq!(sequence.step(&mut favour(1)), Step::End);
        assert!(sequence.has_ended());
    }

    #[test]
    fn an_error_after_the_end_is_not_sent() {
        let (mut sequence, stream) = sequence(&["a"], &[], 1);
        assert_eq!(sequence.step(&mut favour(1)), Step::End);
        sequence.fail(Error::Stopped);
        drop(sequence);
        let events: Vec<_> = futures::executor::block_on(stream.collect());
        assert!(events.iter().all(Result::is_ok) && events.len() == 3, "{events:?}");
    }
}
