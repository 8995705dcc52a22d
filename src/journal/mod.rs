//! The journal: makes a request durable on this host's disk before it is
//! acknowledged, and hands it to every way out until each has delivered it.
//! Called by `ingest` (append), `forward` and `consume::direct` (read, cursors)
//! and `app` (open, close).
//!
//! # The contract
//! Order of an append, each step only after the one before it returned:
//! 1. the request waits for byte permits (bounded memory) and capacity;
//! 2. the one writer thread packs waiting requests into blocks (own checksum,
//!    dense block numbers, dense sequences) and puts them into the store;
//! 3. the store is flushed and its file fdatasync'ed;
//! 4. the durable position is published: only now can readers see the request;
//! 5. the caller gets its sequence: only now may `SUCCESS` leave.
//!
//! Order of a rotation: last sync, manifest sealed and fsync'ed, next generation
//! created and its directories fsync'ed, first append into it.
//!
//! Order of a deletion: every cursor past the sealed generation, each cursor's
//! file fsync'ed, then the generation's directory removed and its parent synced.
//!
//! # Layout of the data directory
//! ```text
//! lock                    held while a process owns the directory
//! host_id                 this host's name in every row and message
//! cursors/NAME            next sequence that way out NAME has to deliver
//! generations/gen-N/      one generation: manifest, store/ (sled)
//! quarantine/gen-N/       a generation that could not be read; kept for salvage
//! ```
//!
//! # What survives
//! - Killing the process or the machine at any moment: every acknowledged request
//!   (test `acked_records_survive_a_kill_at_any_moment`), and a request that was
//!   not acknowledged is there wholly or not at all.
//! - A failed sync: nothing is acknowledged any more until a restart (test
//!   `a_failed_sync_fences_the_journal`), since the kernel may have dropped what
//!   it could not write.
//! - Loss of the disk: nothing. A journal on one disk cannot.
//!
//! # Invariants
//! - An acknowledgement comes after the sync that covers its bytes (test
//!   `an_append_is_answered_only_after_its_sync`).
//! - Readers never see what is not durable (test `readers_see_only_what_is_durable`).
//! - sled is named in `store` only.

mod block;
mod capacity;
mod contents;
mod cursor;
mod data_lock;
mod directory;
mod durable_file;
mod error;
mod generation;
mod handle;
mod host_id;
mod ledger;
mod losses;
mod manifest;
mod offline;
mod reader;
mod record;
mod recovery;
mod scan;
mod shared;
mod skip;
mod slots;
mod store;
mod survey;
mod verify;
mod writer;

pub use capacity::Limits;
pub use cursor::{Cursor, Ledger, Passed};
pub use directory::{CursorInfo, Directory, Found, GenerationInfo};
pub use error::{
    AppendError, CursorError, InspectError, OpenError, PurgeError, ReadError, SkipError,
};
pub use handle::{Journal, Options, Stats};
pub use ledger::{JournalLedger, WayLedger};
pub use losses::Loss;
pub use offline::Offline;
pub use reader::Reader;
pub use record::{Kind, NewRecord, Record};
pub use skip::Skipped;
pub use verify::Report;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;
