//! A cursor: a named, durable position in the journal, one for each way out, with
//! what became of the events before it. Called by the pumps (advance), the keeper
//! in `shared` (save) and an operator's `skip`.
//!
//! # Invariants
//! - `next` is the first sequence that this way out has not delivered; it moves
//!   only forward, and only after the delivery's evidence (the pumps' duty). What is
//!   delivered ahead of it is noted as spans (`position`).
//! - Position and counts are saved together, so that they agree after any crash.
//!   What was advanced but not saved is delivered, and counted, again.
//! - Deletion looks at saved positions only.
//! - A damaged file means the oldest record: deliver again, never skip.

use super::codec;
use super::error::CursorError;
use super::position::{AHEAD_MAX, Passed, Position, Span};
use super::slots::Slots;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

const VERSION: u32 = 2;

impl Position {
    /// Reads a saved position.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        Self::decode(&Slots::read(path)?)
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let ((version, position), _): ((u32, Self), usize) = codec::decode(bytes)?;
        if version != VERSION {
            return Err(io::Error::other(format!("format version {version}")));
        }
        if !position.is_plausible() {
            return Err(io::Error::other("it claims what no journal holds"));
        }
        Ok(position)
    }

    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        codec::encode(&(VERSION, self))
    }
}

/// Where a way out is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorStats {
    /// Its name.
    pub name: String,
    /// The first sequence that it has not delivered.
    pub next_seq: Seq,
    /// Requests behind that one that it has delivered.
    pub ahead_requests: u64,
}

impl CursorStats {
    /// Requests that it has not delivered, of those before `end`.
    #[must_use]
    pub fn pending_requests(&self, end: Seq) -> u64 {
        (end.0.saturating_sub(self.next_seq.0)).saturating_sub(self.ahead_requests)
    }
}

/// Whether a text may name a cursor.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// A way out's position.
#[derive(Debug)]
pub struct Cursor {
    name: String,
    path: PathBuf,
    position: Mutex<Position>,
    /// The file, and the position that it holds.
    file: Mutex<(Slots, Position)>,
    saved: AtomicU64,
    /// Counts an operator's moves.
    moves: watch::Sender<u64>,
}

