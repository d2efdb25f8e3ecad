//! Twenty streaming clients of one model, against any server that speaks OpenAI's completions:
//! tokens a second of all together, and how long each waited for its first.
//!
//! `cargo bench --bench streams -- http://127.0.0.1:8080/v1 MODEL [clients] [tokens] [rounds]`

use std::error::Error;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::try_join_all;
use serde_json::{Value, json};

/// The shortest and the longest prompt, in characters: one token each in a synthetic vocabulary.
const PROMPTS: [usize; 2] = [50, 190];

/// What one client saw.
struct Stream {
    first: Duration,
    tokens: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [url, model, rest @ ..] = arguments.as_slice() else {
        return Err("name a server and a model: http://127.0.0.1:8080/v1 my-model".into());
    };
    let number = |at: usize, default: usize| rest.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (clients, tokens, rounds) = (number(0, 20), number(1, 64), number(2, 3));
    let http = reqwest::Client::new();
    for round in 1..=rounds {
        let started = Instant::now();
        let streams = (0..clients).map(|client| stream(&http, url, request(model, client, clients, tokens, round)));
        let streams = try_join_all(streams).await?;
        let took = started.elapsed().as_secs_f64();
        let all: u64 = streams.iter().map(|stream| stream.tokens).sum();
        let mut firsts: Vec<f64> = streams.iter().map(|stream| stream.first.as_secs_f64()).collect();
        firsts.sort_by(f64::total_cmp);
        let at = |share: f64| firsts[((firsts.len() - 1) as f64 * share).round() as usize];
        println!(
            "round {round}: {all} tokens in {took:.2} s, {:.0} tok/s; first token p50 {:.2} s, p95 {:.2} s",
            all as f64 / took,
            at(0.5),
            at(0.95),
        );
    }
    Ok(())
}

/// A prompt of its own length and text for each client and round, and an end token that never comes.
fn request(model: &str, client: usize, clients: usize, tokens: usize, round: usize) -> Value {
    let [shortest, longest] = PROMPTS;
    let length = shortest + (longest - shortest) * client / clients.max(2).saturating_sub(1);
    let letter = |at: usize| char::from(b'a' + ((at * 7 + client * 3 + round * 11 + at * at) % 26) as u8);
    let prompt: String = (0..length).map(letter).collect();
    json!({
        "model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": true,
        "stream_options": {"include_usage": true}, "logit_bias": {"256": -100},
    })
}

async fn stream(http: &reqwest::Client, url: &str, body: Value) -> Result<Stream, Box<dyn Error + Send + Sync>> {
    let started = Instant::now();
    let response = http.post(format!("{url}/completions")).json(&body).send().await?.error_for_status()?;
    let (mut bytes, mut text) = (response.bytes_stream(), String::new());
    let (mut first, mut tokens) = (None, None);
    while let Some(piece) = bytes.next().await {
        text.push_str(&String::from_utf8_lossy(&piece?));
        while let Some(end) = text.find("\n\n") {
            let event = text.drain(..end + 2).collect::<String>();
            let Some(data) = event.trim().strip_prefix("data: ").filter(|data| *data != "[DONE]") else { continue };
            let event: Value = serde_json::from_str(data)?;
            first.get_or_insert_with(|| started.elapsed());
            tokens = event["usage"]["completion_tokens"].as_u64().or(tokens);
        }
    }
    Ok(Stream { first: first.ok_or("a stream without events")?, tokens: tokens.ok_or("a stream without its usage")? })
}
