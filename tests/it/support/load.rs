//! Many clients at once, and what was acknowledged to them.

use super::collector::Collector;
use super::shop::{Expected, Visitor};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tonic::Code;

/// How long any part of a load may take: the longest campaign's takes ten minutes and more.
const REACHED_MAX: Duration = Duration::from_secs(3600);

/// A client sends again for this long before the test fails.
const PATIENCE: Duration = Duration::from_secs(180);

/// Everything that was acknowledged, by event id.
pub struct Acked {
    pub rows: HashMap<String, Expected>,
    /// The longest that any batch waited for its acknowledgement.
    pub longest_wait: Duration,
    /// Calls that were not acknowledged.
    pub failed_calls: usize,
}

/// Lets others watch a load and act at points of it.
#[derive(Clone, Default)]
pub struct Progress(Arc<AtomicUsize>);

impl Progress {
    pub fn acked(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits until so many events are acknowledged.
    pub async fn reached(&self, events: usize) {
        let reached = async {
            while self.acked() < events {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(REACHED_MAX, reached).await;
        reached.unwrap_or_else(|_| panic!("not within {REACHED_MAX:?}: {events} acknowledged"));
    }
}

/// Dispatches `events` events from `clients` clients, each over its own
/// connection; returns when all are acknowledged.
pub async fn run(
    collector: &Collector,
    seed: u64,
    events: usize,
    clients: usize,
    progress: Progress,
) -> Acked {
    run_as(collector, seed, events, 0..clients, progress).await
}

/// The same by clients of these numbers, which are in the ids of their events.
pub async fn run_as(
    collector: &Collector,
    seed: u64,
    events: usize,
    clients: Range<usize>,
    progress: Progress,
) -> Acked {
    let now_ms = holdfast::clock::now_ms();
    let left = Arc::new(AtomicUsize::new(events));
    let tasks: Vec<_> = clients
        .map(|number| {
            let visitor = Visitor::new(seed, number, now_ms);
            let client = collector.client();
            tokio::spawn(visit(visitor, client, Arc::clone(&left), progress.clone()))
        })
        .collect();
    let mut all = Acked {
        rows: HashMap::with_capacity(events),
        longest_wait: Duration::ZERO,
        failed_calls: 0,
    };
    for task in tasks {
        let acked = task.await.unwrap();
        all.rows.extend(acked.rows);
        all.longest_wait = all.longest_wait.max(acked.longest_wait);
        all.failed_calls += acked.failed_calls;
    }
    assert_eq!(all.rows.len(), events, "ids differ");
    all
}

type Client =
    holdfast::event::proto::event_service_client::EventServiceClient<tonic::transport::Channel>;

async fn visit(
    mut visitor: Visitor,
    mut client: Client,
    left: Arc<AtomicUsize>,
    progress: Progress,
) -> Acked {
    let mut acked = Acked {
        rows: HashMap::new(),
        longest_wait: Duration::ZERO,
        failed_calls: 0,
    };
    loop {
        let mut take = 0;
        let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            take = left.min(40);
            (take > 0).then(|| left - take)
        });
        if taken.is_err() {
            return acked;
        }
        let mut rest = take;
        while rest > 0 {
            let batch = visitor.batch(rest);
            rest -= batch.rows.len();
            let started = Instant::now();
            loop {
                match client.dispatch(batch.request.clone()).await {
                    Ok(answer) => {
                        assert_eq!(answer.get_ref().status, "SUCCESS");
                        break;
                    }
                    Err(status) => {
                        assert_ne!(status.code(), Code::InvalidArgument, "{status:?}");
                        assert!(started.elapsed() < PATIENCE, "{status:?}");
                        acked.failed_calls += 1;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
            acked.longest_wait = acked.longest_wait.max(started.elapsed());
            progress.0.fetch_add(batch.rows.len(), Ordering::SeqCst);
            acked.rows.extend(batch.rows);
        }
    }
}
