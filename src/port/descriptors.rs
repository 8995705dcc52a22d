//! File descriptors for all connections. Called by `app` before the ports open.
//!
//! Shells and old units start a process with a soft limit of 1,024, which fewer connections
//! than are allowed would use up; the hard limit is what was meant to bind.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside those of connections: the log's generations, databases, the broker.
const OTHERS: u64 = 1_024;

/// Raises the soft limit as far as needed, if it can; says where that is not enough.
pub fn make_room(connections: usize) {
    let needed = OTHERS.saturating_add(connections as u64);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= needed) {
        return;
    }
    let reachable = limit.maximum.map_or(needed, |hard| hard.min(needed));
    let raised = Rlimit {
        current: Some(reachable),
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    } else if reachable < needed {
        tracing::warn!(
            limit = reachable,
            needed,
            "fewer open files are allowed than all connections need (LimitNOFILE=, ulimit -n)"
        );
    }
}
