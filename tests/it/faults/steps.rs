//! Every step of the journal's life that touches the disk, as the calls that it makes,
//! and what must happen when they fail.

/// What must follow from a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is acknowledged any more, health says so, also after the fault is gone;
    /// what is durable is delivered. A restart ends it.
    Fenced,
    /// Requests are refused as "resource exhausted", and are taken again by themselves
    /// once the fault is gone.
    Refused,
    /// Acknowledgements go on throughout.
    Unhurt,
    /// Any of these: the step is not an append's own.
    Any,
}

/// When the fault begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Under load.
    Running,
    /// Before a data directory exists.
    FirstStart,
    /// Before a start after a kill under load.
    Restart,
}

/// A step.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub name: &'static str,
    pub when: When,
    pub kind: &'static str,
    pub glob: &'static str,
    pub no_space: Expect,
    pub io_error: Expect,
}

impl Step {
    pub fn expect(&self, errno: &str) -> Expect {
        if errno == "EIO" {
            self.io_error
        } else {
            self.no_space
        }
    }
}

use Expect::{Any, Fenced, Refused, Unhurt};
use When::{FirstStart, Restart, Running};

const fn step(
    name: &'static str,
    when: When,
    kind: &'static str,
    glob: &'static str,
    no_space: Expect,
    io_error: Expect,
) -> Step {
    Step {
        name,
        when,
        kind,
        glob,
        no_space,
        io_error,
    }
}

/// All steps. Twelve `?` are a generation's number.
pub const STEPS: &[Step] = &[
    // An append.
    step(
        "append: write",
        Running,
        "write",
        "*/gen-*/store/db",
        Refused,
        Fenced,
    ),
    step(
        "append: sled's flush",
        Running,
        "range",
        "*/gen-*/store/db",
        Refused,
        Fenced,
    ),
    // Whatever the reason, a failed sync may have dropped what was taken before.
    step(
        "append: fdatasync",
        Running,
        "fdatasync",
        "*/gen-*/store/db",
        Fenced,
        Fenced,
    ),
    // The next generation.
    step(
        "generation: mkdir",
        Running,
        "mkdir",
        "*/generations/gen-*",
        Refused,
        Any,
    ),
    step(
        "generation: store files",
        Running,
        "create",
        "*/gen-*/store/*",
        Refused,
        Any,
    ),
    step(
        "generation: sync of store",
        Running,
        "fsync",
        "*/gen-*/store*",
        Refused,
        Any,
    ),
    step(
        "generation: sync of names",
        Running,
        "fsync",
        "*/generations",
        Refused,
        Any,
    ),
    // Its small files, made and sealed.
    step(
        "manifest: create",
        Running,
        "create",
        "*/gen-????????????/*",
        Refused,
        Any,
    ),
    step(
        "manifest: write",
        Running,
        "write",
        "*/gen-????????????/[mh]*",
        Refused,
        Any,
    ),
    step(
        "manifest: fsync",
        Running,
        "sync",
        "*/gen-????????????/[mh]*",
        Refused,
        Any,
    ),
    step(
        "manifest: rename",
        Running,
        "rename",
        "*/gen-????????????/[mh]*",
        Refused,
        Any,
    ),
    step(
        "manifest: sync of name",
        Running,
        "fsync",
        "*/gen-????????????",
        Refused,
        Any,
    ),
    // Delivery.
    step(
        "cursor: write",
        Running,
        "write",
        "*/cursors/*",
        Any,
        Unhurt,
    ),
    step("cursor: sync", Running, "sync", "*/cursors/*", Any, Unhurt),
    step(
        "deletion: high water",
        Running,
        "write",
        "*/data/high_water",
        Any,
        Unhurt,
    ),
    step(
        "deletion: rename",
        Running,
        "rename",
        "*/deleted-*",
        Any,
        Unhurt,
    ),
    step(
        "deletion: unlink",
        Running,
        "unlink",
        "*/deleted-*",
        Any,
        Unhurt,
    ),
    step(
        "sink: write",
        Running,
        "write",
        "*/events.sqlite*",
        Unhurt,
        Unhurt,
    ),
    // The start.
    step(
        "first start: data directory",
        FirstStart,
        "mkdir",
        "*/data",
        Any,
        Any,
    ),
    step(
        "first start: lock",
        FirstStart,
        "create",
        "*/data/lock",
        Any,
        Any,
    ),
    step(
        "first start: host id",
        FirstStart,
        "any",
        "*/data/host_id*",
        Any,
        Any,
    ),
    step(
        "first start: high water",
        FirstStart,
        "any",
        "*/data/high_water*",
        Any,
        Any,
    ),
    step(
        "first start: directories",
        FirstStart,
        "mkdir",
        "*/data/[gc]*s",
        Any,
        Any,
    ),
    step(
        "first start: generation",
        FirstStart,
        "any",
        "*/gen-*",
        Any,
        Any,
    ),
    step(
        "first start: cursor",
        FirstStart,
        "any",
        "*/cursors/*",
        Any,
        Any,
    ),
    step(
        "first start: reserve",
        FirstStart,
        "create",
        "*/data/reserve",
        Unhurt,
        Unhurt,
    ),
    step("restart: writes", Restart, "write", "*/data/*", Any, Any),
    step("restart: syncs", Restart, "sync", "*/data/*", Any, Any),
    step(
        "restart: new names",
        Restart,
        "create",
        "*/data/[gc]*s/*",
        Any,
        Any,
    ),
    step(
        "restart: directories",
        Restart,
        "mkdir",
        "*/data/*",
        Any,
        Any,
    ),
    step("restart: renames", Restart, "rename", "*/data/*", Any, Any),
];
