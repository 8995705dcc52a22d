//! Says each change of a lasting trouble once, however many meet it and however often they
//! try again. Used by every loop that tries for ever; the caller writes the line, at `warn` or
//! `error` where this says that it is news, else at `debug`.
//!
//! # Invariants
//! - A trouble is said once, and once more for each kind of reason, up to `KINDS_MAX`; beyond
//!   that, and for reasons that take turns, at most one line in `AGAIN_AFTER` (test
//!   `a_trouble_is_said_once_for_each_kind`).
//! - A trouble that many meet is over when the last of them is through, and not when all gave
//!   up (tests `what_many_meet_is_said_once_and_over_once`, `giving_up_is_no_end`).
//! - An attempt that was under way when another got through says nothing of what is now (test
//!   `late_failures_begin_no_new_trouble`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Kinds of reasons that one trouble may have before they are said at a slower pace.
const KINDS_MAX: usize = 4;

/// How long reasons that take turns are silent.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What was said of one trouble of one loop.
#[derive(Debug, Default)]
pub struct News {
    since: Option<Instant>,
    last: Option<(Instant, String)>,
    kinds: BTreeSet<String>,
}

impl News {
    /// Whether a trouble, whose reason is of this kind, has to be said.
    #[must_use]
    pub fn is_new(&mut self, kind: &str) -> bool {
        self.is_new_at(kind, Instant::now())
    }

    fn is_new_at(&mut self, kind: &str, now: Instant) -> bool {
        self.since.get_or_insert(now);
        if let Some((said, last)) = &self.last {
            let is_known = self.kinds.contains(kind) || self.kinds.len() >= KINDS_MAX;
            if last == kind || is_known && now.duration_since(*said) < AGAIN_AFTER {
                return false;
            }
        }
        if self.kinds.len() < KINDS_MAX {
            self.kinds.insert(kind.to_owned());
        }
        self.last = Some((now, kind.to_owned()));
        true
    }

    /// Whether there is a trouble.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.since.is_some()
    }

    /// The trouble is over: how long it lasted, if there was one.
    pub fn over(&mut self) -> Option<Duration> {
        let since = std::mem::take(self).since?;
        Some(brief(since.elapsed()))
    }

    /// Runs something that is tried again when it ends. What troubled it is over, and said to
    /// be, once it has run for longer than any wait between two tries.
    pub async fn watch<T>(
        &mut self,
        running: impl Future<Output = T>,
        over: impl FnOnce(Duration),
    ) -> T {
        tokio::pin!(running);
        if self.is_there() {
            tokio::select! {
                ended = &mut running => return ended,
                () = tokio::time::sleep(crate::retry::LONGEST) => {
                    if let Some(lasted) = self.over() {
                        over(lasted);
                    }
                }
            }
        }
        running.await
    }
}

/// In milliseconds: more says nothing to anybody.
fn brief(lasted: Duration) -> Duration {
    Duration::from_millis(u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX))
}

/// The troubles of one part, by what they are troubles with.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<&'static str, News>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, News>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`News::is_new`].
    #[must_use]
    pub fn is_new(&self, with: &'static str, kind: &str) -> bool {
        self.lock().entry(with).or_default().is_new(kind)
    }

    /// As [`News::over`].
    pub fn over(&self, with: &'static str) -> Option<Duration> {
        self.lock().remove(with)?.over()
    }
}

/// A trouble that many meet at once, such as a server that is away. Clones share it.
#[derive(Clone)]
pub struct Absence(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    over: Box<dyn Fn(Duration) + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    waiting: u32,
    /// When somebody got through last.
    worked: Option<Instant>,
    news: News,
}

impl std::fmt::Debug for Absence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Absence").field(&*self.lock()).finish()
    }
}

impl Absence {
    /// `over` says that it is over, and how long it lasted.
    pub fn new(over: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            over: Box::new(over),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody got through.
    pub fn worked(&self) {
        self.lock().worked = Some(Instant::now());
    }

    /// Somebody waits, until the guard is dropped: after [`Absence::worked`] if he got
    /// through.
    #[must_use]
    pub fn wait(&self) -> Waiter {
        self.lock().waiting += 1;
        Waiter(self.clone())
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.lock().waiting
    }
}

/// One who waits.
#[derive(Debug)]
pub struct Waiter(Absence);

impl Waiter {
    /// Whether it has to be said that an attempt failed, for a reason of this kind.
    #[must_use]
    pub fn is_new(&self, kind: &str, began: Instant) -> bool {
        let mut state = self.0.lock();
        let said = state.news.last.as_ref().map(|(at, _)| *at);
        let is_late = [state.worked, said].iter().flatten().any(|at| *at > began);
        !is_late && state.news.is_new(kind)
    }

