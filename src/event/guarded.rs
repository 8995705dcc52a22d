//! Work on content that others chose, by code that may have a mistake. Called by the ways out
//! for each record and each group of events.
//!
//! # Invariants
//! - A panic costs what it was about, which is set aside, and nothing else: without this the
//!   way out would begin again at the same record for ever (tests
//!   `what_makes_a_handler_panic_is_set_aside_and_the_others_go_on`,
//!   `a_record_that_makes_us_panic_is_set_aside_whole`).

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why something was set aside that made us panic. The log has the panic itself.
pub const PANICKED: &str = "the collector panicked on this: its log says where";

/// Runs work whose state nobody looks at after a panic; `None` where it panicked. The panic
/// hook has logged that as an error.
pub fn unless_it_panics<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        trap::step();
        work()
    }))
    .ok()
}

/// No content is known that makes anything panic: tests make one of this thread's next runs do
/// so.
#[cfg(test)]
pub(crate) mod trap {
    use std::cell::Cell;

    thread_local! {
        static RUNS_BEFORE: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// One run panics, after so many that do not.
    pub(crate) fn set(runs_before: u32) {
        RUNS_BEFORE.set(Some(runs_before));
    }

    pub(super) fn step() {
        let before = RUNS_BEFORE.get();
        RUNS_BEFORE.set(before.and_then(|before| before.checked_sub(1)));
        assert_ne!(before, Some(0), "the trap of a test");
    }
}
