use futures::StreamExt;

use super::*;
use crate::engine::{Sampling, TokenStream, token_channel};

const END: u32 = 0;

/// A vocabulary of `</s>`, then one token for each of these.
fn vocabulary(tokens: &[&str]) -> Arc<Vocabulary> {
    let mut names = vec!["</s>".to_owned()];
    names.extend(tokens.iter().map(|token| (*token).to_owned()));
    let kinds = (0..names.len()).map(|index| if index == 0 { 3 } else { 4 }).collect();
    let bytes = gguf::Writer::new()
        .key("tokenizer.ggml.tokens", gguf::Array::String(names))
        .key("tokenizer.ggml.token_type", gguf::Array::I32(kinds))
        .to_bytes();
    let header = gguf::Header::parse(bytes.as_slice(), bytes.len() as u64).unwrap();
    Arc::new(Vocabulary::of(&header).unwrap())
}

fn sequence(tokens: &[&str], stops: &[&str], max_tokens: u32) -> (Sequence, TokenStream) {
    let (sink, stream) = token_channel(max_tokens);
    let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
    let greedy = Sampling { temperature: 0.0, ..Default::default() };
    let parts = Parts {
        sink,
        sampler: Sampler::new(greedy, &[]),
        text: AnswerText::new(&stops),
        vocabulary: vocabulary(tokens),
        end_tokens: [END].into(),
        prompt_tokens: 7,
        max_tokens,
    };
    (Sequence::new(parts), stream)
}

fn favour(token: u32) -> [f32; 6] {
    std::array::from_fn(|index| if index == token as usize { 1.0 } else { 0.0 })
}

/// Steps until the end; gives the events without timings.
fn run(tokens: &[&str], stops: &[&str], max_tokens: u32, choices: &[u32]) -> (String, FinishReason, Usage, usize) {
    let (mut sequence, stream) = sequence(tokens, stops, max_tokens);
    let steps = choices.iter().take_while(|token| sequence.step(&mut favour(**token)) != Step::End).count();
    assert!(sequence.has_ended(), "after {steps} steps");
    let events: Vec<_> = futures::executor::block_on(stream.collect());
    let (mut text, mut count, mut end) = (String::new(), 0, None);
    for event in events {
        match event.unwrap() {
            TokenEvent::Prefill { tokens, cached } => assert_eq!((tokens, cached, count), (7, 0, 0)),
            TokenEvent::Token { text: piece, .. } => {
                text += &piece;
                count += 1;
            }
            TokenEvent::Finished { reason, text: rest, usage, .. } => {
                text += &rest;
                assert!(end.replace((reason, usage)).is_none());
            }
        }
    }
    let (reason, usage) = end.unwrap();
    (text, reason, usage, count)
}

#[test]
fn the_end_token_counts_and_has_no_text() {
    let (text, reason, usage, events) = run(&["a", "b"], &[], 10, &[1, 2, END]);
    assert_eq!((text.as_str(), reason, events), ("ab", FinishReason::Stop, 3));
    assert_eq!(usage, Usage { prompt: 7, cached: 0, completion: 3 });
}

#[test]
fn max_tokens_end_the_sequence_in_the_same_step() {
    let (text, reason, usage, events) = run(&["a", "b"], &[], 2, &[1, 2, 1]);
    assert_eq!((text.as_str(), reason, events, usage.completion), ("ab", FinishReason::Length, 2, 2));
}

#[test]
fn a_stop_text_over_tokens_is_trimmed_and_what_only_looked_like_one_is_not() {
    let (text, reason, ..) = run(&["xE", "N", "Dy"], &["END"], 10, &[1, 2, 3]);
    assert_eq!((text.as_str(), reason), ("x", FinishReason::Stop));
    let (text, reason, ..) = run(&["xE", "N", "Dy"], &["END"], 2, &[1, 2]);
    assert_eq!((text.as_str(), reason), ("xEN", FinishReason::Length));
}

#[test]
fn rows_beyond_the_vocabulary_are_never_chosen() {
    let (mut sequence, _stream) = sequence(&["a"], &[], 4);
    assert_eq!(sequence.step(&mut [0.0, 1.0, 9.0, 9.0]), Step::Continue(1));
}

#[test]
fn a_dropped_stream_ends_the_sequence_at_the_next_step() {
    let (mut sequence, stream) = sequence(&["a"], &[], 4);
    assert_eq!(sequence.step(&mut favour(1)), Step::Continue(1));
    drop(stream);
    assert_eq!(sequence.step(&mut favour(1)), Step::End);
    assert!(sequence.has_ended());
}

#[test]
fn an_error_after_the_end_is_not_sent() {
    let (mut sequence, stream) = sequence(&["a"], &[], 1);
    assert_eq!(sequence.step(&mut favour(1)), Step::End);
    sequence.fail(Error::Stopped);
    drop(sequence);
    let events: Vec<_> = futures::executor::block_on(stream.collect());
    assert!(events.iter().all(Result::is_ok) && events.len() == 3, "{events:?}");
}
