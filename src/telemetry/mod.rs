//! How the service is seen from outside: metrics, logs, reports of errors. A leaf: every part
//! calls it, it calls none.

pub mod catalogue;
pub mod log;
pub mod metrics;
pub mod news;
pub mod sentry;
mod sink_away;
mod stderr;
pub mod vitals;

pub use metrics::Metrics;
pub use news::{Absence, Board, News, Waiter};
pub use sentry::FOLLOWS_PANIC;
pub use sink_away::{SinkAway, TableHeld};
pub use vitals::{Trouble, Vital};
