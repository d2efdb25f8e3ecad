//! Streamed answers: the order of events, whole characters, failures, and framing that holds.

use std::time::Duration;

use pensieve::engine::Error;
use pensieve::engine::fake::Script;
use serde_json::{Value, json};

use crate::support::sse::{Frame, Frames, Parser, text};
use crate::support::{Setup, TestServer, ask, envelope, redacted, with};

async fn server() -> TestServer {
    Setup::new(&["a: { sampling: { temperature: 0 } }"]).start().await
}

/// The frames of a chat answer.
async fn frames(server: &TestServer, body: Value) -> Vec<Frame> {
    server.stream(&body).await.rest().await
}

/// The one choice of each chunk but the last frame, which is `[DONE]`.
fn choices(frames: &[Frame]) -> Vec<Value> {
    let (done, chunks) = frames.split_last().unwrap();
    assert!(done.is_done(), "{done:?}");
    let choice = |frame: &Frame| match frame.json()["choices"].take() {
        Value::Array(mut choices) if choices.len() == 1 => choices.remove(0),
        other => panic!("not one choice: {other}"),
    };
    chunks.iter().map(choice).collect()
}

#[tokio::test]
async fn a_chat_stream_is_role_text_reason_and_done() {
    let server = server().await;
    let frames = frames(&server, ask("a", "hi")).await;
    insta::assert_snapshot!(redacted(&frames[0].json()), @r#"
    {
      "choices": [
        {
          "delta": {
            "content": "",
            "role": "assistant"
          },
          "finish_reason": null,
          "index": 0,
          "logprobs": null
        }
      ],
      "created": "[time]",
      "id": "chatcmpl-[id]",
      "model": "a",
      "object": "chat.completion.chunk"
    }
    "#);
    let seen: Vec<(Value, Value)> =
        choices(&frames).iter_mut().map(|choice| (choice["delta"].take(), choice["finish_reason"].take())).collect();
    let mut expected = vec![(json!({"role": "assistant", "content": ""}), Value::Null)];
    expected.extend("a: hi".chars().map(|c| (json!({"content": c.to_string()}), Value::Null)));
    expected.push((json!({}), json!("stop")));
    assert_eq!(seen, expected);
    let first = frames[0].json();
    for frame in &frames[..frames.len() - 1] {
        let chunk = frame.json();
        assert_eq!((&chunk["id"], &chunk["created"]), (&first["id"], &first["created"]));
        assert!(chunk.get("usage").is_none(), "nobody asked for it: {chunk}");
    }
}

#[tokio::test]
async fn a_completion_stream_is_text_reason_and_done() {
    let server = server().await;
    let body = json!({"model": "a", "prompt": "hi", "stream": true});
    let frames = Frames::of(server.post(server.api("/v1/completions"), &body).await).rest().await;
    insta::assert_snapshot!(redacted(&frames[0].json()), @r#"
    {
      "choices": [
        {
          "finish_reason": null,
          "index": 0,
          "logprobs": null,
          "text": "a"
        }
      ],
      "created": "[time]",
      "id": "cmpl-[id]",
      "model": "a",
      "object": "text_completion"
    }
    "#);
    let seen: Vec<(Value, Value)> =
        choices(&frames).iter_mut().map(|choice| (choice["text"].take(), choice["finish_reason"].take())).collect();
    let mut expected: Vec<(Value, Value)> = "a: hi".chars().map(|c| (json!(c.to_string()), Value::Null)).collect();
    expected.push((json!(""), json!("stop")));
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn usage_is_a_last_chunk_without_choices_and_null_before_it() {
    let server = server().await;
    let usage = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chat = frames(&server, with(ask("a", "hi"), usage.clone())).await;
    let body = with(json!({"model": "a", "prompt": "hi"}), usage);
    let completion = Frames::of(server.post(server.api("/v1/completions"), &body).await).rest().await;
    for frames in [chat, completion] {
        let [before @ .., last, done] = frames.as_slice() else { panic!("{frames:?}") };
        assert!(done.is_done());
        for frame in before {
            assert_eq!(frame.json().get("usage"), Some(&Value::Null), "{frame:?}");
        }
        assert_eq!(before.last().unwrap().json()["choices"][0]["finish_reason"], "stop");
        let last = last.json();
        assert_eq!(last["choices"], json!([]));
        let details = json!({"cached_tokens": 0});
        let usage =
            json!({"prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8, "prompt_tokens_details": details});
        assert_eq!(last["usage"], usage);
    }
}

#[tokio::test]
async fn a_streamed_answer_says_the_same_as_a_whole_one() {
    let server = server().await;
    for more in [json!({}), json!({"stop": "lo"}), json!({"max_tokens": 7}), json!({"temperature": 1, "seed": 5})] {
        let body = with(with(ask("a", "hello, hello"), json!({"max_tokens": 30})), more);
        let whole: Value = server.chat(&body).await.json().await.unwrap();
        let frames = frames(&server, body).await;
        assert_eq!(text(&frames), whole["choices"][0]["message"]["content"].as_str().unwrap());
        assert_eq!(choices(&frames).pop().unwrap()["finish_reason"], whole["choices"][0]["finish_reason"]);
    }
}

#[tokio::test]
async fn a_character_of_several_tokens_comes_whole() {
    let server = server().await;
    let frames = frames(&server, ask("a", "héllo 🌍 你好")).await;
    assert_eq!(text(&frames), "a: héllo 🌍 你好");
    let pieces = choices(&frames).len() - 2;
    assert_eq!(pieces, "a: héllo 🌍 你好".chars().count(), "a chunk a character, none empty");
}

#[tokio::test]
async fn an_engine_that_fails_in_the_middle_is_one_error_event_and_the_end() {
    let script = Script { token_error: Some((4, Error::Internal("a cosmic ray".into()))), ..Script::default() };
    let server = Setup::new(&["a: { sampling: { temperature: 0 } }"]).script("a", script).start().await;
    let chat = frames(&server, ask("a", "hello")).await;
    let body = json!({"model": "a", "prompt": "hello", "stream": true});
    let completion = Frames::of(server.post(server.api("/v1/completions"), &body).await).rest().await;
    for frames in [chat, completion] {
        let (last, before) = frames.split_last().unwrap();
        assert_eq!(text(before), "a: h", "what was said before the failure stays");
        assert!(before.iter().all(|frame| !frame.is_done() && frame.json().get("error").is_none()));
        let error = envelope(last.json());
        assert_eq!((&error["type"], &error["code"]), (&json!("server_error"), &json!("engine_error")));
        assert!(error["message"].as_str().unwrap().contains("a cosmic ray"), "{error}");
    }
    assert_eq!(server.metric("pensieve_requests_failed_total", &[("model", "a")]).await, 2.0);
    server.until_quiet().await;
}

#[tokio::test]
async fn an_engine_that_fails_in_a_whole_answer_is_a_500() {
    let script = Script { token_error: Some((4, Error::Internal("a cosmic ray".into()))), ..Script::default() };
    let server = Setup::new(&["a: {}"]).script("a", script).start().await;
    let error = crate::support::refusal(server.chat(&ask("a", "hello")).await, 500).await;
    assert_eq!(error["code"], "engine_error");
}

#[tokio::test]
async fn a_request_that_cannot_start_is_no_stream_but_a_refusal() {
    let server = Setup::new(&["a: { context: 16 }"]).start().await;
    let body = with(ask("a", "much longer than the context"), json!({"stream": true}));
    let error = crate::support::refusal(server.chat(&body).await, 400).await;
    assert_eq!(error["code"], "context_length_exceeded");
}

#[tokio::test]
async fn no_text_breaks_the_framing() {
    let server = server().await;
    for prompt in ["one\n\ndata: [DONE]\n\ntwo", "\r\n\r\n: comment\r\n", "event: x\n\u{2028}\u{85}\u{0}end", "\n\n\n"]
    {
        let body = with(ask("a", prompt), json!({"stream": true}));
        let raw = server.chat(&body).await.bytes().await.unwrap();
        let whole = Parser::default().feed(&raw);
        assert_eq!(text(&whole), format!("a: {prompt}"));
        assert_eq!(whole.iter().filter(|frame| frame.is_done()).count(), 1);
        for size in [1, 2, 3, 7, 64] {
            let mut parser = Parser::default();
            let pieces: Vec<Frame> = raw.chunks(size).flat_map(|piece| parser.feed(piece)).collect();
            parser.finish();
            assert_eq!(pieces, whole, "in pieces of {size}");
        }
    }
}

#[tokio::test]
async fn tokens_are_sent_when_they_are_made() {
    let script = Script { token_time: Duration::from_millis(20), ..Script::default() };
    let server = Setup::new(&["a: {}"]).script("a", script).start().await;
    let mut stream = server.stream(&ask("a", &"x".repeat(500))).await;
    stream.until_text().await;
    let made = server.metric("vllm:num_requests_running", &[("model_name", "a")]).await;
    assert_eq!(made, 1.0, "the first text comes while the sequence runs");
}

#[tokio::test]
async fn a_stream_asks_proxies_not_to_hold_it_back() {
    let server = server().await;
    let response = server.chat(&with(ask("a", "hi"), json!({"stream": true}))).await;
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert!(response.headers().contains_key("x-request-id"));
}
