//! Why a request was not taken up.

use std::time::Duration;

use crate::engine;
use crate::registry;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("there is no model `{name}`; there are {}", known.join(", "))]
    UnknownModel { name: String, known: Vec<String> },
    #[error("{depth} requests wait for this model already, which is as many as may")]
    QueueFull { depth: usize, retry_after: Duration },
    #[error("the request waited {} for its turn, which is as long as it may", humantime::format_duration(*waited))]
    QueueTimeout { waited: Duration, retry_after: Duration },
    #[error("the model is {state}; the request waited {} for it", humantime::format_duration(*waited))]
    Loading { state: &'static str, waited: Duration, retry_after: Duration },
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
}

impl Error {
    /// The short name under which clients, logs and metrics know it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. } | Self::Registry(registry::Error::UnknownModel(_)) => "model_not_found",
            Self::QueueFull { .. } => "queue_full",
            Self::QueueTimeout { .. } => "queue_timeout",
            Self::Loading { .. } => "model_loading",
            Self::ShuttingDown | Self::Registry(registry::Error::ShuttingDown) => "shutting_down",
            Self::Registry(registry::Error::NeverFits { .. } | registry::Error::NoRoom { .. }) => "model_cannot_fit",
            Self::Registry(registry::Error::Failed { .. }) => "model_failed",
            Self::Registry(_) => "conflict",
            Self::Engine(engine::Error::ContextLength { .. }) => "context_length_exceeded",
            Self::Engine(engine::Error::InvalidRequest { .. }) => "invalid_value",
            Self::Engine(_) => "engine_error",
        }
    }
}
