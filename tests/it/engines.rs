//! The contract over the engines that need no feature: the fake one and the paged one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pensieve::domain::ModelId;
use pensieve::engine::fake::{Fake, Script};
use pensieve::engine::paged::Paged;
use pensieve::engine::{Engine, LoadSpec};

use crate::contract::{PROMPTS, engine_contract};
use crate::support::synthetic::{Shape, SyntheticModel, spec};

const POOL: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_engine_keeps_the_contract() {
    let model = ModelId::from("fake");
    let spec = LoadSpec {
        model,
        source: PathBuf::new(),
        summary: None,
        context: 512,
        sequences: 4,
        kv_type: Default::default(),
    };
    let steady = Script { token_time: Duration::from_millis(2), ..Script::default() };
    engine_contract(Arc::new(Fake::new(steady)), spec, &PROMPTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paged_engine_keeps_the_contract() {
    let model = SyntheticModel::new(Shape::default());
    engine_contract(Arc::new(Paged::start(POOL).unwrap()), model.spec("synthetic"), &PROMPTS).await;
}

#[tokio::test]
async fn the_paged_engine_keeps_the_contract_with_one_sequence_and_a_tied_head() {
    let model = SyntheticModel::new(Shape { tied: true, seed: 2, ..Shape::default() });
    let spec = LoadSpec { sequences: 1, ..model.spec("synthetic") };
    engine_contract(Arc::new(Paged::start(POOL).unwrap()), spec, &PROMPTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paged_engine_keeps_the_contract_on_a_trained_q3_k_m_model() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/reverse.Q3_K_M.gguf");
    let paged = Paged::start(POOL).unwrap();
    engine_contract(Arc::new(paged), spec("reverse", file, 512), &PROMPTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_models_of_one_paged_engine_share_its_pool() {
    let engine = Paged::start(POOL).unwrap();
    let models = [3, 4, 5].map(|seed| SyntheticModel::new(Shape { seed, ..Shape::default() }));
    let mut loaded = Vec::new();
    for (at, model) in models.iter().enumerate() {
        loaded.push(engine.load(model.spec(&format!("m{at}"))).await.unwrap());
    }
    let ask = |at: usize| {
        crate::support::engine::answer(loaded[at % 3].as_ref(), crate::support::engine::greedy(PROMPTS[at % 6], 24))
    };
    let together = futures::future::join_all((0..18).map(ask)).await;
    for (at, answer) in together.iter().enumerate() {
        let alone = ask(at).await;
        assert_eq!(answer.text, alone.text, "model {} prompt {}", at % 3, at % 6);
    }
}
