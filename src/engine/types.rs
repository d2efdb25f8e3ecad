//! The data that crosses the seam. Plain values; no behaviour but arithmetic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use decoding::{Dry, Grammar, Sampling};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::domain::ModelId;

/// Whether an engine can run a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    Yes,
    /// Why not, as a sentence for the person who wrote the registry file.
    No(String),
}

/// What to load, and for how much use.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    pub model: ModelId,
    /// The GGUF file.
    pub source: PathBuf,
    /// Its header's summary; `None` only for engines that read no file.
    pub summary: Option<Arc<gguf::Summary>>,
    /// Tokens a sequence may hold, prompt and answer together.
    pub context: u32,
    /// Sequences that may run at once.
    pub sequences: u32,
    /// For engines that can choose.
    pub kv_type: KvType,
}

/// What keys and values are kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// Half precision.
    #[default]
    F16,
    /// 8-bit codes, and a scale for every 32 of them.
    Q8_0,
}

/// Bytes by what they are for. Every number of it is in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Footprint {
    /// Weights that are pages of the file: shared between models, given back under pressure.
    pub weights_mapped: u64,
    /// Weights in memory of our own.
    pub weights_private: u64,
    /// Keys and values of all sequences at full context.
    pub kv: u64,
    /// Activations and other room that a step needs.
    pub scratch: u64,
    /// Tokenizer, vocabulary, rope and grammar tables.
    pub tables: u64,
}

impl Footprint {
    /// All lines together, saturating.
    pub fn total(&self) -> u64 {
        [self.weights_mapped, self.weights_private, self.kv, self.scratch, self.tables]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// What a loaded model can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Capabilities {
    /// Tokens a sequence may hold, prompt and answer together.
    pub context: u32,
    /// Sequences that truly run at once; what is beyond waits in the gateway's queue.
    pub sequences: u32,
    /// Whether the model has a chat template.
    pub chat: bool,
    /// Whether it tells log probabilities.
    pub logprobs: bool,
    /// Whether it holds answers to a grammar.
    pub grammar: bool,
}

impl Capabilities {
    /// Whether a request asks for no more than this.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] that names what is missing.
    pub fn admit(&self, request: &GenerateRequest) -> Result<(), Error> {
        let engine = "the engine of this model";
        if request.logprobs.is_some() && !self.logprobs {
            return Err(Error::invalid(
                format!("{engine} tells no log probabilities: leave `logprobs` out"),
                "logprobs",
            ));
        }
        if request.grammar.is_some() && !self.grammar {
            let message = format!("{engine} cannot hold an answer to a format or a grammar: leave it out");
            return Err(Error::invalid(message, "response_format"));
        }
        Ok(())
    }
}

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    pub text: String,
}

/// What the model is to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Rendered through the model's chat template.
    Chat(Vec<Message>),
    Text(String),
    Tokens(Vec<u32>),
}

/// One sequence to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    pub prompt: Prompt,
    /// Tokens to generate at most; without it, as many as the context has room for.
    pub max_tokens: Option<u32>,
    pub sampling: Sampling,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the answer and are not part of it, beside the model's own.
    pub stop_tokens: Vec<u32>,
    /// Tell the log probability of each token, and of so many of the likeliest ones beside it.
    pub logprobs: Option<u32>,
    /// What the answer must look like.
    pub grammar: Option<Grammar>,
}

impl GenerateRequest {
    /// A request with the defaults for all but the prompt.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            max_tokens: None,
            sampling: Sampling::default(),
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            logprobs: None,
            grammar: None,
        }
    }
}

/// What a token is to a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The bytes it adds to the text; they may be part of a character only.
    Text(Vec<u8>),
    /// It adds none; its name.
    Special(String),
}

/// A token and the natural logarithm of its probability, by the model itself: before bias,
/// penalties, grammar and temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprob {
    pub id: u32,
    pub piece: Piece,
    pub logprob: f32,
}

/// What is told of a generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    pub chosen: Logprob,
    /// The likeliest tokens, the likeliest first; as many as were asked for.
    pub top: Vec<Logprob>,
}

impl TokenLogprobs {
    /// With the pieces that a vocabulary has for the ids.
    pub fn new(id: u32, told: &decoding::TokenLogprobs, piece: impl Fn(u32) -> Piece) -> Self {
        let one = |id, logprob| Logprob { id, piece: piece(id), logprob };
        let top = told.top.iter().map(|(id, logprob)| one(*id, *logprob)).collect();
        Self { chosen: one(id, told.logprob), top }
    }
}

/// One thing that happened to a sequence, in the order prefill, tokens, finished.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenEvent {
    /// The prompt was read: `tokens` of it, of which `cached` came from an earlier request.
    Prefill { tokens: u32, cached: u32 },
    /// One generated token. Its text may be empty while a character is incomplete or while it may
    /// belong to a stop text.
    Token { id: u32, text: String, logprobs: Option<Box<TokenLogprobs>> },
    /// The end. `text` is what was still held back and turned out to belong to the answer.
    Finished { reason: FinishReason, text: String, usage: Usage, timings: Timings },
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FinishReason {
    /// The model ended its answer, or a stop text, a stop token or the grammar did.
    Stop,
    /// `max_tokens` or the context was used up.
    Length,
}

/// Tokens of one sequence. `completion` counts every token generated, the stop token included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt: u32,
    pub cached: u32,
    pub completion: u32,
}

/// Where a sequence's time went, inside the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// From acceptance to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

/// What a loaded model is doing, and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Stats {
    /// Sequences inside the engine.
    pub running: u32,
    pub waiting: u32,
    pub kv: KvBlocks,
    pub work: Work,
}

impl Stats {
    /// Whether no sequence is inside the engine.
    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }
}

/// Blocks of keys and values of one model; all 0 for engines that have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct KvBlocks {
    /// Held by sequences.
    pub used: u64,
    /// Kept for prefixes that may come again; free for whoever needs them.
    pub cached: u64,
    /// What the pool could hold for this model alone.
    pub total: u64,
}

/// Counted since the model was loaded; all 0 for engines that do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Work {
    /// Tokens of sequences that were let in, and how many of them were in the prefix cache.
    pub prefix_query_tokens: u64,
    pub prefix_hit_tokens: u64,
    /// Sequences put back to make room for others.
    pub preemptions: u64,
    pub steps: u64,
    /// Tokens of all steps, prompts and answers.
    pub tokens: u64,
}

impl Work {
    /// Both together, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            prefix_query_tokens: self.prefix_query_tokens.saturating_add(other.prefix_query_tokens),
            prefix_hit_tokens: self.prefix_hit_tokens.saturating_add(other.prefix_hit_tokens),
            preemptions: self.preemptions.saturating_add(other.preemptions),
            steps: self.steps.saturating_add(other.steps),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }
}

/// Whether an unload gave the memory back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    Yes,
    /// Something still holds it; the reason, for the operator. The bytes stay on the books.
    No(String),
}
