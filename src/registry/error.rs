//! Why the registry does not do what it was asked.

use crate::domain::{Bytes, ModelId};
use crate::registry::state::State;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no model `{0}`")]
    UnknownModel(String),
    #[error("model `{model}` is {state}: it cannot {wish} now")]
    Illegal { model: ModelId, state: State, wish: &'static str },
    #[error(
        "model `{model}` needs {}, and at most {} of the budget of {} can be made free: raise memory.budget, or unpin \
         a model", Bytes::b(*needed), Bytes::b(*free_at_most), Bytes::b(*budget)
    )]
    NeverFits { model: ModelId, needed: u64, free_at_most: u64, budget: u64 },
    #[error("model `{model}` needs {} and {} is free without evicting another", Bytes::b(*needed), Bytes::b(*free))]
    NoRoom { model: ModelId, needed: u64, free: u64 },
    #[error("model `{model}` failed: {reason}")]
    Failed { model: ModelId, reason: String },
    #[error("another swap is running")]
    SwapRunning,
    #[error("swap of `{from}` to `{to}` failed and was rolled back: {reason}")]
    RolledBack { from: ModelId, to: ModelId, reason: String },
    #[error("the server is shutting down")]
    ShuttingDown,
}
