//! The main path: every acknowledged event is exactly once in ClickHouse and in
//! Postgres, equal to what was sent.

use crate::support::collector::Collector;
use crate::support::judge::{judge_clickhouse, judge_postgres};
use crate::support::load::{self, Progress};
use crate::support::servers::Stack;
use crate::support::{Scratch, load_events, seed};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acked_event_is_once_in_clickhouse_and_postgres_as_it_was_sent() {
    let scratch = Scratch::new("main_path");
    let stack = Stack::start(&scratch).await;
    let mut collector = Collector::new(&scratch, &stack.config());
    collector.start().await;
    let started = Instant::now();
    let acked = load::run(&collector, seed(), load_events(), 16, Progress::default()).await;
    eprintln!(
        "acked {} events in {:?}, longest wait {:?}",
        acked.rows.len(),
        started.elapsed(),
        acked.longest_wait
    );
    let limit = Duration::from_secs(600);
    collector.delivered("rabbitmq", limit).await;
    eprintln!("all confirmed by the broker after {:?}", started.elapsed());
    let verdict = judge_clickhouse(&stack.clickhouse, &acked.rows, limit).await;
    verdict.assert_complete("ClickHouse");
    eprintln!("ClickHouse judged after {:?}", started.elapsed());
    let verdict = judge_postgres(&stack.postgres, &acked.rows, limit).await;
    verdict.assert_complete("Postgres");
    eprintln!("Postgres judged after {:?}", started.elapsed());
    assert_eq!(acked.failed_calls, 0);
    let status = collector.terminate();
    assert!(status.success(), "{status}");
}
