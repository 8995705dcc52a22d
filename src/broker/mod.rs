//! RabbitMQ: sessions, topology, confirmed publishing and consuming.
//!
//! Called by the two pumps (`forward`, `consume`), by the operator's commands that look at queues,
//! and by `app`, which builds one [`Broker`] from the configuration. lapin is named below this
//! folder only, and none of its types is visible outside.
//!
//! A publisher and a consumer need a [`Session`] each: under a memory or disk alarm RabbitMQ stops
//! reading from a connection that published, and acknowledgements on it would wait as well.
//!
//! # Invariants
//! - Nothing here reconnects behind the caller's back: a lost [`Session`] stays lost, everything
//!   on it ends with an error that says so, and the caller opens the next one
//!   (`a_broker_killed_under_a_window_of_publishes_loses_only_what_was_not_confirmed`).
//! - Every wait on the broker has an end (`a_frozen_broker_...`), and an end that was forced closes
//!   the socket, so that neither a thread nor a socket of lapin outlives its session
//!   (`attempts_on_a_frozen_broker_leave_no_threads_behind`).
//! - No password is in any error, log line or `Debug` text
//!   (`a_wrong_password_is_an_error_without_the_password`).

mod browse;
mod collect;
mod connection;
mod consume;
mod declare;
mod documents;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod message;
mod options;
mod parcel;
mod prepare;
mod publish;
mod refusals;
mod returns;
mod session;
mod settle;
mod setup;
mod shallow;
mod topology;
mod wire;

pub use browse::{BrowseError, Browser, Depth, Held, depth};
pub use connection::{Broker, ConnectError};
pub use consume::{ConsumeError, Delivery, Subscription};
pub use declare::declare;
pub use message::{HeaderValue, Headers, Message, Opaque, OtherProperties};
pub use options::{Options, OptionsError};
pub use prepare::prepare;
pub use publish::{Confirm, Outcome, PublishError, PublishOptions, Publisher};
pub use session::{Session, SessionState};
pub use settle::{Acker, SettleError, Tag};
pub use setup::{Declared, Setup};
pub use topology::{
    Binding, DeclareMode, Exchange, ExchangeKind, Object, Queue, QueueType, Topology,
    TopologyError, Trouble, Warning,
};

use std::time::Duration;

/// How long one question to the broker (open a channel, declare, bind, cancel) may take. A healthy
/// broker answers in milliseconds, a quorum queue that elects its leader in a few seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long a graceful close may take before the socket is shut under it.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The broker's code for something that does not exist.
const NOT_FOUND: u16 = 404;

/// The code and the text with which the broker refused something, if it was the broker that did.
fn broker_reply(error: &lapin::Error) -> Option<(u16, String)> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => {
            Some((error.get_id(), error.get_message().to_string()))
        }
        _ => None,
    }
}
