//! Keys and values in blocks of 16 tokens, from one pool of bytes that all models share.
//!
//! The bookkeeping knows ids and no numbers: [`Blocks`] says who has which block and which may be
//! given up, [`Table`] is one sequence's share of it. The numbers lie in a [`Store`], found by id
//! as a [`Layout`] says. A device with memory of its own needs another store and the same books.

mod blocks;
mod layout;
mod prefix;
mod store;
mod table;
#[cfg(test)]
mod tests;

pub use blocks::{BlockId, Blocks, Owner, Use};
pub use layout::{KvType, LANES, Layout, SCALED};
pub use prefix::Link;
pub use store::{Plane, Step, Store};
pub use table::{Pool, Share, Table};

/// Tokens in a block.
pub const BLOCK: usize = 16;
