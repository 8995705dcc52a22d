//! What a connection does, and until when it may go on like that. Told by `io` (bytes) and
//! `serve` (requests), asked by `serve`.
//!
//! # Invariants
//! - A connection whose peer owes it the head of a request ends in time, whether it sends
//!   nothing or a byte now and then (tests `a_head_that_trickles_is_due`,
//!   `who_says_nothing_is_due`).
//! - While a request is in work there is no end: requests have bounds of their own. But a piece
//!   of an answer that was given has its time until the next is asked for (test
//!   `who_takes_no_answer_is_due`). Most are taken at once, so nobody wakes the connection for
//!   one: it looks by itself, some times in such a time.
//! - HTTP/2 frames beside requests, such as pings, are no activity (test
//!   `pings_keep_no_connection`).

use super::bounds::Bounds;
use futures::task::AtomicWaker;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use tokio::time::Instant;

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks in a `write_time` whether a piece of an answer waits for its reader: one that does is
/// seen before its time is over.
const LOOKS: u32 = 4;

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The head of a request did not come in time.
    SlowHead,
    /// There was no request for long.
    Idle,
    /// An answer was not taken.
    SlowReader,
    /// It is not: it looks again then.
    Look,
}

/// Shared by the parts of a connection.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    /// The connection, which waits for the last request's end.
    waker: AtomicWaker,
}

#[derive(Debug)]
struct State {
    in_work: usize,
    /// When the connection came, or its last request ended.
    since: Instant,
    has_asked: bool,
    /// When the first byte came that belongs to no request yet.
    head_since: Option<Instant>,
    /// How much of the preface was seen; `None`: this is HTTP/1.
    preface: Option<usize>,
    reads_too_slowly: bool,
    /// When pieces of answers were given, of which the next was not asked for yet; the oldest
    /// first.
    given: BTreeMap<u64, Instant>,
    given_before: u64,
    /// When the connection looks at them next, while a request is in work.
    look_at: Instant,
}

/// A request, until its answer has left or is given up.
#[derive(Debug)]
pub(super) struct InWork {
    of: Arc<Activity>,
    given: Option<u64>,
}

impl Activity {
    /// Of a connection that came then.
    pub(super) fn new(since: Instant) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                in_work: 0,
                since,
                has_asked: false,
                head_since: None,
                preface: Some(0),
                reads_too_slowly: false,
                given: BTreeMap::new(),
                given_before: 0,
                look_at: since,
            }),
            waker: AtomicWaker::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These bytes came.
    pub(super) fn came(&self, bytes: &[u8]) {
        let mut state = self.lock();
        let mut is_http2 = false;
        if let Some(seen) = state.preface {
            let rest = &PREFACE[seen..];
            let length = rest.len().min(bytes.len());
            state.preface = (rest[..length] == bytes[..length]).then_some(seen + length);
            is_http2 = state.preface == Some(PREFACE.len());
        }
        if is_http2 {
            state.head_since = None;
        } else if state.in_work == 0 && state.head_since.is_none() && !bytes.is_empty() {
            state.head_since = Some(Instant::now());
        }
    }

    /// A request's head is there.
    pub(super) fn begin(self: &Arc<Self>) -> InWork {
        let mut state = self.lock();
        state.in_work += 1;
        state.has_asked = true;
        state.head_since = None;
        InWork {
            of: Arc::clone(self),
            given: None,
        }
    }

    /// The peer does not take what it is sent.
    pub(super) fn reads_too_slowly(&self) {
        self.lock().reads_too_slowly = true;
    }

    /// Whether that is so.
    pub(super) fn was_too_slow(&self) -> bool {
        self.lock().reads_too_slowly
    }

    /// Whether this is HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.lock().preface == Some(PREFACE.len())
    }

    /// Until when the connection may go on like this, and why no longer. The waker is woken when
    /// the last request in work ends.
    pub(super) fn until(&self, bounds: &Bounds, waker: &Waker) -> (Instant, Reason) {
        // First: an end that comes between is noticed.
        self.waker.register(waker);
        let mut state = self.lock();
        let is_http2 = state.preface == Some(PREFACE.len());
        if state.in_work > 0 {
            let now = Instant::now();
            if state.look_at <= now {
                state.look_at = now + bounds.write_time / LOOKS;
            }
            let given = state.given.first_key_value();
            match given.map(|(_, since)| *since + bounds.write_time) {
                Some(due) if due <= state.look_at => (due, Reason::SlowReader),
                // The same time again and again: a timer that is moved for each answer is dear.
                _ => (state.look_at, Reason::Look),
            }
        } else if !is_http2 && !state.has_asked {
            (state.since + bounds.header_time, Reason::SlowHead)
        } else if let Some(head_since) = state.head_since {
            (head_since + bounds.header_time, Reason::SlowHead)
        } else {
            (state.since + bounds.idle_time, Reason::Idle)
        }
    }
}

