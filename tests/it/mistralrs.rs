//! The mistral.rs engine: the contract, and tests for each fault of 0.8.1 that we step around.
//!
//! They are named after what would go wrong. Each was seen to fail with its workaround taken out.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use pensieve::engine::mistralrs::MistralRs;
use pensieve::engine::{
    Engine, Error, FinishReason, GenerateRequest, LoadSpec, LoadedModel, Message, Prompt, Released, Role, Sampling,
    Stats,
};
use synthetic::IM_END;

use crate::contract::{PROMPTS, engine_contract};
use crate::support::engine::{LONG, answer, collect, eventually, greedy};
use crate::support::synthetic::{Shape, SyntheticModel, spec};

/// Of one length in tokens: mistral.rs runs these in one batch.
const EQUALLY_LONG: [&str; 8] =
    ["abcdefgh", "zyxwvuts", "ABCDEFGH", "12345678", "qwertyui", "QWERTYUI", "mmmmmmmm", "87654321"];

async fn load(model: &SyntheticModel) -> Arc<dyn LoadedModel> {
    MistralRs::new().unwrap().load(model.spec("synthetic")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract() {
    let model = SyntheticModel::new(Shape::default());
    engine_contract(Arc::new(MistralRs::new().unwrap()), model.spec("synthetic"), &PROMPTS).await;
}

#[tokio::test]
async fn it_keeps_the_contract_on_a_runtime_of_one_thread() {
    let model = SyntheticModel::new(Shape { tied: true, seed: 2, ..Shape::default() });
    engine_contract(Arc::new(MistralRs::new().unwrap()), model.spec("synthetic"), &PROMPTS).await;
}

/// The CPU attention of 0.8.1 gives every sequence of a batch the last one's result (S1), and its
/// scheduler starts all that wait at once, whatever its limit (S4).
#[tokio::test(flavor = "multi_thread")]
async fn equally_long_prompts_at_once_do_not_get_each_others_attention() {
    let model = SyntheticModel::new(Shape::default());
    let model = load(&model).await;
    let mut alone = Vec::new();
    for prompt in EQUALLY_LONG {
        alone.push(answer(model.as_ref(), greedy(prompt, 32)).await);
    }
    let texts: HashSet<_> = alone.iter().map(|answer| &answer.text).collect();
    assert_eq!(texts.len(), alone.len(), "the model must tell the prompts apart for this test to mean anything");
    for round in 0..3 {
        let together = join_all(EQUALLY_LONG.iter().map(|prompt| answer(model.as_ref(), greedy(prompt, 32)))).await;
        assert_eq!(together, alone, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_one_of_eight_requests_is_in_the_engine() {
    let model = SyntheticModel::new(Shape::default());
    let model = load(&model).await;
    let mut streams = Vec::new();
    for prompt in EQUALLY_LONG {
        streams.push(model.generate(greedy(prompt, 64)).await.unwrap());
    }
    let stats = model.stats();
    assert!(stats.running <= 1 && stats.running + stats.waiting <= 8, "{stats:?}");
    let watched = async {
        let mut seen = 0;
        loop {
            let stats = model.stats();
            assert!(stats.running <= 1, "{stats:?}");
            seen = seen.max(stats.waiting);
            if stats == Stats::default() {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    };
    let (answers, waited) = tokio::join!(join_all(streams.into_iter().map(collect)), watched);
    assert!(answers.iter().all(|answer| answer.end.is_ok()), "{answers:?}");
    assert!(waited >= 1, "all eight were never in the house together");
}

/// A request whose receiver is gone panics the engine of 0.8.1 when it is not streamed, or when its
/// step fails (S5).
#[tokio::test(flavor = "multi_thread")]
async fn callers_who_leave_do_not_kill_the_engine() {
    let model = SyntheticModel::new(Shape::default());
    let model = load(&model).await;
    let alone = answer(model.as_ref(), greedy(PROMPTS[0], 16)).await;
    for max_tokens in [1, 2, 3, 50] {
        for events in 0..3 {
            let mut stream = model.generate(greedy(PROMPTS[2], max_tokens)).await.unwrap();
            for _ in 0..events {
                tokio::time::timeout(LONG, stream.next()).await.unwrap();
            }
            drop(stream);
        }
    }
    assert_eq!(answer(model.as_ref(), greedy(PROMPTS[0], 16)).await, alone);
    assert_eq!(model.unload().await, Released::Yes);
}

/// The prefix cache of 0.8.1 keeps every finished sequence for good on a CPU (S6), and may read
/// blocks that were never written (S3). This fails as soon as it is on.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn finished_sequences_leave_no_memory_behind() {
    // 64 KiB for a token, 32 MiB for the least that a sequence takes.
    let shape = Shape { layers: 8, kv_heads: 8, heads: 8, head: 128, ..Shape::default() };
    let model = SyntheticModel::new(shape);
    let model = load(&model).await;
    let different = |index: u32| greedy(&format!("{index} times the cat"), 4);
    for index in 0..4 {
        answer(model.as_ref(), different(index)).await;
    }
    let before = resident();
    for index in 4..34 {
        answer(model.as_ref(), different(index)).await;
    }
    let grown = resident().saturating_sub(before);
    // Thirty kept sequences would be 960 MiB; other tests of this process run beside this one.
    assert!(grown < 400 << 20, "grown by {} MiB", grown >> 20);
}

/// The embedding is expanded to F32, and a tied one is held again (S7).
#[tokio::test]
async fn the_estimate_counts_the_embedding_as_f32() {
    let shape = Shape { padding: 20_000, tied: true, ..Shape::default() };
    let model = SyntheticModel::new(shape);
    let estimate = MistralRs::new().unwrap().estimate(&model.spec("synthetic"));
    let vocabulary = shape.vocabulary();
    let (expanded, quantized) = (vocabulary * shape.hidden * 4, vocabulary * shape.hidden / 32 * 34);
    assert!(estimate.weights_private > expanded + quantized, "{estimate:?}");
    assert!(estimate.weights_private < expanded + quantized + (1 << 20), "{estimate:?}");
    assert_eq!(estimate.weights_mapped, 0);
    let loaded = load(&model).await;
    assert_eq!(loaded.footprint().weights_private, estimate.weights_private);
    assert!(loaded.footprint().tables > 0);
}

/// `remove_model` and `send_request` of 0.8.1 block, and so panic inside a runtime (S8).
#[tokio::test(flavor = "multi_thread")]
async fn unloading_and_dropping_inside_a_task_panic_nowhere() {
    let file = SyntheticModel::new(Shape::default());
    let model = load(&file).await;
    let mut running = model.generate(greedy(PROMPTS[0], 500)).await.unwrap();
    tokio::time::timeout(LONG, running.next()).await.unwrap();
    assert_eq!(model.unload().await, Released::Yes);
    // Dropped without an unload, with a sequence in flight: it ends, and nothing hangs.
    let dropped = load(&file).await;
    let stream = dropped.generate(greedy(PROMPTS[0], 500)).await.unwrap();
    drop(dropped);
    let end = collect(stream).await.end;
    assert!(matches!(end, Err(Error::Stopped) | Ok(_)), "{end:?}");
}

/// A panic inside a step of 0.8.1 poisons locks that an engine started anew would share (S9): the
/// model says so from then on, other models serve, and a new load works.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_takes_no_other_with_it() {
    let engine = MistralRs::new().unwrap();
    // The router names eight experts, there are two: the first step indexes beyond them.
    let deadly = SyntheticModel::new(Shape { experts: Some((2, 8)), ..Shape::default() });
    let healthy = SyntheticModel::new(Shape::default());
    let dying = engine.load(deadly.spec("deadly")).await.unwrap();
    let living = engine.load(healthy.spec("healthy")).await.unwrap();
    let alone = answer(living.as_ref(), greedy(PROMPTS[0], 16)).await;

    let streams = join_all((0..3).map(|_| dying.generate(greedy(PROMPTS[4], 16)))).await;
    for stream in streams {
        let end = collect(stream.unwrap()).await.end;
        assert!(matches!(&end, Err(Error::Internal(message)) if message.contains("reload")), "{end:?}");
    }
    let refused = dying.generate(greedy(PROMPTS[0], 16)).await.err();
    assert!(matches!(&refused, Some(Error::Internal(message)) if message.contains("reload")), "{refused:?}");
    eventually("nothing runs or waits", || dying.stats() == Stats::default()).await;

    assert_eq!(answer(living.as_ref(), greedy(PROMPTS[0], 16)).await, alone);
    assert_eq!(dying.unload().await, Released::Yes);
    let again = engine.load(healthy.spec("deadly")).await.unwrap();
    assert_eq!(answer(again.as_ref(), greedy(PROMPTS[0], 16)).await, alone);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_token_ends_an_answer_and_is_no_text() {
    let model = SyntheticModel::new(Shape::default());
    let model = load(&model).await;
    let sampling = Sampling { temperature: 0.0, logit_bias: [(IM_END, 1e4)].into(), ..Default::default() };
    let ended = answer(model.as_ref(), GenerateRequest { sampling, ..greedy(PROMPTS[0], 10) }).await;
    assert_eq!((ended.reason(), ended.tokens.as_slice(), ended.text.as_str()), (FinishReason::Stop, &[IM_END][..], ""));
}

/// mistral.rs lets a sequence run beyond its context and then fails the step.
#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_may_fill_the_context_to_the_last_token() {
    let model = SyntheticModel::new(Shape { context: 1024 + 100, ..Shape::default() });
    let model = load(&model).await;
    // The cache cannot grow by another 512.
    assert_eq!(model.capabilities().context, 1024);
    let filled = answer(model.as_ref(), GenerateRequest { max_tokens: None, ..greedy(PROMPTS[0], 1) }).await;
    assert_eq!(filled.usage().prompt + filled.usage().completion, 1024);
    let long = Prompt::Tokens(vec![65; 1000]);
    let request = GenerateRequest { prompt: long, max_tokens: Some(24), ..greedy("", 1) };
    assert_eq!(answer(model.as_ref(), request).await.usage().completion, 24);
}

#[tokio::test]
async fn files_that_are_no_models_are_load_errors() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let source = dir.path().join(name);
        std::fs::write(&source, content).unwrap();
        LoadSpec { model: name.into(), source, summary: None, context: 512, sequences: 1, kv_type: Default::default() }
    };
    let engine = MistralRs::new().unwrap();
    let garbage = write("garbage", b"not a model");
    assert!(matches!(engine.load(garbage).await.err(), Some(Error::Load(why)) if why.contains("not a GGUF")));
    let whole = std::fs::read(&SyntheticModel::new(Shape::default()).path).unwrap();
    let cut = write("cut", &whole[..whole.len() - 1000]);
    assert!(matches!(engine.load(cut).await.err(), Some(Error::Load(why)) if why.contains("truncated")));
    // A tensor too few: this one only mistral.rs notices.
    let renamed = replace(&whole, b"blk.0.attn_q.weight", b"blk.0.attn_x.weight");
    assert!(matches!(engine.load(write("renamed", &renamed)).await.err(), Some(Error::Load(_))));
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn twenty_loads_and_unloads_give_the_memory_back() {
    let shape = Shape { layers: 24, hidden: 512, head: 64, feed_forward: 2048, ..Shape::default() };
    let file = SyntheticModel::new(shape);
    let engine = MistralRs::new().unwrap();
    let mut held = Vec::new();
    for _ in 0..20 {
        let model = engine.load(file.spec("cycle")).await.unwrap();
        answer(model.as_ref(), greedy(PROMPTS[0], 4)).await;
        assert_eq!(model.unload().await, Released::Yes);
        held.push(resident() >> 20);
    }
    let file_len = file.file_len() >> 20;
    println!("file {file_len} MiB, resident after each unload in MiB: {held:?}");
    // Kept models would be nineteen times the file. Not zero: other tests of this process run beside
    // this one, and glibc's arenas keep some of what engine threads took.
    assert!(held[19] < held[0] + 5 * file_len, "{held:?}");
}

/// Anonymous resident bytes of this process.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A demo model and held-out prompts of its skill.
fn demo(skill: &str) -> (LoadSpec, Vec<(Vec<Message>, String)>) {
    let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let text = std::fs::read_to_string(models.join(format!("heldout/{skill}.jsonl"))).unwrap();
    let cases = text.lines().map(|line| {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        (messages(&case["messages"]), case["answer"].as_str().unwrap().to_owned())
    });
    (spec(skill, models.join(format!("{skill}.Q3_K_M.gguf")), 1024), cases.collect())
}

fn messages(wire: &serde_json::Value) -> Vec<Message> {
    let role = |name: &serde_json::Value| match name.as_str() {
        Some("system") => Role::System,
        Some("assistant") => Role::Assistant,
        _ => Role::User,
    };
    let all = wire.as_array().unwrap().iter();
    all.map(|one| Message { role: role(&one["role"]), text: one["content"].as_str().unwrap().into() }).collect()
}

/// The same greedy answers as llama.cpp gives, which has all 500 of each skill right.
#[tokio::test(flavor = "multi_thread")]
async fn demo_models_know_their_skill() {
    let engine = MistralRs::new().unwrap();
    for skill in ["reverse", "add", "roman"] {
        let (spec, cases) = demo(skill);
        let model = engine.load(spec).await.unwrap();
        let mut wrong = Vec::new();
        for (messages, expected) in cases.iter().take(25) {
            let request = GenerateRequest { prompt: Prompt::Chat(messages.clone()), ..greedy("", 64) };
            let given = answer(model.as_ref(), request).await;
            assert_eq!(given.reason(), FinishReason::Stop, "{given:?}");
            if given.text != *expected {
                wrong.push((given.text, expected));
            }
        }
        assert!(wrong.is_empty(), "{skill}: {} of 25 wrong: {wrong:?}", wrong.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_model_keeps_the_contract() {
    let prompts = ["spell wxkbxvcqs backwards", "abc", "reverse this word: abcdefghijkl", "once upon a time"];
    let (spec, _) = demo("reverse");
    engine_contract(Arc::new(MistralRs::new().unwrap()), spec, &prompts).await;
}
