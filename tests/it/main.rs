//! Tests through the public face, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod admin;
#[cfg(feature = "mistralrs")]
mod agreement;
mod architecture;
mod cancellation;
mod chat;
mod cli;
mod completions;
mod contract;
#[cfg(feature = "mistralrs")]
mod demo_models;
mod engines;
mod errors;
mod extras;
mod faults;
mod fleet;
mod health;
#[cfg(feature = "mistralrs")]
mod mistralrs;
mod models;
mod openapi;
mod registry_file;
mod schema;
mod shutdown;
mod streaming;
mod support;
