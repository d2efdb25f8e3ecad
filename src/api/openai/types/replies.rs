//! What goes out: whole answers, chunks of streams, models.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// A whole answer of the chat endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    #[schema(example = "chatcmpl-01930f6e")]
    pub id: String,
    /// Always `chat.completion`.
    pub object: &'static str,
    /// Unix seconds.
    pub created: u64,
    pub model: String,
    pub choices: Vec<ChatChoice>,
    pub usage: UsageBody,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    pub index: u32,
    pub message: AssistantMessage,
    pub logprobs: Option<ChatLogprobs>,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AssistantMessage {
    pub role: &'static str,
    pub content: String,
    pub refusal: Option<()>,
}

/// Log probabilities of a chat answer: natural logarithms, by the model itself, before bias,
/// penalties, format and temperature.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatLogprobs {
    pub content: Vec<ChatTokenLogprob>,
    pub refusal: Option<()>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChatTokenLogprob {
    /// The token's text, with U+FFFD for what is no whole character.
    pub token: String,
    pub logprob: f32,
    pub bytes: Vec<u8>,
    /// The likeliest tokens at this place, the likeliest first.
    pub top_logprobs: Vec<TopLogprob>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TopLogprob {
    pub token: String,
    pub logprob: f32,
    pub bytes: Vec<u8>,
}

/// Log probabilities of a completion, in lists of one length.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    /// The tokens' texts, as `bytes:\\x..` where they are no whole characters.
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<f32>,
    /// The likeliest tokens at each place, and the chosen one.
    pub top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Characters of the answer before each token.
    pub text_offset: Vec<usize>,
}

/// A whole answer of the completions endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct Completion {
    pub id: String,
    /// Always `text_completion`.
    pub object: &'static str,
    /// Unix seconds.
    pub created: u64,
    pub model: String,
    /// One choice in a chunk; none in the chunk that holds the usage.
    pub choices: Vec<CompletionChoice>,
    /// Absent in chunks without `include_usage`, null in those before the last with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<UsageBody>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CompletionChoice {
    pub index: u32,
    pub text: String,
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`; null until the end.
    pub finish_reason: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct UsageBody {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    pub total_tokens: u32,
    pub prompt_tokens_details: PromptTokensDetails,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Prompt tokens that did not have to be computed again.
    pub cached_tokens: u32,
}

/// A chunk of a streamed chat answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChunk {
    pub id: String,
    /// Always `chat.completion.chunk`.
    pub object: &'static str,
    /// Unix seconds.
    pub created: u64,
    pub model: String,
    /// One choice; none in the chunk that holds the usage.
    pub choices: Vec<ChunkChoice>,
    /// Absent without `include_usage`; null but in the last chunk with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<UsageBody>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChunkChoice {
    pub index: u32,
    pub delta: Delta,
    pub logprobs: Option<ChatLogprobs>,
    /// `stop` or `length`; null until the end.
    pub finish_reason: Option<&'static str>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// A model, with what OpenAI says of one and what this server knows beside.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelObject {
    #[schema(example = "reverse")]
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// Unix seconds; when the server started.
    pub created: u64,
    pub owned_by: &'static str,
    pub description: Option<String>,
    pub aliases: Vec<String>,
    /// `unloaded`, `loading`, `ready`, `draining`, `unloading` or `failed`. A request loads it.
    pub state: &'static str,
    pub engine: &'static str,
    /// Tokens a conversation may hold, prompt and answer together.
    pub context: u32,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// Always `list`.
    pub object: &'static str,
    pub data: Vec<ModelObject>,
}
