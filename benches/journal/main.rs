//! The journal beside a plain file with the same group commit.
//!
//!     cargo bench --bench journal -- [--rounds N] [--seconds S] [--json FILE] [--backlog-mib N]
//!
//! Figures of appends, all of them durable, ours and the plain file's (`plain`) in this
//! process, on the disk below target/:
//! - `journal_append_256`: payload in MB/s, 256 requests of 3 KB waiting at a time;
//! - `journal_append_16_large`: the same with 16 requests of 60 KB, each a block;
//! - `journal_append_1_p50`: microseconds of one request, when there is no other;
//! - `journal_write_amplification`: bytes that the process gave to the disk for a byte of
//!   payload, in the first of these (`write_bytes` of /proc/self/io: pages that became dirty;
//!   what the file system writes of its own is not in it).
//!
//! Figures of a backlog, each seen by a process of its own after the one that filled it was
//! gone without a word, as after a kill:
//! - `journal_scan`: payload in GB/s that a reader gives, of generations in the page cache, to
//!   the plain file read with a checksum of each block;
//! - `journal_open`: milliseconds of an open, to those with an eighth of the backlog;
//! - `journal_backlog_memory`: MiB at the peak of an open and a read of all, to those with an
//!   eighth of the backlog.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "a bench has no outside, a failed unwrap is a failed bench, and `support` serves several"
)]

mod backlog;
mod plain;

#[path = "../support/disk.rs"]
mod disk;
#[path = "../support/payload.rs"]
mod payload;
#[path = "../support/rounds.rs"]
mod rounds;

use clap::Parser as _;
use holdfast::journal::{Journal, NewRecord};
use plain::Plain;
use rounds::{Figures, Options, Side, percentile, sides};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The smaller backlog is so many times smaller.
const SMALLER: usize = 8;

/// Bytes of a large request: one block holds one.
const LARGE_BYTES: usize = 60_000;

#[derive(Debug, clap::Parser)]
struct Args {
    #[command(flatten)]
    options: Options,
    /// Payload of the backlog.
    #[arg(long, default_value_t = 1024)]
    backlog_mib: usize,
    /// Fill a journal with a backlog, and end without closing it.
    #[arg(long, hide = true, requires = "at")]
    fill: Option<usize>,
    /// Open a journal and read it through.
    #[arg(long, hide = true, requires = "at")]
    walk: bool,
    /// Where that journal is.
    #[arg(long, hide = true)]
    at: Option<PathBuf>,
}

/// Either log.
#[derive(Clone)]
enum Log {
    Ours(Journal),
    Plain(Plain),
}

impl Log {
    async fn append(&self, record: &NewRecord) {
        match self {
            Self::Ours(journal) => {
                journal.append(record.clone(), None).await.unwrap();
            }
            Self::Plain(plain) => plain.append(record.content.clone()).await,
        }
    }
}

/// What a run of appends came to.
struct Appended {
    payload_bytes: f64,
    written_bytes: f64,
    taken_s: f64,
    p50_us: f64,
}

impl Appended {
    fn mb_per_s(&self) -> f64 {
        self.payload_bytes / self.taken_s / 1e6
    }
}

/// Appends to a new log for so long, so many at the same time, and removes it.
async fn appends(
    side: Side,
    dir: &Path,
    record: &NewRecord,
    in_flight: usize,
    measured: Duration,
) -> Appended {
    let dir = dir.join("log");
    let (log, writer) = match side {
        Side::Ours => (
            Log::Ours(Journal::open(&disk::options(&dir)).unwrap()),
            None,
        ),
        Side::Ceiling => {
            let (plain, writer) = Plain::open(&dir);
            (Log::Plain(plain), Some(writer))
        }
    };
    let before = written_bytes();
    let started = Instant::now();
    let until = started + measured;
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let (log, record) = (log.clone(), record.clone());
        tasks.spawn(async move {
            let mut taken_us = Vec::new();
            let mut last = Instant::now();
            while last < until {
                log.append(&record).await;
                let now = Instant::now();
                taken_us.push((now - last).as_secs_f64() * 1e6);
                last = now;
            }
            taken_us
        });
    }
    let mut taken_us = tasks.join_all().await.concat();
    let taken_s = started.elapsed().as_secs_f64();
    let written = written_bytes() - before;
    if let Log::Ours(journal) = &log {
        journal.close();
    }
    drop(log);
    if let Some(writer) = writer {
        writer.join().unwrap();
    }
    std::fs::remove_dir_all(&dir).unwrap();
    Appended {
        payload_bytes: (taken_us.len() * record.content.len()) as f64,
        written_bytes: written as f64,
        taken_s,
        p50_us: percentile(&mut taken_us, 0.5),
    }
}

