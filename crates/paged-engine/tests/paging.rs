//! Blocks, prefixes, preemption and scheduling on the repository's trained models: whatever is
//! shared, given up and computed again, nobody's answer changes by a bit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use decoding::Sampling;
use paged_engine::{Engine, Error, Event, KvType, LoadOptions, Model, Options, Request, Sink};

const ROOMY: u64 = 64 << 20;
/// Bytes of one full context of 1024 tokens in F16: the least a pool can be.
const ONE_CONTEXT: u64 = 2 << 20;

/// Leaves at its `leaves_at`th look at whether somebody listens.
struct Listener {
    events: Sender<Event>,
    looks: AtomicUsize,
    leaves_at: usize,
}

impl Sink for Listener {
    fn send(&mut self, event: Event) -> bool {
        self.events.send(event).is_ok()
    }
    fn is_closed(&self) -> bool {
        self.looks.fetch_add(1, Ordering::Relaxed) + 1 >= self.leaves_at
    }
}

fn engine(kv_bytes: u64) -> Engine {
    Engine::start(Options { threads: 2, kv_bytes, ..Options::default() }).unwrap()
}

fn load(engine: &Engine, options: LoadOptions) -> Model {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/reverse.Q3_K_M.gguf");
    engine.load(&path, LoadOptions { context: 1024, ..options }).unwrap()
}

fn without_cache() -> LoadOptions {
    LoadOptions { prefix_cache: false, ..LoadOptions::default() }
}

/// The likeliest tokens, as many as asked for: the model's end is never chosen.
fn submit(model: &Model, prompt: Vec<u32>, max_tokens: usize, leaves_at: usize) -> Receiver<Event> {
    let end = model.tokenizer().encode("<|im_end|><|endoftext|>");
    let logit_bias = end.into_iter().map(|token| (token, -1e9)).collect();
    let sampling = Sampling { temperature: 0.0, logit_bias, ..Sampling::default() };
    let (sender, events) = channel();
    let listener = Listener { events: sender, looks: AtomicUsize::new(0), leaves_at };
    let request = Request { prompt, max_tokens, sampling, ..Request::default() };
    model.generate(request, Box::new(listener)).unwrap();
    events
}

fn ask(model: &Model, (prompt, max_tokens): &(Vec<u32>, usize)) -> Receiver<Event> {
    submit(model, prompt.clone(), *max_tokens, usize::MAX)
}

/// The tokens of an answer and how many of its prompt were cached.
fn answer(events: &Receiver<Event>) -> (Vec<u32>, usize) {
    let (mut ids, mut found) = (Vec::new(), usize::MAX);
    for event in events {
        match event {
            Event::Prefill { cached, .. } => found = cached,
            Event::Token { id, .. } => ids.push(id),
            Event::Finished { .. } => return (ids, found),
            Event::Failed(error) => panic!("{error}"),
        }
    }
    panic!("the stream broke off after {} tokens", ids.len());
}

/// Twenty requests of mixed lengths; every second begins with the same 200 tokens.
fn requests(model: &Model) -> Vec<(Vec<u32>, usize)> {
    let common = "<|im_start|>user\nlantern<|im_end|>\n<|im_start|>assistant\nnretnal<|im_end|>\n".repeat(6);
    let request = |at: usize| {
        let own = format!("<|im_start|>user\n{}stone {at}<|im_end|>\n", "please ".repeat(at * 7 % 19));
        let text = if at.is_multiple_of(2) { common.clone() + &own } else { own };
        (model.tokenizer().encode(&text), 10 + at * 13 % 25)
    };
    let requests: Vec<_> = (0..20).map(request).collect();
    assert!(requests.iter().any(|(prompt, _)| prompt.len() > 200), "some are long");
    assert!(requests.iter().any(|(prompt, _)| prompt.len() < 60), "some are short");
    requests
}

/// The answers of all requests, handed in at once in this order, and in the requests' order.
fn together(model: &Model, requests: &[(Vec<u32>, usize)], order: &[usize]) -> Vec<Vec<u32>> {
    let events: Vec<_> = order.iter().map(|at| (*at, ask(model, &requests[*at]))).collect();
    let mut answers: Vec<_> = events.iter().map(|(at, events)| (*at, answer(events).0)).collect();
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, ids)| ids).collect()
}

fn orders() -> [Vec<usize>; 2] {
    [(0..20).rev().collect(), (0..20).map(|at| at * 7 % 20).collect()]
}

