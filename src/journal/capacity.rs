//! How much the journal may hold, and whether one more request fits. Called by
//! `handle` before a request is queued; measured by the keeper; told of a full disk
//! by whoever meets one.
//!
//! Levels and waits are in `pressure`, the space for the journal's own needs in
//! `reserve`.
//!
//! # What can happen between two measures
//! Requests that were admitted since the last measure, or were under way at that
//! time, are charged against it with what sled makes of them ([`AMPLIFICATION`]), so
//! that a burst cannot pass a bound (test
//! `a_burst_between_two_measures_is_charged_against_the_last`). Other processes can
//! take what they want: that is what `journal.min_free_bytes` and the reserve are for.
//!
//! # Invariants
//! - At level `Refuse` every append is refused, and the level is left by itself once
//!   there is room again (test `refusal_starts_and_ends_once_and_by_itself`).
//! - Making the reserve or giving it back changes no level: what it misses is
//!   taken off the free bytes (test `the_reserve_changes_no_level`).
//! - A change of level is logged once.

use super::error::AppendError;
use super::pressure::{Measure, Pressure};
use super::reserve::Reserve;
use super::store::{Want, want};
use crate::telemetry::News;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a byte of a request becomes on the disk: sled's file grows by twice the
/// payload (measured at 64-KiB values).
const AMPLIFICATION: u64 = 2;

/// The disk is nearly full when less than this is free: a step of the reserve is
/// given back then. Two of sled's segments: less may not make one store.
const NEARLY_FULL_BYTES: u64 = 16 << 20;

/// At most this part of the floor counts as nearly full: far from where the
/// reserve is made again, so that it does not come and go.
const NEARLY_FULL_PART_OF_FLOOR: u64 = 4;

/// A refused request up to this size (one block) shows that the journal is at its
/// bound; a larger one may just not fit while others do.
const COMMON_REQUEST_BYTES: usize = 64 << 10;

/// At most this part of a caller's time is spent waiting under pressure: the rest is
/// for the sync, so that `Slow` does not turn into missed deadlines.
const WAIT_PART_OF_DEADLINE: u32 = 2;

/// How long requests are refused after a write found the disk full, or no descriptor:
/// where the free bytes do not show why (a quota), one try a second is enough.
const FULL_HOLD: Duration = Duration::from_secs(1);

/// How long the reserve is not made again after a write found the disk full: the free
/// bytes may not be for us (a quota), and it must not come and go with each try.
const REMAKE_AFTER: Duration = Duration::from_secs(10);

/// The journal's bounds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes on disk of all generations, `journal.max_bytes`.
    pub max_bytes: u64,
    /// Bytes that the file system must keep free, `journal.min_free_bytes`.
    pub min_free_bytes: u64,
    /// Bytes kept for the journal's own needs, beside those, `journal.reserve_bytes`.
    pub reserve_bytes: u64,
    /// Bytes of one record.
    pub record_bytes_max: usize,
    /// Payload bytes after which a generation is sealed, `journal.generation_bytes`.
    pub generation_bytes: u64,
    /// Age at which a generation with records is sealed, `journal.generation_age`.
    pub generation_age: Duration,
    /// Bytes of requests that wait for their commit, in memory.
    pub queue_bytes_max: usize,
}

/// Asks for the free bytes of the file system that holds a directory; tests put in a
/// disk of their own.
pub(super) type AskFree = fn(&Path) -> io::Result<u64>;

fn free_of_file_system(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The measured state beside the limits.
#[derive(Debug)]
pub(super) struct Capacity {
    pub(super) limits: Limits,
    data_dir: PathBuf,
    ask_free: AskFree,
    reserve: Reserve,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used_bytes: u64,
    free_bytes: u64,
    /// What the reserve lacked at that time: spoken for, though it is free.
    reserve_missing_bytes: u64,
    /// Admitted and not answered.
    in_flight_bytes: u64,
    /// What the last measure may not have seen: in flight then, or admitted since.
    unmeasured_bytes: u64,
    level: Pressure,
    /// When the disk was last found full by a write, whatever its free bytes say.
    full_at: Option<Instant>,
    /// When the journal last lacked something else, and what its callers hear.
    starved: Option<(Instant, AppendError)>,
    /// What was said of a file system that does not answer.
    asking: News,
}

impl State {
    fn was_full_within(&self, time: Duration) -> bool {
        self.full_at.is_some_and(|at| at.elapsed() < time)
    }

    /// What a level that went up is called; the bounds are beside it in the line.
    fn worse(&self) -> &'static str {
        match self.level {
            _ if self.starved().is_some() => "the journal lacks what a write takes, and refuses",
            Pressure::Refuse => "the journal is at its bounds, and refuses",
            _ => "the journal comes near its bounds",
        }
    }

    fn starved(&self) -> Option<&AppendError> {
        let (at, error) = self.starved.as_ref()?;
        (at.elapsed() < FULL_HOLD).then_some(error)
    }
}

