//! ClickHouse goes away while the consumers wait, and stays away until after the last message:
//! all is held, nothing grows, no attempt is spent, and then everything arrives once.

use super::{ARRIVAL, Judged, LAUNCHES, SCRIPT, Site, outcomes};
use holdfast::config::{SinkKind, load_from};
use std::time::Instant;

/// Workers of each consumer here, so that all windows are alike.
const WORKERS: usize = 2;

/// What an allocator may keep of memory that was in use for a moment.
const ALLOCATOR_KIB: u64 = 4 * 1024;

/// Messages that a worker takes at least, whatever its batch; after so many it takes its batch.
const PREFETCH_MIN: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_away_for_the_whole_run() {
    let messages = (crate::support::load_events() / 200).max(20);
    // Windows of a tenth of the messages: what comes after them waits in the broker.
    let batch_rows = messages / 20;
    let mut site = Site::start("contract_away", &windows(batch_rows), true).await;
    let window = (WORKERS * batch_rows.max(PREFETCH_MIN)).to_string();
    site.open().await;

    // A few of each to every worker, so that all windows are as wide as they get. Accounts look
    // launches up, which wait until these are there.
    let half = (site.messages / 2).to_string();
    let quarter = (site.messages / 4).to_string();
    let few = site.produce("few.jsonl", &["--not", LAUNCHES, "--to", &quarter]);
    few.ends(SCRIPT).await;
    let launches = site.produce("launches.jsonl", &["--queues", LAUNCHES, "--to", &half]);
    launches.ends(SCRIPT).await;
    let before = site.records(&["launches.jsonl", "few.jsonl"]);
    let state = ["--taken", "--then"];
    let places = ["@tables", "@broker", "@calls", &before, "--wait", ARRIVAL];
    site.verb("arrived", &[&places[..], &state].concat()).await;
    site.stack.clickhouse.kill();

    let part = ["--not", LAUNCHES, "--from", &quarter, "--to", &half];
    let first = site.produce("first.jsonl", &part);
    first.ends(SCRIPT).await;
    held(&site, &["first.jsonl"], &window).await;
    let full = site.collector.resident_memory_kib();
    let second = site.produce("second.jsonl", &["--not", LAUNCHES, "--from", &half]);
    let launches = site.produce("more.jsonl", &["--queues", LAUNCHES, "--from", &half]);
    launches.ends(SCRIPT).await;
    let said = second.ends(SCRIPT).await;
    let during = ["first.jsonl", "second.jsonl", "more.jsonl"];
    held(&site, &during, &window).await;
    let after = site.collector.resident_memory_kib();
    stays_flat(full, after, &said, site.collector.peak_memory_kib());

    let records = site.records(&[
        "launches.jsonl",
        "few.jsonl",
        "first.jsonl",
        "second.jsonl",
        "more.jsonl",
    ]);
    site.verb("retried", &["@broker"]).await;
    site.verb(
        "errors",
        &[&["@broker", &records, "--partial"], &state[..]].concat(),
    )
    .await;
    assert_eq!(outcomes(&site.collector, "retried"), 0.0);

    let back = Instant::now();
    site.stack.clickhouse.start().await;
    let places = ["@tables", "@broker", "@calls", &records, "--wait", ARRIVAL];
    site.verb("arrived", &[&places[..], &state].concat()).await;
    eprintln!(
        "all had arrived {:?} after the start of ClickHouse",
        back.elapsed()
    );
    assert_eq!(outcomes(&site.collector, "retried"), 0.0);
    let judged = Judged {
        lives: 1,
        killed_to: 0,
        in_work: 0,
    };
    site.judge(&records, &state, judged).await;
}

/// Every consumer with the same small window.
fn windows(batch_rows: usize) -> String {
    let all = "[rabbitmq]\n[clickhouse]\n[postgres]\n";
    let config = load_from(all, std::iter::empty()).unwrap();
    let consumers = config.consumers();
    let rows = consumers
        .iter()
        .filter(|consumer| consumer.sink != SinkKind::WebEngage);
    rows.map(|consumer| {
        format!(
            "[[consumer]]\nqueue = \"{}\"\nworkers = {WORKERS}\nbatch_rows = {batch_rows}\n",
            consumer.queue
        )
    })
    .collect()
}

/// Waits until each consumer of ClickHouse holds a full window, and the others are done.
async fn held(site: &Site, records: &[&str], window: &str) {
    let records = site.records(records);
    let arguments = ["@broker", &records, "--window", window, "--wait", ARRIVAL];
    site.verb("held", &arguments).await;
}

/// Memory is not where the rest of the messages went: held as they are read, it would have
/// grown by more than the bytes of their bodies. Half of those is allowed for what the
/// consumers of the other sinks have in work, and at least what an allocator may keep.
fn stays_flat(full_kib: u64, after_kib: u64, said: &str, peak_kib: u64) {
    let words: Vec<_> = said.split(' ').collect();
    let bytes_at = words.iter().position(|&word| word == "bytes").unwrap() - 1;
    let bytes: u64 = words[bytes_at].parse().unwrap();
    let growth_kib = after_kib.saturating_sub(full_kib);
    eprintln!(
        "resident {full_kib} KiB with full windows, {after_kib} KiB after {said}; peak {peak_kib} KiB"
    );
    assert!(
        growth_kib < (bytes / 1024 / 2).max(ALLOCATOR_KIB),
        "memory grew by {growth_kib} KiB over {bytes} bytes"
    );
}
