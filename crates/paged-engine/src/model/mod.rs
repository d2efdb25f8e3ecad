//! A decoder model: its shape as data ([`Config`]), its tensors, and one step over a batch
//! ([`Decoder::forward`]).

mod config;
mod forward;

pub use config::{Config, supported};
pub use forward::{Batch, Decoder};