impl InWork {
    /// A piece of the answer was given.
    pub(super) fn gave(&mut self) {
        let mut state = self.of.lock();
        let number = state.given_before;
        state.given_before += 1;
        state.given.insert(number, Instant::now());
        drop(state);
        self.given = Some(number);
    }

    /// The next one is asked for.
    pub(super) fn is_asked(&mut self) {
        if let Some(number) = self.given.take() {
            self.of.lock().given.remove(&number);
        }
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        if let Some(number) = self.given {
            state.given.remove(&number);
        }
        state.in_work = state.in_work.saturating_sub(1);
        state.since = Instant::now();
        let is_last = state.in_work == 0;
        drop(state);
        if is_last {
            self.of.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BOUNDS: Bounds = Bounds {
        connections_max: 1,
        per_address_max: 1,
        header_time: Duration::from_secs(10),
        idle_time: Duration::from_secs(100),
        write_time: Duration::from_secs(1),
        life: None,
    };

    /// In how many seconds it is due, and why.
    fn due(activity: &Activity) -> Option<(u64, Reason)> {
        let (at, reason) = activity.until(&BOUNDS, Waker::noop());
        let left = at - Instant::now();
        if reason == Reason::Look {
            assert!(left <= BOUNDS.write_time / LOOKS, "it looks late");
            return None;
        }
        Some((left.as_secs(), reason))
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_due() {
        let activity = Activity::new(Instant::now());
        assert_eq!(due(&activity), Some((10, Reason::SlowHead)));
        pass(4).await;
        assert_eq!(due(&activity), Some((6, Reason::SlowHead)));
        let request = activity.begin();
        pass(1000).await;
        assert_eq!(due(&activity), None, "a request is in work");
        let other = activity.begin();
        drop(request);
        assert_eq!(due(&activity), None, "one is still");
        drop(other);
        assert_eq!(due(&activity), Some((100, Reason::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_is_due() {
        let activity = Activity::new(Instant::now());
        for byte in b"GET" {
            pass(2).await;
            activity.came(&[*byte]);
        }
        assert_eq!(
            due(&activity),
            Some((4, Reason::SlowHead)),
            "from the start"
        );
        drop(activity.begin());
        pass(50).await;
        assert_eq!(due(&activity), Some((50, Reason::Idle)));
        activity.came(b"P");
        pass(6).await;
        activity.came(b"RI");
        assert_eq!(due(&activity), Some((4, Reason::SlowHead)), "the next head");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_no_answer_is_due() {
        let activity = Activity::new(Instant::now());
        activity.came(PREFACE);
        let mut slow = activity.begin();
        let mut other = activity.begin();
        slow.gave();
        pass(1).await;
        assert_eq!(due(&activity), Some((0, Reason::SlowReader)));
        // What others take is no excuse.
        other.gave();
        other.is_asked();
        other.gave();
        assert_eq!(due(&activity), Some((0, Reason::SlowReader)));
        slow.is_asked();
        assert_eq!(due(&activity), None, "the other has its time");
        pass(1).await;
        assert_eq!(due(&activity), Some((0, Reason::SlowReader)), "the other");
        drop(other);
        assert_eq!(due(&activity), None, "nothing waits to be taken");
        slow.gave();
        drop(slow);
        assert_eq!(due(&activity), Some((100, Reason::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn pings_keep_no_connection() {
        let activity = Activity::new(Instant::now());
        let (one, two) = PREFACE.split_at(7);
        activity.came(one);
        pass(3).await;
        assert_eq!(
            due(&activity),
            Some((7, Reason::SlowHead)),
            "half a preface"
        );
        activity.came(&[two, b"and frames"].concat());
        assert!(activity.is_http2());
        pass(20).await;
        activity.came(b"a ping");
        assert_eq!(due(&activity), Some((77, Reason::Idle)));
        let http1 = Activity::new(Instant::now());
        http1.came(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX");
        assert!(!http1.is_http2());
    }
}
