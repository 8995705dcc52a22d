//! What the writer, the readers and the keeper share: the chain of generations,
//! the durable position, the cursors, the fence. Called inside `journal` only.
//!
//! # Invariants
//! - The chain is in sequence order; its last generation may be active.
//! - `tidy` saves cursors before it deletes, and deletes only sealed generations
//!   that every saved cursor has passed; without any cursor it deletes nothing.
//! - A cursor begins at a generation that stays: none goes while one is made, and none goes by a
//!   look at the cursors that has missed one (tests
//!   `what_a_new_cursor_begins_with_outlives_an_older_look`,
//!   `a_new_cursor_does_not_begin_with_what_is_half_deleted`).
//! - A turn of `tidy` is short, however much there is to delete: cursors are saved, the disk
//!   is measured and the watchdog hears of it in between (test
//!   `a_long_backlog_goes_in_many_turns_each_measured`).

use super::capacity::Capacity;
use super::cursor::Cursor;
use super::doomed::Rubbish;
use super::error::CursorError;
use super::generation::Generation;
use super::high_water::HighWaterFile;
use super::ledger;
use super::losses::{Loss, Losses};
use super::receipts::{self, ReceiptError, ReceiptLimits};
use super::store::{Blocks, StoreError, Want, want};
use crate::clock::now_ms;
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use crate::telemetry::Board;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Generations that are deleted in one turn; each is read through once more, for its receipt.
const DELETIONS_PER_TURN: usize = 4;

/// How long a turn deletes: after that, the generation in hand is its last.
const DELETING_MAX: Duration = Duration::from_secs(1);

/// How long a deletion waits for a generation that cannot be read for its receipt: a disk or its
/// path may answer again. Shorter than what a generation is given before what cannot be read of
/// it counts as lost: all that is in it is delivered.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(120);

/// How long after such a failure it is tried again: each try may read a whole generation.
const RECEIPT_AGAIN: Duration = Duration::from_secs(1);

/// How long after a damaged generation could not be set aside that is tried again: for want of
/// room, as a rule, and each try may give a step of the reserve back.
const SET_ASIDE_AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) generations_dir: PathBuf,
    pub(super) quarantine_dir: PathBuf,
    pub(super) cursors_dir: PathBuf,
    pub(super) receipts_dir: PathBuf,
    pub(super) receipt_limits: ReceiptLimits,
    pub(super) high_water: Mutex<HighWaterFile>,
    pub(super) capacity: Capacity,
    pub(super) chain: RwLock<Vec<Arc<Generation>>>,
    /// None is ever taken out.
    pub(super) cursors: Mutex<BTreeMap<String, Arc<Cursor>>>,
    /// Held while a cursor is made, and while one generation goes; taken before `cursors`.
    pub(super) beginning: Mutex<()>,
    /// The sequence after the last durable record; closed when the journal is.
    pub(super) durable_end: watch::Sender<Seq>,
    /// Why nothing is acknowledged any more; the first reason stays.
    pub(super) fence: OnceLock<String>,
    /// Events of all durable records that this host ever took.
    pub(super) accepted: Mutex<Tally>,
    /// Records that could not be read back.
    pub(super) losses: Mutex<Losses>,
    pub(super) expired_appends: AtomicU64,
    /// How often the writer took a command, and the keeper tidied.
    pub(super) writer_turns: AtomicU64,
    pub(super) keeper_turns: AtomicU64,
    /// By way out: where it was, and the end of what it had passed, when its losses could not be
    /// told, and when that was.
    pub(super) untold: Mutex<BTreeMap<String, (Seq, Seq, Instant)>>,
    /// What was said of the keeper's work, which is tried again at each turn.
    pub(super) board: Board,
    /// The generation of which it was said last that it leaves no receipt.
    pub(super) without_receipt: AtomicU64,
    /// Since when generations cannot be read for their receipts, and when that was tried last.
    pub(super) unreadable: Mutex<Option<(Instant, Instant)>>,
    pub(super) rubbish: Rubbish,
}

