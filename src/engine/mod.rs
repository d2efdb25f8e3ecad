//! THE SEAM: what the house asks of something that runs models.
//!
//! An [`Engine`] turns a GGUF file into a [`LoadedModel`]; a loaded model turns a
//! [`GenerateRequest`] into a [`TokenStream`]. Registry and gateway know these traits and nothing
//! behind them; one contract suite (`tests/it/contract.rs`) holds every engine to them.
//!
//! Engines know no HTTP, no queue and no budget. They are asked for an estimate before a load and
//! for the measured footprint after it, and they say when the memory is really back.

pub mod chat_template;
mod choice;
mod error;
pub mod fake;
#[cfg(feature = "mistralrs")]
pub mod mistralrs;
pub mod paged;
mod stream;
mod types;

use std::sync::Arc;

use async_trait::async_trait;

pub use choice::{Choice, Engines};
pub use error::Error;
pub use stream::{TokenSink, TokenStream, token_channel};
pub use types::{
    Capabilities, Dry, FinishReason, Footprint, GenerateRequest, Grammar, KvBlocks, KvType, LoadSpec, Logprob, Message,
    Piece, Prompt, Released, Role, Sampling, Stats, Support, Timings, TokenEvent, TokenLogprobs, Usage, Work,
};

/// Something that can load models.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// The name the registry file and the status pages use, for example `mistralrs`.
    fn name(&self) -> &'static str;

    /// Whether this engine can run a model of this shape, judged by its header.
    fn supports(&self, model: &gguf::Summary) -> Support;

    /// What a load would take, computed from the header alone; nothing is read or allocated.
    fn estimate(&self, spec: &LoadSpec) -> Footprint;

    /// Bytes that one token's keys and values take in a pool that all models of this engine share; 0
    /// where each model has its own.
    fn pooled_per_token(&self, _spec: &LoadSpec) -> u64 {
        0
    }

    /// Loads a model. Long and partly blocking work runs on threads of its own; dropping the
    /// future gives the memory back.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Load`] (the file is not what its header promised) or
    /// [`Error::OutOfMemory`]. A panic inside the engine is an [`Error::Load`] too.
    async fn load(&self, spec: LoadSpec) -> Result<Arc<dyn LoadedModel>, Error>;
}

/// A model in memory.
#[async_trait]
pub trait LoadedModel: Send + Sync + 'static {
    /// Bytes it really holds, as far as the engine can measure them.
    fn footprint(&self) -> Footprint;

    /// What it truly does; the API refuses what is not here.
    fn capabilities(&self) -> Capabilities;

    /// Token ids of `text`. Special tokens in the text are recognised.
    ///
    /// # Errors
    /// [`Error::Internal`] if the tokenizer fails.
    fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error>;

    /// The text of these ids, special tokens left out.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for an id outside the vocabulary.
    fn detokenize(&self, tokens: &[u32]) -> Result<String, Error>;

    /// The prompt that the model's chat template makes of `messages`, ending where the assistant
    /// is to speak.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] with the template's own words if it refuses the messages.
    fn render_chat(&self, messages: &[Message]) -> Result<String, Error>;

    /// Starts one sequence. Returns once the request is accepted; tokens follow in the stream,
    /// which ends with exactly one [`TokenEvent::Finished`] or one error. Dropping the stream
    /// cancels: the sequence stops at its next step and everything it held is free.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] or [`Error::ContextLength`] before anything has started.
    async fn generate(&self, request: GenerateRequest) -> Result<TokenStream, Error>;

    /// What it is doing at this moment, and has done since it was loaded. Cheap, and wakes nothing.
    fn stats(&self) -> Stats;

    /// Stops the model and returns when its memory is back, or says that it is not. Sequences
    /// still running end with an error.
    async fn unload(&self) -> Released;
}
