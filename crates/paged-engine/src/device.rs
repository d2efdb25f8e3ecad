//! Where the numbers lie and are computed: the seam between the books and the tensors.
//!
//! Above it are sequences, blocks by their ids, batches and what is chosen; below it weights, keys
//! and values, kernels. Another device brings another implementation, and the same books.

mod cpu;

pub use cpu::Cpu;

use crate::Error;
use crate::kernels::Buffer;
use crate::kernels::team::Team;
use crate::kv::{BlockId, Layout};
use crate::model::{Batch, Decoder};

/// Computes the steps of every model, one step at a time.
pub trait Device: Send {
    /// Takes a model in. Steps name it by this key.
    fn add(&mut self, key: u64, decoder: Box<Decoder>, layout: Layout);

    /// Gives the memory of a model back; that of its blocks goes with [`Device::drop_blocks`].
    fn remove(&mut self, key: u64);

    /// Runs a step: writes keys and values of every token to its sequence's table, one for each
    /// sequence of the batch, and gives the logits of the rows that want them,
    /// `[wanted][vocabulary]`, in place of those of an earlier step.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; nothing of the step counts then.
    fn forward(&mut self, key: u64, batch: &Batch, tables: Vec<&[BlockId]>, logits: &mut Buffer) -> Result<(), Error>;

    /// Copies all numbers of blocks to others (from, to).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]
    fn copy(&mut self, key: u64, blocks: &[(BlockId, BlockId)]) -> Result<(), Error>;

    /// Gives the memory of these blocks back, of whichever model.
    fn drop_blocks(&mut self, blocks: &[BlockId]);

    /// The host's cores, for what is done to each sequence by itself.
    fn team(&mut self) -> &mut Team;

    /// Nothing will be computed for a while: memory that only steps need goes back.
    fn rest(&mut self);
}