/// What a look found to be passed by all cursors that there were.
pub(super) struct Doomed {
    /// How many those were.
    cursors: usize,
    generations: Vec<Arc<Generation>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn chain(&self) -> Vec<Arc<Generation>> {
        self.chain
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn push_generation(&self, generation: Arc<Generation>) {
        self.chain
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(generation);
    }

    pub(super) fn durable_end(&self) -> Seq {
        *self.durable_end.borrow()
    }

    /// The oldest sequence still held.
    pub(super) fn oldest(&self) -> Seq {
        self.chain().first().map_or(Seq::FIRST, |g| g.base())
    }

    pub(super) fn fence(&self, reason: String) {
        tracing::error!(%reason, "journal is fenced: nothing is acknowledged until a restart");
        // The first reason stays: it names the cause.
        self.fence.get_or_init(|| reason);
    }

    /// Notes and logs what is newly known to be lost.
    pub(super) fn note_loss(&self, loss: &Loss) {
        for new in lock(&self.losses).add(loss) {
            tracing::error!(
                generation = new.generation, first_seq = %new.first, end_seq = %new.end,
                lost_records = new.records(), "journal lost records"
            );
        }
    }

    /// Notes and logs a generation of which nothing tells what it held.
    pub(super) fn note_unknown(&self, generation: u64, at: Seq) {
        if lock(&self.losses).add_unknown(generation, at) {
            tracing::error!(
                generation,
                "not all of a generation in quarantine could be read: nobody knows which records are lost with it"
            );
        }
    }

    /// The blocks of a generation; what it turns out to lack is noted.
    pub(super) fn open_generation(
        &self,
        generation: &Generation,
    ) -> Result<Arc<dyn Blocks>, StoreError> {
        let opened = generation.open(&self.quarantine_dir)?;
        for loss in &opened.losses {
            self.note_loss(loss);
        }
        if let Some(error) = &opened.not_aside {
            // What that gives back of the reserve may do.
            self.capacity.heed(error);
            self.set_aside(generation, Duration::ZERO);
        }
        Ok(opened.blocks)
    }

    /// Sets a generation aside that lacks records, if that is still to be done.
    fn set_aside(&self, generation: &Generation, pause: Duration) {
        let tried = generation.set_aside_late(&self.quarantine_dir, pause);
        let error = match tried {
            Some(Err(error)) => error,
            Some(Ok(())) => {
                self.board.over("aside");
                return;
            }
            None => return,
        };
        self.capacity.heed(&error);
        if self.board.is_new("aside", "aside") {
            tracing::error!(
                generation = generation.number(), %error,
                "cannot set a damaged generation aside; what is intact is delivered from where it is; trying again"
            );
        }
    }

    /// Measures the disk use.
    pub(super) fn measure(&self) {
        self.capacity.measure(|| {
            let generations = self.chain();
            let bytes = generations.iter().map(|generation| generation.disk_bytes());
            bytes.chain([self.rubbish.bytes()]).sum()
        });
    }

    pub(super) fn open_cursor(&self, name: &str) -> Result<Arc<Cursor>, CursorError> {
        let _stays = lock(&self.beginning);
        let mut cursors = lock(&self.cursors);
        if let Some(cursor) = cursors.get(name) {
            return Ok(Arc::clone(cursor));
        }
        // Before the chain: where that is empty then, nothing was added meanwhile.
        let (end, accepted) = (self.durable_end(), lock(&self.accepted).clone());
        let chain = self.chain();
        // One whose name is gone cannot be read any more, though its files are still going.
        let (oldest, since) = match chain.iter().find(|g| !g.is_deleted()) {
            Some(first) => (first.base(), first.header.accepted_before.clone()),
            None => (end, accepted),
        };
        let cursor = Arc::new(Cursor::open(&self.cursors_dir, name, oldest, &since)?);
        match lock(&self.high_water).known() {
            Some(known) if known.end < oldest => cursor.catch_up(known.end, &known.accepted),
            Some(_) => cursor.catch_up(oldest, &since),
            // What is missing before the oldest may be lost.
            None => {}
        }
        cursors.insert(name.to_owned(), Arc::clone(&cursor));
        Ok(cursor)
    }

    /// All cursors, also those that no way out of this run uses: they pin the
    /// journal until an operator removes their file.
    pub(super) fn cursor_list(&self) -> Vec<Arc<Cursor>> {
        lock(&self.cursors).values().cloned().collect()
    }

    /// One turn: saves cursors, then deletes a few of the generations that all have
    /// passed, and measures what is left, whatever came in between. Whether there is
    /// more to delete.
    pub(super) fn tidy(&self) -> bool {
        for generation in self.chain() {
            self.set_aside(&generation, SET_ASIDE_AGAIN);
        }
        let has_more = self.save_and_delete();
        self.measure();
        has_more
    }

    fn save_and_delete(&self) -> bool {
        let doomed = self.look();
        self.rubbish.clear(&self.board);
        doomed.is_some_and(|doomed| self.delete(&doomed))
    }

    /// Saves cursors, and looks for what all have passed; `None` when nothing may go.
    pub(super) fn look(&self) -> Option<Doomed> {
        let cursors = self.cursor_list();
        ledger::settle_losses(self, &cursors);
        for cursor in &cursors {
            if let Err(error) = cursor.save() {
                if let CursorError::Io { source, .. } = &error {
                    self.capacity.heed(source);
                }
                if self.board.is_new("saving", "saving") {
                    tracing::error!(cursor = cursor.name(), %error, "cannot save a cursor; nothing is deleted meanwhile");
                }
                return None;
            }
        }
        if let Some(lasted) = self.board.over("saving") {
            tracing::info!(failed_for = ?lasted, "cursors are saved again");
        }
        let passed = cursors.iter().map(|c| c.saved()).min()?;
        let generations = self
            .chain()
            .into_iter()
            .take_while(|g| g.is_sealed() && g.end() <= passed)
            // Its losses are in every ledger.
            .take_while(|g| cursors.iter().all(|c| c.losses_through() >= g.end()))
            .collect();
        Some(Doomed {
            cursors: cursors.len(),
            generations,
        })
    }

    /// Deletes a few of the doomed; whether there is more to do that did not fail.
    pub(super) fn delete(&self, doomed: &Doomed) -> bool {
        let began = Instant::now();
        let mut deleted = 0;
        let mut failed = false;
        for generation in &doomed.generations {
            if deleted == DELETIONS_PER_TURN || began.elapsed() >= DELETING_MAX {
                break;
            }
            // It reads the generation through: nobody who makes a cursor waits for that.
            failed = !self.receipt(generation);
            if failed {
                break;
            }
            let _none_begins = lock(&self.beginning);
            if lock(&self.cursors).len() != doomed.cursors {
                // A new one may begin with this. The next turn looks at it, too.
                break;
            }
            // Before it counts as gone: until then, a cursor may begin with it.
            let gone = generation.keep_evidence(&self.quarantine_dir);
            failed = gone.is_ok() && !self.raise(generation);
            if failed {
                break;
            }
            let gone = gone.and_then(|()| generation.delete(&self.generations_dir));
            if let Ok(Some(error)) = &gone {
                self.rubbish.note(error, &self.board);
            }
            if let Err(error) = gone {
                self.capacity.heed(&error);
                if self.board.is_new("deleting", "deleting") {
                    let generation = generation.number();
                    tracing::warn!(generation, %error, "cannot delete a delivered generation; trying again");
                }
                failed = true;
                break;
            }
            deleted += 1;
            if let Some(lasted) = self.board.over("deleting") {
                tracing::info!(failed_for = ?lasted, "delivered generations are deleted again");
            }
            self.chain
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|g| !Arc::ptr_eq(g, generation));
        }
        if deleted > 0 {
            let pruned = receipts::prune(&self.receipts_dir, &self.receipt_limits, now_ms());
            match pruned {
                Ok(_) => {
                    self.board.over("pruning");
                }
                Err(error) if self.board.is_new("pruning", "pruning") => {
                    tracing::warn!(%error, "old receipts stay");
                }
                Err(error) => tracing::debug!(%error, "old receipts stay"),
            }
        }
        !failed && deleted < doomed.generations.len()
    }

