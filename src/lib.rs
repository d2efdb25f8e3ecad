pub mod config;
pub mod domain;
pub mod engine;
pub mod gateway;
pub mod registry;
pub mod telemetry;
