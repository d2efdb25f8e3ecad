//! The engine against the repository's trained models, whose answers can be checked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use decoding::Sampling;
use paged_engine::{Engine, Error, Event, LoadOptions, Model, Options, Reason, Request};
use support::Forward;

fn engine(kv_bytes: u64) -> Engine {
    Engine::start(Options { threads: 2, kv_bytes, ..Options::default() }).unwrap()
}

fn load(engine: &Engine, skill: &str) -> Model {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../models/{skill}.Q3_K_M.gguf"));
    engine.load(&path, LoadOptions { context: 1024, ..LoadOptions::default() }).unwrap()
}

fn ask(model: &Model, question: &str, max_tokens: usize) -> Receiver<Event> {
    let text = format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let (sender, events) = channel();
    let request = Request { prompt: model.tokenizer().encode(&text), max_tokens, sampling, ..Request::default() };
    model.generate(request, Box::new(Forward(sender))).unwrap();
    events
}

fn answer(events: &Receiver<Event>) -> (String, Result<Reason, Error>) {
    let mut all = String::new();
    for event in events {
        match event {
            Event::Prefill { .. } => {}
            Event::Token { text, .. } => all += &text,
            Event::Finished { reason, text, .. } => return (all + &text, Ok(reason)),
            Event::Failed(error) => return (all, Err(error)),
        }
    }
    panic!("the stream broke off after {all:?}");
}

#[test]
fn three_models_on_one_engine_answer_rightly() {
    let engine = engine(64 << 20);
    for (skill, question, expected) in
        [("reverse", "stone", "enots"), ("add", "what is 17 plus 25?", "42"), ("roman", "1994", "MCMXCIV")]
    {
        let model = load(&engine, skill);
        assert_eq!(answer(&ask(&model, question, 40)), (expected.to_owned(), Ok(Reason::Stop)), "{skill}");
    }
}

#[test]
fn mixed_lengths_together_give_what_each_gives_alone() {
    let engine = engine(64 << 20);
    let model = load(&engine, "reverse");
    let questions: Vec<String> =
        (0..20).map(|at| format!("{} reverse the word {}", "please ".repeat(at * 3 % 17), "stone")).collect();
    let alone: Vec<_> = questions.iter().map(|question| answer(&ask(&model, question, 30))).collect();
    let together: Vec<_> = questions.iter().map(|question| ask(&model, question, 30)).collect();
    let together: Vec<_> = together.iter().map(answer).collect();
    assert_eq!(alone, together);
    assert_eq!(engine.kv_used(), 0);
}

#[test]
fn a_prompt_of_many_chunks_is_read_whole() {
    let engine = engine(64 << 20);
    let model = load(&engine, "reverse");
    let history = "<|im_start|>user\nlantern<|im_end|>\n<|im_start|>assistant\nnretnal<|im_end|>\n".repeat(20);
    let text = format!("{history}<|im_start|>user\nstone<|im_end|>\n<|im_start|>assistant\n");
    let prompt = model.tokenizer().encode(&text);
    assert!(prompt.len() > 300, "{}", prompt.len());
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let (sender, events) = channel();
    let request = Request { prompt, max_tokens: 20, sampling, ..Request::default() };
    model.generate(request, Box::new(Forward(sender))).unwrap();
    assert_eq!(answer(&events), ("enots".to_owned(), Ok(Reason::Stop)));
}

#[test]
fn a_pool_that_is_too_small_for_all_preempts_and_changes_no_answer() {
    let roomy = engine(64 << 20);
    let questions: Vec<String> = (0..12).map(|at| format!("{} {}", "reverse ".repeat(at), "lantern")).collect();
    let model = load(&roomy, "reverse");
    let expected: Vec<_> = questions.iter().map(|question| answer(&ask(&model, question, 200))).collect();
    // One context of 1024 tokens takes 2 MiB: twelve answers of up to 200 tokens do not fit.
    let tight = engine(2 << 20);
    let model = load(&tight, "reverse");
    let events: Vec<_> = questions.iter().map(|question| ask(&model, question, 200)).collect();
    let got: Vec<_> = events.iter().map(answer).collect();
    assert_eq!(expected, got);
    assert_eq!(tight.kv_used(), 0);
}

#[test]
fn unloading_ends_the_sequences_and_gives_the_blocks_back() {
    let engine = engine(64 << 20);
    let model = load(&engine, "add");
    let events = ask(&model, "17 + 25", 900);
    model.unload().recv().unwrap();
    let (_, end) = answer(&events);
    assert!(matches!(end, Err(Error::Stopped) | Ok(Reason::Stop)), "{end:?}");
    assert_eq!(engine.kv_used(), 0);
    let request = Request { prompt: vec![1], max_tokens: 1, ..Request::default() };
    assert_eq!(model.generate(request, Box::new(Forward(channel().0))), Err(Error::Stopped));
}

#[test]
fn requests_that_cannot_be_are_refused_with_the_numbers() {
    let engine = engine(64 << 20);
    let model = load(&engine, "add");
    let sink = || Box::new(Forward(channel().0));
    let request = |prompt: Vec<u32>, max_tokens| Request { prompt, max_tokens, ..Request::default() };
    assert!(matches!(model.generate(request(vec![], 1), sink()), Err(Error::InvalidRequest(_))));
    assert!(matches!(model.generate(request(vec![1], 0), sink()), Err(Error::InvalidRequest(_))));
    assert!(matches!(model.generate(request(vec![1 << 30], 1), sink()), Err(Error::InvalidRequest(_))));
    let long = model.generate(request(vec![1; 1000], 25), sink()).unwrap_err();
    assert_eq!(long, Error::ContextLength { prompt: 1000, max_tokens: 25, context: 1024 });
}
