//! What every engine must do, asked through the traits alone.
//!
//! `engine_contract` runs all of it over one engine and one model. The checks know nothing of the
//! model but what the traits tell; they need prompts of different lengths, and a model that answers
//! at least one of them with a text of eight tokens or more.

#![allow(dead_code, reason = "without engines nobody calls it")]

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use pensieve::engine::{
    Engine, Error, FinishReason, GenerateRequest, LoadSpec, LoadedModel, Message, Prompt, Released, Role, Sampling,
    Support, TokenEvent, Work,
};

use crate::support::engine::{Answer, LONG, answer, collect, eventually, greedy};

const TOKENS: u32 = 24;

/// Prompts of different lengths, for models that know no better.
pub const PROMPTS: [&str; 6] = [
    "the cat",
    "a",
    "hello there, what is it",
    "one two three four five six seven",
    "The quick brown fox jumps over the lazy dog; then it sleeps.",
    "zx",
];

/// The model under test.
struct Subject<'a> {
    engine: &'a dyn Engine,
    model: &'a dyn LoadedModel,
    spec: &'a LoadSpec,
    prompts: &'a [&'a str],
}

/// Runs the whole contract. Panics name the check that failed.
pub async fn engine_contract(engine: Arc<dyn Engine>, spec: LoadSpec, prompts: &[&str]) {
    let model = engine.load(spec.clone()).await.unwrap();
    let subject = Subject { engine: engine.as_ref(), model: model.as_ref(), spec: &spec, prompts };
    what_it_says_of_itself_is_sane(&subject);
    text_survives_tokenizing(&subject);
    usage_adds_up(&subject).await;
    max_tokens_are_kept(&subject).await;
    bad_requests_are_refused(&subject).await;
    more_than_the_context_is_refused(&subject).await;
    chat_is_what_the_capabilities_say(&subject).await;
    together_is_as_alone(&subject).await;
    a_seed_repeats_an_answer(&subject).await;
    a_bias_is_followed(&subject).await;
    a_stop_text_ends_the_answer_and_stays_inside(&subject).await;
    a_dropped_stream_frees_what_it_held(&subject).await;
    a_cancelled_sequence_leaves_no_trace_in_the_next(&subject).await;
    a_reader_who_does_not_read_stalls_nobody(&subject).await;
    unload_ends_what_runs_and_gives_the_memory_back(&subject).await;
    drop(model);
    what_was_unloaded_loads_again(engine.as_ref(), &spec, prompts).await;
}

fn what_it_says_of_itself_is_sane(subject: &Subject<'_>) {
    let capabilities = subject.model.capabilities();
    assert!(capabilities.context >= 1 && capabilities.context <= subject.spec.context, "{capabilities:?}");
    assert!(capabilities.sequences >= 1, "{capabilities:?}");
    let stats = subject.model.stats();
    assert!(stats.is_idle() && stats.work == Work::default() && stats.kv.used == 0, "{stats:?}");
    assert!(!subject.engine.name().is_empty());
    if let Some(summary) = &subject.spec.summary {
        assert_eq!(subject.engine.supports(summary), Support::Yes);
    }
}

fn text_survives_tokenizing(subject: &Subject<'_>) {
    for text in subject.prompts {
        let tokens = subject.model.tokenize(text).unwrap();
        assert_eq!(subject.model.detokenize(&tokens).as_deref(), Ok(*text));
    }
    let unknown = subject.model.detokenize(&[u32::MAX]);
    assert!(matches!(unknown, Err(Error::InvalidRequest { .. })), "{unknown:?}");
}

async fn usage_adds_up(subject: &Subject<'_>) {
    for prompt in subject.prompts {
        let answer = answer(subject.model, greedy(prompt, TOKENS)).await;
        let usage = answer.usage();
        // The prompt as text may have been given an opening token.
        let prompt_tokens = u32::try_from(subject.model.tokenize(prompt).unwrap().len()).unwrap();
        assert!((prompt_tokens..=prompt_tokens + 1).contains(&usage.prompt), "{usage:?}, {prompt_tokens} tokens");
        assert_eq!(answer.prefill, Some((usage.prompt, usage.cached)));
        assert!(usage.cached <= usage.prompt, "{usage:?}");
        assert_eq!(answer.tokens.len(), usage.completion as usize, "one event for each token");
        match answer.reason() {
            FinishReason::Length => assert_eq!(usage.completion, TOKENS),
            FinishReason::Stop => assert!(usage.completion <= TOKENS),
        }
    }
}

async fn max_tokens_are_kept(subject: &Subject<'_>) {
    let (prompt, whole) = longest(subject).await;
    for max_tokens in [1, 2, 7] {
        let cut = answer(subject.model, greedy(prompt, max_tokens)).await;
        assert_eq!((cut.reason(), cut.usage().completion), (FinishReason::Length, max_tokens));
        assert_eq!(cut.tokens, whole.tokens[..max_tokens as usize]);
    }
}

