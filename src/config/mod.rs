//! The registry file, from text to a checked catalog.
//!
//! [`registry_file`] is what may be written; [`catalog`] is what it means once every path was
//! looked at and every default filled in; `declared` stands in for files that are not there;
//! [`schema`] is for editors, [`plan`] is the memory table of `pensieve validate`.
//! All problems are collected, each with its line, its YAML path and what to do.

pub mod catalog;
mod declared;
pub mod plan;
mod problem;
pub mod registry_file;
pub mod schema;

pub use catalog::{Catalog, Mode, ModelConfig, QueueConfig};
pub use problem::{Problem, Problems};
