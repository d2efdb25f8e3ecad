//! `pensieve validate`.

use clap::Args;

use super::{Failure, Registry};
use crate::config::{Catalog, plan};

#[derive(Debug, Args)]
pub(super) struct Validate {
    #[command(flatten)]
    registry: Registry,
}

impl Validate {
    pub fn run(self) -> Result<(), Failure> {
        let catalog = Catalog::read(&self.registry.file, &super::engines()?)?;
        print!("{}", plan::table(&catalog));
        Ok(())
    }
}
