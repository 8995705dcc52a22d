//! Many cuts of one recording: where, which image, the check, a second cut during the
//! recovery for some of them, and a table. Called by the tests and the controls.
//!
//! # Invariants
//! - The same recording, seed and cut give the same image.
//! - Images are in memory (/dev/shm) where there is such a place; at most a few exist.

use super::check::{Expected, Held, check};
use super::image::{self, Unsynced};
use super::load::Token;
use super::log::{Log, Op};
use super::recorder;
use super::recording::Recording;
use super::verdict::{Fault, Finding, Verdict};
use super::world::World;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Checks that run at a time.
const CHECKERS: usize = 2;

/// Set for the process that opens an image under the recorder.
pub const IMAGE: &str = "HOLDFAST_TEST_IMAGE";

/// How many cuts, and of what.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// At random operations.
    pub random: usize,
    /// Just before and just after the steps of seals, rotations, cursors and
    /// deletions; `None`: all of them.
    pub steps: Option<usize>,
    /// Every so many images the recovery is cut too.
    pub second_every: usize,
    /// Only this cut.
    pub only: Option<Cut>,
    /// Ends once this is found: the controls ask no more.
    pub until: Option<Fault>,
}

/// A cut: before which operation, and which of several images of that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    pub at: usize,
    pub variant: usize,
}

impl Cut {
    /// Reads `at.variant`, as failures print it.
    pub fn parse(text: &str) -> Option<Self> {
        let (at, variant) = text.split_once('.').unwrap_or((text, "0"));
        Some(Self {
            at: at.parse().ok()?,
            variant: variant.parse().ok()?,
        })
    }

    fn dice(self, seed: u64, again: u64) -> StdRng {
        StdRng::seed_from_u64(
            seed ^ (self.at as u64) << 24
                ^ (self.variant as u64) << 56
                ^ again.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        )
    }
}

#[derive(Debug, Default)]
struct Figures {
    images: BTreeMap<&'static str, usize>,
    with_unsynced_data: usize,
    with_unsynced_names: usize,
    second_cuts: usize,
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
    /// Seconds cuts of this image's recovery.
    second: bool,
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
                second: number % plan.second_every == plan.second_every - 1,
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
        let seconds = if job.second {
            second_cuts(job, self.plan.seed)
        } else {
            Vec::new()
        };
        let mut all = vec![(String::new(), check(&job.dir, &self.expected, &acked))];
        for (name, dir) in seconds {
            let held = check(&dir, &self.expected, &acked);
            std::fs::remove_dir_all(&dir).unwrap();
            all.push((name, held));
        }
        let mut result = self.result.lock().unwrap();
        let (verdict, figures) = &mut *result;
        *figures.images.entry(job.kind).or_default() += 1;
        figures.with_unsynced_data += usize::from(job.unsynced.files > 0);
        figures.with_unsynced_names += usize::from(job.unsynced.names > 0);
        figures.second_cuts += all.len() - 1;
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

/// How many images a recovery is cut into.
const SECOND_CUTS: usize = 3;

/// Recovers the image in a process of its own under the recorder, on a copy, and
/// builds images of cuts during that.
fn second_cuts(job: &Job, seed: u64) -> Vec<(String, PathBuf)> {
    let sibling = |suffix: &str| {
        let name = job.dir.file_name().unwrap().to_str().unwrap();
        job.dir.with_file_name(format!("{name}-{suffix}"))
    };
    let (copy, calls) = (sibling("copy"), sibling("calls"));
    let status = Command::new("cp")
        .arg("-a")
        .arg(&job.dir)
        .arg(&copy)
        .status()
        .unwrap();
    assert!(status.success());
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "power::tests::opens_the_image_it_is_given"])
        .env(IMAGE, &copy)
        .envs(recorder::environment(&copy, &calls))
        .output()
        .unwrap();
    let log = Log::read(&calls);
    // The image itself is still as it was cut.
    let mut world = World::on(log.clone(), &job.dir);
    let mut images = Vec::new();
    if !status.status.success() {
        // The check of the image itself says why.
        eprintln!("the recovery of {} failed", job.dir.display());
    }
    let mut random = job.cut.dice(seed, 1);
    let mut cuts: Vec<usize> = (0..SECOND_CUTS)
        .map(|_| random.random_range(0..=log.ops.len()))
        .collect();
    cuts.sort_unstable();
    for (number, at) in cuts.into_iter().enumerate() {
        world.advance(at);
        let dir = sibling(&format!("again-{number}"));
        std::fs::create_dir(&dir).unwrap();
        image::build(&world, &mut job.cut.dice(seed, 2 + number as u64), &dir);
        images.push((format!(", again at {at}"), dir));
    }
    std::fs::remove_dir_all(&copy).unwrap();
    std::fs::remove_file(&calls).unwrap();
    images
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
            content: request.content.clone(),
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
    let dir = base.join(format!("holdfast-cuts-{}", std::process::id()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::create_dir(&dir).unwrap();
    dir
}

fn choose(recording: &Recording, plan: &Plan) -> Vec<(Cut, &'static str)> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let steps = steps(&recording.log);
    if let Some(cut) = plan.only {
        return vec![(cut, "asked for")];
    }
    let mut moments: Vec<(usize, &'static str)> = match plan.steps {
        None => steps.clone(),
        Some(count) => steps.choose_multiple(&mut random, count).copied().collect(),
    };
    for _ in 0..plan.random {
        moments.push((random.random_range(1..=recording.log.ops.len()), "random"));
    }
    moments.sort_unstable();
    let mut cuts: Vec<(Cut, &'static str)> = Vec::new();
    for (at, kind) in moments {
        let variant = match cuts.last() {
            Some((last, _)) if last.at == at => last.variant + 1,
            _ => 0,
        };
        cuts.push((Cut { at, variant }, kind));
    }
    cuts
}

/// The moments just before and just after each step of a seal, rotation, cursor or
/// deletion, known by the paths.
fn steps(log: &Log) -> Vec<(usize, &'static str)> {
    let mut paths: HashMap<u64, String> = HashMap::new();
    let mut steps = Vec::new();
    for (at, op) in log.ops.iter().enumerate() {
        let (path, names) = match op {
            Op::Open {
                handle,
                path,
                created,
                ..
            } => {
                paths.insert(*handle, path.clone());
                (path.as_str(), *created)
            }
            Op::Write { handle, .. }
            | Op::Resize { handle, .. }
            | Op::Sync { handle, .. }
            | Op::Synced { handle, .. } => (paths[handle].as_str(), false),
            Op::Rename { to, .. } => (to.as_str(), true),
            Op::Unlink { path } | Op::MakeDir { path } | Op::RemoveDir { path } => {
                (path.as_str(), true)
            }
            _ => continue,
        };
        let kind = if path.contains("sqlite") {
            continue;
        } else if path.contains("deleted-") {
            "deletion"
        } else if path.contains("cursors") {
            "cursor"
        } else if path.contains("manifest") || path.contains("header") {
            "seal"
        } else if names || path.ends_with("generations") {
            "rotation"
        } else {
            continue;
        };
        steps.extend([(at, kind), (at + 1, kind)]);
    }
    steps.dedup_by_key(|(at, _)| *at);
    steps
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
        "  {:>6} second cuts during the recovery",
        figures.second_cuts
    );
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
