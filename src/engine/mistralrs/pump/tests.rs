use decoding::{AnswerText, Sampler};
use futures::StreamExt;

use super::*;
use crate::engine::mistralrs::vocabulary::Vocabulary;
use crate::engine::{Sampling, TokenStream, token_channel};

/// A model's gate, with the test in the place of the engine.
struct Bench {
    gate: Arc<Gate>,
    requests: mpsc::Sender<Request>,
    engine: mpsc::Receiver<Request>,
}

impl Bench {
    fn new() -> Self {
        let (requests, engine) = mpsc::channel(8);
        Self { gate: Arc::new(Gate::new()), requests, engine }
    }

    fn generate(&self) -> TokenStream {
        let (sink, stream) = token_channel(4);
        let tokens = gguf::Array::String(vec!["a".into(), "b".into()]);
        let bytes = gguf::Writer::new().key("tokenizer.ggml.tokens", tokens).to_bytes();
        let header = gguf::Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap();
        let vocabulary = Arc::new(Vocabulary::of(&header).unwrap());
        let parts = move |sink| Parts {
            sink,
            sampler: Sampler::new(Sampling::default(), &[]),
            text: AnswerText::new(&[]),
            vocabulary,
            end_tokens: [0].into(),
            prompt_tokens: 1,
            max_tokens: 4,
        };
        let requests = self.requests.clone();
        let job = Job { prompt: vec![1], end_token: 0, parts: Box::new(parts), max_tokens: 4, requests };
        let waiting = self.gate.waiting();
        self.gate.tasks.spawn(run(Arc::clone(&self.gate), job, sink, waiting));
        stream
    }

    async fn next(&mut self) -> Box<NormalRequest> {
        match self.engine.recv().await {
            Some(Request::Normal(request)) => request,
            _ => panic!("no request"),
        }
    }

    /// Lets every task do all that it can: the clock is paused and moves on when all of them wait.
    async fn settle(&self) {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

async fn last(stream: TokenStream) -> Option<Result<crate::engine::TokenEvent, Error>> {
    stream.collect::<Vec<_>>().await.pop()
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_given_on_only_when_the_sequence_has_left_the_engine() {
    let mut bench = Bench::new();
    let first = bench.generate();
    let inside = bench.next().await;
    let _second = bench.generate();
    drop(first);
    bench.settle().await;
    assert_eq!(bench.gate.stats(), Stats { running: 1, waiting: 1, ..Stats::default() });
    assert!(bench.engine.try_recv().is_err(), "two sequences are in the engine");
    drop(inside);
    bench.next().await;
    assert_eq!(bench.gate.stats(), Stats { running: 1, waiting: 0, ..Stats::default() });
}

#[tokio::test(start_paused = true)]
async fn requests_are_streamed_and_the_receiver_outlives_the_caller() {
    let mut bench = Bench::new();
    let stream = bench.generate();
    let request = bench.next().await;
    assert!(request.is_streaming && request.logits_processors.is_some());
    drop(stream);
    bench.settle().await;
    assert!(!request.response.is_closed(), "an error sent now would panic the engine");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_waiting_never_reaches_the_engine() {
    let mut bench = Bench::new();
    let _first = bench.generate();
    let inside = bench.next().await;
    drop(bench.generate());
    bench.settle().await;
    assert_eq!(bench.gate.stats(), Stats { running: 1, waiting: 0, ..Stats::default() });
    drop(inside);
    bench.settle().await;
    assert!(bench.engine.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_lets_go_without_a_word_is_dead() {
    let mut bench = Bench::new();
    let stream = bench.generate();
    drop(bench.next().await);
    assert_eq!(last(stream).await, Some(Err(dead())));
    assert_eq!(bench.gate.check(), Err(dead()));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_takes_no_request_is_dead() {
    let mut bench = Bench::new();
    bench.engine.close();
    assert_eq!(last(bench.generate()).await, Some(Err(dead())));
    assert_eq!(bench.gate.check(), Err(dead()));
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_engine_are_told_in_our_terms() {
    let mut bench = Bench::new();
    for (response, expected) in [
        (Response::ValidationError("no".into()), Error::InvalidRequest { message: "no".into(), param: None }),
        (Response::InternalError("bad".into()), Error::Internal("bad".into())),
    ] {
        let stream = bench.generate();
        let request = bench.next().await;
        request.response.send(response).await.unwrap();
        drop(request);
        assert_eq!(last(stream).await, Some(Err(expected)));
    }
    assert_eq!(bench.gate.check(), Ok(()), "the engine lives");
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_what_runs_and_what_waits() {
    let mut bench = Bench::new();
    let (running, waiting) = (bench.generate(), bench.generate());
    let inside = bench.next().await;
    bench.gate.stopping.cancel();
    assert_eq!(last(running).await, Some(Err(Error::Stopped)));
    assert_eq!(last(waiting).await, Some(Err(Error::Stopped)));
    assert_eq!(bench.gate.check(), Err(Error::Stopped));
    drop(inside);
    bench.settle().await;
    assert_eq!(bench.gate.stats(), Stats::default());
}
