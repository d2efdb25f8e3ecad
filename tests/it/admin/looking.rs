//! Looking at models, and which of their states allows what.

use std::time::Duration;

use pensieve::engine::Error;
use pensieve::engine::fake::Script;
use serde_json::{Value, json};

use super::{crowded, swap, used, weighing};
use crate::support::{Setup, ask, redacted, refusal, said, with};

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
async fn a_stream_keeps_its_model_in_use_until_its_end() {
    let server = Setup::new(&["a: {}"]).script("a", Script { prefill_time: Duration::from_secs(3600), ..weighing(1) });
    let server = server.start().await;
    let streams = [server.stream(&ask("a", "hi")).await, server.stream(&with(ask("a", "hi"), json!({}))).await];
    server.until_running("a", 2).await;
    assert_eq!(server.model("a").await["in_use"], 2);
    drop(streams);
    server.until_quiet().await;
}
