//! What goes over the wire.

mod prompts;
mod replies;
mod requests;

pub use prompts::{ChatMessage, ChatRole, Content, PromptInput};
pub use replies::{
    AssistantMessage, ChatChoice, ChatChunk, ChatCompletion, ChatLogprobs, ChatTokenLogprob, ChunkChoice, Completion,
    CompletionChoice, CompletionLogprobs, Delta, ModelList, ModelObject, PromptTokensDetails, TopLogprob, UsageBody,
};
pub use requests::{ChatRequest, CompletionRequest, Guided, Options, ResponseFormat, SchemaFormat};
