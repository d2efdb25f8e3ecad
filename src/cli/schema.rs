//! `pensieve schema`.

use clap::Args;

use super::Failure;
use crate::config::schema;

#[derive(Debug, Args)]
pub(super) struct Schema {}

impl Schema {
    pub fn run(self) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(&schema::document());
        println!("{}", json.map_err(|error| Failure::Internal(error.to_string()))?);
        Ok(())
    }
}
