//! A journal with a backlog, in processes of their own: one fills it and ends as a killed one
//! does, another opens it and reads it through.

use crate::disk::{append_all, options};
use crate::payload::{record, request};
use holdfast::event::identity::Seq;
use holdfast::journal::Journal;
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Requests that are appended at the same time.
const IN_FLIGHT: usize = 256;

/// Bytes of one read, as the pumps have it.
const READ_BYTES: usize = 1 << 20;

/// What the second process saw.
#[derive(Debug)]
pub struct Walked {
    pub open_ms: f64,
    pub bytes_per_s: f64,
    pub peak_mib: f64,
}

/// Requests of a backlog of this size.
fn requests(mib: usize) -> usize {
    (mib << 20) / request("backlog", 0, 0).len()
}

/// Fills a journal, in this process, which then must end without another word.
pub async fn fill(dir: &Path, mib: usize) {
    let journal = Journal::open(&options(dir)).unwrap();
    let count = requests(mib);
    let give = move |at| (at < count).then(|| record(request("backlog", at, 0), 0));
    append_all(&journal, IN_FLIGHT, give).await;
    std::process::exit(0);
}

/// Opens a journal in this process and reads it through; says what it saw as JSON.
pub async fn walk(dir: &Path) -> Json {
    let started = Instant::now();
    let journal = Journal::open(&options(dir)).unwrap();
    let open_ms = started.elapsed().as_secs_f64() * 1e3;
    let end = journal.stats().durable_end_seq;
    let started = Instant::now();
    let mut reader = journal.reader(Seq::FIRST);
    let (mut bytes, mut records) = (0, 0_usize);
    while reader.position() < end {
        for record in reader.read(READ_BYTES).await.unwrap() {
            bytes += record.content.len();
            records += 1;
        }
    }
    let taken = started.elapsed().as_secs_f64();
    json!({
        "records": records,
        "open_ms": open_ms,
        "bytes_per_s": bytes as f64 / taken,
        "peak_mib": peak_kib() as f64 / 1024.0,
    })
}

/// The most memory that this process ever had resident.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// This program once more, with these words; what it said.
fn again(words: &[&str]) -> Vec<u8> {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    output.stdout
}

/// Has another process fill a journal.
pub fn fill_elsewhere(dir: &Path, mib: usize) {
    again(&[
        "--fill",
        &mib.to_string(),
        "--at",
        &dir.display().to_string(),
    ]);
}

/// Has another process walk through it, which must see all of it.
pub fn walk_elsewhere(dir: &Path, mib: usize) -> Walked {
    let said = again(&["--walk", "--at", &dir.display().to_string()]);
    let said: Json = serde_json::from_slice(&said).unwrap();
    assert_eq!(said["records"], requests(mib), "{said}");
    let number = |name: &str| said[name].as_f64().unwrap();
    Walked {
        open_ms: number("open_ms"),
        bytes_per_s: number("bytes_per_s"),
        peak_mib: number("peak_mib"),
    }
}
