//! The journal: makes a request durable on this host's disk before it is
//! acknowledged, and hands it to every way out until each has delivered it.
//! Called by `ingest` (append), `forward` and `consume::direct` (read, cursors),
//! `admin` and `cli` (ledger, skip, a look at a directory), `app` (open, close).
//!
//! # The contract of an acknowledgement
//! Each step begins only after the one before it returned.
//!
//! Append:
//! 1. the request is admitted (capacity), waits a little where room gets short, and
//!    waits for byte permits (bounded memory);
//! 2. the one writer thread packs waiting requests into blocks (salt, checksum,
//!    dense numbers, dense sequences) and puts them into the store, at most 1 MiB
//!    between two syncs;
//! 3. the store is flushed and its file fdatasync'ed by us;
//! 4. the durable position is published: only now can readers see the request;
//! 5. the caller gets its sequence: only now may `SUCCESS` leave (tests
//!    `an_append_is_answered_only_after_its_sync`, `readers_see_only_what_is_durable`,
//!    and on the running binary, call by call,
//!    `every_acknowledgement_leaves_after_the_sync_that_covers_it`).
//!
//! Seal and rotate (by size or age): last sync; the generation takes no more; its
//! manifest replaced and fsync'ed; the next directory made and synced; its header
//! fsync'ed; its store made, its files and directories synced; its manifest
//! fsync'ed; first append.
//!
//! Cursor: the way out has its evidence (the broker's confirm, the database's
//! commit); the position moves in memory; the keeper writes it, with the ledger, to
//! the slot that does not count, and fdatasyncs (test
//! `a_torn_write_leaves_the_other`). A way out may deliver ahead of its backlog: such
//! spans are part of the position, and neither free a generation nor are delivered again
//! (tests `a_position_is_the_set_of_what_was_delivered`, `a_journal_is_what_its_model_says`).
//!
//! Delete: every cursor's saved position is past the sealed generation, and its
//! losses are in every ledger; its receipt is written, fsync'ed and has its name, unless
//! the disk is full or cannot read it for minutes (test `a_generation_goes_after_its_receipt`);
//! the high water is raised to its end and fdatasync'ed (test
//! `a_drained_host_never_begins_anew_whatever_becomes_of_its_cursors`); the directory is
//! renamed and its parent synced; its files are removed. A few at a time, with a measure and
//! the cursors saved in between (tests `a_long_backlog_goes_in_many_turns_each_measured`,
//! `a_generation_is_deleted_only_when_every_cursor_passed_it`).
//!
//! # What survives what
//! - Killing the process at any moment: every acknowledged request, and no event
//!   shows twice (tests `acked_records_survive_a_kill_at_any_moment`,
//!   `many_kills_lose_nothing_and_the_ledger_stays_right`).
//! - A power cut at any moment, with unsynced sectors kept, dropped, reordered or
//!   torn, and again during the recovery: every acknowledged request, byte for byte
//!   (test `a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged`). A
//!   request that was not acknowledged is there wholly or not at all.
//! - A failed sync: nothing is acknowledged any more until a restart (test
//!   `a_failed_sync_fences_the_journal`), since the kernel may have dropped what it
//!   could not write. What is durable is delivered meanwhile.
//! - A full disk: waiting requests are refused, nothing is fenced, what is there is
//!   delivered and deleted without new room, and acceptance resumes by itself (tests
//!   `a_full_disk_ends_the_generation_and_acceptance_resumes_by_itself`,
//!   `a_disk_full_to_the_last_byte_loses_nothing_and_drains_by_itself`).
//! - An error of the disk at any step: the process goes on, fenced where a write or
//!   sync failed, and no acknowledgement was a lie (test
//!   `a_fault_at_any_step_kills_nothing_and_no_ack_is_a_lie`).
//! - Damage of any one file, its removal included: the journal opens, gives no wrong
//!   byte, and tells exactly which records are gone (test
//!   `damage_of_any_file_loses_nothing_silently_and_never_gives_a_wrong_byte`). One
//!   exception: of records acknowledged within about a second before a crash,
//!   damage of the last ones looks like a write that was never synced.
//! - A clock that jumps: sequences and positions do not depend on it.
//! - Loss of the disk: nothing. A journal on one disk cannot.
//!
//! # Layout of the data directory
//! ```text
//! lock                     held while a process owns the directory
//! host_id, host_id.copy    this host's name in every row and message
//! cursors/NAME             where way out NAME is, and what became of what it passed
//! generations/gen-N/       one generation
//!   header                 number, first sequence, salt: never changes
//!   manifest               what it is known to hold: synced blocks, events by type
//!   store/                 sled; the blocks lie in its file `db`
//!   unread, unread_whole   there if a start could not read its end, or nothing of it
//! quarantine/gen-N/        a generation that lost something, whole, as evidence;
//!                          what is intact is delivered from here
//! receipts/gen-N.…         what a deleted generation held, for some days
//! high_water               how far the deletions have come: sequences never begin anew
//! reserve                  room that is given back when the disk is full
//! ```
//!
//! # Files, in the order of the data's path
//! `handle` is the door; `capacity` admits, by the `pressure`, and keeps a `reserve`
//! for itself; `writer` commits `record`s as `block`s
//! to the `store` of a `generation` with its `manifest`; `reader` walks the
//! `contents`, for sealed generations by a `scan` of the file; `cursor` (a `position`
//! in `slots`) and `ledger` say what became of them; `shared` keeps and deletes. `recovery`,
//! `taken` and `survey` make sense of what a crash left, `unread` of what a disk does not give, `losses` of what is gone, `receipts` of what
//! was deleted. `directory`,
//! `verify`, `skip` and `offline` are for operators.
//!
//! # Invariants
//! - sled is named in `store` only, and opens no store that holds records.
//! - The whole behaves as its model in memory, through any crashes (test
//!   `a_journal_is_what_its_model_says`).

mod append;
mod aside;
mod block;
mod capacity;
mod codec;
mod contents;
mod cursor;
mod cursor_info;
mod data_lock;
mod directory;
mod doomed;
mod durable_file;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod generation;
mod handle;
mod high_water;
mod host_id;
mod ledger;
mod losses;
mod manifest;
mod offline;
mod position;
mod pressure;
mod reader;
mod receipts;
mod record;
mod recovery;
mod reserve;
mod scan;
mod shared;
mod skip;
mod slots;
mod start;
mod store;
mod survey;
mod taken;
mod unread;
mod verify;
mod writer;

pub use capacity::Limits;
pub use cursor::{Cursor, CursorStats};
pub use cursor_info::CursorInfo;
pub use directory::{Directory, Found, GenerationInfo};
pub use durable_file::DATA_DIR_MODE;
pub use error::{
    AppendError, CursorError, InspectError, OpenError, PurgeError, ReadError, SkipError,
};
pub use handle::{Journal, Options, Stats, Turns};
pub use ledger::{JournalLedger, WayLedger};
pub use losses::Loss;
pub use offline::Offline;
pub use position::{Ledger, Passed, Span};
pub use pressure::Pressure;
pub use reader::Reader;
pub use receipts::{Receipt, ReceiptFile, ReceiptLimits, Receipted};
pub use record::{Kind, NewRecord, Record};
pub use skip::Skipped;
pub use verify::Report;

#[cfg(test)]
mod aside_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod missing_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod operator_tests;
#[cfg(test)]
mod receipts_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turn_tests;
#[cfg(test)]
mod unread_tests;
#[cfg(test)]
mod unreadable_tests;
