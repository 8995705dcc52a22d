//! Each queue's messages are in their tables once, also over kill -9, and what is broken
//! is in its error queue with the reason. After a fix of tables, partners and messages an
//! operator sends it again, and each is delivered once, too.

use super::{ARRIVAL, Judged, LAUNCHES, SCRIPT, Site, outcomes};
use crate::support::cli::holdfast;
use crate::support::eventually;
use std::time::{Duration, Instant};

/// The consumers of refused events. They are off at first: what they would empty is
/// looked at.
const REFUSED: [&str; 2] = [
    "grpc_clickhouse_event_error_q",
    "grpc_postgres_event_q_error",
];

/// Workers of the three consumers that make calls: each has one in work.
const CALLERS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_queue_delivers_each_message_once_and_sets_the_broken_aside() {
    let off = REFUSED.map(|queue| format!("[[consumer]]\nqueue = \"{queue}\"\nenabled = false\n"));
    let mut site = Site::start("contract_every_queue", &off.concat(), false).await;
    site.open().await;
    site.verb("refuse", &["@tables"]).await;
    let started = Instant::now();

    let first = site.produce("launches.jsonl", &["--queues", LAUNCHES]);
    first.ends(SCRIPT).await;
    let launches = site.records(&["launches.jsonl"]);
    arrived(&site, &launches, &[]).await;

    let killed_to = site.messages / 2;
    let half = killed_to.to_string();
    let rest = format!("{LAUNCHES},{}", REFUSED[0]);
    let first_half = site.produce("first.jsonl", &["--not", &rest, "--to", &half]);
    kill_in_the_middle(&mut site).await;
    eprintln!("{}", first_half.ends(SCRIPT).await);
    let first = site.records(&["launches.jsonl", "first.jsonl"]);
    arrived(&site, &first, &[]).await;
    // Of these nothing is delivered again.
    let second_half = site.produce("second.jsonl", &["--not", &rest, "--from", &half]);
    eprintln!("{}", second_half.ends(SCRIPT).await);
    let all = site.records(&["launches.jsonl", "first.jsonl", "second.jsonl"]);
    arrived(&site, &all, &[]).await;
    eprintln!(
        "all had arrived after {:?}; peak memory {} KiB",
        started.elapsed(),
        site.collector.peak_memory_kib()
    );
    let judged = Judged {
        lives: 2,
        killed_to,
        in_work: CALLERS,
    };
    site.judge(&all, &[], judged).await;

    site.collector.start().await;
    site.verb("forgive", &["@tables"]).await;
    site.partners.welcome_all();
    repair_and_replay(&site, &all).await;
    arrived(&site, &all, &["--repaired"]).await;
    let judged = Judged {
        lives: 3,
        killed_to,
        in_work: CALLERS,
    };
    site.judge(&all, &["--repaired"], judged).await;

    site.configure("");
    site.collector.start().await;
    let third = site.produce("refused.jsonl", &["--queues", REFUSED[0]]);
    eprintln!("{}", third.ends(SCRIPT).await);
    let all = site.records(&[
        "launches.jsonl",
        "first.jsonl",
        "second.jsonl",
        "refused.jsonl",
    ]);
    let refused = site.records(&["refused.jsonl"]);
    arrived(&site, &refused, &["--taken"]).await;
    repair_and_replay(&site, &all).await;
    arrived(&site, &all, &["--repaired"]).await;
    let judged = Judged {
        lives: 4,
        killed_to,
        in_work: CALLERS,
    };
    site.judge(&all, &["--repaired"], judged).await;
    eprintln!("all was judged after {:?}", started.elapsed());
}

async fn arrived(site: &Site, records: &str, state: &[&str]) {
    let places = ["@tables", "@broker", "@calls", records, "--wait", ARRIVAL];
    site.verb("arrived", &[&places[..], state].concat()).await;
}

/// What an operator does: looks at all that was refused, mends it (here by the producer's
/// record), and sends it again.
async fn repair_and_replay(site: &Site, records: &str) {
    let config = site.collector.dir.join("holdfast.toml");
    let config = config.display();
    let (shown, mended) = (site.path("shown.ndjson"), site.path("mended.ndjson"));
    let said = holdfast(&format!(
        "dlq show --json --count 1000000 --config {config}"
    ));
    assert_eq!(said.code, 0, "{said:?}");
    let letters = said.lines().len();
    assert!(letters > 0);
    std::fs::write(&shown, &said.out).unwrap();
    site.verb("repair", &[records, &shown, &mended]).await;
    let said = holdfast(&format!(
        "dlq replay --repaired {mended} --apply --config {config}"
    ));
    let all = format!("{letters} letter");
    assert!(said.code == 0 && said.err.contains(&all), "{said:?}");
    eprintln!("operator: {}", said.err.trim());
}

/// kill -9 and a new start, when a part of everything is written and messages of every
/// kind are in work.
async fn kill_in_the_middle(site: &mut Site) {
    let part = (site.messages * 4) as f64;
    eventually("some of it is written", Duration::from_secs(60), || async {
        outcomes(&site.collector, "written") >= part
    })
    .await;
    eprintln!(
        "killed when {} rows and calls were written; peak memory {} KiB",
        outcomes(&site.collector, "written"),
        site.collector.peak_memory_kib()
    );
    site.collector.kill();
    site.collector.start().await;
}
