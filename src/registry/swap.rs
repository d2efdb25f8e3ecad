//! One model in the place of another, the old one serving on if the new one fails.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Error, Handle};
use crate::domain::ModelId;

/// How a swap went about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Both fit: the new one was ready before the old one left.
    LoadFirst,
    /// Only one fits: the old one left first.
    DrainFirst,
}

/// A swap that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swapped {
    pub strategy: Strategy,
    pub took: Duration,
}

/// Runs a swap through the registry's own face.
pub(super) async fn run(registry: &Handle, from: &ModelId, to: &ModelId) -> Result<Swapped, Error> {
    let started = Instant::now();
    let strategy = match registry.load(to, false).await {
        Ok(()) => {
            registry.unload(from).await?;
            Strategy::LoadFirst
        }
        Err(Error::NoRoom { .. }) => {
            drain_first(registry, from, to).await?;
            Strategy::DrainFirst
        }
        Err(error) => return Err(rolled_back(from, to, &error)),
    };
    Ok(Swapped { strategy, took: started.elapsed() })
}

async fn drain_first(registry: &Handle, from: &ModelId, to: &ModelId) -> Result<(), Error> {
    // Both at once, so that `to` is in line for the room before any request can ask for `from`.
    let (unloaded, loaded) = tokio::join!(registry.unload(from), registry.load(to, true));
    match unloaded.and(loaded) {
        Ok(()) => Ok(()),
        Err(error) => {
            registry.load(from, true).await?;
            Err(rolled_back(from, to, &error))
        }
    }
}

fn rolled_back(from: &ModelId, to: &ModelId, error: &Error) -> Error {
    Error::RolledBack { from: from.clone(), to: to.clone(), reason: error.to_string() }
}
