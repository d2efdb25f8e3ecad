//! The admin API: looking at models, moving them in and out, and what the memory budget decides.

use std::time::Duration;

use futures::future::{join, join_all};
use pensieve::engine::fake::Script;
use pensieve::engine::{Error, Footprint};
use serde_json::{Value, json};

use crate::support::sse::text;
use crate::support::{Setup, TestServer, ask, envelope, redacted, refusal, said, with};

fn weighing(mib: u64) -> Script {
    Script { footprint: Footprint { weights_private: mib << 20, ..Footprint::default() }, ..Script::default() }
}

/// Three models of 40 MiB under a budget of 100 MiB: two fit.
fn crowded() -> Setup {
    let setup = Setup::new(&["a: { aliases: [first] }", "b: {}", "c: {}"]).budget("100MiB");
    setup.script("a", weighing(40)).script("b", weighing(40)).script("c", weighing(40))
}

/// Two models of 60 MiB under a budget of 100 MiB: one fits.
fn tight(b: Script) -> Setup {
    Setup::new(&["a: {}", "b: {}"]).budget("100MiB").script("a", weighing(60)).script("b", Script { ..b })
}

async fn swap(server: &TestServer, from: &str, to: &str) -> reqwest::Response {
    server.post(server.admin("/admin/v1/swap"), &json!({"from": from, "to": to})).await
}

async fn states(server: &TestServer) -> Vec<String> {
    let status = server.status().await;
    let models = status["models"].as_array().unwrap().iter();
    models.map(|model| format!("{} {}", model["id"].as_str().unwrap(), model["state"].as_str().unwrap())).collect()
}

async fn used(server: &TestServer) -> u64 {
    server.status().await["memory"]["used"].as_u64().unwrap()
}

