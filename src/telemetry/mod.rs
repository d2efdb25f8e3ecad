//! What operators see: metrics and logs. A leaf: everybody may use it, it uses nobody.

pub mod logging;
pub mod metrics;

pub use metrics::Metrics;