impl Cursor {
    /// Opens or makes the cursor; a new one starts at `oldest`, before which the
    /// events `since` were accepted.
    pub(super) fn open(
        dir: &Path,
        name: &str,
        oldest: Seq,
        since: &Tally,
    ) -> Result<Self, CursorError> {
        if !is_name(name) {
            return Err(CursorError::Name(name.to_owned()));
        }
        let path = dir.join(name);
        let io_error = |source| CursorError::Io {
            path: path.clone(),
            source,
        };
        let fresh = Position::new(oldest, since);
        let found = Slots::open(&path).and_then(|found| {
            found
                .map(|(slots, bytes)| Ok((slots, Position::decode(&bytes)?)))
                .transpose()
        });
        let (slots, position) = match found {
            Ok(Some((slots, position))) => {
                slots.make_durable(&path).map_err(io_error)?;
                (slots, position)
            }
            Ok(None) => {
                // Saved at once: from now on deletion waits for this way out.
                let bytes = fresh.encode().map_err(io_error)?;
                (Slots::create(&path, &bytes).map_err(io_error)?, fresh)
            }
            Err(error) => {
                tracing::error!(cursor = name, %error, "cursor file is damaged: delivering again from the oldest record");
                let bytes = fresh.encode().map_err(io_error)?;
                (Slots::create(&path, &bytes).map_err(io_error)?, fresh)
            }
        };
        Ok(Self {
            name: name.to_owned(),
            path,
            saved: AtomicU64::new(position.next.0),
            file: Mutex::new((slots, position.clone())),
            position: Mutex::new(position),
            moves: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way out's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first sequence not delivered yet.
    #[must_use]
    pub fn next(&self) -> Seq {
        self.lock().next
    }

    pub(super) fn stats(&self) -> CursorStats {
        let position = self.lock();
        CursorStats {
            name: self.name.clone(),
            next_seq: position.next,
            ahead_requests: position.ahead().iter().map(Span::requests).sum(),
        }
    }

    /// [`Cursor::next`], and what is delivered ahead of it, in order: nothing of that is to
    /// be delivered again.
    #[must_use]
    pub fn place(&self) -> (Seq, Vec<Span>) {
        let position = self.lock();
        (position.next, position.ahead())
    }

    /// Whether there is room for another span ahead, and one to spare for what is in work.
    #[must_use]
    pub fn may_lead(&self) -> bool {
        self.lock().ahead().len() + 1 < AHEAD_MAX
    }

    /// Moves on: everything before `next` is delivered or set aside, as `passed` tells
    /// record by record, in order. What an operator has skipped meanwhile is not counted
    /// twice; moving back is ignored.
    pub fn advance(&self, next: Seq, passed: &[Passed]) {
        let mut position = self.lock();
        let first = position.next;
        // It begins at the position, so that no room is needed.
        let _noted = position.deliver(Span { first, end: next }, passed);
    }

    /// Notes that everything in `span` is delivered or set aside, as `passed` tells record
    /// by record, in order. Where it does not begin at [`Cursor::next`] or before, it is
    /// noted ahead of it; false where there is no room for one more such span: then it is
    /// not noted, and has to be delivered again.
    #[must_use]
    pub fn deliver(&self, span: Span, passed: &[Passed]) -> bool {
        self.lock().deliver(span, passed)
    }

    /// Tells when an operator has moved the cursor: go on at [`Cursor::next`].
    #[must_use]
    pub fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// Passes over everything before `to`; `events` gives the events of the
    /// records before `to` that the present position has not passed.
    pub(super) fn skip(
        &self,
        to: Seq,
        events: impl FnOnce(&Position) -> Option<Tally>,
    ) -> Option<Tally> {
        let mut position = self.lock();
        let purged = events(&position)?;
        position.skip(to, &purged);
        drop(position);
        self.moves.send_modify(|moves| *moves += 1);
        Some(purged)
    }

    /// What is before `to` was deleted, after all ways out had passed it. One whose file tells
    /// of an earlier place fell back to an older slot, or was put back by somebody: it goes on
    /// at `to`, before which the events `accepted` were accepted. What is between counts as
    /// lost: it cannot be read back, and nothing shows that it was delivered.
    pub(super) fn catch_up(&self, to: Seq, accepted: &Tally) {
        let mut position = self.lock();
        if position.next < to {
            tracing::error!(
                cursor = self.name, next_seq = %position.next, end_seq = %to,
                "cursor file is older than the last deletion: what is between was most likely delivered, and counts as lost"
            );
            position.catch_up(to, accepted);
        }
    }

    /// The losses before this sequence are in the ledger.
    pub(super) fn losses_through(&self) -> Seq {
        self.lock().losses_through
    }

    /// Puts what is missing of the events `accepted` before `next` in the ledger as
    /// lost, for all generations up to `end`. Nothing when it has moved meanwhile.
    pub(super) fn settle_losses(&self, next: Seq, end: Seq, accepted: &Tally) {
        let mut position = self.lock();
        if position.next == next {
            let lost = accepted.minus(&position.accounted());
            position.ledger.lost.merge(&lost);
            position.losses_through = end;
        }
    }

    /// Notes that no generation up to `end` has losses.
    pub(super) fn without_losses(&self, end: Seq) {
        let mut position = self.lock();
        position.losses_through = position.losses_through.max(end);
    }

    /// Makes the ledger agree with what the journal says was accepted before the
    /// position; whether it did. What it does not account for counts as lost.
    pub(super) fn reconcile(&self, next: Seq, accepted_before: &Tally) -> bool {
        let mut position = self.lock();
        if position.next != next || position.accounted() == *accepted_before {
            return true;
        }
        let accounted = position.accounted();
        // Nothing shows that it was delivered.
        let missing = accepted_before.minus(&accounted);
        position.ledger.lost.merge(&missing);
        let surplus = accounted.minus(accepted_before);
        position.ledger.delivered = position.ledger.delivered.minus(&surplus);
        false
    }

    pub(super) fn position(&self) -> Position {
        self.lock().clone()
    }

    /// The position that survives a power cut.
    pub(super) fn saved(&self) -> Seq {
        Seq(self.saved.load(Ordering::Acquire))
    }

    /// Makes the present position durable.
    pub(super) fn save(&self) -> Result<(), CursorError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the file's lock: of two who save, the later one must not write what was before.
        let position = self.position();
        if file.1 == position {
            return Ok(());
        }
        let io_error = |source| CursorError::Io {
            path: self.path.clone(),
            source,
        };
        let bytes = position.encode().map_err(io_error)?;
        file.0.write(&bytes).map_err(io_error)?;
        self.saved.store(position.next.0, Ordering::Release);
        file.1 = position;
        Ok(())
    }
}
