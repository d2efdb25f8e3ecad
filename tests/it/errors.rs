//! The status matrix of refusals: what cannot be, and what cannot be now.

use std::time::Duration;

use futures::StreamExt;
use pensieve::engine::Error;
use pensieve::engine::fake::Script;
use reqwest::{Body, Method};
use serde_json::{Value, json};

use crate::support::{Setup, TestServer, ask, refusal, retry_after, said, with};

/// The body limit of the public listener.
const LIMIT: usize = 8 << 20;

/// A model that reads its prompt until the test is over.
fn endless() -> Script {
    Script { prefill_time: Duration::from_secs(3600), ..Script::default() }
}

async fn server() -> TestServer {
    Setup::new(&["a: { context: 64 }", "b: {}"]).start().await
}

#[tokio::test]
async fn an_unknown_model_is_a_404_that_names_those_there_are() {
    let server = server().await;
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let body = with(ask("c", "hi"), json!({"prompt": "hi"}));
        let error = refusal(server.post(server.api(path), &body).await, 404).await;
        assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
        assert_eq!(error["message"], "there is no model `c`; there are a, b");
    }
}

#[tokio::test]
async fn a_request_for_an_unknown_model_counts_as_rejected() {
    let server = server().await;
    refusal(server.chat(&ask("c", "hi")).await, 404).await;
    let labels = [("model", "unknown"), ("code", "model_not_found")];
    assert_eq!(server.metric("pensieve_requests_rejected_total", &labels).await, 1.0);
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_a_400_with_the_three_numbers() {
    let server = server().await;
    let error = refusal(server.chat(&with(ask("a", &"x".repeat(60)), json!({"max_tokens": 5}))).await, 400).await;
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("messages")));
    let message = error["message"].as_str().unwrap();
    assert!(["64", "60", " 5 "].iter().all(|number| message.contains(number)), "{message}");
    let labels = [("model", "a"), ("code", "context_length_exceeded")];
    assert_eq!(server.metric("pensieve_requests_rejected_total", &labels).await, 1.0);
    let fits = server.chat(&with(ask("a", &"x".repeat(59)), json!({"max_tokens": 5}))).await;
    assert_eq!(said(fits).await, "a: xx");
}

#[tokio::test]
async fn a_completions_prompt_beyond_the_context_names_its_own_field() {
    let server = server().await;
    let body = json!({"model": "a", "prompt": "x".repeat(65)});
    let error = refusal(server.post(server.api("/v1/completions"), &body).await, 400).await;
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("prompt")));
}

#[tokio::test]
async fn a_body_that_is_no_json_is_a_400() {
    let server = server().await;
    let more = format!("{} and more", ask("a", "hi")).into_bytes();
    let deep = "[".repeat(100_000).into_bytes();
    let bodies = [b"".to_vec(), b"{".to_vec(), b"no json".to_vec(), b"{\"model\": \"\xc3\"}".to_vec(), more, deep];
    for body in bodies {
        for path in ["/v1/chat/completions", "/v1/completions"] {
            let response = server.client.post(server.api(path)).body(body.clone()).send().await.unwrap();
            let error = refusal(response, 400).await;
            assert_eq!(error["type"], "invalid_request_error");
        }
    }
    let response = server.client.post(server.api("/v1/chat/completions")).body("{").send().await.unwrap();
    assert_eq!(refusal(response, 400).await["code"], "invalid_json");
}

#[tokio::test]
async fn a_body_that_is_json_but_no_object_names_no_field() {
    let server = server().await;
    for body in ["5", "\"text\"", "null", "[]", "[{}]"] {
        let response = server.client.post(server.api("/v1/chat/completions")).body(body).send().await.unwrap();
        let error = refusal(response, 400).await;
        assert_eq!(error["param"], Value::Null, "{body}: {error}");
    }
}

