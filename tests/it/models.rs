//! `GET /v1/models` and `GET /v1/models/{id}`.

use serde_json::{Value, json};

use crate::support::{Setup, TestServer, redacted, refusal};

async fn server() -> TestServer {
    let models = ["b: { aliases: [second], description: The other one., context: 512 }", "team/a: {}"];
    Setup::new(&models).start().await
}

#[tokio::test]
async fn models_are_listed_in_the_files_order_and_none_is_loaded_by_it() {
    let server = server().await;
    let list: Value = server.get(server.api("/v1/models")).await.json().await.unwrap();
    insta::assert_snapshot!(redacted(&list), @r#"
    {
      "data": [
        {
          "aliases": [
            "second"
          ],
          "context": 512,
          "created": "[time]",
          "description": "The other one.",
          "engine": "fake",
          "id": "b",
          "object": "model",
          "owned_by": "pensieve",
          "state": "unloaded"
        },
        {
          "aliases": [],
          "context": 2048,
          "created": "[time]",
          "description": null,
          "engine": "fake",
          "id": "team/a",
          "object": "model",
          "owned_by": "pensieve",
          "state": "unloaded"
        }
      ],
      "object": "list"
    }
    "#);
    assert_eq!(server.metric("pensieve_model_load_seconds_count", &[]).await, 0.0);
}

#[tokio::test]
async fn one_model_is_found_by_id_by_alias_and_with_a_slash() {
    let server = server().await;
    for (name, id) in [("b", "b"), ("second", "b"), ("team%2Fa", "team/a")] {
        let model: Value = server.get(server.api(&format!("/v1/models/{name}"))).await.json().await.unwrap();
        assert_eq!(model["id"], id);
    }
    let error = refusal(server.get(server.api("/v1/models/c")).await, 404).await;
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
}

#[tokio::test]
async fn the_state_of_a_model_shows() {
    let server = server().await;
    assert_eq!(server.manage("b", "load").await.status(), 200);
    let model: Value = server.get(server.api("/v1/models/b")).await.json().await.unwrap();
    assert_eq!(model["state"], "ready");
}
