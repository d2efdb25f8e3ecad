//! Asks one of the repository's models to turn a word round: `enots`.

use std::sync::mpsc::{Sender, channel};

use decoding::Sampling;
use paged_engine::{Engine, Event, LoadOptions, Options, Request, Sink};

struct Forward(Sender<Event>);

impl Sink for Forward {
    fn send(&mut self, event: Event) -> bool {
        self.0.send(event).is_ok()
    }

    fn is_closed(&self) -> bool {
        false
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/reverse.Q3_K_M.gguf");
    let engine = Engine::start(Options { kv_bytes: 64 << 20, ..Options::default() })?;
    let model = engine.load(file.as_ref(), LoadOptions { context: 1024, ..LoadOptions::default() })?;
    let prompt = model.tokenizer().encode("<|im_start|>user\nstone<|im_end|>\n<|im_start|>assistant\n");
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let (sender, events) = channel();
    model.generate(Request { prompt, max_tokens: 40, sampling, ..Request::default() }, Box::new(Forward(sender)))?;
    for event in events {
        match event {
            Event::Token { text, .. } => print!("{text}"),
            Event::Finished { text, .. } => println!("{text}"),
            Event::Failed(error) => return Err(error.into()),
            Event::Prefill { .. } => {}
        }
    }
    Ok(())
}
