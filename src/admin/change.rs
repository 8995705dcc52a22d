//! The changes that an operator may make in a journal, as plan, audit, effect.
//! Called by `serve` for the running service, and by the `cli` for a directory
//! that no service uses.
//!
//! # Invariants
//! - A dry run and the change itself take the same way until the audit: what a
//!   dry run says is what would be done.
//! - The order is: plan, first half of the audit line durable, effect, second
//!   half. Without the first half nothing is changed (test
//!   `without_an_audit_nothing_is_changed`).
//! - A quarantined generation that a way out still needs is not purged (test
//!   `a_loss_is_found_shown_and_put_away`).

use super::audit::{Audit, Intent, Who};
use super::request::{Change, Move, Outcome, PurgeRequest, Removed, SkipRequest};
use super::status::counts;
use crate::event::identity::Seq;
use crate::journal::{Directory, Journal, Offline, PurgeError};
use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The request makes no sense, here or anywhere; not worth another try.
    #[error("{0}")]
    Request(String),
    /// The journal's state forbids it now.
    #[error("{0}")]
    Refused(String),
    /// The audit cannot be written, so nothing was changed; worth another try.
    #[error("nothing was changed: the audit cannot be written: {0}")]
    Audit(std::io::Error),
    /// It failed on the way; the audit says how far it came.
    #[error("{0}")]
    Failed(String),
}

/// The journal that is changed.
#[derive(Debug)]
pub enum Ground<'a> {
    /// By the service that runs on it.
    Running {
        /// Its journal.
        journal: &'a Journal,
        /// Its directory.
        data_dir: &'a Path,
    },
    /// By this process, which holds its lock.
    Detached {
        /// The lock and the changes.
        offline: &'a Offline,
        /// Its directory.
        data_dir: &'a Path,
    },
}

impl Ground<'_> {
    fn skip(&self, way: &str, to: Seq, apply: bool) -> Result<Move, ChangeError> {
        let skipped = match self {
            Self::Running { journal, .. } => journal.skip(way, to, apply),
            Self::Detached { offline, .. } => offline.skip(way, to, apply),
        };
        let skipped = skipped.map_err(|error| ChangeError::Refused(format!("{way}: {error}")))?;
        Ok(Move {
            way: way.to_owned(),
            from: skipped.from.0,
            to: skipped.to.0,
            passed_over: skipped.passed_over,
            events: counts(&skipped.events),
        })
    }

    fn directory(&self) -> Result<Directory, ChangeError> {
        let (Self::Running { data_dir, .. } | Self::Detached { data_dir, .. }) = self;
        Directory::open(data_dir).map_err(|error| ChangeError::Failed(error.to_string()))
    }

    /// Each way out and the first sequence that it has not delivered.
    fn ways(&self) -> Result<Vec<(String, Seq)>, ChangeError> {
        if let Self::Running { journal, .. } = self {
            let cursors = journal.stats().cursors.into_iter();
            return Ok(cursors.map(|at| (at.name, at.next_seq)).collect());
        }
        let directory = self.directory()?;
        let ways = directory.cursors().iter();
        Ok(ways.map(|c| (c.name.clone(), c.next)).collect())
    }

    /// The bytes of a quarantined generation, which is deleted with `apply`.
    fn purge_quarantined(&self, generation: u64, apply: bool) -> Result<u64, PurgeError> {
        match self {
            Self::Running { journal, .. } => journal.purge_quarantined(generation, apply),
            Self::Detached { offline, .. } => offline.purge_quarantined(generation, apply),
        }
    }

    /// Deletes the generations that every way out has passed; the running service
    /// does it by itself.
    fn tidy(&self) {
        if let Self::Detached { offline, .. } = self
            && let Err(error) = offline.delete_passed(true)
        {
            tracing::warn!(%error, "generations that all have passed stay until the next start");
        }
    }
}

#[derive(Serialize)]
struct Plan {
    moves: Vec<Move>,
    removed: Option<Removed>,
}

impl Change {
    fn plan(&self, ground: &Ground<'_>) -> Result<Plan, ChangeError> {
        match self {
            Self::Skip(request) => plan_skip(request, ground),
            Self::Purge(request) => plan_purge(request, ground),
        }
    }
}

fn no_such_way(way: &str, ways: &[(String, Seq)]) -> ChangeError {
    let names: Vec<_> = ways.iter().map(|(name, _)| name.as_str()).collect();
    ChangeError::Request(format!(
        "no way out is named {way:?}; there are: {}",
        names.join(", ")
    ))
}

