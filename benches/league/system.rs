//! What a member of the league is: something that takes payloads and acknowledges them.
//! Implemented by one file for each kind of server, called by `main` and `trace`.
//!
//! # Invariants
//! - `send` returns `Ok` only for what the system itself says of an acknowledged payload: a
//!   confirm that is no nack, a commit, an id. Everything else is an error.
//! - Data is only in the directory that `start` is given, and the process is guarded: it
//!   ends with this one.

use async_trait::async_trait;
use bytes::Bytes;
use std::path::Path;

/// What is expected of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// An acknowledgement means that the payload was synced. The trace must agree.
    Synced,
    /// It does not, as configured.
    Unsynced,
    /// It stores nothing.
    StoresNothing,
}

/// A kind of server with its configuration.
#[async_trait]
pub(crate) trait System: Send + Sync {
    /// In the table, and for `--only`.
    fn name(&self) -> &'static str;

    /// What its row says about it.
    fn about(&self) -> String;

    /// What is expected of it.
    fn promise(&self) -> Promise;

    /// Payloads that one acknowledgement covers, by its configuration.
    fn payloads_per_ack(&self) -> usize {
        1
    }

    /// What `strace` shows of the write of an acknowledgement, and of no other one.
    fn ack_text(&self) -> &'static str;

    /// Starts it in an empty directory, and waits until it takes payloads.
    async fn start(&self, dir: &Path) -> anyhow::Result<Box<dyn Server>>;

    /// The same, as a process that can be traced.
    async fn start_traceable(&self, dir: &Path) -> anyhow::Result<Box<dyn Server>> {
        self.start(dir).await
    }
}

/// One that runs. Dropping it kills its process and waits for its end.
#[async_trait]
pub(crate) trait Server: Send + Sync {
    /// Where it takes payloads, and what its process is; absent for what is part of this one.
    fn traced(&self) -> Option<Traced>;

    /// As many clients, each with one acknowledgement to wait for at a time.
    async fn senders(&self, count: usize) -> anyhow::Result<Vec<Box<dyn Sender>>>;

    /// How many payloads are stored, by its own account; absent where nothing is stored.
    async fn stored(&self) -> anyhow::Result<Option<u64>>;
}

/// What a trace needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traced {
    /// The process; its descendants are traced, too.
    pub(crate) pid: u32,
    /// Its port for payloads.
    pub(crate) port: u16,
}

/// A client that waits for each of its acknowledgements.
#[async_trait]
pub(crate) trait Sender: Send {
    /// Sends payloads, and returns when they are acknowledged.
    async fn send(&mut self, payloads: &[Bytes]) -> anyhow::Result<()>;
}
