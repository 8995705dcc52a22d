//! Damage of any one file: the journal opens, serves no wrong byte, and tells
//! exactly which records are gone.
//!
//! `HOLDFAST_TEST_DAMAGES` sets how many damages are tried (`tests/campaign damage`
//! tries 5,000), `HOLDFAST_TEST_SEED` replays a run, `HOLDFAST_TEST_DAMAGE` one of it.

use super::tests::{content, options, read_all, record};
use super::*;
use crate::event::identity::Seq;
use crate::event::tally::{Tally, TypeKey};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What was appended, in order from sequence 1.
struct Original {
    dir: tempfile::TempDir,
    records: Vec<NewRecord>,
    files: Vec<PathBuf>,
}

const SIZES: [usize; 8] = [10, 700, 3_000, 20_000, 64_000, 66_000, 150_000, 900];

/// Four sealed generations and one as a crash leaves it.
async fn original() -> Original {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let mut options = options(&live);
    options.limits.generation_bytes = 500 << 10;
    let journal = Journal::open(&options).unwrap();
    journal.cursor("slow").unwrap();
    let fast = journal.cursor("fast").unwrap();
    let mut records = Vec::new();
    let mut append = async |journal: &Journal| {
        let i = records.len();
        let mut record = record(content(i, SIZES[i % SIZES.len()]));
        record.events = Tally::default();
        let name = ["LaunchEvent", "PageOpenedEvent"][i % 2];
        record.events.add(TypeKey::of_name(name), 1 + i as u64 % 3);
        journal.append(record.clone(), None).await.unwrap();
        records.push(record);
    };
    while journal.stats().generations < 4 {
        append(&journal).await;
    }
    journal.close();
    drop((journal, fast));
    let journal = Journal::open(&options).unwrap();
    let fast = journal.cursor("fast").unwrap();
    for _ in 0..11 {
        append(&journal).await;
    }
    let ends: Vec<_> = records
        .iter()
        .zip(1..)
        .map(|(r, seq)| passed(seq, r))
        .collect();
    fast.advance(Seq(14), &ends[..13]);
    // The manifest has caught up, and the cursors are saved.
    let end = Seq(records.len() as u64 + 1);
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let seen = Directory::open(&live).unwrap();
        let is_seen = seen.generations().last().is_some_and(|g| g.end == end);
        let is_saved = seen.cursors().iter().any(|cursor| cursor.next == Seq(14));
        if is_seen && is_saved {
            break;
        }
        assert!(Instant::now() < until, "the manifest stays behind");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let snapshot = dir.path().join("snapshot");
    copy(&live, &snapshot, None);
    journal.close();
    let mut files = Vec::new();
    list_files(&snapshot, &snapshot, &mut files);
    files.sort();
    Original {
        dir,
        records,
        files,
    }
}

fn passed(seq: u64, record: &NewRecord) -> Passed {
    Passed {
        seq: Seq(seq),
        events: record.events.clone(),
        dead_lettered: Tally::default(),
    }
}

fn list_files(root: &Path, dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list_files(root, &path, files);
        } else {
            files.push(path.strip_prefix(root).unwrap().to_owned());
        }
    }
}

