//! What several tests need: a server, readers of its streams and metrics, requests, answers.

pub mod engine;
mod exposition;
mod server;
pub mod sse;
pub mod synthetic;

use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};

pub use exposition::Exposition;
pub use server::{Setup, TestServer};

/// Longer than anything here takes; who waits this long has failed.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The engines with which `serve` would run this registry file.
pub fn real_engines(registry: &std::path::Path) -> pensieve::engine::Engines {
    let file = pensieve::config::registry_file::RegistryFile::read(registry).unwrap();
    let kernels = paged_engine::kernels::Kernels::best();
    pensieve::app::engines(file.memory.kv_pool_bytes(), kernels).unwrap()
}

/// A chat of one message, answered with the likeliest tokens. The fake engine answers
/// `<model>: <prompt>`, a token for each byte and one for the end.
pub fn ask(model: &str, prompt: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0})
}

/// `body` with the fields of `more` added or replaced.
pub fn with(mut body: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("not an object: {more}") };
    body.as_object_mut().unwrap().extend(more);
    body
}

/// The text of a whole chat answer.
pub async fn said(response: Response) -> String {
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    body["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// The `error` object of a refusal, which has the four keys of OpenAI's envelope and no other.
pub async fn refusal(response: Response, status: u16) -> Value {
    assert_eq!(response.status(), status, "{response:?}");
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(response.headers().contains_key("x-request-id"), "{response:?}");
    envelope(response.json().await.unwrap())
}

/// The `error` object of an envelope.
pub fn envelope(mut body: Value) -> Value {
    let error = body["error"].take();
    let keys = |value: &Value| {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&body), ["error"]);
    assert_eq!(keys(&error), ["code", "message", "param", "type"]);
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    assert!(error["type"].is_string() && error["code"].is_string(), "{error}");
    assert!(error["param"].is_string() || error["param"].is_null(), "{error}");
    error
}

/// Seconds of a Retry-After header.
pub fn retry_after(response: &Response) -> u64 {
    response.headers()["retry-after"].to_str().unwrap().parse().unwrap()
}

/// A body for a snapshot: keys in order, ids and times replaced.
pub fn redacted(body: &Value) -> String {
    fn sorted(key: &str, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let mut names: Vec<&String> = fields.keys().collect();
                names.sort();
                names.into_iter().map(|name| (name.clone(), sorted(name, &fields[name]))).collect()
            }
            Value::Array(items) => items.iter().map(|item| sorted("", item)).collect(),
            Value::String(id) if key == "id" => match id.split_once('-') {
                Some((kind, _)) => json!(format!("{kind}-[id]")),
                None => value.clone(),
            },
            Value::Number(_) if key == "created" => json!("[time]"),
            other => other.clone(),
        }
    }
    serde_json::to_string_pretty(&sorted("", body)).unwrap()
}
