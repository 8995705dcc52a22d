//! From messages to rows: the consumers of the broker's queues, and the pump that
//! does the same from the journal where there is no broker. Called by `app`.
//!
//! # Invariants
//! - A message is acknowledged, and a cursor moved, after the sink said that the
//!   rows are committed or after what it refused is safe elsewhere.
//! - A sink that is down holds everything and spends no attempts; what a sink
//!   refuses is split off until the refused row alone is set aside.
//! - A handler that panics refuses one message; the worker goes on.

mod batch;
mod consumer;
mod deliver;
mod direct;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod handlers;
mod in_hand;
mod intake;
mod launches;
mod part;
mod publisher;
mod replay;
mod webhooks;
mod window;
mod worker;

pub use consumer::Consumers;
pub use direct::Direct;
pub use publisher::SafePublisher;
pub use replay::{Replayed, into_sink};
pub use webhooks::Taker;