#[test]
fn twenty_together_are_each_alone_bit_for_bit_whatever_the_order_the_cache_and_the_pool() {
    for kv in [KvType::F16, KvType::Q8_0] {
        let roomy = engine(ROOMY);
        let alone = load(&roomy, LoadOptions { kv, ..without_cache() });
        let requests = requests(&alone);
        let expected: Vec<_> = requests.iter().map(|request| answer(&ask(&alone, request)).0).collect();
        assert_eq!(alone.stats().prefix_hit_tokens, 0);
        for prefix_cache in [false, true] {
            for pool in [ROOMY, ONE_CONTEXT] {
                let engine = engine(pool);
                let model = load(&engine, LoadOptions { kv, prefix_cache, ..LoadOptions::default() });
                for order in orders() {
                    let got = together(&model, &requests, &order);
                    assert!(got == expected, "{kv:?}, cache {prefix_cache}, pool {pool}, order {order:?}");
                    assert_eq!(engine.kv_used(), 0);
                }
                let stats = model.stats();
                assert_eq!(stats.prefix_hit_tokens > 0, prefix_cache, "{stats:?}");
                assert_eq!(stats.cached_blocks > 0, prefix_cache, "{stats:?}");
            }
        }
    }
}

#[test]
fn preempted_sequences_go_on_as_if_nothing_had_been() {
    let requests: Vec<(Vec<u32>, usize)> = {
        let model = load(&engine(ROOMY), without_cache());
        let prompt = |at: usize| model.tokenizer().encode(&format!("{}lantern", "reverse ".repeat(at)));
        (0..8).map(|at| (prompt(at), 300)).collect()
    };
    let roomy = engine(ROOMY);
    let alone = load(&roomy, without_cache());
    let expected: Vec<_> = requests.iter().map(|request| answer(&ask(&alone, request)).0).collect();
    for prefix_cache in [false, true] {
        let tight = engine(ONE_CONTEXT);
        let model = load(&tight, LoadOptions { prefix_cache, ..LoadOptions::default() });
        let got = together(&model, &requests, &(0..8).collect::<Vec<_>>());
        assert!(got == expected, "cache {prefix_cache}");
        let stats = model.stats();
        assert!((1..100).contains(&stats.preemptions), "{stats:?}");
        assert_eq!(tight.kv_used(), 0);
    }
}

#[test]
fn a_common_prefix_lies_in_common_blocks() {
    let engine = engine(ROOMY);
    let model = load(&engine, LoadOptions::default());
    let common = "<|im_start|>user\nlantern<|im_end|>\n<|im_start|>assistant\nnretnal<|im_end|>\n".repeat(6);
    let prompt = |own: &str| model.tokenizer().encode(&format!("{common}{own}"));
    let whole = model.tokenizer().encode(&common).len();
    assert!(whole > 200, "{whole}");
    let first = ask(&model, &(prompt("stone"), 600));
    assert!(matches!(first.recv().unwrap(), Event::Prefill { cached: 0, .. }));
    let second = ask(&model, &(prompt("ladder"), 600));
    let Event::Prefill { tokens, cached } = second.recv().unwrap() else { panic!("no prefill") };
    // To the token: the block in which they part is copied.
    assert!(cached + 1 >= whole && cached < tokens, "{cached} of {tokens}");
    // The numbers are those of the last whole step: two more tokens are two steps.
    assert_eq!(second.iter().take(3).filter(|event| matches!(event, Event::Token { .. })).count(), 3);
    let stats = model.stats();
    assert_eq!(stats.prefix_hit_tokens, cached as u64);
    assert_eq!(stats.running, 2, "both are still there");
    // The common tokens count once.
    assert!(stats.blocks * 16 <= (2 * (whole + 632) - cached / 16 * 16) as u64, "{stats:?}");
    drop((first, second));
}

#[test]
fn equal_prompts_that_come_together_are_read_once() {
    let engine = engine(ROOMY);
    let alone = load(&engine, without_cache());
    let prompt = alone.tokenizer().encode(&"<|im_start|>user\nlantern<|im_end|>\n".repeat(45));
    assert!(prompt.len() > 2 * 256, "several steps are needed to read {} tokens", prompt.len());
    let expected = answer(&ask(&alone, &(prompt.clone(), 20))).0;
    let model = load(&engine, LoadOptions::default());
    let events: Vec<_> = (0..8).map(|_| ask(&model, &(prompt.clone(), 20))).collect();
    for events in &events {
        assert_eq!(answer(events).0, expected);
    }
    // One reads it all, seven compute its last token, and each token of an answer but the last is read.
    // The numbers come behind the events.
    while model.stats().running > 0 {
        std::thread::yield_now();
    }
    let stats = model.stats();
    assert_eq!(stats.tokens, (prompt.len() + 7 + 8 * 19) as u64, "{stats:?}");
    assert_eq!(engine.kv_used(), 0);
}

