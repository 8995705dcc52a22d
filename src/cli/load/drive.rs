//! Sends the calls of a run, and notes what became of each. Called by `run`.
//!
//! In a closed loop, a call begins when one before it has ended; its latency counts from
//! when it was sent. In an open loop, calls begin at a rate; a call's latency counts from
//! when it was to begin, so that those that a stalled collector kept from being sent count
//! with their wait.
//!
//! # Invariants
//! - Coordinated omission is accounted for in an open loop (test
//!   `a_stall_shows_in_an_open_loop_with_all_that_waited`).
//! - A call is noted as sent before it is, and as acknowledged only by its answer.
//! - Nothing is sent twice.
//! - No more calls are in flight than the plan says, and each ends ([`CALL_WAIT`]).

use super::figures::Figures;
use super::payload::{Call, Requests};
use super::plan::{End, Plan};
use crate::app::arrivals::Calls;
use crate::clock::now_ms;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long a call may take; longer than a collector's own deadlines. What comes later may
/// have been stored: nobody knows.
pub(super) const CALL_WAIT: Duration = Duration::from_secs(30);

/// What a call without an answer is counted as.
const NO_ANSWER: &str = "NO ANSWER";

/// After a refusal in a closed loop: a collector that is away would be called as fast as the
/// loop turns.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// How long the pacer sleeps at most, so that it sees that a run was stopped.
const PACER_SLEEP_MAX: Duration = Duration::from_millis(50);

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is durable.
    Acked,
    /// It is not, or nobody knows.
    Refused {
        /// Of few.
        code: &'static str,
        /// What was said.
        message: String,
    },
}

/// Takes calls.
pub(super) trait Target: Send + Sync + 'static {
    /// One call.
    fn call(&self, call: Call) -> impl Future<Output = Answer> + Send;
}

/// What a run leaves behind.
pub(super) struct Driven {
    pub(super) connections: Vec<Calls>,
    pub(super) figures: Figures,
    /// When the first event was made and the last one, epoch milliseconds.
    pub(super) from_ms: i64,
    pub(super) until_ms: i64,
}

struct Drive<T> {
    plan: Plan,
    target: T,
    requests: Arc<Requests>,
    connections: Vec<Mutex<Calls>>,
    figures: Mutex<Figures>,
    began: Instant,
    stop: CancellationToken,
    /// Calls that are due, in an open loop.
    due: Semaphore,
    /// How many were due so far.
    due_calls: AtomicU64,
    /// How many of them have begun; in a closed loop those that count.
    begun_calls: AtomicU64,
}

/// When a call begins, or was to.
#[derive(Debug, Clone, Copy)]
struct Start {
    at: Instant,
    /// Whether it is after the warm-up.
    counts: bool,
}

