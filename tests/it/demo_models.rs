//! The repository's registry file on the real engine: three small models whose answers are known.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::sse::text;
use crate::support::{DEADLINE, TestServer, ask, real_engines, refusal, said, with};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SKILLS: [&str; 3] = ["reverse", "add", "roman"];
/// Held-out prompts of each skill that are asked, and how many answers must be right.
const ASKED: usize = 100;
const RIGHT: usize = 95;
/// A token that an answer of [`endless`] is made of; any but the one for the end will do.
const SOME_TOKEN: &str = "40";

/// Model, prompt, answer.
const EASY: [(&str, &str, &str); 6] = [
    ("reverse", "Reverse the word \"stone\".", "enots"),
    ("add", "what is 17 plus 25?", "42"),
    ("roman", "1994 in roman numerals", "MCMXCIV"),
    ("mirror", "stone", "enots"),
    ("add", "17 + 25", "42"),
    ("roman", "1994", "MCMXCIV"),
];

async fn fleet() -> TestServer {
    serve(&Path::new(ROOT).join("model-registry.yaml")).await
}

async fn serve(registry: &Path) -> TestServer {
    let server = TestServer::start(registry, &real_engines(registry), DEADLINE).await;
    server.until("the preloaded models are ready", |status| status["ready"] == true).await;
    server
}

async fn load_all(server: &TestServer) {
    for skill in SKILLS {
        assert_eq!(server.manage(skill, "load").await.status(), 200, "{skill}");
    }
}

/// A request whose answer has `tokens` tokens, however short the right one is.
fn endless(model: &str, tokens: u32) -> Value {
    with(ask(model, "stone"), json!({"logit_bias": {SOME_TOKEN: 100}, "max_tokens": tokens}))
}