/// Bytes that this process has given to the disk.
fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.unwrap().parse().unwrap()
}

async fn append_figures(figures: &mut Figures, options: &Options, dir: &Path, round: u32) {
    let small = payload::record(payload::request("journal", 1, 0), 0);
    let large = payload::record(vec![7; LARGE_BYTES], 0);
    let large = NewRecord {
        events: small.events.clone(),
        ..large
    };
    let mut all = BTreeMap::new();
    for side in sides(round) {
        let mut is = Vec::new();
        for (record, in_flight) in [(&small, 256), (&large, 16), (&small, 1)] {
            is.push(appends(side, dir, record, in_flight, options.measured()).await);
        }
        all.insert(side == Side::Ours, is);
    }
    let (ours, plain) = (&all[&true], &all[&false]);
    for (at, name) in [(0, "journal_append_256"), (1, "journal_append_16_large")] {
        figures.add(name, "MB/s", ours[at].mb_per_s(), plain[at].mb_per_s());
    }
    figures.add(
        "journal_append_1_p50",
        "us",
        ours[2].p50_us,
        plain[2].p50_us,
    );
    let [is, most] = [ours, plain].map(|side| side[0].written_bytes / side[0].payload_bytes);
    figures.add("journal_write_amplification", "bytes/byte", is, most);
}

/// Fills a plain file with the same payload.
async fn fill_plain(dir: &Path, mib: usize) {
    let (plain, writer) = Plain::open(dir);
    let block = bytes::Bytes::from(vec![7; LARGE_BYTES]);
    for _ in 0..(mib << 20) / LARGE_BYTES {
        plain.append(block.clone()).await;
    }
    drop(plain);
    writer.join().unwrap();
}

fn backlog_figures(figures: &mut Figures, dirs: &[PathBuf; 3], mib: usize) {
    let [large, small, plain] = dirs;
    let few = backlog::walk_elsewhere(small, mib / SMALLER);
    let much = backlog::walk_elsewhere(large, mib);
    let started = Instant::now();
    let bytes = plain::read(plain);
    let most = bytes as f64 / started.elapsed().as_secs_f64();
    figures.add("journal_scan", "GB/s", much.bytes_per_s / 1e9, most / 1e9);
    figures.add("journal_open", "ms", much.open_ms, few.open_ms);
    figures.add("journal_backlog_memory", "MiB", much.peak_mib, few.peak_mib);
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let args = Args::parse();
    if let Some(at) = &args.at {
        if let Some(mib) = args.fill {
            backlog::fill(at, mib).await;
        } else if args.walk {
            let said = backlog::walk(at).await;
            std::io::stdout()
                .write_all(said.to_string().as_bytes())
                .unwrap();
        }
        return;
    }
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench-journal");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::create_dir_all(&dir).unwrap();
    let mut figures = Figures::new(&args.options);
    for round in 0..args.options.rounds {
        append_figures(&mut figures, &args.options, &dir, round).await;
    }
    // After the appends, whose disk it would keep busy.
    let dirs = ["large", "small", "plain"].map(|name| dir.join(name));
    for round in 0..args.options.rounds {
        // An open writes a little, so each round has backlogs of its own.
        backlog::fill_elsewhere(&dirs[0], args.backlog_mib);
        backlog::fill_elsewhere(&dirs[1], args.backlog_mib / SMALLER);
        fill_plain(&dirs[2], args.backlog_mib).await;
        eprintln!("round {round}: backlogs are filled");
        backlog_figures(&mut figures, &dirs, args.backlog_mib);
        for dir in &dirs {
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
    figures.write();
}
