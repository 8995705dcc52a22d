//! The journal on the disk below target/: appends, and what reads them again.

use super::disk::{append_all, options};
use super::payload::{record, request};
use criterion::{Criterion, Throughput};
use holdfast::event::identity::Seq;
use holdfast::journal::Journal;
use std::path::PathBuf;
use std::time::Instant;
use tokio::runtime::Runtime;

/// Requests that wait for one sync.
const WAITING: usize = 256;

/// Requests of a backlog: some generations.
const BACKLOG_REQUESTS: usize = 60_000;

/// Bytes of one read, as the pumps have it.
const READ_BYTES: usize = 1 << 20;

fn scratch(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench-micro");
    std::fs::create_dir_all(&dir).unwrap();
    let dir = dir.join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    dir
}

/// A group commit, and a commit of one.
pub fn appends(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = scratch("appends");
    let journal = Journal::open(&options(&dir)).unwrap();
    let one = record(request("micro", 1, 0), 0);
    let mut group = c.benchmark_group("journal");
    group.sample_size(20);
    for (name, waiting) in [("append_256", WAITING), ("append_1", 1)] {
        group.throughput(Throughput::Bytes((one.content.len() * waiting) as u64));
        group.bench_function(name, |b| {
            b.iter_custom(|groups| {
                let count = groups as usize * waiting;
                let (journal, one) = (journal.clone(), one.clone());
                runtime.block_on(async move {
                    let started = Instant::now();
                    let give = move |at| (at < count).then(|| one.clone());
                    append_all(&journal, waiting, give).await;
                    started.elapsed()
                })
            });
        });
    }
    group.finish();
    journal.close();
    drop(journal);
    std::fs::remove_dir_all(dir).unwrap();
}

/// An open with a backlog, and all of it read.
pub fn reads(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = scratch("reads");
    let opened = || Journal::open(&options(&dir)).unwrap();
    let one = record(request("micro", 1, 0), 0);
    let journal = opened();
    // Without a cursor nothing is deleted.
    let give = {
        let one = one.clone();
        move |at| (at < BACKLOG_REQUESTS).then(|| one.clone())
    };
    let last = runtime.block_on(append_all(&journal, WAITING, give));
    journal.close();
    drop(journal);
    let mut group = c.benchmark_group("journal");
    group.sample_size(10);
    group.bench_function("open_with_a_backlog", |b| {
        b.iter_custom(|opens| {
            let opens = (0..opens).map(|_| {
                let started = Instant::now();
                let journal = opened();
                let taken = started.elapsed();
                journal.close();
                taken
            });
            opens.sum()
        });
    });
    group.throughput(Throughput::Bytes(
        (one.content.len() * BACKLOG_REQUESTS) as u64,
    ));
    let journal = opened();
    group.bench_function("scan", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let mut reader = journal.reader(Seq::FIRST);
                let mut records = 0;
                while reader.position() <= last {
                    records += reader.read(READ_BYTES).await.unwrap().len();
                }
                assert_eq!(records, BACKLOG_REQUESTS);
            });
        });
    });
    group.finish();
    journal.close();
    drop(journal);
    std::fs::remove_dir_all(dir).unwrap();
}
