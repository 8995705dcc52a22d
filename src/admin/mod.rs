//! What an operator may ask of the running service and change in its journal:
//! the admin socket, and what a change does wherever it is made. Called by `app`
//! (serve) and by the `cli` (ask, change a directory that no service uses).
//!
//! ```text
//! GET  /status          everything that `holdfast status` shows
//! GET  /ledger          the ways out and their accounts alone
//! POST /drain           the doors refuse everything, until all is delivered
//! POST /pace            how fast the log goes out: shown, and changed
//! POST /reload          the configuration is loaded anew
//! POST /drill           an outage is played, where that is allowed
//! POST /journal/skip    one way out passes records over
//! POST /journal/purge   ways out pass records over, or a quarantined generation goes
//! ```
//! A page for browsers is served beside it, which only shows (`page`).
//! Changes of the journal are dry runs unless the body says `"apply": true`.
//!
//! # Invariants
//! - The socket is the owner's alone (mode 0600), and each change is put down to
//!   the user that the kernel names for its connection (tests in `listener`,
//!   `a_change_is_in_the_audit_before_and_after_it`).
//! - A change that cannot be written to the audit is not made (test
//!   `without_an_audit_nothing_is_changed`).
//! - Only the owner of the data directory's lock changes the journal: the running
//!   service, or this process when there is none (test
//!   `nobody_changes_the_journal_behind_a_running_service`).

mod app;
mod audit;
mod change;
mod client;
mod connection;
mod forecast;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod history;
mod listener;
mod page;
mod request;
mod serve;
mod status;
mod switches;

pub use app::{Options, Serving};
pub use audit::{Audit, Intent, OpenLine, Who};
pub use change::{ChangeError, Ground, change};
pub use client::{CallError, get, post};
pub use page::PageOptions;
pub use request::{
    Change, DrainRequest, DrillRequest, Move, Outcome, PaceAnswer, PaceRequest, PurgeRequest,
    ReloadError, ReloadRequest, Reloaded, Removed, SkipRequest,
};
pub use serve::Admin;
pub use status::{
    Account, AckLatency, Acks, Counts, Disk, Ledger, Part, Place, Rates, State, Status, Trouble,
    Way, WayRate, counts,
};