fn plan_skip(request: &SkipRequest, ground: &Ground<'_>) -> Result<Plan, ChangeError> {
    let ways = ground.ways()?;
    let Some((way, next)) = ways.iter().find(|(name, _)| *name == request.way) else {
        return Err(no_such_way(&request.way, &ways));
    };
    let to = match (request.to, request.count) {
        (Some(to), None) => Seq(to),
        (None, Some(count)) => Seq(next.0.saturating_add(count)),
        _ => {
            let text = "say how far: either a sequence (to) or a number of them (count)";
            return Err(ChangeError::Request(text.to_owned()));
        }
    };
    Ok(Plan {
        moves: vec![ground.skip(way, to, false)?],
        removed: None,
    })
}

fn plan_purge(request: &PurgeRequest, ground: &Ground<'_>) -> Result<Plan, ChangeError> {
    match (request.to, request.quarantine) {
        (Some(to), None) => {
            let ways = ground.ways()?;
            let only = request.way.as_deref().filter(|way| *way != "all");
            if let Some(way) = only
                && !ways.iter().any(|(name, _)| name == way)
            {
                return Err(no_such_way(way, &ways));
            }
            let behind = ways
                .iter()
                .filter(|(name, next)| only.is_none_or(|way| way == name) && next.0 < to);
            let moves = behind.map(|(way, _)| ground.skip(way, Seq(to), false));
            Ok(Plan {
                moves: moves.collect::<Result<_, _>>()?,
                removed: None,
            })
        }
        (None, Some(number)) if request.way.is_none() => plan_removal(number, ground),
        _ => Err(ChangeError::Request(
            "say what: either a sequence (to) or a quarantined generation (quarantine)".to_owned(),
        )),
    }
}

fn plan_removal(number: u64, ground: &Ground<'_>) -> Result<Plan, ChangeError> {
    let disk_bytes = ground
        .purge_quarantined(number, false)
        .map_err(|error| match &error {
            PurgeError::Unknown(_) => ChangeError::Request(error.to_string()),
            PurgeError::Needed(_) => ChangeError::Refused(format!(
                "{error}; `holdfast journal ls` says to which ways out"
            )),
            PurgeError::Unreadable(_) => ChangeError::Refused(error.to_string()),
            PurgeError::Io { .. } => ChangeError::Failed(error.to_string()),
        })?;
    let directory = ground.directory()?;
    let mut quarantined = directory.generations().iter().filter(|g| g.quarantined);
    let known = quarantined.find(|generation| generation.number == number);
    Ok(Plan {
        moves: Vec::new(),
        removed: Some(Removed {
            generation: number,
            first: known.map(|generation| generation.first.0),
            end: known.map(|generation| generation.end.0),
            events: known.map(|generation| counts(&generation.events)),
            disk_bytes,
        }),
    })
}

/// Makes a change, or says what it would do. Blocking.
///
/// # Errors
/// See [`ChangeError`].
pub fn change(
    ground: &Ground<'_>,
    audit: &Audit,
    change: &Change,
    who: &Who,
) -> Result<Outcome, ChangeError> {
    let plan = change.plan(ground)?;
    let nothing = plan.removed.is_none() && plan.moves.iter().all(|m| m.from == m.to);
    if !change.apply() || nothing {
        return Ok(Outcome {
            applied: false,
            moves: plan.moves,
            removed: plan.removed,
            audit_error: None,
        });
    }
    let intent = Intent {
        verb: change.verb(),
        args: change.args(),
        by: who,
        planned: json!(plan),
    };
    let line = audit.begin(&intent).map_err(ChangeError::Audit)?;
    let mut done = Vec::new();
    let result = effect(ground, &plan, &mut done);
    let text = match &result {
        Ok(()) => "applied".to_owned(),
        Err(error) => format!("failed: {error}"),
    };
    tracing::warn!(
        verb = change.verb(), args = %change.args(), uid = who.uid, result = text,
        "an operator changed the journal"
    );
    let ended = line.end(&text, &json!(done));
    result?;
    ground.tidy();
    Ok(Outcome {
        applied: true,
        moves: done,
        removed: plan.removed,
        audit_error: ended.err().map(|error| error.to_string()),
    })
}

fn effect(ground: &Ground<'_>, plan: &Plan, done: &mut Vec<Move>) -> Result<(), ChangeError> {
    for planned in &plan.moves {
        // A pump may have come further than the plan meanwhile: then it is done.
        let moved = ground.skip(&planned.way, Seq(planned.to), true);
        done.push(moved.map_err(|error| ChangeError::Failed(error.to_string()))?);
    }
    if let Some(removed) = &plan.removed {
        ground
            .purge_quarantined(removed.generation, true)
            .map_err(|error| ChangeError::Failed(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "change_tests.rs"]
pub(super) mod tests;
