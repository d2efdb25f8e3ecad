//! What goes beyond one text: log probabilities, formats, several answers, stop tokens.

use pensieve::engine::Sampling;
use serde_json::{Value, json};

use crate::support::engine::{answer, greedy};
use crate::support::sse::{Frame, Frames, text};
use crate::support::synthetic::{Shape, SyntheticModel};
use crate::support::{Setup, TestServer, ask, refusal, with};

async fn server() -> TestServer {
    Setup::new(&["a: { sampling: { temperature: 0 } }"]).start().await
}

async fn chat(server: &TestServer, more: Value) -> Value {
    let response = server.chat(&with(ask("a", "hi"), more)).await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

async fn complete(server: &TestServer, more: Value) -> Value {
    let body = with(json!({"model": "a", "prompt": "hi"}), more);
    let response = server.post(server.api("/v1/completions"), &body).await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

/// The fake engine's leader is 3 above 94 others, which are alike.
fn is_the_leaders(logprob: &Value) -> bool {
    let expected = -(1.0 + 94.0 * (-3f64).exp()).ln();
    (logprob.as_f64().unwrap() - expected).abs() < 1e-4
}

#[tokio::test]
async fn a_chats_log_probabilities_have_the_shape_of_openais() {
    let server = server().await;
    let body = chat(&server, json!({"logprobs": true, "top_logprobs": 2})).await;
    let logprobs = &body["choices"][0]["logprobs"];
    assert_eq!(logprobs["refusal"], Value::Null);
    let content = logprobs["content"].as_array().unwrap();
    let said: String = content.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(said, "a: hi", "one for each token of the text, and none for the end");
    for token in content {
        assert_eq!(token["bytes"], json!(token["token"].as_str().unwrap().as_bytes()));
        assert!(is_the_leaders(&token["logprob"]), "{token}");
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["token"], &top[0]["logprob"]), (2, &token["token"], &token["logprob"]));
        assert!(top[1]["logprob"].as_f64().unwrap() < top[0]["logprob"].as_f64().unwrap());
        assert!(top[1]["bytes"].is_array());
    }
    let plain = chat(&server, json!({"logprobs": true})).await;
    assert_eq!(plain["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[tokio::test]
async fn log_probabilities_are_the_models_own_whatever_the_sampling() {
    let server = server().await;
    let more = json!({"logprobs": true, "temperature": 2, "seed": 3, "logit_bias": {"97": 50}, "max_tokens": 1});
    let body = chat(&server, more).await;
    assert!(is_the_leaders(&body["choices"][0]["logprobs"]["content"][0]["logprob"]), "{body}");
}

#[tokio::test]
async fn a_completions_log_probabilities_have_the_shape_of_openais() {
    let server = server().await;
    let body = complete(&server, json!({"logprobs": 1})).await;
    let logprobs = &body["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["a", ":", " ", "h", "i"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 3, 4]));
    let chosen = logprobs["token_logprobs"].as_array().unwrap();
    assert!(chosen.len() == 5 && chosen.iter().all(is_the_leaders), "{chosen:?}");
    assert_eq!(logprobs["top_logprobs"][0], json!({"a": chosen[0]}));
    let without = complete(&server, json!({"logprobs": 0})).await;
    assert_eq!(without["choices"][0]["logprobs"], *logprobs, "the chosen token is always told");
}

/// The choices of all chunks, one after the other.
fn choices(frames: &[Frame]) -> Vec<Value> {
    let chunks = frames.iter().filter(|frame| !frame.is_done()).map(Frame::json);
    chunks.flat_map(|mut chunk| chunk["choices"].as_array_mut().unwrap().split_off(0)).collect()
}

#[tokio::test]
async fn a_stream_tells_what_a_whole_answer_tells_and_lets_no_stop_text_out() {
    let server = server().await;
    for more in [json!({}), json!({"stop": ": h"}), json!({"max_tokens": 3, "stop": ": x"})] {
        let more = with(more, json!({"logprobs": true, "top_logprobs": 1}));
        let whole = chat(&server, more.clone()).await;
        let frames = server.stream(&with(ask("a", "hi"), more)).await.rest().await;
        let told: Vec<Value> = choices(&frames)
            .iter_mut()
            .filter_map(|choice| choice["logprobs"]["content"].as_array_mut().map(|content| content.split_off(0)))
            .flatten()
            .collect();
        assert_eq!(json!(told), whole["choices"][0]["logprobs"]["content"]);
        let said: String = told.iter().map(|token| token["token"].as_str().unwrap()).collect();
        assert_eq!(said, text(&frames));
    }
    let body = json!({"model": "a", "prompt": "hi", "stream": true, "logprobs": 0});
    let frames = Frames::of(server.post(server.api("/v1/completions"), &body).await).rest().await;
    let offsets: Vec<Value> = choices(&frames).iter().map(|choice| choice["logprobs"]["text_offset"].clone()).collect();
    assert_eq!(offsets[..5], [json!([0]), json!([1]), json!([2]), json!([3]), json!([4])]);
}

#[tokio::test]
async fn an_answer_keeps_to_the_schema_it_was_asked_for() {
    let server = server().await;
    let schema = json!({"type": "object", "properties": {
        "color": {"enum": ["red", "green"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99},
    }, "required": ["color", "count"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, "strict": true}});
    for seed in 0..8 {
        let more = json!({"response_format": format, "temperature": 1.5, "seed": seed, "max_tokens": 200});
        let body = chat(&server, more).await;
        let choice = &body["choices"][0];
        assert_eq!(choice["finish_reason"], "stop", "{body}");
        let said: Value = serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap();
        assert!(["red", "green"].contains(&said["color"].as_str().unwrap()), "{said}");
        assert!((0..100).contains(&said["count"].as_i64().unwrap()), "{said}");
    }
    let object = chat(&server, json!({"response_format": {"type": "json_object"}, "max_tokens": 1})).await;
    assert_eq!(object["choices"][0]["message"]["content"], "{");
    let free = chat(&server, json!({"response_format": {"type": "text"}})).await;
    assert_eq!(free["choices"][0]["message"]["content"], "a: hi");
}

#[tokio::test]
async fn a_mistake_in_a_schema_is_a_400_in_its_compilers_words() {
    let server = server().await;
    for schema in [json!({"type": "wizard"}), json!({"type": "string", "pattern": "("}), json!(5)] {
        let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        let body = with(ask("a", "hi"), json!({"response_format": format, "stream": true}));
        let error = refusal(server.chat(&body).await, 400).await;
        assert_eq!((&error["param"], &error["code"]), (&json!("response_format"), &json!("invalid_value")));
        assert!(error["message"].as_str().unwrap().starts_with("the grammar was not understood: "), "{error}");
    }
}

#[tokio::test]
async fn an_answer_keeps_to_an_expression_a_grammar_and_a_schema_on_both_endpoints() {
    let server = server().await;
    let lark = "start: word (\" \" word)*\nword: \"red\" | \"green\"";
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"], "additionalProperties": false});
    let is_color = |word: &str| ["red", "green"].contains(&word);
    for seed in 0..4 {
        let drawn = json!({"temperature": 1.5, "seed": seed, "max_tokens": 60});
        for more in [
            json!({"guided_regex": "[0-9]{3}-[xyz]"}),
            json!({"guided_grammar": lark}),
            json!({"guided_json": schema}),
            json!({"guided_json": schema.to_string()}),
        ] {
            let more = with(drawn.clone(), more);
            let said = chat(&server, more.clone()).await["choices"][0]["message"]["content"].take();
            let continued = complete(&server, more.clone()).await["choices"][0]["text"].take();
            assert_eq!(said, continued, "the same prompt, and so the same answer");
            let said = said.as_str().unwrap();
            if more.get("guided_regex").is_some() {
                let (digits, letter) = said.split_once('-').unwrap();
                assert!(digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{said}");
                assert!(["x", "y", "z"].contains(&letter), "{said}");
            } else if more.get("guided_grammar").is_some() {
                let words: Vec<&str> = said.split(' ').collect();
                let (last, whole) = words.split_last().unwrap();
                assert!(whole.iter().all(|word| is_color(word)), "{said}");
                assert!("red".starts_with(last) || "green".starts_with(last), "{said}");
            } else {
                let said: Value = serde_json::from_str(said).unwrap();
                assert!((0..10).contains(&said["n"].as_i64().unwrap()), "{said}");
            }
        }
    }
}

#[tokio::test]
async fn a_grammar_that_cannot_be_kept_is_a_400_that_names_its_field() {
    let server = server().await;
    for (more, param) in [
        (json!({"guided_regex": "("}), "guided_regex"),
        (json!({"guided_grammar": "start: missing"}), "guided_grammar"),
        (json!({"guided_json": {"type": "wizard"}}), "guided_json"),
        (json!({"guided_json": "{"}), "guided_json"),
        (json!({"guided_regex": 5}), "guided_regex"),
        (json!({"guided_regex": "a".repeat(65_537)}), "guided_regex"),
        (json!({"guided_regex": "a", "guided_grammar": "start: \"a\""}), "guided_grammar"),
    ] {
        for stream in [false, true] {
            let more = with(more.clone(), json!({"stream": stream}));
            let error = refusal(server.chat(&with(ask("a", "hi"), more.clone())).await, 400).await;
            assert_eq!(error["param"], param, "{error}");
            let body = with(json!({"model": "a", "prompt": "hi"}), more);
            let error = refusal(server.post(server.api("/v1/completions"), &body).await, 400).await;
            assert_eq!(error["param"], param, "{error}");
        }
    }
    let both = json!({"response_format": {"type": "json_object"}, "guided_regex": "a"});
    let error = refusal(server.chat(&with(ask("a", "hi"), both)).await, 400).await;
    assert_eq!(error["param"], "guided_regex");
}

#[tokio::test]
async fn several_answers_have_an_index_and_the_seeds_after_the_first() {
    let server = server().await;
    let drawn = json!({"temperature": 1, "seed": 5, "max_tokens": 12});
    let several = chat(&server, with(drawn.clone(), json!({"n": 3}))).await;
    let texts = |body: &Value| -> Vec<String> {
        let choices = body["choices"].as_array().unwrap();
        choices.iter().map(|choice| choice["message"]["content"].as_str().unwrap().to_owned()).collect()
    };
    let mut alone = Vec::new();
    for seed in 5..8 {
        alone.extend(texts(&chat(&server, with(drawn.clone(), json!({"seed": seed}))).await));
    }
    assert_eq!(texts(&several), alone);
    assert_ne!(alone[0], alone[1]);
    let indices: Vec<&Value> = several["choices"].as_array().unwrap().iter().map(|choice| &choice["index"]).collect();
    assert_eq!(indices, [&json!(0), &json!(1), &json!(2)]);
    let usage = &several["usage"];
    assert_eq!(usage["prompt_tokens"], 2, "the prompt is one");
    assert_eq!(usage["total_tokens"], 2 + usage["completion_tokens"].as_u64().unwrap());

    let more = json!({"n": 3, "stream_options": {"include_usage": true}});
    let frames = server.stream(&with(with(ask("a", "hi"), drawn), more)).await.rest().await;
    let mut streamed = vec![String::new(); 3];
    let mut ends = Vec::new();
    for choice in choices(&frames) {
        let index = choice["index"].as_u64().unwrap() as usize;
        streamed[index] += choice["delta"]["content"].as_str().unwrap_or_default();
        ends.extend(choice["finish_reason"].as_str().map(|_| index));
    }
    ends.sort_unstable();
    assert_eq!((streamed, ends), (alone, vec![0, 1, 2]));
    assert_eq!(frames.iter().filter(|frame| frame.is_done()).count(), 1);
    assert_eq!(frames[frames.len() - 2].json()["usage"], *usage);
    server.until_quiet().await;
}

#[tokio::test]
async fn each_of_several_answers_takes_a_place_in_the_queue() {
    let server = Setup::new(&["a: { queue: { depth: 2 } }"]).start().await;
    let body = with(ask("a", "hi"), json!({"n": 8}));
    assert_eq!(refusal(server.chat(&body).await, 429).await["code"], "queue_full");
    server.until_quiet().await;
    let both = server.chat(&with(ask("a", "hi"), json!({"n": 2}))).await;
    assert_eq!(both.status(), 200);
}

#[tokio::test]
async fn a_stop_token_ends_the_answer_and_is_not_part_of_it() {
    let server = server().await;
    let stopped = chat(&server, json!({"stop_token_ids": [104], "logprobs": true})).await;
    let choice = &stopped["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!("a: "), &json!("stop")));
    assert_eq!(choice["logprobs"]["content"].as_array().unwrap().len(), 3);
    assert_eq!(stopped["usage"]["completion_tokens"], 4);
}

#[tokio::test]
async fn typical_and_dry_reach_the_sampler() {
    let server = server().await;
    let dry = json!({"dry_multiplier": 50, "dry_allowed_length": 1, "dry_sequence_breakers": []});
    let body = complete(&server, with(dry, json!({"prompt": "abab"}))).await;
    assert_ne!(body["choices"][0]["text"], "a: abab");
    let drawn = json!({"temperature": 1, "seed": 1, "max_tokens": 30, "prompt": "a longer prompt"});
    let free = complete(&server, drawn.clone()).await;
    let typical = complete(&server, with(drawn, json!({"typical_p": 0.0}))).await;
    assert_ne!(free["choices"][0]["text"], typical["choices"][0]["text"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paged_engine_tells_log_probabilities_and_stops_at_tokens() {
    use pensieve::engine::{Engine, GenerateRequest, TokenEvent, paged::Paged};
    let model = SyntheticModel::new(Shape::default());
    let loaded = Paged::start(64 << 20).unwrap().load(model.spec("synthetic")).await.unwrap();
    let whole = answer(loaded.as_ref(), greedy("the cat", 8)).await;
    let asked = GenerateRequest { logprobs: Some(3), ..greedy("the cat", 8) };
    let mut stream = loaded.generate(asked).await.unwrap();
    let mut seen = 0;
    while let Some(event) = futures::StreamExt::next(&mut stream).await {
        if let TokenEvent::Token { id, logprobs, .. } = event.unwrap() {
            let told = logprobs.unwrap();
            assert_eq!((told.chosen.id, told.top.len()), (id, 3));
            assert_eq!(told.top[0], told.chosen, "greedily the likeliest is chosen");
            assert!(told.top.iter().all(|one| one.logprob < 0.0));
            seen += 1;
        }
    }
    assert_eq!(seen, whole.tokens.len());
    let third = whole.tokens[2];
    let first = whole.tokens.iter().position(|token| *token == third).unwrap();
    let stopped = answer(loaded.as_ref(), GenerateRequest { stop_tokens: vec![third], ..greedy("the cat", 8) }).await;
    assert_eq!(stopped.tokens, whole.tokens[..=first]);
    assert!(whole.text.starts_with(&stopped.text));
    let drawn = Sampling { seed: Some(1), ..Sampling::default() };
    let asked = GenerateRequest { logprobs: Some(0), sampling: drawn.clone(), ..greedy("the cat", 8) };
    let plain = GenerateRequest { sampling: drawn, ..greedy("the cat", 8) };
    assert_eq!(answer(loaded.as_ref(), asked).await, answer(loaded.as_ref(), plain).await, "asking changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paged_engine_keeps_to_a_grammar_and_refuses_a_wrong_one() {
    use pensieve::engine::{Engine, Error, GenerateRequest, Grammar, paged::Paged};
    let model = SyntheticModel::new(Shape::default());
    let loaded = Paged::start(64 << 20).unwrap().load(model.spec("synthetic")).await.unwrap();
    let with =
        |grammar: &str| GenerateRequest { grammar: Some(Grammar::Regex(grammar.into())), ..greedy("the cat", 9) };
    let digits = answer(loaded.as_ref(), with("[0-9]{3}")).await;
    assert!(digits.text.len() == 3 && digits.text.bytes().all(|byte| byte.is_ascii_digit()), "{digits:?}");
    assert_eq!(digits.usage().completion, 3, "it ends with the grammar, not a token later");
    let the = answer(loaded.as_ref(), with("the")).await;
    assert_eq!(the.text, "the");
    let refused = loaded.generate(with("(")).await.err();
    assert!(matches!(refused, Some(Error::InvalidRequest { param: Some("response_format"), .. })), "{refused:?}");
}
