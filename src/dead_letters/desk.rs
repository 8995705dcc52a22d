//! An operator's view of the dead letters: counts, one letter after the other, and what
//! became of each. Called by `dlq`, also beside a running service.
//!
//! # Invariants
//! - Looking changes nothing, and makes no file where there is none.
//! - A letter is settled only while it waits: two operators cannot both replay it into
//!   the accounts (test `a_letter_that_was_settled_stays_counted`).

use super::{DeadLetter, NAME, options, pool};
use sqlx::Row as _;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use std::path::Path;

/// Letters that are read at a time: bounds memory, bodies are at most a request each.
const PAGE: i64 = 16;

/// The same without bodies: a letter's headers are some KiB.
const PAGE_WITHOUT_BODIES: i64 = 512;

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing yet.
    Waiting,
    /// It was sent again, and arrived.
    Replayed,
    /// An operator gave it up.
    Purged,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Replayed => "replayed",
            Self::Purged => "purged",
        }
    }
}

/// Why the letters cannot be read or written; worth another try when the disk has room
/// and no other writer is busy.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The file.
    #[error("{NAME}: {0}")]
    File(#[from] sqlx::Error),
    /// A letter that this build cannot read.
    #[error("{NAME}: letter {id} cannot be read: {error}")]
    Letter {
        /// Its number.
        id: i64,
        /// Why.
        error: serde_json::Error,
    },
}

/// A letter.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its number in the file.
    pub id: i64,
    /// When it was set aside.
    pub set_aside_at_ms: i64,
    /// The letter.
    pub letter: DeadLetter,
}

/// How many letters a way out set aside, by what became of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tallies {
    /// The way out.
    pub way_out: String,
    /// Not settled.
    pub waiting: i64,
    /// Replayed.
    pub replayed: i64,
    /// Purged.
    pub purged: i64,
}

/// The dead letters of a data directory.
#[derive(Debug)]
pub struct Desk {
    pool: SqlitePool,
}

impl Desk {
    /// The letters of a directory; `None` where nothing was ever set aside.
    #[must_use]
    pub fn open(data_dir: &Path) -> Option<Self> {
        let exists = data_dir.join(NAME).exists();
        exists.then(|| Self {
            pool: pool(options(data_dir)),
        })
    }

    /// Counts of all letters ever set aside, by way out.
    ///
    /// # Errors
    /// [`DeskError::File`].
    pub async fn tallies(&self) -> Result<Vec<Tallies>, DeskError> {
        let sql = "SELECT way_out, sum(state = 'waiting') AS waiting,
            sum(state = 'replayed') AS replayed, sum(state = 'purged') AS purged
            FROM dead_letters GROUP BY way_out ORDER BY way_out";
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(sql).fetch_all(&self.pool).await?;
        let tallies = rows.into_iter();
        Ok(tallies
            .map(|(way_out, waiting, replayed, purged)| Tallies {
                way_out,
                waiting,
                replayed,
                purged,
            })
            .collect())
    }

