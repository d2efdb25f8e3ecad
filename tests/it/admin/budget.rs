//! Moving models in and out, what the memory budget decides, and what waits for a model in use.

use std::time::Duration;

use futures::future::{join, join_all};
use pensieve::engine::fake::Script;
use serde_json::{Value, json};

use super::{crowded, states, tight, used, weighing};
use crate::support::sse::text;
use crate::support::{Setup, ask, envelope, refusal, said};

#[tokio::test]
async fn twenty_who_load_at_once_cause_one_load() {
    let slow = Script { load_time: Duration::from_millis(100), ..weighing(1) };
    let server = Setup::new(&["a: {}"]).script("a", slow).start().await;
    let request = ask("a", "hi");
    let (loads, chats) =
        join(join_all((0..20).map(|_| server.manage("a", "load"))), join_all((0..20).map(|_| server.chat(&request))))
            .await;
    assert!(loads.iter().all(|response| response.status() == 200));
    for response in chats {
        assert_eq!(said(response).await, "a: hi");
    }
    assert_eq!(server.metric("pensieve_model_load_seconds_count", &[("model", "a")]).await, 1.0);
}

#[tokio::test]
async fn idle_models_make_room_and_every_request_is_answered_rightly() {
    let server = crowded().start().await;
    let answers = join_all((0..30).map(|index| {
        let model = ["a", "b", "c"][index % 3];
        let (server, request) = (&server, ask(model, &format!("request {index}")));
        async move { (format!("{model}: request {index}"), said(server.chat(&request).await).await) }
    }));
    for (expected, said) in answers.await {
        assert_eq!(said, expected);
    }
    assert!(used(&server).await <= 100 << 20);
    assert!(server.metric("pensieve_model_unloads_total", &[("reason", "evicted")]).await >= 1.0);
    assert_eq!(server.metric("pensieve_model_load_seconds_count", &[("outcome", "failed")]).await, 0.0);
    server.until_quiet().await;
}

#[tokio::test]
async fn the_books_never_exceed_the_budget_while_models_come_and_go() {
    let script =
        |name: &str| Script { load_time: Duration::from_millis(3), ..weighing(if name == "a" { 60 } else { 40 }) };
    let setup = Setup::new(&["a: {}", "b: {}", "c: {}"]).budget("100MiB");
    let server = setup.script("a", script("a")).script("b", script("b")).script("c", script("c")).start().await;
    let requests = async {
        for index in 0..30 {
            let model = ["a", "b", "c"][index % 3];
            assert_eq!(said(server.chat(&ask(model, "hi")).await).await, format!("{model}: hi"));
        }
    };
    let watch = async {
        loop {
            assert!(used(&server).await <= 100 << 20);
            let metrics = server.metrics().await;
            assert_eq!(metrics.sum("pensieve_ledger_bytes", &[]), metrics.sum("pensieve_memory_used_bytes", &[]));
        }
    };
    futures::future::select(std::pin::pin!(requests), std::pin::pin!(watch)).await;
    assert_eq!(server.metric("vllm:request_success_total", &[]).await, 30.0);
}

#[tokio::test]
async fn a_model_in_use_is_not_evicted_but_waited_for() {
    let steady = Script { token_time: Duration::from_millis(5), ..weighing(60) };
    let server = tight(weighing(60)).script("a", steady).start().await;
    let prompt = "x".repeat(60);
    let mut stream = server.stream(&ask("a", &prompt)).await;
    stream.until_text().await;
    let request = ask("b", "hi");
    let (other, frames) = join(server.chat(&request), stream.rest()).await;
    assert!(frames.last().unwrap().is_done());
    assert_eq!(text(&frames).len(), "a: ".len() + prompt.len() - 1);
    assert_eq!(said(other).await, "b: hi");
    assert_eq!(states(&server).await, ["a unloaded", "b ready"]);
}

#[tokio::test]
async fn an_unload_waits_for_the_stream_which_finishes_whole() {
    let steady = Script { token_time: Duration::from_millis(5), ..weighing(1) };
    let server = Setup::new(&["a: {}"]).script("a", steady).start().await;
    let prompt = "x".repeat(60);
    let mut stream = server.stream(&ask("a", &prompt)).await;
    stream.until_text().await;
    let reading = async {
        server.until_state("a", "draining").await;
        assert_eq!(used(&server).await, 1 << 20, "its memory is not back yet");
        stream.rest().await
    };
    let (unloaded, frames) = join(server.manage("a", "unload"), reading).await;
    assert!(frames.last().unwrap().is_done());
    assert_eq!(text(&frames).len(), "a: ".len() + prompt.len() - 1);
    let unloaded: Value = unloaded.json().await.unwrap();
    assert_eq!((&unloaded["state"], &unloaded["in_use"]), (&json!("unloaded"), &json!(0)));
    assert_eq!(used(&server).await, 0);
}

#[tokio::test]
async fn an_unload_past_the_drain_timeout_ends_streams_with_one_error_event() {
    let endless = Script { token_time: Duration::from_millis(5), ..weighing(1) };
    let setup = Setup::new(&["a: { context: 200000 }"]).defaults("drain_timeout: 100ms").script("a", endless);
    let server = setup.start().await;
    let mut stream = server.stream(&ask("a", &"x".repeat(100_000))).await;
    stream.until_text().await;
    let (unloaded, frames) = join(server.manage("a", "unload"), stream.rest()).await;
    assert_eq!(unloaded.status(), 200);
    let (last, before) = frames.split_last().unwrap();
    assert!(before.iter().all(|frame| frame.json().get("error").is_none()));
    assert_eq!(envelope(last.json())["code"], "model_stopped");
    assert_eq!(used(&server).await, 0);
}

#[tokio::test]
async fn a_request_for_a_model_that_drains_is_served_once_it_is_back() {
    let steady = Script { token_time: Duration::from_millis(5), ..weighing(1) };
    let server = Setup::new(&["a: {}"]).script("a", steady).start().await;
    let mut stream = server.stream(&ask("a", &"x".repeat(40))).await;
    stream.until_text().await;
    let request = ask("a", "hi");
    let late = async {
        server.until_state("a", "draining").await;
        said(server.chat(&request).await).await
    };
    let (unloaded, late, frames) = futures::future::join3(server.manage("a", "unload"), late, stream.rest()).await;
    assert_eq!((unloaded.status().as_u16(), late.as_str()), (200, "a: hi"));
    assert!(frames.last().unwrap().is_done());
}

#[tokio::test]
async fn memory_that_does_not_come_back_stays_on_the_books_and_is_said() {
    let sticky = Script { keeps_memory: true, ..weighing(60) };
    let server = tight(weighing(60)).script("a", sticky).start().await;
    assert_eq!(server.manage("a", "load").await.status(), 200);
    let error = refusal(server.manage("a", "unload").await, 409).await;
    assert_eq!(error["code"], "model_failed");
    assert_eq!(used(&server).await, 60 << 20);
    assert_eq!(refusal(server.manage("b", "load").await, 409).await["code"], "model_cannot_fit");
}
