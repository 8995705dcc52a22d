//! The journal of a bench, and what the disk below it does. Used by `journal` and `micro`,
//! and by benches that start with a full journal.

use holdfast::event::identity::Seq;
use holdfast::journal::{Journal, Limits, NewRecord, Options, ReceiptLimits};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Appends of which the middle one tells what a sync takes.
const SYNCS: usize = 200;

/// A journal as the collector opens it by default, but with room for a bench.
pub fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        limits: Limits {
            max_bytes: 64 << 30,
            min_free_bytes: 1 << 30,
            reserve_bytes: 64 << 20,
            record_bytes_max: (16 << 20) + 4096,
            generation_bytes: 64 << 20,
            generation_age: Duration::from_secs(600),
            queue_bytes_max: 64 << 20,
        },
        ack_deadline: Duration::from_secs(30),
        receipts: ReceiptLimits {
            keep: Duration::from_secs(3600),
            max_bytes: 1 << 30,
        },
    }
}

/// What an append of 4 KiB with its fdatasync takes here, in microseconds: the middle of many.
pub fn sync_us(dir: &Path) -> f64 {
    let path = dir.join("sync");
    let mut file = File::create(&path).unwrap();
    let mut taken: Vec<f64> = (0..SYNCS)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[7; 4096]).unwrap();
            file.sync_data().unwrap();
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    std::fs::remove_file(path).unwrap();
    taken.sort_by(f64::total_cmp);
    taken[SYNCS / 2]
}

/// Appends records until `give` has no more, so many at the same time. The last sequence.
pub async fn append_all<G>(journal: &Journal, in_flight: usize, give: G) -> Seq
where
    G: Fn(usize) -> Option<NewRecord> + Send + Sync + 'static,
{
    let (give, next) = (Arc::new(give), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let (journal, give, next) = (journal.clone(), Arc::clone(&give), Arc::clone(&next));
        tasks.spawn(async move {
            let mut last = Seq(0);
            while let Some(record) = give(next.fetch_add(1, Ordering::Relaxed)) {
                last = journal.append(record, None).await.unwrap();
            }
            last
        });
    }
    tasks.join_all().await.into_iter().max().unwrap()
}
