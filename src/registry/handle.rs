//! The face of the registry: cheap to clone, held by the gateway and the admin API.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::service::{Command, Service};
use super::{Error, Lease, Swapped, View};
use crate::config::Catalog;
use crate::domain::ModelId;
use crate::telemetry::Metrics;

/// Commands that may wait for the loop; a full channel makes callers wait, not the loop.
const COMMANDS: usize = 256;

/// Starts the registry's loop on `tasks`. It preloads at once and ends, with every model
/// unloaded, when `shutdown` is cancelled.
pub fn start(catalog: &Catalog, metrics: Arc<Metrics>, tasks: &TaskTracker, shutdown: CancellationToken) -> Handle {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let (service, view) = Service::new(catalog, metrics, commands, sender.downgrade(), tasks.clone(), shutdown);
    tasks.spawn(service.run());
    Handle { commands: sender, view }
}

#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<View>,
}

impl Handle {
    pub(super) fn new(commands: mpsc::Sender<Command>, view: watch::Receiver<View>) -> Self {
        Self { commands, view }
    }

    /// The right to use a model, once it is loaded; loads it if need be. Dropping the future
    /// takes the wish back.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::NeverFits`], [`Error::UnknownModel`]; waits while models in use
    /// hold the room, so callers bring a deadline.
    pub async fn lease(&self, model: &ModelId) -> Result<Lease, Error> {
        self.ask(|reply| Command::Lease { model: model.clone(), reply }).await
    }

    /// Loads a model, with idle ones evicted for it if `evict` says so. A loaded one is fine.
    ///
    /// # Errors
    /// As [`Handle::lease`]; [`Error::NoRoom`] without `evict`.
    pub async fn load(&self, model: &ModelId, evict: bool) -> Result<(), Error> {
        self.ask(|reply| Command::Load { model: model.clone(), evict, reply }).await
    }

    /// Unloads a model once its requests are done (or its drain timeout is over), and returns when
    /// its memory is back.
    ///
    /// # Errors
    /// [`Error::Illegal`] if it is not loaded, [`Error::Failed`] if the memory did not come back.
    pub async fn unload(&self, model: &ModelId) -> Result<(), Error> {
        self.ask(|reply| Command::Unload { model: model.clone(), reply }).await
    }

    /// Puts `to` in the place of `from`. Goes on when the caller leaves.
    ///
    /// # Errors
    /// [`Error::Illegal`] unless `from` is ready and `to` is not, [`Error::SwapRunning`],
    /// [`Error::RolledBack`].
    pub async fn swap(&self, from: &ModelId, to: &ModelId) -> Result<Swapped, Error> {
        self.ask(|reply| Command::Swap { from: from.clone(), to: to.clone(), reply }).await
    }

    /// The registry as it is now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Changes of the view, for those who wait for one.
    pub fn changes(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::ShuttingDown)?;
        answer.await.unwrap_or(Err(Error::ShuttingDown))
    }
}
