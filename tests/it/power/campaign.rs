//! Many cuts of one recording: an image of each, its check, a second cut during the
//! recovery for some of them, and a table. Called by the tests and the controls.
//!
//! # Invariants
//! - Images are in memory (/dev/shm) where there is such a place; at most a few exist.

use super::check::{Expected, Held, check};
use super::cuts::{Cut, Plan, choose};
use super::image::{self, Unsynced};
use super::load::Token;
use super::recording::Recording;
use super::restart::deliver;
use super::second::{Recovery, second_cuts};
use super::verdict::{Fault, Finding, Verdict};
use super::world::World;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Checks that run at a time.
const CHECKERS: usize = 2;

#[derive(Debug, Default)]
struct Figures {
    images: BTreeMap<&'static str, usize>,
    with_unsynced_data: usize,
    with_unsynced_names: usize,
    second_cuts: usize,
    restarts: usize,
    /// Acknowledgements of second lives that were judged.
    acked_again: usize,
    records: usize,
    rows: usize,
    quarantined: usize,
    bad_images: usize,
}

struct Job {
    cut: Cut,
    dir: PathBuf,
    kind: &'static str,
    unsynced: Unsynced,
    /// Which of the plan's cuts this is.
    number: usize,
}

struct Shared<'a> {
    plan: &'a Plan,
    recording: &'a Recording,
    expected: HashMap<Token, Expected>,
    result: Mutex<(Verdict, Figures)>,
}

/// Cuts, checks, prints the table.
pub fn prove(recording: &Recording, plan: &Plan) -> Verdict {
    let mut verdict = Verdict::default();
    let shared = Shared {
        plan,
        recording,
        expected: expected(recording, &mut verdict.findings),
        result: Mutex::new((verdict, Figures::default())),
    };
    let base = images_dir();
    let cuts = choose(recording, plan);
    let (jobs, queue) = std::sync::mpsc::sync_channel::<Job>(CHECKERS);
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        for _ in 0..CHECKERS {
            scope.spawn(|| {
                loop {
                    let job = queue.lock().unwrap().recv();
                    let Ok(job) = job else { return };
                    shared.judge(&job);
                    std::fs::remove_dir_all(&job.dir).unwrap();
                }
            });
        }
        let mut world = World::new(recording.log.clone());
        for (number, (cut, kind)) in cuts.iter().enumerate() {
            if plan
                .until
                .is_some_and(|fault| shared.result.lock().unwrap().0.has(fault))
            {
                break;
            }
            world.advance(cut.at);
            let dir = base.join(format!("cut-{}.{}", cut.at, cut.variant));
            std::fs::create_dir(&dir).unwrap();
            let unsynced = image::build(&world, &mut cut.dice(plan.seed, 0), &dir);
            let job = Job {
                cut: *cut,
                dir,
                kind,
                unsynced,
                number,
            };
            jobs.send(job).unwrap();
        }
        drop(jobs);
    });
    std::fs::remove_dir_all(&base).unwrap();
    let (verdict, figures) = shared.result.into_inner().unwrap();
    print(plan, recording, &verdict, &figures);
    verdict
}

