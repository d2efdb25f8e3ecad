//! The admin API: which models are in memory, what they take, and moving them in and out.

pub mod models;
pub mod status;
pub mod swap;
mod types;