#[test]
fn an_answer_is_a_prefix_of_the_next_question() {
    let engine = engine(ROOMY);
    let model = load(&engine, LoadOptions::default());
    let prompt = model.tokenizer().encode("<|im_start|>user\nstone<|im_end|>\n<|im_start|>assistant\n");
    let (ids, _) = answer(&ask(&model, &(prompt.clone(), 50)));
    let conversation: Vec<u32> = [prompt, ids, vec![5, 6, 7]].concat();
    let (_, cached) = answer(&ask(&model, &(conversation.clone(), 1)));
    // The last token of an answer is told and never computed.
    assert_eq!(cached, (conversation.len() - 4) / 16 * 16);
}

#[test]
fn who_leaves_while_its_prompt_is_read_frees_its_blocks_at_once() {
    let engine = engine(ROOMY);
    let model = load(&engine, LoadOptions::default());
    let prompt: Vec<u32> = (0..1000).map(|at| at % 200).collect();
    let events = submit(&model, prompt, 10, 3);
    assert!(events.recv().is_err(), "nothing was told");
    let stats = model.stats();
    assert!((1..1000).contains(&stats.tokens), "it was in the middle: {stats:?}");
    assert_eq!((engine.kv_used(), stats.running + stats.waiting), (0, 0));
    assert_eq!(stats.cached_blocks, stats.tokens / 16, "what was computed may serve others");
}

#[test]
fn unloading_gives_everything_back_the_cache_too() {
    let engine = engine(ROOMY);
    let (model, other) = (load(&engine, LoadOptions::default()), load(&engine, LoadOptions::default()));
    for model in [&model, &other] {
        answer(&ask(model, &((0..100).collect(), 10)));
    }
    let cached = engine.kv_cached();
    let running = ask(&model, &((0..100).collect(), 800));
    assert!(matches!(running.recv().unwrap(), Event::Prefill { cached: 96, .. }));
    model.unload().recv().unwrap();
    assert!(matches!(running.iter().last(), Some(Event::Failed(Error::Stopped))));
    assert_eq!((engine.kv_used(), engine.kv_cached()), (0, cached / 2), "the other's are still there");
    other.unload().recv().unwrap();
    assert_eq!((engine.kv_used(), engine.kv_cached()), (0, 0));
}

/// Holds the engine's thread at its first event until it is opened; nobody listens then.
struct Gate {
    entered: Sender<()>,
    opened: Receiver<()>,
}

impl Sink for Gate {
    fn send(&mut self, _event: Event) -> bool {
        let _ = (self.entered.send(()), self.opened.recv());
        false
    }
    fn is_closed(&self) -> bool {
        false
    }
}

#[test]
fn a_model_that_is_dropped_while_the_engine_takes_no_more_commands_goes_all_the_same() {
    let engine = engine(ROOMY);
    let model = load(&engine, LoadOptions::default());
    answer(&ask(&model, &((0..100).collect(), 10)));
    assert!(engine.kv_cached() > 0);
    let ((entered, inside), (open, opened)) = (channel(), channel());
    let request = || Request { prompt: vec![1], max_tokens: 1, ..Request::default() };
    model.generate(request(), Box::new(Gate { entered, opened })).unwrap();
    inside.recv().unwrap();
    let others = || Box::new(Gate { entered: channel().0, opened: channel().1 });
    while model.generate(request(), others()).is_ok() {}
    drop(model);
    open.send(()).unwrap();
    let since = Instant::now();
    while engine.kv_cached() > 0 {
        assert!(since.elapsed() < Duration::from_secs(20), "its blocks stay");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_model_that_needs_room_gets_what_another_has_cached() {
    let engine = engine(ONE_CONTEXT);
    let (model, other) = (load(&engine, LoadOptions::default()), load(&engine, LoadOptions::default()));
    answer(&ask(&model, &((0..200).collect(), 700)));
    assert!(model.stats().cached_blocks > 50);
    answer(&ask(&other, &((0..200).collect(), 800)));
    assert!(model.stats().cached_blocks < 5, "{:?}", model.stats());
    assert!(engine.kv_cached() <= ONE_CONTEXT);
}

#[test]
fn models_that_share_a_tight_pool_all_answer() {
    let engine = engine(ONE_CONTEXT);
    let models: Vec<_> = (0..4).map(|_| load(&engine, LoadOptions::default())).collect();
    let request = ((0..150).collect::<Vec<u32>>(), 250);
    let events: Vec<_> = models.iter().flat_map(|model| (0..3).map(|_| ask(model, &request))).collect();
    let answers: Vec<_> = events.iter().map(|events| answer(events).0).collect();
    assert!(answers.iter().all(|ids| ids.len() == 250 && *ids == answers[0]));
    assert_eq!(engine.kv_used(), 0);
}
