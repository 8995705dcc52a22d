//! How the service is seen from outside: metrics and logs. A leaf: every part
//! calls it, it calls none.

pub mod log;
pub mod metrics;

pub use metrics::Metrics;
