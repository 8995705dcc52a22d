//! Where a recording is cut. Called by `campaign`, `second` and the tests.
//!
//! # Invariants
//! - The same recording, seed and cut give the same image: the dice of a cut depend on
//!   nothing else.

use super::log::{Log, Op};
use super::recording::Recording;
use super::verdict::Fault;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Images of each step's moment when all steps are cut.
const STEP_VARIANTS: usize = 3;

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
    /// On every so many images this collector is started too.
    pub restart: Option<(usize, PathBuf)>,
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

impl Plan {
    /// What is done with one of the images beside its check: whether its recovery is
    /// cut, and the collector that is started on it.
    pub fn more(&self, number: usize) -> (bool, Option<&Path>) {
        let is_due = |every: usize| self.only.is_some() || number % every == every - 1;
        let restart = self.restart.as_ref().filter(|(every, _)| is_due(*every));
        (
            is_due(self.second_every),
            restart.map(|(_, binary)| binary.as_path()),
        )
    }
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

    /// Other dice for each image that comes of this cut.
    pub fn dice(self, seed: u64, again: u64) -> StdRng {
        StdRng::seed_from_u64(
            seed ^ (self.at as u64) << 24
                ^ (self.variant as u64) << 56
                ^ again.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        )
    }
}

/// The cuts of a plan, in order, each with the kind of its moment.
pub fn choose(recording: &Recording, plan: &Plan) -> Vec<(Cut, &'static str)> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let steps = steps(&recording.log);
    if let Some(cut) = plan.only {
        return vec![(cut, "asked for")];
    }
    let mut moments: Vec<(usize, &'static str)> = match plan.steps {
        None => steps.repeat(STEP_VARIANTS),
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
        let kind = if path.contains(".sqlite") {
            // Rows; the cursor of that name is not.
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