impl Shared<'_> {
    fn judge(&self, job: &Job) {
        let acked: HashSet<Token> = self
            .recording
            .acks
            .iter()
            .filter(|(_, at)| **at < job.cut.at)
            .map(|(token, _)| *token)
            .collect();
        let mut acked_again = 0;
        let (second, restart) = self.plan.more(job.number);
        let recovery = if second {
            second_cuts(&job.dir, job.cut, self.plan.seed)
        } else {
            Recovery::default()
        };
        // Before the check, which changes the image.
        let delivery = restart.map(|binary| deliver(binary, &job.dir, &acked));
        let mut held = check(&job.dir, &self.expected, &acked);
        held.findings.extend(recovery.finding);
        held.findings.extend(delivery.into_iter().flatten());
        let mut all = vec![(String::new(), held)];
        if !recovery.images.is_empty() {
            let mut expected = self.expected.clone();
            expected.extend(recovery.expected);
            for second in recovery.images {
                let acked = acked.iter().chain(&second.acked).copied().collect();
                let held = check(&second.dir, &expected, &acked);
                std::fs::remove_dir_all(&second.dir).unwrap();
                acked_again += second.acked.len();
                all.push((second.name, held));
            }
        }
        let mut result = self.result.lock().unwrap();
        let (verdict, figures) = &mut *result;
        *figures.images.entry(job.kind).or_default() += 1;
        figures.with_unsynced_data += usize::from(job.unsynced.files > 0);
        figures.with_unsynced_names += usize::from(job.unsynced.names > 0);
        figures.second_cuts += all.len() - 1;
        figures.acked_again += acked_again;
        figures.restarts += usize::from(restart.is_some());
        for (name, held) in all {
            let Held {
                findings,
                records,
                rows,
                quarantined,
            } = held;
            verdict.checked += 1;
            figures.records += records;
            figures.rows += rows;
            figures.quarantined += quarantined;
            figures.bad_images += usize::from(!findings.is_empty());
            let Cut { at, variant } = job.cut;
            verdict.findings.extend(findings.into_iter().map(|finding| {
                let text = format!("cut {at}.{variant} ({}{name}): {}", job.kind, finding.text);
                Finding::new(finding.fault, text)
            }));
        }
    }
}

/// What every request must come back as. Its sequence is the one in its row: all were
/// delivered in the end, and those that were not are the first findings.
fn expected(recording: &Recording, findings: &mut Vec<Finding>) -> HashMap<Token, Expected> {
    let output = Command::new("sqlite3")
        .arg(recording.dir.join("data/events.sqlite"))
        .arg("SELECT event_id, ingest_seq FROM events")
        .output()
        .expect("sqlite3 is installed by tests/run");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let seqs: HashMap<_, _> = text
        .lines()
        .map(|line| {
            let (id, seq) = line.split_once('|').unwrap();
            (Token::parse(id).unwrap(), seq.parse().unwrap())
        })
        .collect();
    let skipped = recording.sent.len() - seqs.len();
    if skipped > 0 {
        let text = format!("{skipped} requests were never delivered, without any cut");
        findings.push(Finding::new(Fault::NeverDelivered, text));
    }
    let sent = recording.sent.values();
    sent.map(|request| {
        let expected = Expected {
            seq: seqs.get(&request.token).copied(),
            content: request.content.clone().into(),
        };
        (request.token, expected)
    })
    .collect()
}

fn images_dir() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    // Several campaigns may be under way at once.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    let dir = base.join(format!("holdfast-cuts-{}-{number}", std::process::id()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::create_dir(&dir).unwrap();
    dir
}

fn print(plan: &Plan, recording: &Recording, verdict: &Verdict, figures: &Figures) {
    let cuts: usize = figures.images.values().sum();
    eprintln!(
        "power cuts, seed {}: {} calls recorded",
        plan.seed,
        recording.log.ops.len()
    );
    for (kind, count) in &figures.images {
        eprintln!("  {count:>6} cuts: {kind}");
    }
    eprintln!(
        "  {:>6} second cuts during the recovery, with {} more acknowledgements",
        figures.second_cuts, figures.acked_again
    );
    eprintln!("  {:>6} starts of the collector", figures.restarts);
    eprintln!(
        "  {:>6} of {cuts} images had unsynced data",
        figures.with_unsynced_data
    );
    eprintln!(
        "  {:>6} of {cuts} images had unsynced names",
        figures.with_unsynced_names
    );
    eprintln!(
        "  {:>6} records served, {} rows read",
        figures.records, figures.rows
    );
    eprintln!("  {:>6} generations set aside", figures.quarantined);
    eprintln!(
        "  {:>6} bad images of {}",
        figures.bad_images, verdict.checked
    );
}