/// Runs the plan to its end, or until `stop`; calls in flight end in any case.
pub(super) async fn drive<T: Target>(
    plan: &Plan,
    target: T,
    requests: Requests,
    stop: CancellationToken,
) -> Driven {
    let (from_ms, began) = (now_ms(), Instant::now());
    let drive = Arc::new(Drive {
        plan: plan.clone(),
        target,
        requests: Arc::new(requests),
        connections: (0..plan.connections).map(|_| Mutex::default()).collect(),
        figures: Mutex::new(Figures::new(began + plan.warm_up)),
        began,
        stop,
        due: Semaphore::new(0),
        due_calls: AtomicU64::new(0),
        begun_calls: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    if let Some(rate) = plan.rate {
        let drive = Arc::clone(&drive);
        // A thread sleeps far more exactly than a timer of the runtime.
        tasks.spawn_blocking(move || drive.pace(rate));
    }
    for worker in 0..plan.in_flight {
        let drive = Arc::clone(&drive);
        let connection = worker % plan.connections;
        tasks.spawn(async move { drive.work(connection).await });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            // A panic of a task is one of ours.
            std::panic::resume_unwind(error.into_panic());
        }
    }
    let mut figures = std::mem::replace(&mut *lock(&drive.figures), Figures::new(began));
    if plan.rate.is_some() {
        let (due, begun) = (&drive.due_calls, &drive.begun_calls);
        let (due, begun) = (due.load(Ordering::SeqCst), begun.load(Ordering::SeqCst));
        figures.due_not_sent_calls = due.saturating_sub(begun);
    }
    Driven {
        connections: drive
            .connections
            .iter()
            .map(|calls| std::mem::take(&mut *lock(calls)))
            .collect(),
        figures,
        from_ms,
        until_ms: now_ms(),
    }
}

/// What is noted is whole after each step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Target> Drive<T> {
    /// One call after the other.
    async fn work(&self, connection: usize) {
        while let Some(start) = self.start().await {
            let number = {
                let mut calls = lock(&self.connections[connection]);
                if calls.sent() >= self.plan.calls_of_connection_max() {
                    lock(&self.figures).is_full = true;
                    self.stop.cancel();
                    return;
                }
                calls.send()
            };
            let call = Call {
                requests: Arc::clone(&self.requests),
                connection,
                number,
                now_ms: now_ms(),
            };
            let bytes = call.bytes();
            let answer = timeout(CALL_WAIT, self.target.call(call)).await;
            let answer = answer.unwrap_or_else(|_| Answer::Refused {
                code: NO_ANSWER,
                message: format!("within {CALL_WAIT:?}"),
            });
            let now = Instant::now();
            let is_acked = answer == Answer::Acked;
            if is_acked {
                lock(&self.connections[connection]).acknowledge(number);
            }
            let latency = start
                .counts
                .then(|| now.saturating_duration_since(start.at));
            lock(&self.figures).note(now, latency, bytes as u64, answer);
            if !is_acked && self.plan.rate.is_none() {
                sleep(REFUSED_PAUSE).await;
            }
        }
    }

    /// Waits for the next call to begin; `None` at the end.
    async fn start(&self) -> Option<Start> {
        if let Some(rate) = self.plan.rate {
            let due = tokio::select! {
                () = self.stop.cancelled() => return None,
                due = self.due.acquire() => due,
            };
            // Closed at the end.
            due.ok()?.forget();
            let number = self.begun_calls.fetch_add(1, Ordering::SeqCst);
            if number >= self.paced_calls(rate) {
                self.begun_calls.fetch_sub(1, Ordering::SeqCst);
                return None;
            }
            return Some(Start {
                at: self.began + Duration::from_secs_f64(number as f64 / rate),
                counts: number >= warm_up_calls(&self.plan, rate),
            });
        }
        let at = Instant::now();
        let counted = at.saturating_duration_since(self.began + self.plan.warm_up);
        let counts = at >= self.began + self.plan.warm_up;
        let has_ended = counts
            && match self.plan.end {
                End::After(duration) => counted >= duration,
                End::Calls(calls) => self.begun_calls.fetch_add(1, Ordering::SeqCst) >= calls,
            };
        (!has_ended && !self.stop.is_cancelled()).then_some(Start { at, counts })
    }

    /// Calls of the whole run, in an open loop; a time ends it otherwise.
    fn paced_calls(&self, rate: f64) -> u64 {
        match self.plan.end {
            End::Calls(calls) => warm_up_calls(&self.plan, rate) + calls,
            End::After(_) => u64::MAX,
        }
    }

    /// Lets calls begin when they are due. What is due and not begun when the time is up is
    /// left out, and counted.
    fn pace(&self, rate: f64) {
        let until = match self.plan.end {
            End::After(duration) => Some(self.began + self.plan.warm_up + duration),
            End::Calls(_) => None,
        };
        let all = self.paced_calls(rate);
        let mut due = 0;
        while !self.stop.is_cancelled() {
            let now = Instant::now();
            if let Some(until) = until.filter(|until| now >= *until) {
                // Also what became due while this thread slept longer than it was to.
                let passed = (until - self.began).as_secs_f64() * rate;
                let all_due = (passed.ceil() as u64).min(all);
                self.due_calls.store(all_due, Ordering::SeqCst);
                break;
            }
            // The first is due at once.
            let passed = (now - self.began).as_secs_f64() * rate;
            let now_due = (passed as u64 + 1).min(all);
            self.due_calls.store(now_due, Ordering::SeqCst);
            self.due.add_permits((now_due - due) as usize);
            due = now_due;
            if due == all {
                // Each worker sees that there is nothing more.
                self.due.add_permits(self.plan.in_flight);
                return;
            }
            let next = self.began + Duration::from_secs_f64(due as f64 / rate);
            let wait = next.saturating_duration_since(Instant::now());
            std::thread::sleep(wait.min(PACER_SLEEP_MAX));
        }
        self.due.close();
    }
}

/// Calls that are due during the warm-up.
fn warm_up_calls(plan: &Plan, rate: f64) -> u64 {
    (plan.warm_up.as_secs_f64() * rate).ceil() as u64
}

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;
