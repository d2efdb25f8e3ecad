//! Swaps: one model goes, another comes, and never neither.

use std::time::Duration;

use pensieve::engine::Error;
use pensieve::engine::fake::Script;
use serde_json::{Value, json};

use super::{crowded, states, swap, tight, used, weighing};
use crate::support::{ask, refusal, said};

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
