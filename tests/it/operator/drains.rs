//! Draining: a host that takes nothing any more and empties its log, and the log of a host
//! that is dead.

use super::{ARRIVAL, Site, holdfast, request, test_event};
use crate::support::collector::{get, send};
use crate::support::judge::query_clickhouse;
use crate::support::raw::dispatch;
use crate::support::servers::{Kind, Server};
use crate::support::{Scratch, eventually};
use prost::Message as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

/// Requests that wait, each with three events.
const REQUESTS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_host_takes_nothing_and_empties_its_log() {
    let scratch = Scratch::new("drain_server");
    let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
    let site = Site::with_ways("drains", &clickhouse.clickhouse_section()).await;
    site.send_requests("d", REQUESTS).await;

    // ClickHouse is away: the time runs out, and what waits is named.
    let early = site.ask("drain --timeout 1s --json");
    assert_eq!(early.code, 1, "{early:?}");
    assert_eq!(early.json()["left"], REQUESTS * 3, "{early:?}");
    assert!(early.err.contains("clickhouse still delivers"), "{early:?}");
    let status = site.ask("status --json").json();
    assert_eq!(status["state"], "draining");
    assert!(site.ask("status").fits().contains("draining"));

    // Nothing is taken meanwhile, by any door, and callers are told to go elsewhere.
    let batch = request(vec![test_event("late", "1700000000000", "x")]);
    let refused = dispatch(&site.collector.address(), batch.encode_to_vec())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    assert!(refused.message().contains("drained"), "{refused:?}");
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"));
    let http = site.collector.http;
    let line =
        br#"{"header":{"deviceId":"d"},"events":[{"id":"x","timestamp":"1","testEvent":{}}]}"#;
    assert_eq!(send(http, "POST", "/events", line).unwrap().0, 503);
    let webhook = br#"{"name":"n"}"#;
    assert_eq!(
        send(http, "POST", "/branch/event/", webhook).unwrap().0,
        503
    );
    assert_eq!(get(http, "/heartbeat/").unwrap().0, 410);

    clickhouse.start().await;
    let done = site.ask("drain --timeout 60s --json");
    assert_eq!(
        (done.code, &done.json()["left"]),
        (0, &0.into()),
        "{done:?}"
    );
    let rows = query_clickhouse(
        &clickhouse,
        "SELECT toUInt64(count()) AS n FROM events FINAL",
    );
    assert_eq!(rows.await.unwrap()[0]["n"], REQUESTS * 3);

    // Taken back, it serves as before.
    let undone = site.ask("drain --undo");
    assert_eq!(undone.code, 0, "{undone:?}");
    eventually("it serves again", ARRIVAL, || async {
        site.collector.heartbeat() == Some(200)
    })
    .await;
    site.send_requests("after", 1).await;
    let verbs: Vec<_> = site
        .audit()
        .iter()
        .map(|line| line["args"]["on"].clone())
        .collect();
    assert_eq!(verbs, [true, true, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_dead_host_is_emptied() {
    let mut site = Site::start("drain_dead").await;
    site.send_requests("d", REQUESTS).await;
    let webhook = br#"{"Email":"a@b.c"}"#;
    assert_eq!(
        send(site.collector.http, "POST", "/graphy/event/", webhook)
            .unwrap()
            .0,
        200
    );
    let host = site.ask("status --json").json()["host"]
        .as_str()
        .unwrap()
        .to_owned();
    site.collector.kill();
    // Its disk, at another host.
    let moved = site.scratch.0.join("moved");
    std::fs::rename(site.data_dir(), &moved).unwrap();

    let mut clickhouse = Server::new(Kind::ClickHouse, &site.scratch);
    clickhouse.start().await;
    let config = site.scratch.0.join("other.toml");
    let text = format!(
        "[data]\ndir = \"{}\"\n[sqlite]\npath = \"{}\"\n{}",
        site.scratch.0.join("own").display(),
        site.scratch.0.join("rows.sqlite").display(),
        clickhouse.clickhouse_section()
    );
    std::fs::write(&config, text).unwrap();
    let (config, moved) = (config.display(), moved.display());
    // Without a configuration nobody knows where the events go, and nothing is made.
    let lost = holdfast(&format!("drain --data-dir {moved}"));
    assert!(lost.code == 1 && lost.err.contains("--config"), "{lost:?}");
    let nowhere = holdfast(&format!("drain --config {config}"));
    assert_eq!(nowhere.code, 1, "no journal was ever there: {nowhere:?}");
    let said = holdfast(&format!(
        "drain --config {config} --data-dir {moved} --timeout 120s"
    ));
    assert!(
        said.code == 0 && said.err.contains("nothing is left"),
        "{said:?}"
    );
    let count = async |table: &str| {
        let sql = format!(
            "SELECT toUInt64(count()) AS n FROM {table} FINAL WHERE ingest_host = '{host}'"
        );
        query_clickhouse(&clickhouse, &sql).await.unwrap()[0]["n"].clone()
    };
    assert_eq!(count("events").await, REQUESTS * 3);
    assert_eq!(count("graphy_events").await, 1);
    // Again it is done at once, and shows nothing twice.
    let again = holdfast(&format!("drain --config {config} --data-dir {moved}"));
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(count("events").await, REQUESTS * 3);
}

/// The service runs as another user: what root left in its directory it could not open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_root_does_offline_is_done_as_the_directory_s_owner() {
    /// The kernel's and Debian's number of the user `nobody`.
    const NOBODY: u32 = 65_534;
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("only root can be somebody else: not tried");
        return;
    }
    for verb in [
        "journal skip --way clickhouse --count 1 --apply",
        "drain --timeout 1s",
        "dlq purge --all --apply",
    ] {
        let mut site = Site::start("drain_owner").await;
        site.send_requests("d", 3).await;
        site.collector.kill();
        let owned = site.data_dir();
        let mut left = vec![owned.clone()];
        chown_all(&owned, NOBODY);
        let said = site.ask(verb);
        assert!(said.err.contains("going on as nobody"), "{said:?}");
        let is_drain = verb.starts_with("drain");
        assert_eq!(said.code, i32::from(is_drain), "{said:?}");
        while let Some(path) = left.pop() {
            let found = std::fs::symlink_metadata(&path).unwrap();
            assert_eq!(found.uid(), NOBODY, "{verb}: {}", path.display());
            if found.is_dir() {
                let entries = std::fs::read_dir(&path).unwrap();
                left.extend(entries.map(|entry| entry.unwrap().path()));
            }
        }
        // Who it was is not forgotten.
        let by: Vec<_> = site
            .audit()
            .iter()
            .map(|line| line["by"]["uid"].clone())
            .collect();
        assert_eq!(by, vec![0; usize::from(!is_drain)], "{verb}");
    }
}

fn chown_all(path: &Path, uid: u32) {
    let owner = format!("{uid}:{uid}");
    let done = Command::new("chown")
        .args(["-R", &owner])
        .arg(path)
        .status();
    assert!(done.unwrap().success());
}
