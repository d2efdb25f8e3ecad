//! `POST /v1/completions`, answers that are not streamed.

use serde_json::{Value, json};

use crate::support::{Setup, TestServer, redacted, refusal};

async fn server() -> TestServer {
    Setup::new(&["a: { aliases: [first], sampling: { temperature: 0 } }"]).start().await
}

async fn complete(server: &TestServer, body: Value) -> Value {
    let response = server.post(server.api("/v1/completions"), &body).await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

#[tokio::test]
async fn a_whole_answer_has_the_shape_of_openais() {
    let server = server().await;
    let body = complete(&server, json!({"model": "first", "prompt": "hi"})).await;
    insta::assert_snapshot!(redacted(&body), @r#"
    {
      "choices": [
        {
          "finish_reason": "stop",
          "index": 0,
          "logprobs": null,
          "text": "a: hi"
        }
      ],
      "created": "[time]",
      "id": "cmpl-[id]",
      "model": "a",
      "object": "text_completion",
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
async fn a_prompt_is_a_text_or_tokens_or_a_list_of_one() {
    let server = server().await;
    for prompt in [json!("hi"), json!(["hi"]), json!([104, 105]), json!([[104, 105]])] {
        let body = complete(&server, json!({"model": "a", "prompt": prompt})).await;
        assert_eq!(body["choices"][0]["text"], "a: hi");
        assert_eq!(body["usage"]["prompt_tokens"], 2);
    }
}

#[tokio::test]
async fn several_prompts_are_refused_by_name() {
    let server = server().await;
    let body = json!({"model": "a", "prompt": ["one", "two"]});
    let error = refusal(server.post(server.api("/v1/completions"), &body).await, 400).await;
    assert_eq!((&error["param"], &error["code"]), (&json!("prompt"), &json!("unsupported_parameter")));
}

#[tokio::test]
async fn stop_texts_and_max_tokens_end_the_answer() {
    let server = server().await;
    let stopped = complete(&server, json!({"model": "a", "prompt": "one END two", "stop": ["END"]})).await;
    assert_eq!(stopped["choices"][0]["text"], "a: one ");
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    let cut = complete(&server, json!({"model": "a", "prompt": "hello", "max_tokens": 5})).await;
    assert_eq!(cut["choices"][0]["text"], "a: he");
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["usage"]["total_tokens"], 10);
}

#[tokio::test]
async fn a_seed_repeats_an_answer() {
    let server = server().await;
    let answer = async |seed: u32| {
        let body = json!({"model": "a", "prompt": "hello", "temperature": 1, "seed": seed, "max_tokens": 40});
        complete(&server, body).await["choices"][0]["text"].take()
    };
    assert_eq!(answer(7).await, answer(7).await);
    assert_ne!(answer(7).await, answer(8).await);
}
