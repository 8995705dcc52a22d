//! Opens an image with the library and compares it with what was sent and
//! acknowledged. Called by `campaign`.
//!
//! # What must hold
//! - The journal opens, and reads from its oldest record to its end, without a person.
//! - Whatever it serves was sent, byte for byte, under its sequence, once.
//! - An acknowledged record before the saved cursor has its row in SQLite; one at or
//!   after it is in the journal.
//! - The journal reports no loss.
//! - The ledger has each event before the saved cursor as delivered, each one after it
//!   as pending (the load has one event a request, and no sequence was left out).
//!
//! The saved cursor is read by opening a copy of the image without its generations:
//! an open journal shows the larger of it and the oldest record, which would hide a
//! deletion that came too early.

use super::load::{Token, tokens};
use super::verdict::{Fault, Finding};
use bytes::Bytes;
use holdfast::event::identity::Seq;
use holdfast::journal::{Journal, JournalLedger, Kind, Limits, Loss, Options, Record};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A record as it must come back.
#[derive(Debug, Clone)]
pub struct Expected {
    /// `None`: it was never delivered, so nobody said.
    pub seq: Option<u64>,
    pub content: Bytes,
}

/// Bytes of records taken at a time.
const READ_BYTES: usize = 4 << 20;

/// Findings of one image that are told; a bad image may lose everything.
const TOLD_MAX: usize = 5;

/// What an image held.
#[derive(Debug, Default)]
pub struct Held {
    pub findings: Vec<Finding>,
    pub records: usize,
    pub rows: usize,
    /// Generations that were set aside.
    pub quarantined: usize,
}

/// How images are opened.
pub fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        limits: Limits {
            max_bytes: 16 << 30,
            min_free_bytes: 0,
            reserve_bytes: 0,
            record_bytes_max: 16 << 20,
            generation_bytes: 1 << 20,
            generation_age: Duration::from_secs(3600),
            queue_bytes_max: 64 << 20,
        },
        ack_deadline: Duration::from_secs(60),
        receipts: holdfast::journal::ReceiptLimits {
            keep: Duration::from_secs(7 * 24 * 3600),
            max_bytes: 1 << 30,
        },
    }
}

/// What a journal holds and says.
pub struct Contents {
    pub records: Vec<Record>,
    pub oldest: Seq,
    pub losses: Vec<Loss>,
    pub ledger: JournalLedger,
}

/// Opens a journal and reads all of it: the first half of the check, and all that the
/// process of a second cut does.
pub fn read_all(data_dir: &Path) -> Result<Contents, String> {
    let journal = Journal::open(&options(data_dir)).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stats = journal.stats();
    let mut reader = journal.reader(stats.oldest_seq);
    let mut records = Vec::new();
    let result = loop {
        match runtime.block_on(reader.read(READ_BYTES)) {
            Ok(some) if !some.is_empty() => records.extend(some),
            Ok(_) if reader.position() >= stats.durable_end_seq => break Ok(()),
            Ok(_) => break Err(format!("stuck before {}", reader.position())),
            Err(error) => break Err(error.to_string()),
        }
    };
    let contents = Contents {
        records,
        oldest: stats.oldest_seq,
        losses: journal.losses(),
        ledger: journal.ledger(),
    };
    journal.close();
    result.map(|()| contents)
}

