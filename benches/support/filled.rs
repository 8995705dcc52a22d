//! A collector that starts with requests in its journal and delivers them: how fast they go.
//! Used by `forwarding` and `end_to_end`.

use crate::disk::{append_all, options};
use crate::payload::{BATCH_EVENTS, record, request};
use crate::support::collector::{Collector, get};
use holdfast::clock::now_ms;
use holdfast::journal::Journal;
use std::time::{Duration, Instant};

/// Requests that are appended at the same time.
const IN_FLIGHT: usize = 256;

/// How often one looks.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// Nothing delivers this slowly.
const WAIT_MAX: Duration = Duration::from_secs(900);

/// How far in the future the requests were received: to a forwarder what is in the journal is
/// fresh then, and not a backlog, which goes out with consideration for what is fresh.
const AHEAD_MS: i64 = 3_600_000;

/// From which part of the way to which part the time counts: the start of a process, and the
/// wait for the last confirm, are no rate.
const COUNTS: [f64; 2] = [0.1, 0.9];

/// A rate, from looks at how much is done.
#[derive(Debug)]
pub struct Progress {
    all: u64,
    looks: Vec<(Instant, u64)>,
}

impl Progress {
    /// Of so many events.
    pub fn of(all: u64) -> Self {
        Self {
            all,
            looks: Vec::new(),
        }
    }

    /// So many are done now; whether all are.
    pub fn look(&mut self, done: u64) -> bool {
        let began = self.looks.first().map(|(at, _)| at.elapsed());
        assert!(
            began < Some(WAIT_MAX),
            "{done} of {} after all the time",
            self.all
        );
        self.looks.push((Instant::now(), done));
        done >= self.all
    }

    /// Events a second.
    pub fn per_s(&self) -> f64 {
        let [first, last] = COUNTS.map(|part| {
            let wanted = (self.all as f64 * part) as u64;
            let mut looks = self.looks.iter();
            *looks.find(|(_, done)| *done >= wanted).unwrap()
        });
        let (done, taken) = (last.1 - first.1, last.0 - first.0);
        assert!(done > 0, "too few events, or too few looks: {self:?}");
        done as f64 / taken.as_secs_f64()
    }
}

/// Puts so many requests into the journal of a collector that does not run yet; their events.
pub async fn fill(collector: &Collector, run: &str, requests: usize) -> u64 {
    let journal = Journal::open(&options(&collector.data_dir())).unwrap();
    let now_ms = now_ms();
    let run = run.to_owned();
    let give = move |at| {
        let made = || record(request(&run, at, now_ms), now_ms + AHEAD_MS);
        (at < requests).then(made)
    };
    append_all(&journal, IN_FLIGHT, give).await;
    journal.close();
    (requests * BATCH_EVENTS) as u64
}

/// Starts the collector and waits until it has forwarded all of so many events; how fast.
pub async fn forward(collector: &mut Collector, events: u64) -> f64 {
    collector.start().await;
    let mut progress = Progress::of(events);
    loop {
        if let Some(left) = waiting_requests(collector) {
            let done = events - left * BATCH_EVENTS as u64;
            if progress.look(done) {
                return progress.per_s();
            }
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// Requests that the forwarder has not delivered; `None` before it says so.
fn waiting_requests(collector: &Collector) -> Option<u64> {
    let (_, text) = get(collector.http, "/metrics")?;
    let series = "holdfast_journal_backlog_requests{cursor=\"rabbitmq\"} ";
    text.lines()
        .find_map(|line| line.strip_prefix(series))
        .map(|value| value.parse().unwrap())
}
