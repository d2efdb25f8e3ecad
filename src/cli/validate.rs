//! `pensieve validate`.

use clap::Args;

use super::{Failure, Registry};
use crate::config::plan;

#[derive(Debug, Args)]
pub(super) struct Validate {
    #[command(flatten)]
    registry: Registry,
}

impl Validate {
    pub fn run(self) -> Result<(), Failure> {
        let catalog = self.registry.plan()?;
        print!("{}", plan::table(&catalog));
        Ok(())
    }
}