#[tokio::test]
async fn a_wrong_field_is_a_400_that_names_it() {
    let server = server().await;
    let table = [
        (json!({"model": 5}), "model"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"content": "hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "wizard", "content": "hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": 5}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "messages[0].content[0]"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": "ten"}), "max_tokens"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"min_p": -1}), "min_p"),
        (json!({"top_k": -1}), "top_k"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"frequency_penalty": -3}), "frequency_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"logit_bias": {"1": 101}}), "logit_bias"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"stop": 5}), "stop"),
        (json!({"stop": vec!["x"; 17]}), "stop"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
        (json!({"n": 0}), "n"),
        (json!({"n": 9}), "n"),
        (json!({"tools": [{"type": "function"}]}), "tools"),
        (json!({"logprobs": 3}), "logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"response_format": {"type": "yaml"}}), "response_format.type"),
        (json!({"typical_p": 2}), "typical_p"),
        (json!({"dry_multiplier": -1}), "dry_multiplier"),
        (json!({"stop_token_ids": ["x"]}), "stop_token_ids[0]"),
        (json!({"modalities": ["audio"]}), "modalities"),
    ];
    for (wrong, param) in table {
        let error = refusal(server.chat(&with(ask("b", "hi"), wrong.clone())).await, 400).await;
        assert_eq!(error["param"], param, "{wrong}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    assert_eq!(server.metric("pensieve_model_load_seconds_count", &[]).await, 0.0, "nothing was loaded for them");
}

#[tokio::test]
async fn a_missing_field_is_a_400_that_names_it() {
    let server = server().await;
    for (path, body, param) in [
        ("/v1/chat/completions", json!({"messages": []}), "model"),
        ("/v1/chat/completions", json!({"model": "a"}), "messages"),
        ("/v1/completions", json!({"prompt": "hi"}), "model"),
        ("/v1/completions", json!({"model": "a"}), "prompt"),
    ] {
        let error = refusal(server.post(server.api(path), &body).await, 400).await;
        assert_eq!(error["param"], param);
        assert_eq!(error["message"], format!("`{param}` is missing"));
    }
}

#[tokio::test]
async fn what_the_completions_endpoint_lacks_is_refused_by_name() {
    let server = server().await;
    for (more, param) in [
        (json!({"echo": true}), "echo"),
        (json!({"best_of": 2}), "best_of"),
        (json!({"suffix": "end"}), "suffix"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
    ] {
        let body = with(json!({"model": "b", "prompt": "hi"}), more);
        let error = refusal(server.post(server.api("/v1/completions"), &body).await, 400).await;
        assert_eq!((&error["param"], &error["code"]), (&json!(param), &json!("unsupported_parameter")));
    }
}

#[tokio::test]
async fn an_empty_prompt_is_a_400() {
    let server = server().await;
    for body in [json!({"model": "b", "prompt": ""}), json!({"model": "b", "prompt": []})] {
        let error = refusal(server.post(server.api("/v1/completions"), &body).await, 400).await;
        assert_eq!(error["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn an_unknown_route_is_a_404_and_a_wrong_method_a_405() {
    let server = server().await;
    for url in [server.api("/v1/nothing"), server.api("/"), server.admin("/admin/v1/nothing")] {
        assert_eq!(refusal(server.get(url).await, 404).await["code"], "route_not_found");
    }
    for url in [server.api("/v1/chat/completions"), server.admin("/admin/v1/models/a/load")] {
        let response = server.get(url).await;
        assert_eq!(response.headers()["allow"], "POST");
        assert_eq!(refusal(response, 405).await["code"], "method_not_allowed");
    }
    let response = server.client.request(Method::DELETE, server.api("/v1/models")).send().await.unwrap();
    assert_eq!(response.headers()["allow"], "GET,HEAD");
    refusal(response, 405).await;
}

#[tokio::test]
async fn the_listeners_do_not_serve_each_others_routes() {
    let server = server().await;
    refusal(server.get(server.api("/admin/v1/status")).await, 404).await;
    refusal(server.get(server.api("/metrics")).await, 404).await;
    refusal(server.get(server.admin("/v1/models")).await, 404).await;
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_in_the_envelope() {
    let server = server().await;
    for url in [server.api("/v1/models/%ff"), server.admin("/admin/v1/models/%ff")] {
        let response = server.get(url).await;
        let status = response.status().as_u16();
        assert!([400, 404].contains(&status), "{status}");
        refusal(response, status).await;
    }
}

#[tokio::test]
async fn a_body_of_just_the_limit_is_read_and_a_longer_one_is_a_413() {
    let server = server().await;
    let body = ask("a", "hi").to_string();
    let send = async |length: usize| {
        let body = format!("{body}{}", " ".repeat(length - body.len()));
        server.client.post(server.api("/v1/chat/completions")).body(body).send().await.unwrap()
    };
    assert_eq!(said(send(LIMIT).await).await, "a: hi");
    let error = refusal(send(LIMIT + 1).await, 413).await;
    assert_eq!(error["code"], "request_too_large");
    assert!(error["message"].as_str().unwrap().contains(&LIMIT.to_string()), "{error}");
}

#[tokio::test]
async fn a_body_without_end_is_cut_short_and_the_next_request_served() {
    let server = server().await;
    let megabyte = vec![b' '; 1 << 20];
    let pieces = futures::stream::iter(0..100).map(move |_| Ok::<_, std::io::Error>(megabyte.clone()));
    let request = server.client.post(server.api("/v1/chat/completions")).body(Body::wrap_stream(pieces));
    // The server may have closed the connection before all was sent; then there is no answer to read.
    if let Ok(response) = request.send().await {
        assert_eq!(refusal(response, 413).await["code"], "request_too_large");
    }
    assert_eq!(said(server.chat(&ask("a", "hi")).await).await, "a: hi");
}

#[tokio::test]
async fn a_full_queue_answers_429_with_retry_after() {
    let server = Setup::new(&["a: { sequences: 1, queue: { depth: 1 } }"]).script("a", endless()).start().await;
    let request = ask("a", "hi");
    let _running = server.stream(&request).await;
    let _in_hand = server.begin(&request);
    server.until("the worker holds it until a sequence ends", |status| status["models"][0]["in_use"] == 2).await;
    let _in_the_queue = server.begin(&request);
    server.until_waiting("a", 2).await;
    let response = server.chat(&request).await;
    assert!((1..=600).contains(&retry_after(&response)));
    let error = refusal(response, 429).await;
    assert_eq!((&error["type"], &error["code"]), (&json!("rate_limit_error"), &json!("queue_full")));
    assert_eq!(server.metric("pensieve_requests_rejected_total", &[("code", "queue_full")]).await, 1.0);
}

#[tokio::test]
async fn a_request_that_waited_too_long_answers_503_queue_timeout_with_retry_after() {
    let server = Setup::new(&["a: { sequences: 1, queue: { timeout: 100ms } }"]).script("a", endless()).start().await;
    let _running = server.stream(&ask("a", "hi")).await;
    let both = futures::future::join(server.chat(&ask("a", "second")), server.chat(&ask("a", "third"))).await;
    for response in [both.0, both.1] {
        assert!(retry_after(&response) >= 1);
        assert!(!response.headers().contains_key("x-should-retry"));
        let error = refusal(response, 503).await;
        assert_eq!((&error["type"], &error["code"]), (&json!("server_error"), &json!("queue_timeout")));
    }
    server.until_waiting("a", 0).await;
}

#[tokio::test]
async fn a_model_still_loading_at_the_deadline_answers_503_model_loading_with_retry_after() {
    let slow = Script { load_time: Duration::from_secs(3600), ..Script::default() };
    let server = Setup::new(&["a: { queue: { timeout: 100ms } }", "b: {}"]).script("a", slow).start().await;
    let response = server.chat(&ask("a", "hi")).await;
    assert!(retry_after(&response) >= 1);
    let error = refusal(response, 503).await;
    assert_eq!(error["code"], "model_loading");
    assert!(error["message"].as_str().unwrap().contains("loading"), "{error}");
    let streamed = server.chat(&with(ask("a", "hi"), json!({"stream": true}))).await;
    assert_eq!(refusal(streamed, 503).await["code"], "model_loading");
}

#[tokio::test]
async fn a_model_that_failed_to_load_answers_503_without_a_retry_and_the_others_serve_on() {
    let broken = Script { load_error: Some(Error::Load("no weights".into())), ..Script::default() };
    let server = Setup::new(&["a: { preload: true }", "b: {}"]).script("a", broken).start().await;
    server.until_state("a", "failed").await;
    assert_eq!(server.model("a").await["reason"], "loading failed: no weights");
    for _ in 0..2 {
        let response = server.chat(&ask("a", "hi")).await;
        assert_eq!(response.headers()["x-should-retry"], "false");
        let error = refusal(response, 503).await;
        assert_eq!(error["code"], "model_failed");
        assert!(error["message"].as_str().unwrap().contains("no weights"), "{error}");
    }
    assert_eq!(said(server.chat(&ask("b", "hi")).await).await, "b: hi");
    assert_eq!(server.metric("pensieve_model_load_seconds_count", &[("outcome", "failed")]).await, 1.0);
}

#[tokio::test]
async fn a_load_that_fails_tells_everyone_who_waited_for_it() {
    let error = Some(Error::Load("no weights".into()));
    let broken = Script { load_error: error, load_time: Duration::from_millis(100), ..Script::default() };
    let server = Setup::new(&["a: {}"]).script("a", broken).start().await;
    let request = ask("a", "hi");
    let answers = futures::future::join_all((0..5).map(|_| server.chat(&request))).await;
    for response in answers {
        assert_eq!(refusal(response, 503).await["code"], "model_failed");
    }
}

#[tokio::test]
async fn what_can_never_fit_is_a_503_without_a_retry_for_clients_and_a_409_for_admins() {
    let footprint = |mib: u64| Script {
        footprint: pensieve::engine::Footprint { weights_private: mib << 20, ..Default::default() },
        ..Script::default()
    };
    let server = Setup::new(&["pinned: { pin: true, preload: true }", "a: {}"])
        .budget("100MiB")
        .script("pinned", footprint(60))
        .script("a", footprint(60))
        .start()
        .await;
    server.until_state("pinned", "ready").await;
    let response = server.chat(&ask("a", "hi")).await;
    assert_eq!(response.headers()["x-should-retry"], "false");
    let error = refusal(response, 503).await;
    assert_eq!(error["code"], "model_cannot_fit");
    let message = error["message"].as_str().unwrap();
    assert!(["60.0 MiB", "40.0 MiB", "100.0 MiB"].iter().all(|number| message.contains(number)), "{message}");
    assert_eq!(refusal(server.manage("a", "load").await, 409).await["code"], "model_cannot_fit");
    assert_eq!(said(server.chat(&ask("pinned", "hi")).await).await, "pinned: hi");
}

#[tokio::test]
async fn a_server_that_shuts_down_answers_503_and_closes_the_connection() {
    let server = Setup::new(&["a: {}", "b: {}"]).script("a", endless()).start().await;
    let _running = server.stream(&ask("a", "hi")).await;
    server.tell_to_stop().await;
    server.until("the server is draining", |status| status["ready"] == false).await;
    let response = server.chat(&ask("b", "hi")).await;
    assert_eq!(response.headers()["connection"], "close");
    assert!(retry_after(&response) >= 1);
    assert_eq!(refusal(response, 503).await["code"], "shutting_down");
}
