//! A decoder model: its shape as data ([`Config`]), its tensors, and one step over a batch
//! ([`Decoder::forward`]).

mod architecture;
mod config;
mod decoder;
mod forward;
mod keys;
mod layer;
mod rope;
mod rows;
mod workspace;

pub use architecture::{ARCHITECTURES, Activation, Architecture, Pairing};
pub use config::{Config, Temperature, supported};
pub use decoder::{Decoder, estimate};
pub use forward::Batch;
pub use rope::{Scaling, Yarn};
pub use workspace::Workspace;
