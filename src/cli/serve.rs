//! `pensieve serve`: configuration first, ports second, requests last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;

use super::{Failure, Registry};
use crate::app::App;
use crate::config::Catalog;
use crate::shutdown::Signals;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    registry: Registry,
    /// Where the public API listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", env = "PENSIEVE_LISTEN")]
    listen: SocketAddr,
    /// Where admin API, health and metrics listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081", env = "PENSIEVE_ADMIN_LISTEN")]
    admin_listen: SocketAddr,
    /// How long running answers may take to finish when the server is told to stop.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, env = "PENSIEVE_DRAIN_TIMEOUT")]
    drain_timeout: Duration,
    /// Listen on addresses that other machines reach, although nobody is asked for a key.
    #[arg(long, env = "PENSIEVE_INSECURE")]
    insecure: bool,
}

impl Serve {
    pub fn run(self) -> Result<(), Failure> {
        self.refuse_open_doors()?;
        let catalog = Arc::new(self.registry.catalog()?);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.map_err(|error| Failure::Internal(format!("no runtime: {error}")))?.block_on(self.serve(catalog))
    }

    /// Requests carry no keys yet, so only this machine may be served unless somebody insists.
    fn refuse_open_doors(&self) -> Result<(), Failure> {
        match [self.listen, self.admin_listen].iter().find(|address| !address.ip().is_loopback()) {
            Some(open) if !self.insecure => Err(Failure::Configuration(format!(
                "{open} is reachable from other machines and no key is asked for: listen on 127.0.0.1, \
                 or accept it with --insecure"
            ))),
            _ => Ok(()),
        }
    }

    async fn serve(self, catalog: Arc<Catalog>) -> Result<(), Failure> {
        let signals = Signals::new().map_err(|error| Failure::Internal(format!("no signal handlers: {error}")))?;
        let (public, admin) = (bind(self.listen, "--listen").await?, bind(self.admin_listen, "--admin-listen").await?);
        let app = App::start(catalog).map_err(|error| Failure::Internal(error.to_string()))?;
        let bound = |listener: &TcpListener, asked| listener.local_addr().unwrap_or(asked);
        let (api, admin_api) = (bound(&public, self.listen), bound(&admin, self.admin_listen));
        tracing::info!(%api, admin = %admin_api, "listening");
        app.serve(public, admin, signals, self.drain_timeout).await;
        Ok(())
    }
}

async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::Internal(format!("cannot listen on {address} ({error}): choose another address with {flag}"))
    })
}
