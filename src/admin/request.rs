//! What an operator asks to be changed, and what was done: the documents of the
//! admin socket's changes. Called by `change`, `serve` and the `cli`.
//!
//! # Invariants
//! - Nothing is changed unless `apply` is there and true.
//! - A field that is not known is an error: a mistyped bound must not become none.

use super::status::Counts;
use crate::config;
use crate::drill::Outage;
use crate::journal::Span;
use crate::pace::{Settings, WayPace};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Body of `POST /journal/skip`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkipRequest {
    /// The way out.
    pub way: String,
    /// The first sequence that it shall still deliver.
    #[serde(default)]
    pub to: Option<u64>,
    /// Or how many sequences it shall pass over.
    #[serde(default)]
    pub count: Option<u64>,
    /// False: only say what would be done.
    #[serde(default)]
    pub apply: bool,
    /// Who called sudo, as the caller says.
    #[serde(default)]
    pub sudo_user: Option<String>,
}

/// Body of `POST /journal/purge`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// The first sequence that shall still be delivered.
    #[serde(default)]
    pub to: Option<u64>,
    /// By which way out; `all` or absent: by every one.
    #[serde(default)]
    pub way: Option<String>,
    /// Or the quarantined generation that shall be deleted.
    #[serde(default)]
    pub quarantine: Option<u64>,
    /// False: only say what would be done.
    #[serde(default)]
    pub apply: bool,
    /// Who called sudo, as the caller says.
    #[serde(default)]
    pub sudo_user: Option<String>,
}

/// Body of `POST /pace`; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaceRequest {
    /// Events a second that leave by one way out; 0: as many as go.
    #[serde(default)]
    pub max_rate: Option<u32>,
    /// The part that a backlog may take beside what is fresh: more than 0, at most 1.
    #[serde(default)]
    pub backlog_share: Option<f64>,
    /// Who called sudo, as the caller says.
    #[serde(default)]
    pub sudo_user: Option<String>,
}

/// How fast the log goes out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PaceAnswer {
    /// What is allowed.
    pub settings: Settings,
    /// How the ways out go.
    pub ways: BTreeMap<String, WayPace>,
}

/// Body of `POST /drill`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    /// What is away.
    pub outage: Outage,
    /// For how long.
    pub seconds: u64,
    /// Who called sudo, as the caller says.
    #[serde(default)]
    pub sudo_user: Option<String>,
}

/// Body of `POST /drain`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Begin, or take it back.
    pub on: bool,
    /// Who called sudo, as the caller says.
    #[serde(default)]
    pub sudo_user: Option<String>,
}

/// Body of `POST /reload`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Who called sudo, as the caller says.
    #[serde(default)]
    pub sudo_user: Option<String>,
}

/// What came of a configuration that was loaded anew: keys, and never values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What is in force now, and was not before.
    pub applied: Vec<String>,
    /// What will be after a restart, and stays as it was until then.
    pub needs_restart: Vec<String>,
}

/// Why a configuration was not loaded anew; all is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It has mistakes.
    #[error("the configuration stays as it was: {0}")]
    Wrong(#[from] config::Errors),
    /// The service stops.
    #[error("the service stops: nothing is loaded any more")]
    Stopping,
}

/// A change that is asked for.
#[derive(Debug, Clone)]
pub enum Change {
    /// One way out passes records over.
    Skip(SkipRequest),
    /// Ways out pass records over, or a quarantined generation is deleted.
    Purge(PurgeRequest),
}

/// One way out's part of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The way out.
    pub way: String,
    /// The first sequence that is passed over.
    pub from: u64,
    /// The first that is not.
    pub to: u64,
    /// What is passed over between: all but what was delivered ahead.
    pub passed_over: Vec<Span>,
    /// The events in that, by type: what is not delivered this way.
    pub events: Counts,
}

/// A quarantined generation that is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its number.
    pub generation: u64,
    /// Its first sequence, where its files can still be read.
    pub first: Option<u64>,
    /// The sequence after its last.
    pub end: Option<u64>,
    /// The events that were in it, whatever became of them.
    pub events: Option<Counts>,
    /// Its bytes on disk.
    pub disk_bytes: u64,
}

/// What was done, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it was done.
    pub applied: bool,
    /// The ways out that pass records over.
    pub moves: Vec<Move>,
    /// The quarantined generation that goes.
    pub removed: Option<Removed>,
    /// Set when the change was made but its audit line could not be ended.
    pub audit_error: Option<String>,
}

impl Change {
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Skip(_) => "skip",
            Self::Purge(_) => "purge",
        }
    }

    pub(super) fn args(&self) -> Value {
        match self {
            Self::Skip(r) => json!({"way": r.way, "to": r.to, "count": r.count}),
            Self::Purge(r) => json!({"way": r.way, "to": r.to, "quarantine": r.quarantine}),
        }
    }

    pub(super) fn apply(&self) -> bool {
        match self {
            Self::Skip(request) => request.apply,
            Self::Purge(request) => request.apply,
        }
    }
}