#[tokio::test]
async fn the_status_shows_mode_memory_and_every_model() {
    let server = crowded().start().await;
    assert_eq!(server.manage("a", "load").await.status(), 200);
    let mut status = server.status().await;
    assert!(status["memory"]["resident"].take().as_u64().unwrap() > 1 << 20);
    assert!(status["uptime_seconds"].take().is_u64());
    assert_eq!(status["version"].take(), env!("CARGO_PKG_VERSION"));
    for model in status["models"].as_array_mut().unwrap() {
        assert!(model["seconds_in_state"].take().as_f64().unwrap() >= 0.0);
    }
    assert!(status["models"][0]["load_seconds"].take().as_f64().unwrap() >= 0.0);
    let model = status["models"][0].take();
    insta::assert_snapshot!(redacted(&model), @r#"
    {
      "aliases": [
        "first"
      ],
      "capabilities": {
        "chat": true,
        "context": 2048,
        "grammar": true,
        "logprobs": true,
        "sequences": 20
      },
      "context": 2048,
      "engine": "fake",
      "engine_reason": "named in the registry file",
      "id": "a",
      "in_use": 0,
      "load_seconds": null,
      "memory": {
        "error_percent": 0.0,
        "estimated": {
          "kv": 0,
          "scratch": 0,
          "tables": 0,
          "weights_mapped": 0,
          "weights_private": 41943040
        },
        "estimated_total": 41943040,
        "measured": {
          "kv": 0,
          "scratch": 0,
          "tables": 0,
          "weights_mapped": 0,
          "weights_private": 41943040
        },
        "measured_total": 41943040
      },
      "pin": false,
      "preload": false,
      "reason": null,
      "seconds_in_state": null,
      "source": "",
      "state": "ready",
      "stats": {
        "kv": {
          "cached": 0,
          "total": 0,
          "used": 0
        },
        "running": 0,
        "waiting": 0,
        "work": {
          "preemptions": 0,
          "prefix_hit_tokens": 0,
          "prefix_query_tokens": 0,
          "steps": 0,
          "tokens": 0
        }
      }
    }
    "#);
    let unloaded = status["models"][1].take();
    assert_eq!(unloaded["state"], "unloaded");
    assert!(unloaded["capabilities"].is_null() && unloaded["memory"]["measured"].is_null(), "{unloaded}");
    status["models"].take();
    insta::assert_snapshot!(redacted(&status), @r#"
    {
      "memory": {
        "budget": 104857600,
        "free": 62914560,
        "kv_pool": 0,
        "resident": null,
        "used": 41943040
      },
      "mode": "fleet",
      "models": null,
      "ready": true,
      "uptime_seconds": null,
      "version": null
    }
    "#);
}

#[tokio::test]
async fn models_are_listed_and_found_by_id_and_alias() {
    let server = crowded().start().await;
    let list: Value = server.get(server.admin("/admin/v1/models")).await.json().await.unwrap();
    let ids: Vec<&str> = list.as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(server.model("first").await["id"], "a");
}

#[tokio::test]
async fn loading_and_unloading_move_the_model_and_its_bytes() {
    let server = crowded().start().await;
    let loaded: Value = server.manage("first", "load").await.json().await.unwrap();
    assert_eq!((&loaded["id"], &loaded["state"]), (&json!("a"), &json!("ready")));
    assert_eq!(used(&server).await, 40 << 20);
    let labels = [("model", "a"), ("line", "weights_private")];
    assert_eq!(server.metric("pensieve_ledger_bytes", &labels).await, f64::from(40 << 20));
    assert_eq!(server.manage("a", "load").await.status(), 200, "loaded already is fine");
    let unloaded: Value = server.manage("a", "unload").await.json().await.unwrap();
    assert_eq!((&unloaded["state"], &unloaded["memory"]["measured"]), (&json!("unloaded"), &Value::Null));
    assert_eq!(used(&server).await, 0);
    assert_eq!(server.metric("pensieve_ledger_bytes", &[]).await, 0.0);
    assert_eq!(server.metric("pensieve_model_unloads_total", &[("model", "a"), ("reason", "admin")]).await, 1.0);
    assert_eq!(said(server.chat(&ask("a", "hi")).await).await, "a: hi", "a request loads it again");
}

#[tokio::test]
async fn an_unknown_model_is_a_404_everywhere() {
    let server = crowded().start().await;
    let get = server.get(server.admin("/admin/v1/models/x")).await;
    let answers = [
        get,
        server.manage("x", "load").await,
        server.manage("x", "unload").await,
        swap(&server, "x", "a").await,
        swap(&server, "a", "x").await,
    ];
    for answer in answers {
        let error = refusal(answer, 404).await;
        assert_eq!(error["code"], "model_not_found");
        assert!(error["message"].as_str().unwrap().contains("a, b, c"), "{error}");
    }
}

#[tokio::test]
async fn what_the_state_does_not_allow_is_a_409() {
    let slow = Script { load_time: Duration::from_secs(3600), ..weighing(1) };
    let server = Setup::new(&["a: {}", "b: {}", "slow: {}"]).script("slow", slow).start().await;
    assert_eq!(refusal(server.manage("a", "unload").await, 409).await["code"], "conflict");
    assert_eq!(refusal(swap(&server, "a", "b").await, 409).await["code"], "conflict", "a is not loaded");
    for model in ["a", "b"] {
        assert_eq!(server.manage(model, "load").await.status(), 200);
    }
    for to in ["a", "b"] {
        assert_eq!(refusal(swap(&server, "a", to).await, 409).await["code"], "conflict", "{to} is loaded");
    }
    let _loading = server.begin(&ask("slow", "hi"));
    server.until_state("slow", "loading").await;
    let error = refusal(server.manage("slow", "unload").await, 409).await;
    assert!(error["message"].as_str().unwrap().contains("slow` is loading"), "{error}");
}

#[tokio::test]
async fn a_swap_that_says_too_much_or_too_little_is_a_400() {
    let server = crowded().start().await;
    for (body, param) in [(json!({"from": "a"}), "to"), (json!({"from": 1, "to": "b"}), "from")] {
        let error = refusal(server.post(server.admin("/admin/v1/swap"), &body).await, 400).await;
        assert_eq!(error["param"], param);
    }
    let body = json!({"from": "a", "to": "b", "strategie": "load_first"});
    let error = refusal(server.post(server.admin("/admin/v1/swap"), &body).await, 400).await;
    assert!(error["message"].as_str().unwrap().contains("strategie"), "{error}");
}

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
async fn a_swap_loads_first_when_both_fit() {
    let server = crowded().start().await;
    assert_eq!(server.manage("a", "load").await.status(), 200);
    let swapped: Value = swap(&server, "first", "b").await.json().await.unwrap();
    assert_eq!(swapped["strategy"], "load_first");
    assert!(swapped["seconds"].as_f64().unwrap() >= 0.0);
    assert_eq!((&swapped["from"]["state"], &swapped["to"]["state"]), (&json!("unloaded"), &json!("ready")));
    assert_eq!(used(&server).await, 40 << 20);
    server.until_metric("pensieve_swaps_total", &[("outcome", "succeeded")], 1.0).await;
}

#[tokio::test]
async fn a_swap_drains_first_when_only_one_fits_and_running_answers_finish() {
    let steady = Script { token_time: Duration::from_millis(5), ..weighing(60) };
    let server = tight(weighing(60)).script("a", steady).start().await;
    let mut stream = server.stream(&ask("a", &"x".repeat(60))).await;
    stream.until_text().await;
    let second = async {
        server.until_state("a", "draining").await;
        refusal(swap(&server, "a", "b").await, 409).await
    };
    let (swapped, second, frames) = futures::future::join3(swap(&server, "a", "b"), second, stream.rest()).await;
    let swapped: Value = swapped.json().await.unwrap();
    assert_eq!(swapped["strategy"], "drain_first");
    assert!(frames.last().unwrap().is_done());
    assert!(second["message"].as_str().unwrap().contains("another swap"), "{second}");
    assert_eq!(states(&server).await, ["a unloaded", "b ready"]);
    assert_eq!(said(server.chat(&ask("b", "hi")).await).await, "b: hi");
}

#[tokio::test]
async fn a_swap_that_fails_leaves_the_old_model_serving() {
    for mib in [10, 60] {
        let broken = Script { load_error: Some(Error::Load("no weights".into())), ..weighing(mib) };
        let server = tight(broken).start().await;
        assert_eq!(server.manage("a", "load").await.status(), 200);
        let error = refusal(swap(&server, "a", "b").await, 409).await;
        assert!(error["message"].as_str().unwrap().contains("no weights"), "{error}");
        assert_eq!(states(&server).await, ["a ready", "b failed"]);
        assert_eq!(used(&server).await, 60 << 20);
        assert_eq!(said(server.chat(&ask("a", "hi")).await).await, "a: hi");
        server.until_metric("pensieve_swaps_total", &[("outcome", "failed")], 1.0).await;
    }
}

#[tokio::test]
async fn a_failed_load_is_a_409_with_the_reason_and_may_be_tried_again() {
    let broken = Script { load_error: Some(Error::Load("no weights".into())), ..weighing(1) };
    let server = Setup::new(&["a: {}"]).script("a", broken).start().await;
    for attempt in 1..=2 {
        let error = refusal(server.manage("a", "load").await, 409).await;
        assert_eq!(error["code"], "model_failed");
        assert!(error["message"].as_str().unwrap().contains("no weights"), "{error}");
        let loads = server.metric("pensieve_model_load_seconds_count", &[("outcome", "failed")]).await;
        assert_eq!(loads, f64::from(attempt), "every attempt is one");
    }
    assert_eq!(used(&server).await, 0);
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

#[tokio::test]
async fn a_stream_keeps_its_model_in_use_until_its_end() {
    let server = Setup::new(&["a: {}"]).script("a", Script { prefill_time: Duration::from_secs(3600), ..weighing(1) });
    let server = server.start().await;
    let streams = [server.stream(&ask("a", "hi")).await, server.stream(&with(ask("a", "hi"), json!({}))).await];
    server.until_running("a", 2).await;
    assert_eq!(server.model("a").await["in_use"], 2);
    drop(streams);
    server.until_quiet().await;
}
