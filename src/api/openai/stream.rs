//! The events of a streamed answer: role first, text, the reason for the end, the usage if asked
//! for, `[DONE]`.

use axum::response::sse::Event;
use serde::Serialize;

use super::logprobs::{self, Aligned};
use super::reply::{finish_reason, usage_body};
use super::types::{ChatChunk, ChunkChoice, Completion, CompletionChoice, Delta, UsageBody};
use crate::api::ApiError;
use crate::api::sse::Dialect;
use crate::engine::{FinishReason, TokenLogprobs, Usage};

/// What every chunk of one answer repeats.
pub struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub include_usage: bool,
}

impl Head {
    /// The `usage` of a chunk that is not the last one.
    fn no_usage(&self) -> Option<Option<UsageBody>> {
        self.include_usage.then_some(None)
    }
}

/// A chat answer, and what is held back of each choice.
pub struct ChatStream {
    head: Head,
    choices: Vec<Aligned>,
}

/// A completion; of each choice what is held back, and the characters that were told of.
pub struct CompletionStream {
    head: Head,
    choices: Vec<(Aligned, usize)>,
}

impl ChatStream {
    pub fn new(head: Head, choices: usize) -> Self {
        Self { head, choices: (0..choices).map(|_| Aligned::default()).collect() }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Option<UsageBody>>) -> Event {
        let head = &self.head;
        event(&ChatChunk {
            id: head.id.clone(),
            object: "chat.completion.chunk",
            created: head.created,
            model: head.model.clone(),
            choices,
            usage,
        })
    }

    fn choice(&self, choice: ChunkChoice) -> Event {
        self.chunk(vec![choice], self.head.no_usage())
    }

    /// A chunk, unless there is nothing to say.
    fn text(&self, index: usize, text: &str, told: &[TokenLogprobs]) -> Option<Event> {
        let delta = Delta { role: None, content: Some(text.to_owned()) };
        let choice = ChunkChoice { index: wire(index), delta, logprobs: logprobs::chat(told), finish_reason: None };
        (!text.is_empty() || !told.is_empty()).then(|| self.choice(choice))
    }
}

impl Dialect for ChatStream {
    fn start(&mut self) -> Vec<Event> {
        let role = || Delta { role: Some("assistant"), content: Some(String::new()) };
        let first = |index| ChunkChoice { index: wire(index), delta: role(), logprobs: None, finish_reason: None };
        (0..self.choices.len()).map(|index| self.choice(first(index))).collect()
    }

    fn token(&mut self, index: usize, text: &str, told: Option<TokenLogprobs>) -> Option<Event> {
        let told = self.choices.get_mut(index)?.token(told, text);
        self.text(index, text, &told)
    }

    fn finish(&mut self, index: usize, text: &str, reason: FinishReason) -> Vec<Event> {
        let told = self.choices.get_mut(index).map(|choice| choice.finish(text, reason)).unwrap_or_default();
        let finish_reason = Some(finish_reason(reason));
        let last = ChunkChoice { index: wire(index), delta: Delta::default(), logprobs: None, finish_reason };
        self.text(index, text, &told).into_iter().chain([self.choice(last)]).collect()
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let usage = self.head.include_usage.then(|| self.chunk(Vec::new(), Some(Some(usage_body(usage)))));
        usage.into_iter().chain([done()]).collect()
    }

    fn error(&mut self, error: &ApiError) -> Event {
        event(&error.body())
    }
}

impl CompletionStream {
    pub fn new(head: Head, choices: usize) -> Self {
        Self { head, choices: (0..choices).map(|_| (Aligned::default(), 0)).collect() }
    }

    fn chunk(&self, choices: Vec<CompletionChoice>, usage: Option<Option<UsageBody>>) -> Event {
        let head = &self.head;
        event(&Completion {
            id: head.id.clone(),
            object: "text_completion",
            created: head.created,
            model: head.model.clone(),
            choices,
            usage,
        })
    }

    fn choice(&self, choice: CompletionChoice) -> Event {
        self.chunk(vec![choice], self.head.no_usage())
    }

    /// A chunk, unless there is nothing to say.
    fn text(&mut self, index: usize, text: &str, told: &[TokenLogprobs]) -> Option<Event> {
        let logprobs = logprobs::completion(told, &mut self.choices.get_mut(index)?.1);
        let choice = CompletionChoice { index: wire(index), text: text.to_owned(), logprobs, finish_reason: None };
        (!text.is_empty() || !told.is_empty()).then(|| self.choice(choice))
    }
}

impl Dialect for CompletionStream {
    fn start(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn token(&mut self, index: usize, text: &str, told: Option<TokenLogprobs>) -> Option<Event> {
        let told = self.choices.get_mut(index)?.0.token(told, text);
        self.text(index, text, &told)
    }

    fn finish(&mut self, index: usize, text: &str, reason: FinishReason) -> Vec<Event> {
        let told = self.choices.get_mut(index).map(|choice| choice.0.finish(text, reason)).unwrap_or_default();
        let rest = self.text(index, text, &told);
        let finish_reason = Some(finish_reason(reason));
        let last = CompletionChoice { index: wire(index), text: String::new(), logprobs: None, finish_reason };
        rest.into_iter().chain([self.choice(last)]).collect()
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let usage = self.head.include_usage.then(|| self.chunk(Vec::new(), Some(Some(usage_body(usage)))));
        usage.into_iter().chain([done()]).collect()
    }

    fn error(&mut self, error: &ApiError) -> Event {
        event(&error.body())
    }
}

fn wire(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn event(body: &impl Serialize) -> Event {
    // Our wire types hold nothing that JSON cannot; were it otherwise, the client is told.
    Event::default().json_data(body).unwrap_or_else(|error| Event::default().comment(error.to_string()))
}

fn done() -> Event {
    Event::default().data("[DONE]")
}
