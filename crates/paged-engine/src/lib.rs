//! Continuous batching and PagedAttention for GGUF decoder models, on the CPU.
//!
//! A model's file is mapped, never copied; every tensor stays quantized. Sequences of any length
//! share each step, and their keys and values live in blocks of 16 tokens from one pool of bytes
//! that all models share. One thread owns all models; the cores work on one batch at a time.
//!
//! ```no_run
//! use paged_engine::{Engine, Event, LoadOptions, Options, Request, Sink};
//!
//! struct Forward(std::sync::mpsc::Sender<Event>);
//! impl Sink for Forward {
//!     fn send(&mut self, event: Event) -> bool { self.0.send(event).is_ok() }
//!     fn is_closed(&self) -> bool { false }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::start(Options { kv_bytes: 64 << 20, ..Options::default() })?;
//! let model = engine.load("model.gguf".as_ref(), LoadOptions { context: 1024, sequences: 20, ..LoadOptions::default() })?;
//! let prompt = model.tokenizer().encode("Once upon a time");
//! let request = Request { prompt, max_tokens: 32, ..Request::default() };
//! let (sender, events) = std::sync::mpsc::channel();
//! model.generate(request, Box::new(Forward(sender)))?;
//! // The channel closes behind the last event: the sequence is over then, and its sink dropped.
//! for event in events {
//!     match event {
//!         Event::Token { text, .. } | Event::Finished { text, .. } => print!("{text}"),
//!         Event::Failed(error) => return Err(error.into()),
//!         Event::Prefill { .. } => {}
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! Host bookkeeping ([`schedule`], [`sequence`], [`kv`]) knows no kernel; what touches numbers
//! ([`model`], [`kernels`], [`quant`]) knows no sequence. Between them is [`device`].

mod chat;
pub mod device;
mod engine;
mod error;
mod grammar;
pub mod kernels;
pub mod kv;
pub mod model;
pub mod quant;
mod resident;
mod run;
pub mod schedule;
pub mod sequence;
mod shared;
pub mod tokenizer;
pub mod weights;

pub use chat::Chat;
pub use engine::{Engine, LoadOptions, Model, Options};
pub use error::Error;
pub use kv::KvType;
pub use schedule::pace::MOST as MOST_PROMPT_TOKENS;
pub use sequence::{Event, Reason, Request, Sink, Timings};
pub use shared::Stats;
