//! Health and metrics: what they say, and that asking changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pensieve::engine::Engines;
use pensieve::engine::fake::Script;
use pensieve::engine::paged::Paged;
use serde_json::{Value, json};

use crate::support::synthetic::{Shape, SyntheticModel};
use crate::support::{DEADLINE, Exposition, Setup, TestServer, ask, refusal, said};

fn slow_to_load() -> Script {
    Script { load_time: Duration::from_millis(300), ..Script::default() }
}

#[tokio::test]
async fn a_server_lives_before_it_is_ready_and_names_what_it_waits_for() {
    let models = ["a: { preload: true }", "b: { preload: true }", "c: {}"];
    let server = Setup::new(&models).script("b", slow_to_load()).start().await;
    server.until_state("a", "ready").await;
    assert_eq!(server.get(server.admin("/livez")).await.text().await.unwrap(), "ok\n");
    let error = refusal(server.get(server.admin("/readyz")).await, 503).await;
    assert_eq!((&error["code"], &error["message"]), (&json!("not_ready"), &json!("b is loading")));
    assert_eq!(server.status().await["ready"], false);
    server.until_state("b", "ready").await;
    assert_eq!(server.get(server.admin("/readyz")).await.text().await.unwrap(), "ready\n");
    assert_eq!(server.status().await["ready"], true);
    assert_eq!(server.model("c").await["state"], "unloaded", "it was not to be preloaded");
}

#[tokio::test]
async fn a_server_without_preloaded_models_is_ready_at_once() {
    let server = Setup::new(&["a: {}"]).start().await;
    assert_eq!(server.get(server.admin("/readyz")).await.status(), 200);
}

#[tokio::test]
async fn a_server_that_made_room_by_evicting_a_preloaded_model_stays_ready() {
    let server = Setup::new(&["a: { preload: true }", "b: {}"]).budget("1500KiB").start().await;
    server.until_state("a", "ready").await;
    assert_eq!(said(server.chat(&ask("b", "hi")).await).await, "b: hi");
    assert_eq!(server.model("a").await["state"], "unloaded");
    assert_eq!(server.get(server.admin("/readyz")).await.status(), 200, "every model was loaded once and works");
}

#[tokio::test]
async fn a_server_that_shuts_down_is_alive_but_not_ready() {
    let endless = Script { prefill_time: Duration::from_secs(3600), ..Script::default() };
    let server = Setup::new(&["a: { preload: true }"]).script("a", endless).start().await;
    server.until("it is ready", |status| status["ready"] == true).await;
    let _running = server.stream(&ask("a", "hi")).await;
    server.tell_to_stop().await;
    server.until("it is not ready", |status| status["ready"] == false).await;
    let error = refusal(server.get(server.admin("/readyz")).await, 503).await;
    assert_eq!(error["code"], "shutting_down");
    assert_eq!(server.get(server.admin("/livez")).await.status(), 200);
    assert_eq!(server.get(server.admin("/metrics")).await.status(), 200);
}

#[tokio::test]
async fn every_metric_has_help_and_type_and_every_histogram_adds_up() {
    let server = Setup::new(&["a: {}"]).start().await;
    said(server.chat(&ask("a", "hi")).await).await;
    server.chat(&ask("unknown", "hi")).await;
    let response = server.get(server.admin("/metrics")).await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4");
    // Reading it holds every line to the format.
    let scrape = Exposition::parse(&response.text().await.unwrap());
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in scrape.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
        let mut labels = sample.labels.clone();
        let below = labels.remove("le").unwrap().parse().unwrap();
        let series = format!("{} {labels:?}", sample.family(&scrape.types));
        buckets.entry(series).or_default().push((below, sample.value));
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if below.is_infinite() {
            let count = scrape.sum(&format!("{}_count", sample.family(&scrape.types)), &labels);
            assert_eq!(sample.value, count, "{sample:?}");
        }
    }
    assert!(!buckets.is_empty());
    for (series, buckets) in buckets {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{series}: {buckets:?}");
    }
    for family in ["vllm:num_requests_running", "vllm:time_to_first_token_seconds", "pensieve_ledger_bytes"] {
        assert!(scrape.types.contains_key(family), "{family} is missing");
    }
    assert!(scrape.sum("process_resident_memory_bytes", &[]) > 0.0);
    assert_eq!(scrape.sum("pensieve_build_info", &[("engines", "fake")]), 1.0);
    assert_eq!(scrape.sum("pensieve_model_state", &[("model", "a")]), 1.0, "one state at a time");
    assert_eq!(scrape.sum("pensieve_model_state", &[("model", "a"), ("state", "ready")]), 1.0);
}