/// Checks the image in `image`; `acked` are the requests acknowledged before the cut.
pub fn check(image: &Path, expected: &HashMap<Token, Expected>, acked: &HashSet<Token>) -> Held {
    let data = image.join("data");
    let mut held = Held::default();
    if !data.exists() {
        // Cut before the first name was durable.
        for token in acked {
            let text = format!("{token:?}: there is no data directory");
            held.findings.push(Finding::new(Fault::AckedLost, text));
        }
        held.findings.truncate(TOLD_MAX);
        return held;
    }
    let saved = saved_cursor(image, &data);
    let contents = match read_all(&data) {
        Ok(contents) => contents,
        Err(error) => {
            held.findings.push(Finding::new(Fault::NotServed, error));
            return held;
        }
    };
    let (records, oldest) = (&contents.records, contents.oldest);
    held.records = records.len();
    held.quarantined = std::fs::read_dir(data.join("quarantine")).map_or(0, Iterator::count);
    let mut found = HashMap::new();
    let mut findings = Vec::new();
    for record in records {
        let token = tokens(&record.content).next();
        let known = token.and_then(|token| expected.get(&token));
        let is_right = known.is_some_and(|known| {
            known.content[..] == record.content[..]
                && known.seq.is_none_or(|seq| seq == record.seq.0)
        });
        let again = found.insert(token, record.seq);
        if !is_right || record.kind != Kind::Dispatch || again.is_some() {
            let text = format!("{} as {token:?}, {:?}", record.seq, record.kind);
            findings.push(Finding::new(Fault::Foreign, text));
        }
    }
    if !contents.losses.is_empty() {
        let text = format!("{:?}", contents.losses);
        findings.push(Finding::new(Fault::LossReported, text));
    }
    findings.extend(unbalanced(&contents, saved));
    let rows = rows(&data.join("events.sqlite"), &mut findings);
    held.rows = rows.len();
    for token in rows.iter().filter(|token| !expected.contains_key(token)) {
        findings.push(Finding::new(Fault::Foreign, format!("row {token:?}")));
    }
    if oldest > saved {
        let text = format!("the oldest is {oldest}, the saved cursor {saved}");
        findings.push(Finding::new(Fault::DeletedBeforeSave, text));
    }
    for token in acked {
        let served = found.get(&Some(*token)).copied();
        let (is_held, has_row) = (served.is_some(), rows.contains(token));
        // What was never delivered has its sequence in the journal alone.
        let seq = expected[token].seq.map(Seq).or(served);
        let fault = match (seq.map(|seq| seq < saved), is_held, has_row) {
            (Some(true), _, false) => Fault::SkippedByCursor,
            (Some(false), false, true) => Fault::DeletedBeforeSave,
            (Some(false) | None, false, false) => Fault::AckedLost,
            _ => continue,
        };
        let text =
            format!("{token:?} with {seq:?}: held {is_held}, row {has_row}, saved cursor {saved}");
        findings.push(Finding::new(fault, text));
    }
    // One of each kind is told before more of the same.
    findings.sort_by_key(|finding| finding.fault);
    let mut seen: HashMap<Fault, usize> = HashMap::new();
    findings.retain(|finding| {
        let count = seen.entry(finding.fault).or_default();
        *count += 1;
        *count <= TOLD_MAX
    });
    held.findings = findings;
    held
}

/// Whether the ledger says something else than the records and the cursor.
fn unbalanced(contents: &Contents, saved: Seq) -> Option<Finding> {
    let way = contents
        .ledger
        .ways
        .iter()
        .find(|way| way.way == "sqlite")?;
    let pending = contents.records.iter().filter(|r| r.seq >= saved).count() as u64;
    let told = (way.ledger.delivered.total(), way.pending.total());
    let right = (saved.0 - 1, pending);
    (told != right || !way.adds_up).then(|| {
        let text = format!("{told:?} delivered and pending, {right:?} are right: {way:?}");
        Finding::new(Fault::LedgerWrong, text)
    })
}

/// Where the way out to SQLite begins after this cut, by its own file alone.
fn saved_cursor(image: &Path, data: &Path) -> Seq {
    let probe = image.join("probe");
    std::fs::create_dir_all(probe.join("cursors")).unwrap();
    if data.join("host_id").exists() {
        std::fs::copy(data.join("host_id"), probe.join("host_id")).unwrap();
    }
    for entry in std::fs::read_dir(data.join("cursors"))
        .into_iter()
        .flatten()
    {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        std::fs::copy(&path, probe.join("cursors").join(name)).unwrap();
    }
    let saved = Journal::open(&options(&probe)).map_or(Seq::FIRST, |journal| {
        let cursors = journal.stats().cursors;
        journal.close();
        let sqlite = cursors.into_iter().find(|at| at.name == "sqlite");
        sqlite.map_or(Seq::FIRST, |at| at.next_seq)
    });
    std::fs::remove_dir_all(&probe).unwrap();
    saved
}

/// The requests with a row, read as an operator would.
pub fn rows(database: &Path, findings: &mut Vec<Finding>) -> HashSet<Token> {
    if !database.exists() {
        return HashSet::new();
    }
    let output = Command::new("sqlite3")
        .arg(database)
        .arg("PRAGMA integrity_check; SELECT event_id FROM events;")
        .output()
        .expect("sqlite3 is installed by tests/run");
    let errors = String::from_utf8_lossy(&output.stderr);
    // Cut before the table was made: then nothing is delivered.
    if !output.status.success() && !errors.contains("no such table") {
        let text = format!("SQLite cannot be read: {errors}");
        findings.push(Finding::new(Fault::NotServed, text));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let integrity = lines.next().unwrap_or_default();
    if integrity != "ok" {
        let text = format!("SQLite is damaged: {integrity}");
        findings.push(Finding::new(Fault::NotServed, text));
    }
    lines.filter_map(Token::parse).collect()
}
