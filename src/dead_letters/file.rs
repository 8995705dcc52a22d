//! The file of dead letters: how it is opened, and how it makes way where it is damaged. Called by
//! the store and by the desk; the invariants stand in `mod.rs`.

use crate::clock::now_ms;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a writer waits for another's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The file's name in the data directory.
pub(super) const NAME: &str = "dead_letters.sqlite";

/// Gives a file of SQLite another name, and returns that. Durably: a power cut must not bring it
/// back in the place of the next one, and of what was kept there.
pub(super) fn set_aside(file: &Path) -> std::io::Result<PathBuf> {
    let aside = file.with_extension(format!("damaged-{}", now_ms()));
    // Its log belongs to it; a new file would take that for its own.
    for part in ["-wal", "-shm", ""] {
        let name = |path: &Path| PathBuf::from(format!("{}{part}", path.display()));
        match std::fs::rename(name(file), name(&aside)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
    }
    if let Some(dir) = file.parent() {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(aside)
}

/// How the file of a data directory is opened.
pub(super) fn options(data_dir: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(data_dir.join(NAME))
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
}

/// One connection: a writer waits for another anyway.
pub(super) fn pool(options: SqliteConnectOptions) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(options)
}
