//! Requests and whole answers at the seam, without a server.

#![allow(dead_code, reason = "without engines nobody calls it")]

use std::time::Duration;

use futures::StreamExt;
use pensieve::engine::{
    Error, FinishReason, GenerateRequest, LoadedModel, Prompt, Sampling, TokenEvent, TokenStream, Usage,
};

/// Longer than anything here takes; a test that waits this long has failed.
pub const LONG: Duration = Duration::from_secs(60);

/// A request that takes the likeliest token always.
pub fn greedy(prompt: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        max_tokens: Some(max_tokens),
        sampling: Sampling { temperature: 0.0, ..Default::default() },
        ..GenerateRequest::new(Prompt::Text(prompt.into()))
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    pub tokens: Vec<u32>,
    pub prefill: Option<(u32, u32)>,
    pub end: Result<(FinishReason, Usage), Error>,
}

impl Answer {
    pub fn reason(&self) -> FinishReason {
        self.end.as_ref().unwrap().0
    }

    pub fn usage(&self) -> Usage {
        self.end.as_ref().unwrap().1
    }
}

/// Reads a stream to its end and holds it to the order of events: prefill, tokens, one end.
pub async fn collect(mut stream: TokenStream) -> Answer {
    let (mut text, mut tokens, mut prefill) = (String::new(), Vec::new(), None);
    let end = loop {
        let event = tokio::time::timeout(LONG, stream.next()).await.expect("the stream stands still");
        match event.expect("the stream ended without an end") {
            Ok(TokenEvent::Prefill { tokens: prompt, cached }) => {
                assert!(tokens.is_empty(), "prefill after tokens");
                assert_eq!(prefill.replace((prompt, cached)), None, "two prefills");
            }
            Ok(TokenEvent::Token { id, text: piece, .. }) => {
                assert!(prefill.is_some(), "a token before the prefill");
                tokens.push(id);
                text += &piece;
            }
            Ok(TokenEvent::Finished { reason, text: rest, usage, .. }) => {
                text += &rest;
                break Ok((reason, usage));
            }
            Err(error) => break Err(error),
        }
    };
    let after = tokio::time::timeout(LONG, stream.next()).await.expect("the stream stays open after its end");
    assert!(after.is_none(), "after the end: {after:?}");
    Answer { text, tokens, prefill, end }
}

/// Generates and collects.
pub async fn answer(model: &dyn LoadedModel, request: GenerateRequest) -> Answer {
    collect(model.generate(request).await.unwrap()).await
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "never: {what}");
}
