//! Keeps the process's memory from others: it holds events and secrets. Called by `app::run`
//! before anything else.

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::process::{set_dumpable_behavior, setrlimit};

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
