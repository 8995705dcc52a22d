//! Keeps the process's memory from others: it holds events and secrets. Called by `app::run`
//! before anything else, and by `cli` for the other commands.
//!
//! # Invariants
//! - The service can neither be dumped nor looked into, unless the configuration says so; a
//!   command cannot be dumped (tests/it/outward/memory.rs).

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::process::{getrlimit, set_dumpable_behavior, setrlimit};

/// No core dump is written, and no other process of our user may look into this one
/// (`ptrace`, `/proc/PID/mem`). What fails is told, and the service runs all the same: events
/// are worth more.
pub(super) fn seal() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Twice, since each has gaps: a core dump that is piped into a program, as systemd's,
    // heeds no limit; and who may trace the process needs no dump.
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be ruled out by a limit");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process's memory cannot be closed to others");
    }
}

/// No core dump of a command is written. It may be looked into by its user, who gave it all that
/// it holds; closed to them, it could not open its own `/dev/fd`, where a shell puts the files of
/// `dispatch <(...)`.
pub fn leave_no_core() {
    // A limit of one byte rules out files, and a pipe into a program as well, which heeds no
    // other limit. Where somebody has ruled out files for good, only root could say so.
    let one = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    if let Err(error) = setrlimit(Resource::Core, one)
        && getrlimit(Resource::Core).maximum != Some(0)
    {
        eprintln!("holdfast: core dumps cannot be ruled out: {error}");
    }
}
