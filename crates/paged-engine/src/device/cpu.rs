//! The processor: weights where their file is mapped, blocks in the machine's memory.

use std::collections::BTreeMap;

use super::Device;
use crate::Error;
use crate::kernels::team::Team;
use crate::kernels::{Buffer, Kernels};
use crate::kv::{BlockId, Layout, Step, Store};
use crate::model::{Batch, Decoder, Workspace};

#[derive(Debug)]
pub struct Cpu {
    models: BTreeMap<u64, (Box<Decoder>, Layout)>,
    store: Store,
    workspace: Workspace,
}

impl Cpu {
    pub fn new(team: Team, kernels: Kernels) -> Self {
        Self { models: BTreeMap::new(), store: Store::default(), workspace: Workspace::new(team, kernels) }
    }

    /// Blocks that have memory.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.store.held()
    }
}

impl Device for Cpu {
    fn add(&mut self, key: u64, decoder: Box<Decoder>, layout: Layout) {
        self.models.insert(key, (decoder, layout));
    }

    fn remove(&mut self, key: u64) {
        self.models.remove(&key);
    }

    fn forward(&mut self, key: u64, batch: &Batch, tables: Vec<&[BlockId]>, logits: &mut Buffer) -> Result<(), Error> {
        let Some((decoder, layout)) = self.models.get(&key) else { return Err(Error::Stopped) };
        tables.iter().try_for_each(|blocks| self.store.provide(layout, blocks))?;
        let mut step = Step::new(&mut self.store, *layout, tables);
        let computed = decoder.forward(&mut self.workspace, batch, &mut step);
        self.workspace.give(std::mem::replace(logits, computed));
        Ok(())
    }

    fn copy(&mut self, key: u64, blocks: &[(BlockId, BlockId)]) -> Result<(), Error> {
        let Some((_, layout)) = self.models.get(&key) else { return Err(Error::Stopped) };
        blocks.iter().try_for_each(|(from, to)| self.store.copy(layout, *from, *to))
    }

    fn drop_blocks(&mut self, blocks: &[BlockId]) {
        self.store.drop_blocks(blocks);
    }

    fn team(&mut self) -> &mut Team {
        &mut self.workspace.team
    }

    fn rest(&mut self) {
        self.workspace.rest();
    }
}