/// A request's place: held until it is answered or given up.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    capacity: &'a Capacity,
    bytes: u64,
    wait: Duration,
}

impl Admitted<'_> {
    /// How long the request waits before it is queued, for a caller that has
    /// `limit` in all.
    pub(super) fn wait(&self, limit: Duration) -> Duration {
        self.wait.min(limit / WAIT_PART_OF_DEADLINE)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.capacity.state().in_flight_bytes -= self.bytes;
    }
}

impl Capacity {
    /// Measures the disk, and makes the reserve where there is room.
    pub(super) fn new(limits: Limits, data_dir: PathBuf) -> Self {
        Self::with(limits, data_dir, free_of_file_system)
    }

    fn with(limits: Limits, data_dir: PathBuf, ask_free: AskFree) -> Self {
        let capacity = Self {
            reserve: Reserve::open(data_dir.join("reserve"), limits.reserve_bytes),
            limits,
            data_dir,
            ask_free,
            state: Mutex::new(State {
                // Unknown until the file system answers.
                free_bytes: u64::MAX,
                ..State::default()
            }),
        };
        capacity.measure(|| 0);
        capacity
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.state().used_bytes
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.state().free_bytes
    }

    pub(super) fn pressure(&self) -> Pressure {
        self.state().level
    }

    /// Takes a new measure and does what follows from it; `used_bytes` sums up the
    /// generations. Called by the keeper, and after a deletion.
    pub(super) fn measure(&self, used_bytes: impl FnOnce() -> u64) {
        {
            // Before the looks, so that what is admitted meanwhile is charged to
            // the new measure too: twice is safe, not at all is not.
            let mut state = self.state();
            state.unmeasured_bytes = state.in_flight_bytes;
        }
        let used_bytes = used_bytes();
        let free_bytes = self.tend_reserve(self.ask_free());
        let mut state = self.state();
        state.used_bytes = used_bytes;
        self.set_free(&mut state, free_bytes);
        let level = if state.was_full_within(FULL_HOLD) || state.starved().is_some() {
            Pressure::Refuse
        } else {
            self.judged(&state, 0).level_after(state.level)
        };
        self.set_level(&mut state, level);
    }

    fn set_free(&self, state: &mut State, free_bytes: Option<u64>) {
        if let Some(bytes) = free_bytes {
            state.free_bytes = bytes;
        }
        state.reserve_missing_bytes = self.reserve.missing_bytes();
    }

    /// Told of a failed operation of the journal's own; says whether it was for want of
    /// something, and may be tried again.
    pub(super) fn heed(&self, error: &io::Error) -> bool {
        let want = want(error);
        want.into_iter().for_each(|want| self.lacks(want));
        want.is_some()
    }

    /// A write met this want: requests are refused for a while.
    pub(super) fn lacks(&self, want: Want) {
        match want {
            Want::Space => self.no_space(),
            Want::Descriptors | Want::Memory => {
                let error = self.lacking(want);
                let mut state = self.state();
                state.starved = Some((Instant::now(), error));
                self.set_level(&mut state, Pressure::Refuse);
            }
        }
    }

    /// A write found the disk full: a step of the reserve is given back, so that trying
    /// again may help, and requests are refused for a while.
    pub(super) fn no_space(&self) {
        self.reserve.give_back();
        let free_bytes = self.ask_free();
        let mut state = self.state();
        self.set_free(&mut state, free_bytes);
        state.full_at = Some(Instant::now());
        self.set_level(&mut state, Pressure::Refuse);
    }

    /// Whether requests are taken, as far as room goes.
    pub(super) fn has_room(&self) -> bool {
        self.state().level < Pressure::Refuse
    }

    /// Whether the disk has room for what the journal could do without: its own bound does
    /// not matter for that.
    pub(super) fn can_spare(&self) -> bool {
        let state = self.state();
        let free_bytes = state.free_bytes.saturating_sub(state.reserve_missing_bytes);
        free_bytes > self.limits.min_free_bytes && !state.was_full_within(FULL_HOLD)
    }

