//! Twenty models under load: all in memory, then room for six, then one swapped again and again. The
//! models are the repository's three under twenty names, so that every answer can be checked.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{join, join_all};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::sse::text;
use crate::support::{DEADLINE, TestServer, ask, real_engines, said, with};

const MODELS: usize = 20;
const SKILLS: [&str; 3] = ["reverse", "add", "roman"];
/// A token that an answer of any length is made of.
const SOME_TOKEN: &str = "40";
/// Swaps under load.
const SWAPS: usize = 5;

fn id(model: usize) -> String {
    format!("{}-{model:02}", SKILLS[model % SKILLS.len()])
}

/// A registry of all models with this budget, and the directory that holds it.
async fn fleet(budget: &str) -> (TempDir, TestServer) {
    let directory = TempDir::new().unwrap();
    let entry = |model: usize| {
        let file = format!("{}/models/{}.Q3_K_M.gguf", env!("CARGO_MANIFEST_DIR"), SKILLS[model % SKILLS.len()]);
        format!("  {}: {{ source: {file}, engine: paged }}\n", id(model))
    };
    let models: String = (0..MODELS).map(entry).collect();
    let yaml = format!(
        "version: 1\nmemory: {{ budget: {budget}, kv_pool: 32MiB }}\n\
         defaults: {{ context: 1024, queue: {{ depth: 200, timeout: 60s }} }}\nmodels:\n{models}"
    );
    let file = directory.path().join("registry.yaml");
    std::fs::write(&file, yaml).unwrap();
    let server = TestServer::start(&file, &real_engines(&file), DEADLINE).await;
    (directory, server)
}

/// Held-out questions of a skill, with their answers.
fn questions(skill: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("models/heldout/{skill}.jsonl"));
    let lines = std::fs::read_to_string(file).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Twenty clients who ask every model once, each in an order of its own and every second one streamed.
/// Gives what was not answered rightly.
async fn ask_all(server: &TestServer) -> Vec<String> {
    let questions = SKILLS.map(questions);
    let client = async |client: usize| {
        let mut wrong = Vec::new();
        for turn in 0..MODELS {
            let model = (client * 3 + turn * 7) % MODELS;
            let question = &questions[model % SKILLS.len()][(client * MODELS + turn) % 500];
            let body =
                json!({"model": id(model), "messages": question["messages"], "temperature": 0, "max_tokens": 32});
            let said = match (client + turn).is_multiple_of(2) {
                true => {
                    let frames = server.stream(&body).await.rest().await;
                    assert!(frames.last().unwrap().is_done(), "a stream was cut");
                    text(&frames)
                }
                false => said(server.chat(&body).await).await,
            };
            if question["answer"] != said.as_str() {
                wrong.push(format!("{}: {} -> {said:?}", id(model), question["messages"]));
            }
        }
        wrong
    };
    join_all((0..MODELS).map(client)).await.concat()
}

/// How often models were put in.
async fn loads(server: &TestServer) -> f64 {
    server.metric("pensieve_model_load_seconds_count", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_clients_are_answered_rightly_by_twenty_models_at_once() {
    let (_directory, server) = fleet("256MiB").await;
    let wrong = ask_all(&server).await;
    assert!(wrong.is_empty(), "{} wrong: {wrong:?}", wrong.len());
    assert_eq!(loads(&server).await, 20.0, "each was loaded once");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_six_fit_models_come_and_go_and_no_request_is_lost() {
    // A model takes 8.6 MiB beside the pool.
    let (_directory, server) = fleet("85MiB").await;
    let wrong = ask_all(&server).await;
    assert!(wrong.is_empty(), "{} wrong: {wrong:?}", wrong.len());
    server.until_quiet().await;
    assert!(loads(&server).await > 40.0, "models had to come again: {}", loads(&server).await);
    let status = server.status().await;
    let ready = status["models"].as_array().unwrap().iter().filter(|model| model["state"] == "ready").count();
    assert_eq!(ready, 6, "so many fit: {}", status["memory"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps_under_load_cut_no_stream() {
    let (_directory, server) = fleet("256MiB").await;
    let (server, tokens, over) = (&server, 40, AtomicBool::new(false));
    // Half of the clients are on the model that is swapped out again and again.
    let stream = async |client: usize| {
        let model = id(if client.is_multiple_of(2) { 0 } else { 7 + client });
        while !over.load(Ordering::Relaxed) {
            let endless = json!({"logit_bias": {SOME_TOKEN: 100}, "max_tokens": tokens});
            let frames = server.stream(&with(ask(&model, "stone"), endless)).await.rest().await;
            let (done, chunks) = frames.split_last().unwrap();
            assert!(done.is_done(), "{done:?}");
            assert_eq!(chunks.last().unwrap().json()["choices"][0]["finish_reason"], "length");
        }
    };
    let swaps = async {
        for turn in 1..=SWAPS {
            // Its clients have brought it back.
            server.until_state(&id(0), "ready").await;
            let body = json!({"from": id(0), "to": id(turn)});
            let response = server.post(server.admin("/admin/v1/swap"), &body).await;
            assert_eq!(response.status(), 200, "{turn}: {response:?}");
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::time::timeout(2 * DEADLINE, join(join_all((0..12).map(stream)), swaps)).await.expect("it goes on");
    server.until_metric("pensieve_swaps_total", &[("outcome", "succeeded")], SWAPS as f64).await;
}
