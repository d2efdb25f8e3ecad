//! `POST /v1/chat/completions`, answers that are not streamed.

use serde_json::{Value, json};

use crate::support::{Setup, TestServer, ask, redacted, said, with};

async fn server() -> TestServer {
    Setup::new(&["a: { aliases: [first, team/first] }"]).start().await
}

#[tokio::test]
async fn a_whole_answer_has_the_shape_of_openais() {
    let server = server().await;
    let body: Value = server.chat(&ask("a", "hi")).await.json().await.unwrap();
    insta::assert_snapshot!(redacted(&body), @r#"
    {
      "choices": [
        {
          "finish_reason": "stop",
          "index": 0,
          "logprobs": null,
          "message": {
            "content": "a: hi",
            "refusal": null,
            "role": "assistant"
          }
        }
      ],
      "created": "[time]",
      "id": "chatcmpl-[id]",
      "model": "a",
      "object": "chat.completion",
      "usage": {
        "completion_tokens": 6,
        "prompt_tokens": 2,
        "prompt_tokens_details": {
          "cached_tokens": 0
        },
        "total_tokens": 8
      }
    }
    "#);
}

#[tokio::test]
async fn messages_of_all_roles_and_parts_reach_the_model() {
    let server = server().await;
    let messages = json!([
        {"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, {"role": "user", "content": "u"},
        {"role": "assistant"}, {"role": "tool", "content": "t"},
        {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
    ]);
    let body = with(ask("a", ""), json!({"messages": messages}));
    assert_eq!(said(server.chat(&body).await).await, "a: s\nd\nu\n\nt\nxy");
}

#[tokio::test]
async fn usage_adds_up_and_reaches_the_metrics() {
    let server = server().await;
    for prompt in ["x", "héllo 🌍", "a longer prompt"] {
        let body: Value = server.chat(&ask("a", prompt)).await.json().await.unwrap();
        let count = |key: &str| body["usage"][key].as_u64().unwrap() as usize;
        assert_eq!(count("prompt_tokens"), prompt.len());
        assert_eq!(count("completion_tokens"), "a: ".len() + prompt.len() + 1, "a token a byte, and the end");
        assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
    }
    let metrics = server.metrics().await;
    let model = [("model_name", "a")];
    assert_eq!(metrics.sum("vllm:prompt_tokens_total", &model), 27.0);
    assert_eq!(metrics.sum("vllm:generation_tokens_total", &model), 39.0);
    assert_eq!(metrics.sum("vllm:request_success_total", &[("model_name", "a"), ("finished_reason", "stop")]), 3.0);
    assert_eq!(metrics.sum("vllm:time_to_first_token_seconds_count", &model), 3.0);
    assert_eq!(metrics.sum("vllm:e2e_request_latency_seconds_count", &model), 3.0);
}

#[tokio::test]
async fn an_alias_is_answered_by_its_model_under_the_models_own_id() {
    let server = server().await;
    for name in ["first", "team/first"] {
        let body: Value = server.chat(&ask(name, "hi")).await.json().await.unwrap();
        assert_eq!(body["model"], "a");
        assert_eq!(body["choices"][0]["message"]["content"], "a: hi");
    }
}

#[tokio::test]
async fn a_request_id_is_kept_if_it_is_one_and_made_if_not() {
    let server = server().await;
    let id = async |given: Option<&str>, model: &str| {
        let mut request = server.client.post(server.api("/v1/chat/completions")).json(&ask(model, "hi"));
        if let Some(given) = given {
            request = request.header("x-request-id", given);
        }
        request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id(Some("my-id.7"), "a").await, "my-id.7");
    assert_eq!(id(Some("my-id.8"), "unknown").await, "my-id.8", "a refusal has it too");
    let (one, other) = (id(None, "a").await, id(None, "a").await);
    assert_eq!((one.len(), other.len()), (36, 36));
    assert_ne!(one, other);
    let long = "x".repeat(129);
    assert_eq!(id(Some(&long), "a").await.len(), 36, "too long to be kept");
}

#[tokio::test]
async fn fields_without_effect_are_named_in_a_header() {
    let server = server().await;
    let body = with(ask("a", "hi"), json!({"user": "me", "metadata": {}, "store": null}));
    let response = server.chat(&body).await;
    assert_eq!(response.headers()["x-ignored-params"], "metadata, user");
    assert_eq!(said(response).await, "a: hi");
    assert!(!server.chat(&ask("a", "hi")).await.headers().contains_key("x-ignored-params"));
    let streamed = server.chat(&with(body, json!({"stream": true}))).await;
    assert_eq!(streamed.headers()["x-ignored-params"], "metadata, user");
}

#[tokio::test]
async fn the_registrys_sampling_applies_where_the_request_is_silent() {
    let models = ["sure: { sampling: { temperature: 0 } }", "first: { sampling: { top_k: 1 } }", "free: {}"];
    let server = Setup::new(&models).start().await;
    let answer = async |model: &str, more: Value| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}], "seed": 1});
        said(server.chat(&with(body, more)).await).await
    };
    assert_eq!(answer("sure", json!({})).await, "sure: hello");
    assert_eq!(answer("first", json!({})).await, "first: hello");
    assert_ne!(answer("free", json!({"max_tokens": 11})).await, "free: hello", "OpenAI's defaults draw");
    assert_ne!(answer("sure", json!({"temperature": 1, "max_tokens": 11})).await, "sure: hello", "the request wins");
}

#[tokio::test]
async fn a_seed_repeats_an_answer() {
    let server = server().await;
    let answer = async |seed: i64| {
        let more = json!({"temperature": 1, "seed": seed, "max_tokens": 40});
        said(server.chat(&with(ask("a", "the same prompt"), more)).await).await
    };
    assert_eq!(answer(7).await, answer(7).await);
    assert_eq!(answer(-7).await, answer(-7).await);
    assert_ne!(answer(7).await, answer(8).await);
}

#[tokio::test]
async fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let server = server().await;
    for stop in [json!("END"), json!(["nowhere", "END"])] {
        let body: Value =
            server.chat(&with(ask("a", "one END two"), json!({"stop": stop}))).await.json().await.unwrap();
        assert_eq!(body["choices"][0]["message"]["content"], "a: one ");
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
        assert_eq!(body["usage"]["completion_tokens"], "a: one END".len());
    }
    let half = server.chat(&with(ask("a", "one EN"), json!({"stop": "END"}))).await;
    assert_eq!(said(half).await, "a: one EN", "what only begins like it is let out");
}

#[tokio::test]
async fn max_tokens_cuts_the_answer_and_says_so() {
    let server = server().await;
    for more in [json!({"max_tokens": 5}), json!({"max_tokens": 99, "max_completion_tokens": 5})] {
        let body: Value = server.chat(&with(ask("a", "hello"), more)).await.json().await.unwrap();
        assert_eq!(body["choices"][0]["message"]["content"], "a: he");
        assert_eq!(body["choices"][0]["finish_reason"], "length");
        assert_eq!(body["usage"]["completion_tokens"], 5);
    }
}

#[tokio::test]
async fn a_logit_bias_reaches_the_sampler() {
    let server = server().await;
    let more = json!({"logit_bias": {"90": 100}, "max_tokens": 3});
    assert_eq!(said(server.chat(&with(ask("a", "hello"), more)).await).await, "ZZZ");
}

#[tokio::test]
async fn the_content_type_of_a_request_does_not_matter() {
    let server = server().await;
    let request = server.client.post(server.api("/v1/chat/completions")).body(ask("a", "hi").to_string());
    assert_eq!(said(request.send().await.unwrap()).await, "a: hi");
}