    /// What a caller hears whose request met this want.
    pub(super) fn lacking(&self, want: Want) -> AppendError {
        match want {
            Want::Space => self.disk_low_by(&self.state()),
            Want::Descriptors => AppendError::NoDescriptors,
            Want::Memory => AppendError::NoMemory,
        }
    }

    fn disk_low_by(&self, state: &State) -> AppendError {
        AppendError::DiskLow {
            free_bytes: state.free_bytes,
            min_free_bytes: self.limits.min_free_bytes,
        }
    }

    /// Whether a record of `bytes` fits now, and how long it should wait.
    pub(super) fn admit(&self, bytes: usize) -> Result<Admitted<'_>, AppendError> {
        if bytes > self.limits.record_bytes_max {
            return Err(AppendError::TooLarge {
                bytes,
                max_bytes: self.limits.record_bytes_max,
            });
        }
        let mut state = self.state();
        let after = self.judged(&state, bytes as u64);
        if state.level == Pressure::Refuse || after.level() == Pressure::Refuse {
            if bytes <= COMMON_REQUEST_BYTES {
                self.set_level(&mut state, Pressure::Refuse);
            }
            return Err(self.refusal(&state, after));
        }
        let bytes = bytes as u64;
        state.in_flight_bytes += bytes;
        state.unmeasured_bytes += bytes;
        Ok(Admitted {
            capacity: self,
            bytes,
            wait: after.wait(),
        })
    }

    /// The last measure with what came since and `more_bytes` of requests.
    fn judged(&self, state: &State, more_bytes: u64) -> Measure {
        let charge = state
            .unmeasured_bytes
            .saturating_add(more_bytes)
            .saturating_mul(AMPLIFICATION);
        Measure {
            used_bytes: state.used_bytes.saturating_add(charge),
            max_bytes: self.limits.max_bytes,
            free_bytes: state
                .free_bytes
                .saturating_sub(state.reserve_missing_bytes)
                .saturating_sub(charge),
            min_free_bytes: self.limits.min_free_bytes,
        }
    }

    /// Names the bound that refuses.
    fn refusal(&self, state: &State, judged: Measure) -> AppendError {
        if let Some(error) = state.starved() {
            return error.clone();
        }
        let by_use = Measure {
            free_bytes: u64::MAX,
            ..judged
        };
        if by_use.level_after(Pressure::Refuse) == Pressure::Refuse {
            AppendError::Full {
                used_bytes: state.used_bytes,
                max_bytes: self.limits.max_bytes,
            }
        } else {
            self.disk_low_by(state)
        }
    }

    fn set_level(&self, state: &mut State, level: Pressure) {
        let before = state.level;
        if level == before {
            return;
        }
        state.level = level;
        let (pressure, before_name) = (level.name(), before.name());
        let (used_bytes, max_bytes) = (state.used_bytes, self.limits.max_bytes);
        let (free_bytes, min_free_bytes) = (state.free_bytes, self.limits.min_free_bytes);
        if level > before {
            tracing::warn!(
                pressure,
                before = before_name,
                used_bytes,
                max_bytes,
                free_bytes,
                min_free_bytes,
                "{}",
                state.worse()
            );
        } else {
            tracing::info!(
                pressure,
                before = before_name,
                used_bytes,
                max_bytes,
                free_bytes,
                min_free_bytes,
                "the journal has room again"
            );
        }
    }

    /// Gives a step back when the disk is nearly full, makes what is missing when
    /// there is room above the floor; the free bytes after it.
    fn tend_reserve(&self, free_bytes: Option<u64>) -> Option<u64> {
        let free = free_bytes?;
        let floor = self.limits.min_free_bytes;
        let nearly_full = NEARLY_FULL_BYTES.min(floor / NEARLY_FULL_PART_OF_FLOOR);
        let changed = if free < nearly_full {
            self.reserve.give_back() > 0
        } else if self.state().was_full_within(REMAKE_AFTER) {
            false
        } else {
            self.reserve.grow(free.saturating_sub(floor))
        };
        if changed { self.ask_free() } else { free_bytes }
    }

    /// Asks the file system; an unanswered question changes nothing.
    fn ask_free(&self) -> Option<u64> {
        let answer = (self.ask_free)(&self.data_dir);
        let mut state = self.state();
        match answer {
            Ok(bytes) => {
                if let Some(lasted) = state.asking.over() {
                    tracing::info!(failed_for = ?lasted, "the disk's free space is known again");
                }
                Some(bytes)
            }
            Err(error) => {
                if state.asking.is_new("ask") {
                    tracing::warn!(%error, "cannot ask for the disk's free space");
                }
                None
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "capacity_tests.rs"]
mod tests;
