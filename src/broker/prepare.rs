//! What connections need when they end, made while there is everything to make it of. Called by
//! `app::run` at the start, before the first connection.
//!
//! # Invariants
//! - A process that is out of descriptors when its first connection ends opens the next one all
//!   the same, once it has some (tests/it/outages.rs,
//!   `descriptors_that_run_out_end_no_connection_for_good`).

use std::io;
use std::thread;

/// Has async-compat, which lapin reads and writes sockets by, make its runtime.
///
/// It does so when it first drops a socket on a thread of lapin. Where that fails, as it does
/// without a free descriptor, it panics, then and at the end of each connection from then on: a
/// `once_cell::sync::Lazy` whose initialiser has panicked stays poisoned.
///
/// # Errors
/// When it cannot be made. Connections cannot be had then, until the process is started anew.
pub fn prepare() -> io::Result<()> {
    // On a thread that belongs to no runtime: on others it takes theirs.
    let made = thread::Builder::new()
        .name("prepare".to_owned())
        .spawn(|| drop(async_compat::Compat::new(())))?;
    made.join()
        .map_err(|_| io::Error::other("the runtime of connections with RabbitMQ cannot be made"))
}