async fn bad_requests_are_refused(subject: &Subject<'_>) {
    let with = |prompt: Prompt| GenerateRequest { prompt, ..greedy("", 1) };
    for request in [
        with(Prompt::Text(String::new())),
        with(Prompt::Tokens(Vec::new())),
        with(Prompt::Tokens(vec![u32::MAX])),
        greedy(subject.prompts[0], 0),
    ] {
        let refused = subject.model.generate(request.clone()).await;
        assert!(matches!(refused, Err(Error::InvalidRequest { .. })), "{request:?}: {refused:?}");
    }
    // What came before has left, and nothing of this has come in.
    eventually("nothing runs or waits", || subject.model.stats().is_idle()).await;
}

async fn more_than_the_context_is_refused(subject: &Subject<'_>) {
    let context = subject.model.capabilities().context;
    let token = subject.model.tokenize(subject.prompts[0]).unwrap()[0];
    let request = |prompt: u32, max_tokens| GenerateRequest {
        prompt: Prompt::Tokens(vec![token; prompt as usize]),
        max_tokens,
        ..greedy("", 1)
    };
    let refusal = subject.model.generate(request(2, Some(context - 1))).await.err();
    let (prompt, max_tokens) = (2, u64::from(context) - 1);
    assert_eq!(refusal, Some(Error::ContextLength { prompt, max_tokens, context: u64::from(context) }));
    let refusal = subject.model.generate(request(context, None)).await.err();
    assert!(matches!(refusal, Some(Error::ContextLength { .. })), "a prompt that fills the context: {refusal:?}");
    let fits = answer(subject.model, request(context - 1, None)).await;
    assert_eq!(fits.usage().completion, 1, "room for one token");
}

async fn chat_is_what_the_capabilities_say(subject: &Subject<'_>) {
    let messages = [Message { role: Role::User, text: "Hello there".into() }];
    let request = GenerateRequest { prompt: Prompt::Chat(messages.to_vec()), ..greedy("", 4) };
    if subject.model.capabilities().chat {
        assert!(subject.model.render_chat(&messages).unwrap().contains("Hello there"));
        assert!(answer(subject.model, request).await.usage().completion >= 1);
    } else {
        assert!(matches!(subject.model.render_chat(&messages), Err(Error::InvalidRequest { .. })));
        assert!(matches!(subject.model.generate(request).await, Err(Error::InvalidRequest { .. })));
    }
}

async fn together_is_as_alone(subject: &Subject<'_>) {
    let mut alone = Vec::new();
    for prompt in subject.prompts {
        alone.push(answer(subject.model, greedy(prompt, TOKENS)).await);
    }
    let all = subject.prompts.iter().map(|prompt| answer(subject.model, greedy(prompt, TOKENS)));
    let together = join_all(all).await;
    for ((alone, together), prompt) in alone.iter().zip(&together).zip(subject.prompts) {
        assert_eq!(alone.text, together.text, "{prompt:?}");
        assert_eq!(alone.tokens, together.tokens, "{prompt:?}");
    }
}

async fn a_seed_repeats_an_answer(subject: &Subject<'_>) {
    let request = |seed| GenerateRequest {
        sampling: Sampling { seed: Some(seed), temperature: 1.5, ..Default::default() },
        ..greedy(subject.prompts[0], TOKENS)
    };
    let mut texts = HashSet::new();
    for seed in 0..4 {
        let first = answer(subject.model, request(seed)).await;
        let again = answer(subject.model, request(seed)).await;
        assert_eq!(first, again, "seed {seed}");
        texts.insert(first.text);
    }
    assert!(texts.len() > 1, "four seeds, one text: {texts:?}");
}

async fn a_bias_is_followed(subject: &Subject<'_>) {
    let wanted = subject.model.tokenize(subject.prompts[0]).unwrap()[0];
    let sampling = Sampling { logit_bias: [(wanted, 1e4)].into(), temperature: 0.0, ..Default::default() };
    let answer = answer(subject.model, GenerateRequest { sampling, ..greedy(subject.prompts[0], 3) }).await;
    assert!(answer.tokens.iter().all(|token| *token == wanted), "{answer:?}");
}

async fn a_stop_text_ends_the_answer_and_stays_inside(subject: &Subject<'_>) {
    let (prompt, whole) = longest(subject).await;
    let characters: Vec<char> = whole.text.chars().collect();
    // Several characters from the middle lie over the borders of tokens, whatever the tokens are.
    for width in [1, 3, 6] {
        let middle = characters.len() / 2;
        let stop: String = characters[middle..].iter().take(width).collect();
        let expected = &whole.text[..whole.text.find(&stop).unwrap()];
        let request = GenerateRequest { stop: vec!["\u{1}never".into(), stop.clone()], ..greedy(prompt, TOKENS) };
        let answer = answer(subject.model, request).await;
        assert_eq!((answer.text.as_str(), answer.reason()), (expected, FinishReason::Stop), "stop {stop:?}");
        assert_eq!(answer.tokens.len(), answer.usage().completion as usize);
        assert!(answer.tokens.len() <= whole.tokens.len());
    }
    let looks_like_one = GenerateRequest { stop: vec![format!("{}\u{1}", whole.text)], ..greedy(prompt, TOKENS) };
    assert_eq!(answer(subject.model, looks_like_one).await.text, whole.text);
}

