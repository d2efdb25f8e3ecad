//! The events of a streamed answer: role first, text, the reason for the end, the usage if asked
//! for, `[DONE]`.

use axum::response::sse::Event;
use serde::Serialize;

use super::reply::{finish_reason, usage_body};
use super::types::{ChatChunk, ChunkChoice, Completion, CompletionChoice, Delta, UsageBody};
use crate::api::ApiError;
use crate::api::sse::Dialect;
use crate::engine::{FinishReason, Usage};

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

pub struct ChatStream(pub Head);

pub struct CompletionStream(pub Head);

impl ChatStream {
    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Option<UsageBody>>) -> Event {
        let head = &self.0;
        event(&ChatChunk {
            id: head.id.clone(),
            object: "chat.completion.chunk",
            created: head.created,
            model: head.model.clone(),
            choices,
            usage,
        })
    }

    fn choice(&self, delta: Delta, finish_reason: Option<&'static str>) -> Event {
        self.chunk(vec![ChunkChoice { index: 0, delta, logprobs: None, finish_reason }], self.0.no_usage())
    }
}

impl Dialect for ChatStream {
    fn start(&mut self) -> Vec<Event> {
        vec![self.choice(Delta { role: Some("assistant"), content: Some(String::new()) }, None)]
    }

    fn token(&mut self, text: &str) -> Event {
        self.choice(Delta { role: None, content: Some(text.to_owned()) }, None)
    }

    fn finish(&mut self, reason: FinishReason, usage: Usage) -> Vec<Event> {
        let mut events = vec![self.choice(Delta::default(), Some(finish_reason(reason)))];
        if self.0.include_usage {
            events.push(self.chunk(Vec::new(), Some(Some(usage_body(usage)))));
        }
        events.push(done());
        events
    }

    fn error(&mut self, error: &ApiError) -> Event {
        event(&error.body())
    }
}

impl CompletionStream {
    fn chunk(&self, choices: Vec<CompletionChoice>, usage: Option<Option<UsageBody>>) -> Event {
        let head = &self.0;
        event(&Completion {
            id: head.id.clone(),
            object: "text_completion",
            created: head.created,
            model: head.model.clone(),
            choices,
            usage,
        })
    }

    fn choice(&self, text: &str, finish_reason: Option<&'static str>) -> Event {
        let choice = CompletionChoice { index: 0, text: text.to_owned(), logprobs: None, finish_reason };
        self.chunk(vec![choice], self.0.no_usage())
    }
}

impl Dialect for CompletionStream {
    fn start(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn token(&mut self, text: &str) -> Event {
        self.choice(text, None)
    }

    fn finish(&mut self, reason: FinishReason, usage: Usage) -> Vec<Event> {
        let mut events = vec![self.choice("", Some(finish_reason(reason)))];
        if self.0.include_usage {
            events.push(self.chunk(Vec::new(), Some(Some(usage_body(usage)))));
        }
        events.push(done());
        events
    }

    fn error(&mut self, error: &ApiError) -> Event {
        event(&error.body())
    }
}

fn event(body: &impl Serialize) -> Event {
    // Our wire types hold nothing that JSON cannot; were it otherwise, the client is told.
    Event::default().json_data(body).unwrap_or_else(|error| Event::default().comment(error.to_string()))
}

fn done() -> Event {
    Event::default().data("[DONE]")
}
