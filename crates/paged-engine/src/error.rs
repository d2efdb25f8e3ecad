//! What can go wrong, named so that a caller can act on it.

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file is broken or cannot be read.
    #[error("{0}")]
    File(String),
    /// The file is whole, but this engine does not run such a model.
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    InvalidRequest(String),
    /// The request's grammar is wrong, or too large.
    #[error("{0}")]
    Grammar(String),
    #[error("the context is {context} tokens; the prompt has {prompt} and {max_tokens} more were asked for")]
    ContextLength { prompt: usize, max_tokens: usize, context: usize },
    /// The system gives no memory, or the device has none left.
    #[error("no memory: {0}")]
    OutOfMemory(String),
    /// The model was unloaded.
    #[error("the model was unloaded")]
    Stopped,
    #[error("the engine failed: {0}")]
    Internal(String),
}

impl From<gguf::Error> for Error {
    fn from(error: gguf::Error) -> Self {
        Self::File(error.to_string())
    }
}