    /// Waiting letters after a number, some at a time, in order.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn waiting(&self, after: i64) -> Result<Vec<Kept>, DeskError> {
        let sql =
            "SELECT * FROM dead_letters WHERE state = 'waiting' AND id > ? ORDER BY id LIMIT ?";
        let rows = sqlx::query(sql).bind(after).bind(PAGE);
        let rows = rows.fetch_all(&self.pool).await?;
        rows.iter().map(kept).collect()
    }

    /// The number of the letter that was set aside last; 0 where none was.
    ///
    /// # Errors
    /// [`DeskError::File`].
    pub async fn newest(&self) -> Result<i64, DeskError> {
        let sql = "SELECT coalesce(max(id), 0) FROM dead_letters";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    /// Letters after a number that were not sent again, some at a time, in order, without
    /// their bodies: those that wait, and those that were given up.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn unsent(&self, after: i64) -> Result<Vec<(Kept, State)>, DeskError> {
        let sql = "SELECT id, set_aside_at_ms, way_out, event_name, reason, ingest_host,
            ingest_seq, ingest_indexes, content_type, x'' AS body, destination,
            state = 'purged' AS is_purged
            FROM dead_letters WHERE state IN ('waiting', 'purged') AND id > ?
            ORDER BY id LIMIT ?";
        let rows = sqlx::query(sql).bind(after).bind(PAGE_WITHOUT_BODIES);
        let rows = rows.fetch_all(&self.pool).await?;
        let of_row = |row| {
            let is_purged: bool = SqliteRow::try_get(row, "is_purged")?;
            let state = if is_purged {
                State::Purged
            } else {
                State::Waiting
            };
            Ok((kept(row)?, state))
        };
        rows.iter().map(of_row).collect()
    }

    /// Settles a letter that waits: its body goes, its row stays. `false` when it did not
    /// wait any more.
    ///
    /// # Errors
    /// [`DeskError::File`].
    pub async fn settle(&self, id: i64, state: State, now_ms: i64) -> Result<bool, DeskError> {
        let sql = "UPDATE dead_letters SET state = ?, settled_at_ms = ?, body = x''
            WHERE id = ? AND state = 'waiting'";
        let update = sqlx::query(sql).bind(state.name()).bind(now_ms).bind(id);
        let done = update.execute(&self.pool).await?;
        Ok(done.rows_affected() == 1)
    }

    /// A replay was refused again, for this reason.
    ///
    /// # Errors
    /// [`DeskError::File`].
    pub async fn refused_again(&self, id: i64, reason: &str) -> Result<(), DeskError> {
        let sql = "UPDATE dead_letters SET reason = ? WHERE id = ? AND state = 'waiting'";
        let update = sqlx::query(sql).bind(reason).bind(id);
        update.execute(&self.pool).await?;
        Ok(())
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn kept(row: &SqliteRow) -> Result<Kept, DeskError> {
    let id = row.try_get("id")?;
    let destination: String = row.try_get("destination")?;
    let destination = serde_json::from_str(&destination);
    let seq: i64 = row.try_get("ingest_seq")?;
    Ok(Kept {
        id,
        set_aside_at_ms: row.try_get("set_aside_at_ms")?,
        letter: DeadLetter {
            way_out: row.try_get("way_out")?,
            event_name: row.try_get("event_name")?,
            reason: row.try_get("reason")?,
            host: row.try_get("ingest_host")?,
            seq: u64::try_from(seq).unwrap_or(0),
            indexes: row.try_get("ingest_indexes")?,
            content_type: row.try_get("content_type")?,
            body: row.try_get("body")?,
            destination: destination.map_err(|error| DeskError::Letter { id, error })?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::letter;
    use super::*;
    use crate::dead_letters::DeadLetters;

    #[tokio::test]
    async fn a_letter_that_was_settled_stays_counted() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Desk::open(dir.path()).is_none(), "looking makes no file");
        let letters = DeadLetters::new(dir.path());
        for (way, seq) in [("a", 1), ("a", 2), ("a", 3), ("b", 1)] {
            letters.put(&letter(way, seq), 5).await.unwrap();
        }
        let desk = Desk::open(dir.path()).unwrap();
        let waiting = desk.waiting(0).await.unwrap();
        assert_eq!(waiting.len(), 4);
        assert_eq!(waiting[1].letter.seq, 2);
        assert_eq!(waiting[1].letter.destination, letter("a", 2).destination);
        let [one, two] = [waiting[0].id, waiting[1].id];
        assert!(desk.settle(one, State::Replayed, 9).await.unwrap());
        assert!(!desk.settle(one, State::Purged, 9).await.unwrap());
        assert!(desk.settle(two, State::Purged, 9).await.unwrap());
        desk.refused_again(waiting[2].id, "still too long")
            .await
            .unwrap();
        // Set aside again, as after a crash: it is known what became of it.
        letters.put(&letter("a", 1), 10).await.unwrap();
        let tallies = desk.tallies().await.unwrap();
        let a = Tallies {
            way_out: "a".into(),
            waiting: 1,
            replayed: 1,
            purged: 1,
        };
        assert_eq!(tallies[0], a);
        let left = desk.waiting(two).await.unwrap();
        assert_eq!(left[0].letter.reason, "still too long");
        assert_eq!(
            (left.len(), left[0].letter.body.as_slice()),
            (2, &b"{}"[..])
        );
        desk.close().await;
        letters.close().await;
    }
}