    /// He got through.
    pub fn back(self) {
        self.0.worked();
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting = state.waiting.saturating_sub(1);
        if state.waiting > 0 {
            return;
        }
        let since = state.news.since;
        let worked = state.worked >= since;
        if let Some(lasted) = state.news.over()
            && worked
        {
            // Under the lock: the next trouble is said after this one's end.
            (self.0.0.over)(lasted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_trouble_is_said_once_for_each_kind() {
        let (mut news, began) = (News::default(), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        assert!(news.is_new_at("absent", began));
        for second in 0..1_000 {
            assert!(!news.is_new_at("absent", after(second)), "{second}");
        }
        assert!(news.is_new_at("refused", after(1_000)));
        assert!(!news.is_new_at("absent", after(1_001)), "it takes turns");
        assert!(news.is_new_at("absent", after(1_100)));
        let lines = (0..600).filter(|n| news.is_new_at(&format!("odd {n}"), after(1_100 + n)));
        assert_eq!(lines.count(), 2 + 9, "two more kinds, and one a minute");
        assert!(news.over().is_some());
        assert_eq!(news.over(), None, "it is over once");
        assert!(news.is_new_at("absent", after(2_000)));
    }

    /// One that counts how often it was over.
    fn absence() -> (Absence, impl Fn() -> u32) {
        let over = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&over);
        let absence = Absence::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        (absence, move || over.load(Ordering::Relaxed))
    }

    #[test]
    fn what_many_meet_is_said_once_and_over_once() {
        let (absence, over) = absence();
        for outage in 1..=2 {
            let waiters: Vec<_> = (0..27).map(|_| absence.wait()).collect();
            let said = waiters.iter().cycle().take(1_000);
            let said = said.filter(|waiter| waiter.is_new("absent", Instant::now()));
            assert_eq!(said.count(), 1);
            assert!(waiters[3].is_new("refused", Instant::now()));
            for (nth, waiter) in waiters.into_iter().enumerate() {
                assert_eq!(over(), outage - 1, "{nth}");
                waiter.back();
            }
            assert_eq!(over(), outage);
        }
    }

    #[test]
    fn giving_up_is_no_end() {
        let (absence, over) = absence();
        let waiter = absence.wait();
        assert!(waiter.is_new("absent", Instant::now()));
        drop(waiter);
        assert_eq!((over(), absence.waiting()), (0, 0));
        let waiter = absence.wait();
        assert!(waiter.is_new("absent", Instant::now()), "a trouble anew");
        waiter.back();
        assert_eq!(over(), 1);
    }

    #[test]
    fn late_failures_begin_no_new_trouble() {
        let (absence, over) = absence();
        let (one, other) = (absence.wait(), absence.wait());
        let began = Instant::now();
        assert!(one.is_new("absent", began));
        assert!(!other.is_new("refused", began), "it began before that");
        one.back();
        drop(other);
        assert_eq!(over(), 1);
        let late = absence.wait();
        assert!(!late.is_new("absent", began));
        late.back();
        assert_eq!(over(), 1, "nothing was said, and nothing is over");
    }

    #[tokio::test(start_paused = true)]
    async fn what_holds_ends_its_trouble() {
        let mut news = News::default();
        let mut said = 0;
        let second = || tokio::time::sleep(Duration::from_secs(1));
        let minute = || tokio::time::sleep(Duration::from_secs(60));
        news.watch(minute(), |_| said += 1).await;
        assert_eq!(said, 0, "there was none");
        assert!(news.is_new("x"));
        news.watch(second(), |_| said += 1).await;
        assert_eq!((said, news.is_there()), (0, true));
        news.watch(minute(), |_| said += 1).await;
        assert_eq!((said, news.is_there()), (1, false));
    }
}
