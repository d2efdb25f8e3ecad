//! Clients who leave, at any point: everything they held is free again, and they are counted.

use std::time::Duration;

use pensieve::engine::fake::Script;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{DEADLINE, Setup, TestServer, ask, said, with};

const CANCELLED: &str = "pensieve_requests_cancelled_total";

fn prefilling() -> Script {
    Script { prefill_time: Duration::from_secs(3600), ..Script::default() }
}

fn decoding() -> Script {
    Script { token_time: Duration::from_millis(10), ..Script::default() }
}

/// The same request, streamed and not.
fn both(prompt: &str) -> [Value; 2] {
    [false, true].map(|stream| with(ask("a", prompt), json!({"stream": stream})))
}

async fn ledger(server: &TestServer) -> f64 {
    server.metric("pensieve_ledger_bytes", &[]).await
}

async fn cancelled(server: &TestServer, phase: &str) -> f64 {
    server.metric(CANCELLED, &[("model", "a"), ("phase", phase)]).await
}

#[tokio::test]
async fn who_leaves_the_queue_gives_the_place_up() {
    let server = Setup::new(&["a: { sequences: 1 }"]).script("a", prefilling()).start().await;
    let running = server.stream(&ask("a", "first")).await;
    let bytes = ledger(&server).await;
    for (left, request) in (1..).zip(both("second")) {
        let in_hand = server.begin(&request);
        server.until("the worker holds it", |status| status["models"][0]["in_use"] == 2).await;
        let queued = server.begin(&request);
        server.until_waiting("a", 2).await;
        drop(queued);
        server.until_waiting("a", 1).await;
        drop(in_hand);
        server.until_waiting("a", 0).await;
        server.until_metric(CANCELLED, &[("phase", "queued")], f64::from(2 * left)).await;
        assert_eq!(server.metric("vllm:num_requests_running", &[]).await, 1.0, "the first is not touched");
    }
    drop(running);
    server.until_quiet().await;
    assert_eq!((cancelled(&server, "queued").await, cancelled(&server, "running").await), (4.0, 1.0));
    assert_eq!(ledger(&server).await, bytes);
}

#[tokio::test]
async fn who_leaves_while_the_model_loads_leaves_the_load_alone() {
    let script = Script { load_time: Duration::from_millis(300), ..Script::default() };
    let server = Setup::new(&["a: {}"]).script("a", script).start().await;
    let clients = both("hi").map(|request| server.begin(&request));
    server.until_waiting("a", 2).await;
    server.until_state("a", "loading").await;
    drop(clients);
    server.until_waiting("a", 0).await;
    assert_eq!(cancelled(&server, "queued").await, 2.0);
    server.until_state("a", "ready").await;
    server.until_quiet().await;
    assert_eq!(ledger(&server).await, f64::from(1 << 20));
    assert_eq!(said(server.chat(&ask("a", "hi")).await).await, "a: hi");
    assert_eq!(server.metric("pensieve_model_load_seconds_count", &[]).await, 1.0);
}

#[tokio::test]
async fn who_leaves_while_the_prompt_is_read_ends_the_sequence() {
    let server = Setup::new(&["a: { preload: true }"]).script("a", prefilling()).start().await;
    server.until_state("a", "ready").await;
    let bytes = ledger(&server).await;
    for (left, request) in (1..).zip(both("hi")) {
        let client = server.begin(&request);
        server.until_running("a", 1).await;
        drop(client);
        server.until_quiet().await;
        assert_eq!(cancelled(&server, "running").await, f64::from(left));
    }
    assert_eq!(ledger(&server).await, bytes);
}

#[tokio::test]
async fn who_leaves_in_the_middle_of_an_answer_ends_the_sequence() {
    let server = Setup::new(&["a: { context: 100000 }"]).script("a", decoding()).start().await;
    let prompt = "x".repeat(50_000);
    let mut stream = server.stream(&ask("a", &prompt)).await;
    stream.until_text().await;
    let bytes = ledger(&server).await;
    let whole = server.begin(&ask("a", &prompt));
    server.until_running("a", 2).await;
    drop(stream);
    server.until_running("a", 1).await;
    drop(whole);
    server.until_quiet().await;
    assert_eq!(cancelled(&server, "running").await, 2.0);
    assert_eq!(server.metric("vllm:request_success_total", &[]).await, 0.0);
    assert_eq!(ledger(&server).await, bytes);
    let gone = [("route", "/v1/chat/completions"), ("status", "499")];
    server.until_metric("pensieve_http_requests_total", &gone, 2.0).await;
}