#[tokio::test]
async fn looking_at_a_server_loads_nothing_and_uses_nothing() {
    let server = Setup::new(&["a: {}", "b: { preload: true }"]).start().await;
    server.until_state("b", "ready").await;
    let paths = ["/metrics", "/livez", "/readyz", "/admin/v1/status", "/admin/v1/models", "/admin/v1/models/a"];
    for path in paths {
        for _ in 0..5 {
            assert_eq!(server.get(server.admin(path)).await.status(), 200);
        }
    }
    assert_eq!(
        (server.model("a").await["state"].take(), server.model("b").await["in_use"].take()),
        (json!("unloaded"), json!(0))
    );
    assert_eq!(server.metric("pensieve_model_load_seconds_count", &[]).await, 1.0, "the preload");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_says_of_its_steps_and_blocks_is_told_and_outlives_the_model() {
    let model = SyntheticModel::new(Shape::default());
    let file = model.path.with_file_name("registry.yaml");
    let pool = "memory: { budget: 1GiB, kv_pool: 64MiB }";
    std::fs::write(&file, format!("version: 1\n{pool}\nmodels:\n  m: {{ source: synthetic.gguf, context: 512 }}\n"))
        .unwrap();
    let engines = Engines::new(vec![Arc::new(Paged::start(64 << 20).unwrap())]);
    let server = TestServer::start(&file, &engines, DEADLINE).await;
    assert_eq!(server.model("m").await["stats"], Value::Null);
    assert_eq!(server.metric("pensieve_engine_steps_total", &[("model_name", "m")]).await, 0.0);

    let prompt = "the cat sat on the mat and looked at the dog that sat there too".repeat(2);
    let body = json!({"model": "m", "prompt": prompt, "max_tokens": 4, "temperature": 0});
    for _ in 0..2 {
        assert_eq!(server.post(server.api("/v1/completions"), &body).await.status(), 200);
        server.until_quiet().await;
    }
    server.until("no block is held", |status| status.pointer("/models/0/stats/kv/used") == Some(&json!(0))).await;
    let (stats, scrape) = (server.model("m").await["stats"].take(), server.metrics().await);
    let said = |pointer: &str| stats.pointer(pointer).and_then(Value::as_f64).unwrap();
    assert!(said("/work/steps") >= 8.0 && said("/work/tokens") >= said("/work/steps"), "{stats}");
    assert!(said("/work/prefix_hit_tokens") > 0.0 && said("/kv/cached") > 0.0, "{stats}");
    assert_eq!((said("/running"), said("/kv/used"), said("/work/preemptions")), (0.0, 0.0, 0.0));
    for (name, state, pointer) in [
        ("pensieve_engine_steps_total", None, "/work/steps"),
        ("pensieve_engine_tokens_total", None, "/work/tokens"),
        ("vllm:num_preemptions_total", None, "/work/preemptions"),
        ("pensieve_kv_blocks", Some(("state", "cached")), "/kv/cached"),
        ("pensieve_kv_blocks", Some(("state", "total")), "/kv/total"),
        ("vllm:kv_cache_usage_perc", None, "/kv/used"),
    ] {
        let labels: Vec<_> = [("model_name", "m")].into_iter().chain(state).collect();
        assert_eq!(scrape.sum(name, &labels), said(pointer), "{name}");
    }
    assert_eq!(server.manage("m", "unload").await.status(), 200);
    let scrape = server.metrics().await;
    let of = |name: &str| scrape.sum(name, &[("model_name", "m")]);
    assert_eq!((of("pensieve_engine_steps_total"), of("pensieve_kv_blocks")), (said("/work/steps"), 0.0));
    assert_eq!(server.post(server.api("/v1/completions"), &body).await.status(), 200);
    server.until_quiet().await;
    assert!(server.metric("pensieve_engine_steps_total", &[("model_name", "m")]).await > said("/work/steps"));
}

#[tokio::test]
async fn looking_at_a_model_does_not_keep_it_from_being_evicted() {
    let server = Setup::new(&["a: {}", "b: {}", "c: {}"]).budget("2500KiB").start().await;
    for model in ["a", "b"] {
        said(server.chat(&ask(model, "hi")).await).await;
        server.until_quiet().await;
    }
    for path in ["/metrics", "/admin/v1/models/a"] {
        server.get(server.admin(path)).await;
    }
    server.get(server.api("/v1/models/a")).await;
    said(server.chat(&ask("c", "hi")).await).await;
    assert_eq!(
        (server.model("a").await["state"].take(), server.model("b").await["state"].take()),
        (json!("unloaded"), json!("ready"))
    );
}

#[tokio::test]
async fn answers_without_a_body_are_not_counted_as_clients_that_left() {
    let server = Setup::new(&["a: {}"]).start().await;
    assert_eq!(server.client.head(server.api("/v1/models")).send().await.unwrap().status(), 200);
    assert_eq!(server.get(server.api("/docs")).await.status(), 200, "by way of a redirect");
    server.until_metric("pensieve_http_requests_total", &[("route", "/v1/models")], 1.0).await;
    assert_eq!(server.metric("pensieve_http_requests_total", &[("status", "499")]).await, 0.0);
}
