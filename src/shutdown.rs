//! Being told to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Requests to stop. The first begins the drain, the second ends it.
#[derive(Debug)]
pub enum Signals {
    /// SIGTERM and SIGINT of this process.
    Process { terminate: Signal, interrupt: Signal },
    /// Somebody in the same process.
    Channel(mpsc::Receiver<()>),
}

impl Signals {
    /// Listens to the process's signals from now on.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self::Process { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Completes with the next request. A channel whose sender is gone never asks.
    pub async fn next(&mut self) {
        match self {
            Self::Process { terminate, interrupt } => {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            }
            Self::Channel(stops) => {
                if stops.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}
