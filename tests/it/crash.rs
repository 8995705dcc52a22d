//! The collector itself is killed or stopped under load: what it acknowledged is
//! there, once, as it was sent.

use crate::outages::{connected, judge};
use crate::support::collector::Collector;
use crate::support::load::{self, Progress};
use crate::support::servers::Stack;
use crate::support::{Scratch, load_events, seed};
use std::time::{Duration, Instant};

/// A start that takes longer than this does not accept "at once".
const START_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acked_records_survive_a_kill_at_any_moment() {
    let scratch = Scratch::new("kills");
    let stack = Stack::start(&scratch).await;
    let mut collector = Collector::new(&scratch, &stack.config());
    collector.start().await;
    connected(&collector).await;
    let events = load_events();
    let progress = Progress::default();
    let clients = collector.same_address();
    let kills = async {
        for share in 1..=10 {
            progress.reached(events * share / 11).await;
            collector.kill();
            let started = Instant::now();
            collector.start().await;
            assert!(started.elapsed() < START_MAX, "{:?}", started.elapsed());
        }
    };
    let (acked, ()) = tokio::join!(
        load::run(&clients, seed(), events, 16, progress.clone()),
        kills
    );
    eprintln!("{} calls failed and were sent again", acked.failed_calls);
    assert!(acked.failed_calls > 0, "the kills hit nothing");
    judge(&collector, &stack, &acked).await;
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_loses_nothing_and_ends_in_order() {
    let scratch = Scratch::new("stops");
    let stack = Stack::start(&scratch).await;
    let mut collector = Collector::new(&scratch, &stack.config());
    collector.start().await;
    let events = load_events() / 4;
    let progress = Progress::default();
    let clients = collector.same_address();
    let stops = async {
        for share in 1..=3 {
            progress.reached(events * share / 4).await;
            let status = collector.terminate();
            assert!(status.success(), "{status}");
            collector.start().await;
        }
    };
    let (acked, ()) = tokio::join!(
        load::run(&clients, seed(), events, 16, progress.clone()),
        stops
    );
    judge(&collector, &stack, &acked).await;
    assert!(collector.terminate().success());
    let log = collector.log();
    assert!(!log.contains("did not stop in time"), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}
