//! What can go wrong behind the seam, in terms a caller can act on.

/// An engine's failure. The API alone decides which status code each one is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The caller asked for something that cannot be; `param` names the field, where there is one.
    #[error("{message}")]
    InvalidRequest { message: String, param: Option<&'static str> },
    #[error(
        "this model's context is {context} tokens; the prompt has {prompt} and {max_tokens} more were asked for: \
         shorten the prompt or lower max_tokens"
    )]
    ContextLength { prompt: u64, max_tokens: u64, context: u64 },
    /// The engine cannot run this model at all.
    #[error("{0}")]
    Unsupported(String),
    #[error("loading failed: {0}")]
    Load(String),
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The model was unloaded, or its engine ended, while the sequence ran.
    #[error("the model stopped while it was generating")]
    Stopped,
    #[error("the engine failed: {0}")]
    Internal(String),
}

impl Error {
    pub fn invalid(message: impl Into<String>, param: &'static str) -> Self {
        Self::InvalidRequest { message: message.into(), param: Some(param) }
    }
}
