//! From the journal to RabbitMQ. Called by `app`.
//!
//! # Invariants
//! - A message counts as delivered only when the broker confirmed it and did not
//!   return it; one that no queue takes counts when the error exchange has it, or
//!   at last the dead letters.
//! - The cursor moves over the contiguous prefix of requests whose messages all
//!   count (test `the_cursor_moves_over_the_contiguous_prefix`).
//! - Where a queue is on one node, a confirm counts once that was seen to be up after it
//!   (`proof`), and nothing goes to an exchange of a queue that is away (`held`).
//! - Where there is a backlog, fresh requests go ahead of it in a lane of their own, and
//!   the cursor keeps what was delivered of each (`lanes`).
//! - After any loss of the connection everything behind the cursor is sent again;
//!   nothing is skipped. It reconnects for ever.
//! - Where an operator allows it, the messages of one read that go to the same queues are joined
//!   (`coalesce`). Such a message is delivered when all its documents are; one that no queue takes
//!   is taken apart, and each document goes on as a message of its own
//!   (tests/it/coalesced.rs).
//! - In memory: one read of the journal for each lane, and the confirm window, which is bounded
//!   by bytes, too (`sent`).

mod coalesce;
mod depth;
mod flight;
mod gather;
mod held;
mod landing;
mod lanes;
mod outgoing;
mod proof;
mod pump;
mod reading;
mod sent;

pub use coalesce::Coalescing;
pub use outgoing::ErrorRoute;
pub use pump::{Forwarder, Options};
