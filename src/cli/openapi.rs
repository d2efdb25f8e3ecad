//! `pensieve openapi`.

use clap::Args;

use super::Failure;
use crate::api::openapi::{admin_document, public_document};

#[derive(Debug, Args)]
pub(super) struct OpenApi {
    /// The admin listener's document instead of the public one.
    #[arg(long)]
    admin: bool,
}

impl OpenApi {
    pub fn run(self) -> Result<(), Failure> {
        let document = if self.admin { admin_document() } else { public_document() };
        let json = document.to_pretty_json().map_err(|error| Failure::Internal(error.to_string()))?;
        println!("{json}");
        Ok(())
    }
}