/// Copies a tree. With `own`, large files other than that are shared: nothing
/// writes them.
fn copy(from: &Path, to: &Path, own: Option<&Path>) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target, own);
        } else if own.is_some_and(|own| !path.ends_with(own)) && path.ends_with("store/db") {
            fs::hard_link(&path, &target).unwrap();
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Damages one file; says how.
fn damage(path: &Path, random: &mut StdRng) -> String {
    let mut bytes = fs::read(path).unwrap();
    let used: Vec<usize> = (0..bytes.len() / 512)
        .filter(|sector| bytes[sector * 512..][..512].iter().any(|b| *b != 0))
        .collect();
    let place = |random: &mut StdRng, bytes: &[u8]| {
        if used.is_empty() || random.random_bool(0.1) {
            random.random_range(0..bytes.len().max(1))
        } else {
            used[random.random_range(0..used.len())] * 512 + random.random_range(0..512)
        }
    };
    let kind = if bytes.is_empty() {
        6
    } else {
        random.random_range(0..8)
    };
    let text = match kind {
        0 | 1 => {
            let (at, bit) = (place(random, &bytes), random.random_range(0..8));
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        2 => {
            let at = place(random, &bytes);
            let length = random.random_range(1..5000).min(bytes.len() - at);
            bytes[at..at + length]
                .iter_mut()
                .for_each(|b| *b = random.random());
            format!("{length} bytes at {at} overwritten")
        }
        3 => {
            let at = place(random, &bytes) / 512 * 512;
            let length = [512, 4096, 1 << 20][random.random_range(0..3)].min(bytes.len() - at);
            bytes[at..at + length].fill(0);
            format!("{length} bytes at {at} zeroed")
        }
        4 => {
            let at = place(random, &bytes);
            bytes.truncate(at);
            format!("truncated to {at}")
        }
        5 => {
            let (from, to) = (place(random, &bytes), place(random, &bytes));
            let length = random
                .random_range(1..100_000)
                .min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + length, to);
            format!("{length} bytes copied from {from} to {to}")
        }
        6 => {
            let length = random.random_range(1..9000);
            bytes.extend((0..length).map(|_| random.random::<u8>()));
            format!("{length} bytes appended")
        }
        _ => {
            fs::remove_file(path).unwrap();
            return "removed".to_owned();
        }
    };
    // A new file: the old one may be shared.
    fs::remove_file(path).unwrap();
    fs::write(path, &bytes).unwrap();
    text
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test]
async fn damage_of_any_file_loses_nothing_silently_and_never_gives_a_wrong_byte() {
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("HOLDFAST_TEST_SEED").unwrap_or(nanos);
    eprintln!("HOLDFAST_TEST_SEED={seed}");
    let original = original().await;
    let rounds = match number("HOLDFAST_TEST_DAMAGE") {
        Some(one) => one..one + 1,
        None => 0..number("HOLDFAST_TEST_DAMAGES").unwrap_or(120),
    };
    let (mut with_loss, mut lost, mut by_file) = (0, 0, BTreeMap::new());
    for round in rounds {
        let mut random = StdRng::seed_from_u64(seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The stores hold the records: half of the damages go there.
        let stores: Vec<_> = original
            .files
            .iter()
            .filter(|f| f.ends_with("db"))
            .collect();
        let file = if random.random_bool(0.5) {
            stores[random.random_range(0..stores.len())]
        } else {
            &original.files[random.random_range(0..original.files.len())]
        };
        let dir = original.dir.path().join("damaged");
        copy(&original.dir.path().join("snapshot"), &dir, Some(file));
        let what = format!(
            "HOLDFAST_TEST_SEED={seed} HOLDFAST_TEST_DAMAGE={round}: {} {}",
            file.display(),
            damage(&dir.join(file), &mut random)
        );
        let gone = check(&dir, &original.records, &what).await;
        lost += gone;
        with_loss += u64::from(gone > 0);
        *by_file
            .entry(file.file_name().unwrap().to_owned())
            .or_insert(0) += 1;
        fs::remove_dir_all(&dir).unwrap();
    }
    eprintln!("damages by file: {by_file:?}; {with_loss} lost records, {lost} in all, each told");
}

/// Opens the damaged directory and compares; how many records are gone.
async fn check(dir: &Path, records: &[NewRecord], what: &str) -> u64 {
    let told_before = Directory::open(dir).unwrap().verify(&mut |_| {}).unwrap();
    let mut options = options(dir);
    options.limits.generation_bytes = 500 << 10;
    let journal = Journal::open(&options).unwrap_or_else(|error| panic!("{what}: {error}"));
    let slow = journal.cursor("slow").unwrap();
    assert_eq!(slow.next(), Seq(1), "{what}");
    let found = read_all(&journal, Seq::FIRST).await;
    let mut present = BTreeSet::new();
    for record in &found {
        let sent = &records[record.seq.0 as usize - 1];
        assert!(
            record.content == sent.content,
            "{what}: {} differs",
            record.seq
        );
        assert_eq!(record.events, sent.events, "{what}");
        assert!(present.insert(record.seq.0), "{what}: {} twice", record.seq);
    }
    let all: BTreeSet<u64> = (1..=records.len() as u64).collect();
    let missing: BTreeSet<u64> = all.difference(&present).copied().collect();
    let ranges = |losses: Vec<Loss>| -> BTreeSet<u64> {
        losses.iter().flat_map(|l| l.first.0..l.end.0).collect()
    };
    assert_eq!(
        ranges(journal.losses()),
        missing,
        "{what}: what the journal tells"
    );
    assert_eq!(journal.stats().lost_records, missing.len() as u64, "{what}");
    assert_eq!(
        ranges(told_before.losses),
        missing,
        "{what}: what verify tells"
    );
    // Nothing is pending, and the ledger says where everything went.
    let passed: Vec<_> = found
        .iter()
        .map(|r| passed(r.seq.0, &records[r.seq.0 as usize - 1]))
        .collect();
    slow.advance(Seq(records.len() as u64 + 1), &passed);
    let until = Instant::now() + Duration::from_secs(10);
    let way = loop {
        let ledger = journal.ledger();
        let way = ledger
            .ways
            .into_iter()
            .find(|way| way.way == "slow")
            .unwrap();
        if way.adds_up && way.pending.is_empty() {
            break way;
        }
        assert!(Instant::now() < until, "{what}: {way:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut sent = Tally::default();
    records.iter().for_each(|record| sent.merge(&record.events));
    assert_eq!(way.accepted, sent, "{what}");
    let mut gone = Tally::default();
    missing
        .iter()
        .for_each(|seq| gone.merge(&records[*seq as usize - 1].events));
    assert_eq!(way.ledger.lost, gone, "{what}");
    // It goes on.
    let next = journal.append(record("on"), None).await.unwrap();
    assert!(
        next.0 > records.len() as u64,
        "{what}: {next} is given twice"
    );
    journal.close();
    missing.len() as u64
}
