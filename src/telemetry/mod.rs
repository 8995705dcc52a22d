//! How the service is seen from outside: metrics, logs, reports of errors. A leaf: every part
//! calls it, it calls none.

pub mod catalogue;
pub mod log;
pub mod metrics;
pub mod sentry;
pub mod vitals;

pub use metrics::{Metrics, SinkAway};
pub use sentry::FOLLOWS_PANIC;
pub use vitals::{Trouble, Vital};
