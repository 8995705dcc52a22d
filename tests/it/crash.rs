//! The collector itself is killed or stopped under load: what it acknowledged is
//! there, once, as it was sent.

use crate::outages::{connected, judge};
use crate::support::collector::Collector;
use crate::support::judge::judge_sqlite;
use crate::support::load::{self, Progress};
use crate::support::servers::Stack;
use crate::support::traffic::{Habits, Traffic};
use crate::support::{Scratch, eventually, load_events, seed};
use holdfast::journal::Directory;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::time::{Duration, Instant};

/// Generations of 1 MiB fill several times a second.
const UNDER_KILLS: Habits = Habits {
    pause: Duration::from_millis(4),
    heavy_bytes: 4 << 10,
    age: Duration::ZERO,
};

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

/// Without a broker, so that its own journal, cursors and deletions take most of the
/// kills: small generations, SQLite beside them. `tests/campaign kills` does 500.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_kills_lose_nothing_and_the_ledger_stays_right() {
    let kills: usize = std::env::var("HOLDFAST_TEST_KILLS").map_or(12, |n| n.parse().unwrap());
    let scratch = Scratch::new("many_kills");
    let config = "[sqlite]\n[journal]\ngeneration_bytes = \"1MiB\"\ngeneration_age = \"1s\"\n";
    let mut collector = Collector::new(&scratch, config);
    collector.start().await;
    let mut longest_start = Duration::ZERO;
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let traffic = Traffic::start_as(&collector, seed, 0..8, UNDER_KILLS);
    for _ in 0..kills {
        let before = traffic.acked();
        eventually("requests are taken", START_MAX, || async {
            traffic.acked() > before
        })
        .await;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..300_000))).await;
        collector.kill();
        let started = Instant::now();
        collector.start().await;
        longest_start = longest_start.max(started.elapsed());
    }
    let answers = traffic.answers();
    let book = traffic.stop().await;
    eprintln!("{kills} kills, answers {answers:?}, longest start {longest_start:?}");
    assert!(longest_start < START_MAX);
    assert!(answers.len() > 1, "the kills hit nothing");
    collector
        .delivered("sqlite", Duration::from_secs(300))
        .await;
    let database = collector.data_dir().join("events.sqlite");
    let verdict = judge_sqlite(&database, &book);
    verdict.assert_complete("SQLite");
    assert_eq!(
        collector.metric("holdfast_journal_state{what=\"lost_records\"}"),
        0.0
    );
    assert!(
        !collector.log().contains("ledger did not agree"),
        "the ledger is off after a kill"
    );
    assert!(collector.terminate().success());
    let report = Directory::open(&collector.data_dir()).unwrap();
    let report = report.verify(&mut |_| {}).unwrap();
    assert!(report.is_good(), "{report:?}");
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
    assert!(!log.contains("Z ERROR "), "{log}");
}