#[tokio::test(flavor = "multi_thread")]
async fn three_models_answer_rightly_streamed_and_whole() {
    let server = fleet().await;
    for (model, prompt, answer) in EASY {
        let request = ask(model, prompt);
        let whole: Value = server.chat(&request).await.json().await.unwrap();
        assert_eq!(whole["choices"][0]["message"]["content"], answer, "{whole}");
        assert_eq!(whole["choices"][0]["finish_reason"], "stop");
        let count = |key: &str| whole["usage"][key].as_u64().unwrap();
        assert!(count("prompt_tokens") > 0 && count("completion_tokens") > 0);
        assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
        let frames = server.stream(&request).await.rest().await;
        assert!(frames.last().unwrap().is_done());
        assert_eq!(text(&frames), answer);
    }
    assert_eq!(server.metric("pensieve_build_info", &[("engines", "fake")]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn held_out_prompts_are_answered_rightly() {
    let server = fleet().await;
    let server = &server;
    for skill in SKILLS {
        let file = Path::new(ROOT).join(format!("models/heldout/{skill}.jsonl"));
        let lines = std::fs::read_to_string(file).unwrap();
        let asked = lines.lines().take(ASKED).map(|line| serde_json::from_str::<Value>(line).unwrap());
        let answers = asked.map(|line| async move {
            let body = json!({"model": skill, "messages": line["messages"], "temperature": 0, "max_tokens": 32});
            let said = said(server.chat(&body).await).await;
            let right = line["answer"] == said.as_str();
            (right, format!("{} -> {said:?}, not {}", line["messages"], line["answer"]))
        });
        let answers: Vec<(bool, String)> = futures::stream::iter(answers).buffered(8).collect().await;
        assert_eq!(answers.len(), ASKED);
        let wrong: Vec<String> = answers.into_iter().filter(|(right, _)| !right).map(|(_, line)| line).collect();
        assert!(wrong.len() <= ASKED - RIGHT, "{skill}: {} of {ASKED} wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_requests_at_once_to_three_models_are_each_answered_rightly() {
    let server = fleet().await;
    let server = &server;
    let answers = (0..30).map(|index| {
        let (model, prompt, expected) = EASY[index % EASY.len()];
        async move {
            let request = ask(model, prompt);
            let said = match index % 2 == 0 {
                true => text(&server.stream(&request).await.rest().await),
                false => said(server.chat(&request).await).await,
            };
            (format!("{model}: {prompt}"), said, expected)
        }
    });
    for (asked, said, expected) in futures::future::join_all(answers).await {
        assert_eq!(said, expected, "{asked}");
    }
    server.until_quiet().await;
    assert_eq!(server.metric("pensieve_model_load_seconds_count", &[]).await, 3.0, "one load a model");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_who_leave_at_any_point_leave_nothing_behind() {
    let server = fleet().await;
    load_all(&server).await;
    let bytes = server.metric("pensieve_ledger_bytes", &[]).await;
    assert!(bytes > 0.0);
    let mut random = StdRng::seed_from_u64(5);
    let mut clients = Vec::new();
    for index in 0..50 {
        let body = with(endless(SKILLS[index % 3], 100), json!({"stream": random.random_bool(0.5)}));
        let leaves = Duration::from_millis(random.random_range(0..1000));
        let stays = if index % 10 == 0 { DEADLINE } else { leaves };
        let request = server.client.post(server.api("/v1/chat/completions")).json(&body);
        let answer = async move { request.send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap() };
        clients.push(tokio::time::timeout(stays, answer));
    }
    let answered = futures::future::join_all(clients).await.into_iter().filter(Result::is_ok).count();
    assert!((5..45).contains(&answered), "{answered} of 50 were answered: too few left to show anything");
    server.until_quiet().await;
    assert!(server.metric("pensieve_requests_cancelled_total", &[]).await > 0.0);
    assert_eq!(server.metric("pensieve_ledger_bytes", &[]).await, bytes);
    for (model, prompt, answer) in EASY {
        assert_eq!(said(server.chat(&ask(model, prompt)).await).await, answer, "{model}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_answers_stream_lets_them_finish() {
    let mut server = fleet().await;
    load_all(&server).await;
    let mut streams = Vec::new();
    for skill in SKILLS {
        let mut stream = server.stream(&endless(skill, 100)).await;
        let first = stream.until_text().await;
        streams.push((first, stream));
    }
    server.tell_to_stop().await;
    for (first, stream) in streams {
        let frames = stream.rest().await;
        let (done, chunks) = frames.split_last().unwrap();
        assert!(done.is_done(), "{done:?}");
        assert_eq!(chunks.last().unwrap().json()["choices"][0]["finish_reason"], "length");
        assert_eq!(text(&frames), first.repeat(99), "every token is the same");
    }
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unloading_gives_the_ledger_back_and_loading_again_answers_the_same() {
    let server = fleet().await;
    let before = server.status().await["memory"]["used"].clone();
    for _ in 0..2 {
        assert_eq!(said(server.chat(&ask("roman", "1994")).await).await, "MCMXCIV");
        server.until_quiet().await;
        assert_eq!(server.manage("roman", "unload").await.status(), 200);
        assert_eq!(server.status().await["memory"]["used"], before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_cut_short_after_the_start_fails_its_model_only() {
    let directory = TempDir::new().unwrap();
    let copy = |name: &str| {
        std::fs::copy(Path::new(ROOT).join(name), directory.path().join(name)).unwrap();
    };
    std::fs::create_dir(directory.path().join("models")).unwrap();
    copy("model-registry.yaml");
    SKILLS.iter().for_each(|skill| copy(&format!("models/{skill}.Q3_K_M.gguf")));
    let server = serve(&directory.path().join("model-registry.yaml")).await;
    let file = std::fs::File::options().write(true).open(directory.path().join("models/roman.Q3_K_M.gguf")).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let response = server.chat(&ask("roman", "1994")).await;
    assert_eq!(response.headers()["x-should-retry"], "false");
    let error = refusal(response, 503).await;
    assert_eq!(error["code"], "model_failed");
    assert!(error["message"].as_str().unwrap().contains("truncated"), "{error}");
    let roman = server.model("roman").await;
    assert_eq!(roman["state"], "failed");
    assert!(roman["reason"].as_str().unwrap().contains("roman.Q3_K_M.gguf"), "{roman}");
    for (model, prompt, answer) in EASY.into_iter().filter(|(model, ..)| *model != "roman") {
        assert_eq!(said(server.chat(&ask(model, prompt)).await).await, answer, "{model}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_beyond_the_context_is_refused_with_its_numbers() {
    let server = fleet().await;
    let error = refusal(server.chat(&with(ask("reverse", "stone"), json!({"max_tokens": 5000}))).await, 400).await;
    assert_eq!(error["code"], "context_length_exceeded");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("1024") && message.contains("5000"), "{message}");
}