    /// Makes it durable that everything up to a generation's end may go, and says whether it
    /// does. For want of room to make that file, it goes all the same: cursors tell it, too.
    fn raise(&self, generation: &Generation) -> bool {
        let mut accepted = generation.header.accepted_before.clone();
        accepted.merge(&generation.events().0);
        let raised = lock(&self.high_water).raise(generation.end(), &accepted);
        let Err(error) = raised else { return true };
        if self.board.is_new("deleting", "deleting") {
            let generation = generation.number();
            tracing::warn!(generation, %error, "cannot note how far the deletions have come");
        }
        want(&error) == Some(Want::Space)
    }

    /// Writes down what a generation held that is about to go, and says whether it goes. It
    /// does on a full disk, too, where the log must get smaller: what it held is delivered.
    /// For want of a descriptor it waits, since nobody gains anything by its end.
    fn receipt(&self, generation: &Generation) -> bool {
        let number = generation.number();
        if generation.is_deleted() {
            // It had its turn before its name went; only files are left.
            return true;
        }
        // Its deletion may be tried again and again, and this with it.
        let is_said = self.without_receipt.load(Ordering::Relaxed) == number;
        if !self.capacity.can_spare() {
            if !is_said {
                tracing::warn!(
                    generation = number, first_seq = %generation.base(), end_seq = %generation.end(),
                    "no receipt of a generation, for want of room: its rows cannot be reconciled any more"
                );
            }
            self.without_receipt.store(number, Ordering::Relaxed);
            return true;
        }
        let tried = lock(&self.unreadable).map(|(_, tried)| tried);
        if tried.is_some_and(|tried| tried.elapsed() < RECEIPT_AGAIN) {
            return false;
        }
        let began = Instant::now();
        let blocks = self.open_generation(generation);
        let written = blocks
            .map_err(ReceiptError::from)
            .and_then(|blocks| receipts::write(&self.receipts_dir, generation, blocks));
        let is_unread = matches!(written, Err(ReceiptError::Read(_)));
        if !is_unread {
            *lock(&self.unreadable) = None;
        }
        if let Err(error) = written {
            if error.want() == Some(Want::Descriptors) {
                if self.board.is_new("deleting", "deleting") {
                    tracing::warn!(generation = number, %error, "cannot delete a delivered generation; trying again");
                }
                return false;
            }
            if is_unread && self.may_be_read_later(began) {
                if self.board.is_new("deleting", "deleting") {
                    tracing::warn!(generation = number, %error, "a delivered generation cannot be read for its receipt; trying again");
                }
                return false;
            }
            if is_unread && !is_said {
                tracing::error!(
                    generation = number, first_seq = %generation.base(),
                    end_seq = %generation.end(), %error,
                    "no receipt of a generation: its rows cannot be reconciled any more, since it stays unreadable"
                );
            } else if !is_said {
                tracing::warn!(
                    generation = number, first_seq = %generation.base(),
                    end_seq = %generation.end(), %error,
                    "no receipt of a generation: its rows cannot be reconciled any more"
                );
            }
            self.without_receipt.store(number, Ordering::Relaxed);
        }
        true
    }

    /// Whether one is given more time that could not be read in a try that began then. The time
    /// begins with the first such failure since one could be read, so that many bad ones do not
    /// add up, and anew when nothing was tried for as long.
    fn may_be_read_later(&self, began: Instant) -> bool {
        let mut unreadable = lock(&self.unreadable);
        let since = match *unreadable {
            Some((since, tried)) if began.duration_since(tried) < RECEIPT_PATIENCE => since,
            _ => began,
        };
        *unreadable = Some((since, Instant::now()));
        since.elapsed() < RECEIPT_PATIENCE
    }
}