async fn a_dropped_stream_frees_what_it_held(subject: &Subject<'_>) {
    let probe = answer(subject.model, GenerateRequest { max_tokens: None, ..greedy(subject.prompts[0], 1) }).await;
    let mut endless = GenerateRequest { max_tokens: None, ..greedy(subject.prompts[0], 1) };
    if probe.reason() == FinishReason::Stop {
        // The token that would end it may not come.
        endless.sampling.logit_bias = probe.tokens.last().map(|end| (*end, -100.0)).into_iter().collect();
    }
    let mut streams = Vec::new();
    // More than run at once, so that some are dropped while they wait.
    for _ in 0..subject.model.capabilities().sequences.min(4) + 2 {
        streams.push(subject.model.generate(endless.clone()).await.unwrap());
    }
    let first = tokio::time::timeout(LONG, streams[0].next()).await.unwrap();
    assert!(matches!(first, Some(Ok(TokenEvent::Prefill { .. }))), "{first:?}");
    let stats = subject.model.stats();
    assert!(stats.running + stats.waiting >= 1, "{stats:?}");
    drop(streams);
    eventually("nothing runs or waits", || subject.model.stats().is_idle()).await;
}

async fn a_cancelled_sequence_leaves_no_trace_in_the_next(subject: &Subject<'_>) {
    let alone = answer(subject.model, greedy(subject.prompts[1], TOKENS)).await;
    for tokens_before_the_drop in 0..6 {
        let request = GenerateRequest { max_tokens: None, ..greedy(subject.prompts[0], 1) };
        let mut cancelled = subject.model.generate(request).await.unwrap();
        for _ in 0..tokens_before_the_drop {
            tokio::time::timeout(LONG, cancelled.next()).await.unwrap();
        }
        let next = subject.model.generate(greedy(subject.prompts[1], TOKENS)).await.unwrap();
        drop(cancelled);
        let after = collect(next).await;
        assert_eq!(after, alone, "cancelled after {tokens_before_the_drop} events");
    }
}

async fn a_reader_who_does_not_read_stalls_nobody(subject: &Subject<'_>) {
    let (prompt, whole) = longest(subject).await;
    let unread = subject.model.generate(greedy(prompt, TOKENS)).await.unwrap();
    let other = answer(subject.model, greedy(subject.prompts[1], TOKENS)).await;
    assert!(other.end.is_ok());
    assert_eq!(collect(unread).await, whole, "all of it waits for the reader");
}

async fn unload_ends_what_runs_and_gives_the_memory_back(subject: &Subject<'_>) {
    let request = GenerateRequest { max_tokens: None, ..greedy(subject.prompts[0], 1) };
    let mut running = subject.model.generate(request.clone()).await.unwrap();
    let waiting = subject.model.generate(request.clone()).await.unwrap();
    let first = tokio::time::timeout(LONG, running.next()).await.unwrap();
    assert!(matches!(first, Some(Ok(TokenEvent::Prefill { .. }))), "{first:?}");
    let released = tokio::time::timeout(LONG, subject.model.unload()).await.expect("unload does not return");
    assert_eq!(released, Released::Yes);
    for stream in [running, waiting] {
        // What had been generated may still stand in the stream; or it had come to its own end.
        let last = stream.collect::<Vec<_>>().await.pop();
        let ended = matches!(last, Some(Err(Error::Stopped) | Ok(TokenEvent::Finished { .. })));
        assert!(ended, "{last:?}");
    }
    assert!(subject.model.stats().is_idle(), "{:?}", subject.model.stats());
    assert_eq!(subject.model.generate(request).await.err(), Some(Error::Stopped));
    assert_eq!(subject.model.unload().await, Released::Yes, "twice is no harm");
}

async fn what_was_unloaded_loads_again(engine: &dyn Engine, spec: &LoadSpec, prompts: &[&str]) {
    let mut texts = HashSet::new();
    for _ in 0..2 {
        let model = engine.load(spec.clone()).await.unwrap();
        texts.insert(answer(model.as_ref(), greedy(prompts[0], TOKENS)).await.text);
        assert_eq!(model.unload().await, Released::Yes);
    }
    assert_eq!(texts.len(), 1, "the same file, the same answer: {texts:?}");
}

/// The prompt with the longest answer, and the answer.
async fn longest<'a>(subject: &Subject<'a>) -> (&'a str, Answer) {
    let mut best: Option<(&str, Answer)> = None;
    for prompt in subject.prompts {
        let answer = answer(subject.model, greedy(prompt, TOKENS)).await;
        if best.as_ref().is_none_or(|(_, longest)| answer.tokens.len() > longest.tokens.len()) {
            best = Some((prompt, answer));
        }
    }
    let (prompt, answer) = best.expect("no prompts");
    assert!(answer.tokens.len() >= 8 && answer.text.chars().count() >= 8, "answers too short to test with: {answer:?}");
    (prompt, answer)
}
