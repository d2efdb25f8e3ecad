//! WHO IS LOADED: the models in memory, their states and the bytes on their books.
//!
//! One run loop ([`service`]) owns all of it; there are no locks and nobody reads a state in order
//! to act on it. The outside holds a [`Handle`]: it asks for a [`Lease`], a load, an unload or a
//! swap, and reads a [`View`]. What is decided is pure: [`state`] says which step may follow which,
//! [`ledger`] what is on the books, [`planner`] who has to go.
//!
//! The registry knows engines through the seam. It knows no gateway and no HTTP.

mod error;
mod handle;
mod lease;
pub mod ledger;
pub mod planner;
mod service;
pub mod state;
mod swap;
mod view;

pub use error::Error;
pub use handle::{Handle, start};
pub use lease::Lease;
pub use state::State;
pub use swap::{Strategy, Swapped};
pub use view::{ModelView, View};
