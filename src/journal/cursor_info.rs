//! A look at the cursors of a data directory, of a running service or a detached one. Called
//! by `directory`.
//!
//! # Invariants
//! - A cursor that cannot be read is one all the same: its way out may need every record that
//!   is there (test `an_unreadable_cursor_keeps_everything`).

use super::cursor::is_name;
use super::directory::read_error;
use super::error::InspectError;
use super::position::{self, Ledger, Position, Span};
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use serde::Serialize;
use std::io;
use std::path::Path;

/// A cursor, for people.
#[derive(Debug, Clone, Serialize)]
pub struct CursorInfo {
    /// The way out's name.
    pub name: String,
    /// The first sequence that it has not delivered, as of the last save.
    pub next: Seq,
    /// Why its file cannot be read. Then it is as far as a start of the service takes it to
    /// be: at the oldest record, with nothing delivered.
    pub damage: Option<String>,
    /// Events accepted before the way out came to be.
    pub since: Tally,
    /// What became of all those that it has passed.
    pub ledger: Ledger,
    /// What it has delivered behind `next`, in order.
    pub ahead: Vec<Span>,
    /// What its file says.
    #[serde(skip)]
    pub(super) position: Position,
}

impl CursorInfo {
    /// Whether it has delivered a request, or passed it otherwise.
    #[must_use]
    pub fn has_passed(&self, seq: Seq) -> bool {
        seq < self.next
            || self
                .ahead
                .iter()
                .any(|span| (span.first..span.end).contains(&seq))
    }

    /// The sequence after the last that it has passed.
    #[must_use]
    pub fn reach(&self) -> Seq {
        self.ahead.last().map_or(self.next, |span| span.end)
    }

    /// What it has not passed before `to`, in order.
    #[must_use]
    pub fn gaps(&self, to: Seq) -> Vec<Span> {
        position::gaps(self.next, &self.ahead, to)
    }
}

/// The cursors of a directory, by name. One that cannot be read is at the beginning of all.
pub(super) fn list(dir: &Path) -> Result<Vec<CursorInfo>, InspectError> {
    let mut cursors = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(cursors),
        Err(error) => return Err(read_error(dir)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(read_error(dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_name(&name) {
            continue;
        }
        let (position, damage) = match Position::read(&entry.path()) {
            Ok(position) => (position, None),
            // Removed since the look at the directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let nowhere = Position::new(Seq(0), &Tally::default());
                (nowhere, Some(error.to_string()))
            }
        };
        cursors.push(CursorInfo {
            name,
            next: position.next,
            damage,
            ahead: position.ahead(),
            ledger: position.all(),
            since: position.since.clone(),
            position,
        });
    }
    cursors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cursors)
}
