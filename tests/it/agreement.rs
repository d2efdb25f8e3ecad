//! The paged engine beside mistral.rs with one sequence: two implementations of one model must
//! choose the same tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pensieve::engine::mistralrs::MistralRs;
use pensieve::engine::paged::Paged;
use pensieve::engine::{Engine, GenerateRequest, LoadedModel, Message, Prompt, Role};
use serde_json::Value;

use crate::support::engine::{answer, greedy};
use crate::support::synthetic::{Shape, SyntheticModel, spec};

/// Held-out chats of each skill.
const ASKED: usize = 25;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}

fn chats(skill: &str) -> Vec<Vec<Message>> {
    let text = std::fs::read_to_string(file(&format!("heldout/{skill}.jsonl"))).unwrap();
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
        let [paged, mistralrs] = both(skill, file(&format!("{skill}.Q3_K_M.gguf"))).await;
        for chat in chats(skill) {
            let prompt = paged.render_chat(&chat).unwrap();
            assert_eq!(Ok(&prompt), mistralrs.render_chat(&chat).as_ref(), "{skill}");
            assert_eq!(paged.tokenize(&prompt), mistralrs.tokenize(&prompt), "{skill}: {prompt}");
            let request = GenerateRequest { prompt: Prompt::Chat(chat), ..greedy("", 64) };
            let (ours, theirs) =
                (answer(paged.as_ref(), request.clone()).await, answer(mistralrs.as_ref(), request).await);
            assert_eq!(ours, theirs, "{skill}: {prompt}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrained_model_in_floats_gives_the_same_tokens_for_64_steps() {
    // In floats there is no rounding of activations: any difference would be a difference of model.
    let model = SyntheticModel::new(Shape { kind: gguf::TensorType::F32, ..Shape::default() });
    let [paged, mistralrs] = both("synthetic", model.spec("synthetic").source).await;
    for prompt in ["the cat", "hello there, what is it", "one two three four five six seven", "0123456789 ,.;"] {
        let (ours, theirs) =
            (answer(paged.as_ref(), greedy(prompt, 64)).await, answer(mistralrs.as_ref(), greedy(prompt, 64)).await);
        assert_eq!(ours.tokens, theirs.tokens, "{prompt}");
    }
}
