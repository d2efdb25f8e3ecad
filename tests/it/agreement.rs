//! The paged engine beside mistral.rs with one sequence: two implementations of one model must
//! choose the same tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gguf::TensorType;
use pensieve::engine::mistralrs::MistralRs;
use pensieve::engine::paged::Paged;
use pensieve::engine::{Engine, GenerateRequest, LoadedModel, Message, Prompt, Role};
use serde_json::Value;
use synthetic::cases::{Golden, PROMPT, PROMPT_TEXT, file, golden, shape};

use crate::support::engine::{answer, greedy};
use crate::support::synthetic::{Shape, SyntheticModel, spec};

/// Held-out chats of each skill.
const ASKED: usize = 25;

fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}

fn chats(skill: &str) -> Vec<Vec<Message>> {
    let text = std::fs::read_to_string(demo(&format!("heldout/{skill}.jsonl"))).unwrap();
    let message = |message: &Value| Message {
        role: match message["role"].as_str().unwrap() {
            "system" => Role::System,
            "assistant" => Role::Assistant,
            _ => Role::User,
        },
        text: message["content"].as_str().unwrap().to_owned(),
    };
    let chat = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["messages"].as_array().unwrap().iter().map(message).collect()
    };
    text.lines().take(ASKED).map(chat).collect()
}

async fn both(model: &str, path: PathBuf) -> [Arc<dyn LoadedModel>; 2] {
    let paged = Paged::start(64 << 20).unwrap().load(spec(model, path.clone(), 1024)).await.unwrap();
    let mistralrs = MistralRs::new().unwrap().load(spec(model, path, 1024)).await.unwrap();
    [paged, mistralrs]
}

#[tokio::test(flavor = "multi_thread")]
async fn trained_models_get_the_same_prompts_and_give_the_same_tokens() {
    for skill in ["reverse", "add", "roman"] {
        let [paged, mistralrs] = both(skill, demo(&format!("{skill}.Q3_K_M.gguf"))).await;
        for chat in chats(skill) {
            let prompt = paged.render_chat(&chat).unwrap();
            assert_eq!(Ok(&prompt), mistralrs.render_chat(&chat).as_ref(), "{skill}");
            assert_eq!(paged.tokenize(&prompt), mistralrs.tokenize(&prompt), "{skill}: {prompt}");
            let request = GenerateRequest { prompt: Prompt::Chat(chat), ..greedy("", 64) };
            let (ours, theirs) =
                (answer(paged.as_ref(), request.clone()).await, answer(mistralrs.as_ref(), request).await);
            assert_eq!((ours.text, ours.tokens), (theirs.text, theirs.tokens), "{skill}: {prompt}");
        }
    }
}

/// A case whose answer by llama.cpp is known, as mistral.rs reads it.
async fn agree_with_llama_cpp(golden: &Golden) {
    let name = format!("{} in {}", golden.case, golden.kind);
    let (shape, writer) = (shape(golden.case, golden.seed).unwrap(), file(golden.case, golden.kind, golden.seed));
    let model = SyntheticModel::from(shape, &writer.unwrap());
    let [paged, mistralrs] = both(&name, model.path.clone()).await;
    for (engine, model) in [("paged", paged), ("mistral.rs", mistralrs)] {
        let request = GenerateRequest { prompt: Prompt::Tokens(PROMPT.to_vec()), ..greedy("", 64) };
        let answer = answer(model.as_ref(), request).await;
        assert_eq!(answer.tokens, golden.tokens, "{name}: {engine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_architecture_that_mistralrs_reads_gives_the_same_tokens_for_64_steps() {
    // In floats there is no rounding of activations: any difference would be a difference of model.
    // It reads no yarn, no factors of any kind and no temperature from a file, and phi3 in quantized
    // types only.
    for case in ["llama", "qwen2", "qwen3"] {
        let golden = golden().into_iter().find(|golden| golden.case == case).unwrap();
        agree_with_llama_cpp(&golden).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_that_mistralrs_reads_gives_the_same_tokens_for_64_steps() {
    for golden in golden().iter().filter(|golden| golden.case == "types" && golden.kind != TensorType::IQ4_NL) {
        agree_with_llama_cpp(golden).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistral3_model_gives_the_same_tokens_for_64_steps() {
    let shape = Shape { architecture: "mistral3", ..shape("llama", 2).unwrap() };
    let model = SyntheticModel::of(shape, TensorType::F32);
    let [paged, mistralrs] = both("mistral3", model.path.clone()).await;
    let (ours, theirs) =
        (answer(paged.as_ref(), greedy(PROMPT_TEXT, 64)), answer(mistralrs.as_ref(), greedy(PROMPT_TEXT, 64)));
    assert_eq!(ours.await.tokens, theirs.await.tokens);
}
