//! pensieve: many small language models, or one model for many users, from one process.
//!
//! ```text
//! main → cli → app → api → gateway → registry → engine
//! ```
//!
//! The arrows never turn back. [`api`] speaks HTTP and knows no engine; [`gateway`] decides who
//! goes where and [`registry`] who is loaded, and both know nothing of HTTP; [`engine`] is the
//! seam, and `mistralrs` is written nowhere but behind it. [`domain`] and [`telemetry`] are leaves.
//! `tests/it/architecture.rs` keeps it so; `ARCHITECTURE.md` walks along a request's road.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
pub mod gateway;
pub mod registry;
pub mod shutdown;
pub mod telemetry;