#[tokio::test]
async fn fifty_clients_who_leave_at_any_point_leave_nothing_behind() {
    let models = ["a: { sequences: 4, queue: { depth: 64 } }", "b: { sequences: 1 }"];
    let slow = Script {
        load_time: Duration::from_millis(20),
        prefill_time: Duration::from_millis(10),
        token_time: Duration::from_millis(8),
        ..Script::default()
    };
    let server = Setup::new(&models).script("a", slow.clone()).script("b", slow).start().await;
    let mut random = StdRng::seed_from_u64(11);
    let mut clients = Vec::new();
    for index in 0..50 {
        let model = if random.random_bool(0.5) { "a" } else { "b" };
        let prompt = "x".repeat(random.random_range(1..60));
        let body = with(ask(model, &prompt), json!({"stream": random.random_bool(0.5)}));
        let leaves = Duration::from_millis(random.random_range(0..800));
        let stays = if index % 5 == 0 { DEADLINE } else { leaves };
        let request = server.client.post(server.api("/v1/chat/completions")).json(&body);
        let answer = async move { request.send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap() };
        clients.push(timeout(stays, answer));
    }
    let answered = futures::future::join_all(clients).await.into_iter().filter(Result::is_ok).count();
    eprintln!("ANSWERED {answered}");
    assert!((10..45).contains(&answered), "{answered} of 50 were answered: too few left to show anything");
    server.until_quiet().await;
    assert!(server.metric(CANCELLED, &[]).await > 0.0);
    assert_eq!(ledger(&server).await, f64::from(2 << 20), "two loaded models");
    for model in ["a", "b"] {
        assert_eq!(said(server.chat(&ask(model, "hi")).await).await, format!("{model}: hi"));
    }
}

#[tokio::test]
async fn every_client_is_counted_once() {
    let server = Setup::new(&["a: { sequences: 2 }"]).script("a", decoding()).start().await;
    let request = ask("a", "some thirty tokens of an answer");
    for round in 1..=20 {
        let clients: Vec<_> = (0..3).map(|_| server.begin(&request)).collect();
        if round % 2 == 0 {
            server.until_running("a", 2).await;
        }
        drop(clients);
        server.until_quiet().await;
    }
    let metrics = server.metrics().await;
    let arrived = metrics.sum("pensieve_http_requests_total", &[("route", "/v1/chat/completions")]);
    let left = metrics.sum(CANCELLED, &[]);
    assert!(left > 0.0 && left <= arrived, "{arrived} came and {left} left");
}

#[tokio::test]
async fn a_reader_who_stands_still_does_not_stop_another_client() {
    let server = Setup::new(&["a: { context: 200000, sequences: 2 }"]).start().await;
    let lazy = lazy_reader(&server, 50_000).await;
    for prompt in ["one", "two", "three"] {
        assert_eq!(said(server.chat(&ask("a", prompt)).await).await, format!("a: {prompt}"));
    }
    let ended = async |status| {
        let labels = [("route", "/v1/chat/completions"), ("status", status)];
        server.metric("pensieve_http_requests_total", &labels).await
    };
    assert_eq!((ended("200").await, ended("499").await), (3.0, 0.0), "the lazy one is still being answered");
    drop(lazy);
    server.until_metric("pensieve_http_requests_total", &[("status", "499")], 1.0).await;
    server.until_quiet().await;
}

#[tokio::test]
async fn a_reader_who_stands_still_does_not_hold_the_only_sequence() {
    let server = Setup::new(&["a: { context: 200000, sequences: 1, queue: { timeout: 2s } }"]).start().await;
    let _lazy = lazy_reader(&server, 50_000).await;
    assert_eq!(said(server.chat(&ask("a", "hi")).await).await, "a: hi", "the engine was done long ago");
}

/// A client of a streamed answer, too long for all buffers on its way, who reads one byte and then no more.
async fn lazy_reader(server: &TestServer, tokens: usize) -> TcpStream {
    let body = with(ask("a", &"x".repeat(tokens)), json!({"stream": true})).to_string();
    let address = server.api("").replace("http://", "");
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut connection = TcpStream::connect(&address).await.unwrap();
    connection.write_all((head + &body).as_bytes()).await.unwrap();
    assert_eq!(connection.read_u8().await.unwrap(), b'H');
    connection
}
