//! Events that this host could not hand on, kept with their reason: rows that a
//! sink refuses where there is no broker, and messages that no queue takes. A
//! SQLite file in the data directory, so that `sqlite3` reads it. Called by the
//! pumps, which keep letters, and by `dlq`, which sends them again or drops them.
//!
//! # Invariants
//! - `keep` returns `true` after the commit is synced: a cursor may move on then.
//! - The same event set aside twice by one way out is one row; two messages are two, also
//!   those of foreign producers, which have no sequence (test
//!   `messages_without_an_origin_are_told_apart`).
//! - No row is ever deleted: what was replayed or purged leaves its row with its state
//!   and without its body, so that all that was ever set aside adds up (test
//!   `a_letter_that_was_settled_stays_counted`).
//! - A file that is damaged is set aside itself, and a new one begun: it holds up no way out (test
//!   `a_damaged_file_makes_way_for_a_new_one`).

mod desk;
mod file;

pub use desk::{Desk, DeskError, Kept, State, Tallies};

use self::file::{NAME, options, pool, set_aside};
use crate::clock::now_ms;
use crate::event::documents::{self, DOCUMENTS_HEADER};
use crate::event::identity::{derived_id, parse_indexes};
use crate::event::parcel::Destination;
use crate::retry::Backoff;
use crate::telemetry::{Absence, Metrics, Waiter};
use sqlx::sqlite::SqlitePool;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// SQLite's codes for a file that is damaged, and for one that is no database.
const SQLITE_CORRUPT: u32 = 11;
const SQLITE_NOTADB: u32 = 26;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS dead_letters (
    id INTEGER PRIMARY KEY,
    set_aside_at_ms INTEGER NOT NULL,
    way_out TEXT NOT NULL,
    event_name TEXT NOT NULL,
    reason TEXT NOT NULL,
    ingest_host TEXT NOT NULL,
    ingest_seq INTEGER NOT NULL,
    ingest_indexes TEXT NOT NULL,
    content_type TEXT NOT NULL,
    body BLOB NOT NULL,
    destination TEXT NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    settled_at_ms INTEGER,
    UNIQUE (way_out, ingest_host, ingest_seq, ingest_indexes, event_name, digest)
)";

/// Without the bodies that lie before the state in a row.
const INDEX: &str = "CREATE INDEX IF NOT EXISTS dead_letters_waiting ON dead_letters (way_out)
    WHERE state = 'waiting'";

const WAITING: &str = "SELECT way_out, count(*) FROM dead_letters WHERE state = 'waiting'
    GROUP BY way_out";

const INSERT: &str = "INSERT INTO dead_letters (set_aside_at_ms, way_out, event_name, reason,
    ingest_host, ingest_seq, ingest_indexes, content_type, body, destination, digest)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";

/// Why an event could not be set aside; always worth another try.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The file did not take it.
    #[error("write a dead letter: {0}")]
    File(#[from] sqlx::Error),
    /// Where it was going cannot be written down.
    #[error("write a dead letter: {0}")]
    Destination(#[from] serde_json::Error),
}

impl PutError {
    /// Whether the file is none that can be written, now and later.
    fn is_damage(&self) -> bool {
        let Self::File(sqlx::Error::Database(error)) = self else {
            return false;
        };
        let code = error.code().and_then(|code| code.parse::<u32>().ok());
        // The lower byte says what, the others where (https://sqlite.org/rescode.html).
        code.is_some_and(|code| [SQLITE_CORRUPT, SQLITE_NOTADB].contains(&(code & 0xff)))
    }
}

/// Something that is set aside.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The cursor or consumer that could not deliver it.
    pub way_out: String,
    /// Its event name.
    pub event_name: String,
    /// Why.
    pub reason: String,
    /// The host that took it; empty for foreign messages.
    pub host: String,
    /// Its request's sequence there; 0 for foreign messages.
    pub seq: u64,
    /// Its events' places in the request, as in the `x-holdfast-indexes` header.
    pub indexes: String,
    /// What the body is: `application/json` or `application/x-protobuf`.
    pub content_type: String,
    /// The message.
    pub body: Vec<u8>,
    /// Where it was going, for a replay.
    pub destination: Destination,
}

impl DeadLetter {
    /// The events that are in it: of each request their places, up to so many of one. A
    /// message of several documents has them in a header.
    #[must_use]
    pub fn places(&self, events_max: usize) -> Vec<(u64, Vec<u32>)> {
        let places = |seq: u64, indexes: &str| {
            let places = parse_indexes(indexes, events_max);
            (seq, places.unwrap_or_default())
        };
        let header = match &self.destination {
            Destination::Message(parcel) => parcel.headers.get(DOCUMENTS_HEADER),
            Destination::Table { .. } | Destination::Webhook { .. } | Destination::Nowhere => None,
        };
        let header = header.and_then(serde_json::Value::as_str);
        let Some(documents) = header.and_then(|header| documents::parse(header).ok()) else {
            return vec![places(self.seq, &self.indexes)];
        };
        let documents = documents.iter();
        documents
            .map(|document| places(document.seq.0, &document.indexes))
            .collect()
    }
}

/// The store, shared by clones. Opened at the first use.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    pool: SqlitePool,
    file: PathBuf,
    /// One has the file, or gives it another name.
    writing: Arc<Mutex<()>>,
    /// Says once for all letters that the disk does not take them.
    trouble: Absence,
}

impl DeadLetters {
    /// The store of a data directory.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        let options = options(data_dir).create_if_missing(true);
        Self {
            pool: pool(options),
            file: data_dir.join(NAME),
            writing: Arc::default(),
            trouble: Absence::new(|lasted| {
                tracing::info!(failed_for = ?lasted, "messages can be set aside again");
            }),
        }
    }

    async fn create(&self) -> Result<(), PutError> {
        sqlx::query(CREATE).execute(&self.pool).await?;
        sqlx::query(INDEX).execute(&self.pool).await?;
        Ok(())
    }

    async fn put(&self, letter: &DeadLetter, now_ms: i64) -> Result<(), PutError> {
        let destination = serde_json::to_string(&letter.destination)?;
        // What has no origin is only known by what it is.
        let content = [destination.as_bytes(), b"\0", &letter.body].concat();
        let digest = derived_id(&content, 0);
        // Of those who find it damaged one sets it aside, and not the new one.
        let _writing = self.writing.lock().await;
        let row = (letter, destination.as_str(), digest);
        let written = self.insert(row, now_ms).await;
        if let Err(damage) = &written
            && damage.is_damage()
        {
            self.begin_anew(damage).await;
        }
        written
    }

    async fn insert(
        &self,
        (letter, destination, digest): (&DeadLetter, &str, String),
        now_ms: i64,
    ) -> Result<(), PutError> {
        self.create().await?;
        sqlx::query(INSERT)
            .bind(now_ms)
            .bind(&letter.way_out)
            .bind(&letter.event_name)
            .bind(&letter.reason)
            .bind(&letter.host)
            .bind(i64::try_from(letter.seq).unwrap_or(i64::MAX))
            .bind(&letter.indexes)
            .bind(&letter.content_type)
            .bind(&letter.body)
            .bind(destination)
            .bind(digest)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Sets one message aside, trying until the disk takes it; `false` when `stop`
    /// came first. Counted and logged once it is safe.
    pub async fn keep(
        &self,
        letter: &DeadLetter,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> bool {
        let mut backoff = Backoff::new();
        let mut troubled: Option<Waiter> = None;
        loop {
            let began = Instant::now();
            match self.put(letter, now_ms()).await {
                Ok(()) => {
                    self.trouble.worked();
                    metrics.dead_letters(&letter.way_out, 1);
                    tracing::warn!(
                        way_out = letter.way_out,
                        event = letter.event_name,
                        reason = letter.reason,
                        host = letter.host,
                        seq = letter.seq,
                        "message set aside in the dead letters"
                    );
                    return true;
                }
                Err(error) => {
                    let troubled = troubled.get_or_insert_with(|| self.trouble.wait());
                    if troubled.is_new("put", began) {
                        tracing::error!(%error, "cannot set a message aside; trying again");
                    } else {
                        tracing::debug!(%error, "cannot set a message aside yet");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = stop.cancelled() => return false,
            }
        }
    }

    /// Gives a damaged file another name, so that the next try makes a new one. What can be read of
    /// the old one is the operator's to see to.
    async fn begin_anew(&self, damage: &PutError) {
        // The one connection has the file open.
        if let Ok(connection) = self.pool.acquire().await
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "the damaged file did not close");
        }
        match set_aside(&self.file) {
            Ok(aside) => {
                tracing::error!(reason = %damage, path = %aside.display(), "the dead letters were damaged; the file is set aside, and a new one begun");
            }
            Err(error) => {
                tracing::debug!(reason = %damage, %error, "the damaged dead letters cannot be set aside yet");
            }
        }
    }

    /// How many letters of each way out wait for an operator.
    ///
    /// # Errors
    /// When the file cannot be read now.
    pub async fn waiting(&self) -> Result<BTreeMap<String, u64>, PutError> {
        let _writing = self.writing.lock().await;
        if !self.file.exists() {
            return Ok(BTreeMap::new());
        }
        self.create().await?;
        let rows: Vec<(String, i64)> = sqlx::query_as(WAITING).fetch_all(&self.pool).await?;
        let counts = rows.into_iter();
        Ok(counts
            .map(|(way, count)| (way, u64::try_from(count).unwrap_or(0)))
            .collect())
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    pub(super) fn letter(way_out: &str, seq: u64) -> DeadLetter {
        DeadLetter {
            way_out: way_out.into(),
            event_name: "LaunchEvent".into(),
            reason: "too long".into(),
            host: "h".into(),
            seq,
            indexes: "1".into(),
            content_type: "application/json".into(),
            body: b"{}".to_vec(),
            destination: Destination::Table {
                name: "events".into(),
                reason: None,
            },
        }
    }

    #[test]
    fn a_letter_of_several_documents_holds_the_events_of_each() {
        let single = letter("q", 7);
        assert_eq!(single.places(10), [(7, vec![1])]);
        let with = |header: &str| DeadLetter {
            indexes: String::new(),
            destination: Destination::Message(crate::event::parcel::Parcel {
                headers: [(DOCUMENTS_HEADER.to_owned(), header.into())].into(),
                ..Default::default()
            }),
            ..letter("q", 0)
        };
        let several = with("7:0:5:0-2;9:1:6:3");
        assert_eq!(several.places(10), [(7, vec![0, 1, 2]), (9, vec![3])]);
        // What cannot be read is said to hold nothing.
        assert_eq!(with("7:0;x").places(10), [(0, vec![])]);
    }

    #[tokio::test]
    async fn messages_without_an_origin_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(dir.path());
        let foreign = |body: &str, message_id: &str| DeadLetter {
            host: String::new(),
            indexes: String::new(),
            body: body.into(),
            destination: Destination::Message(crate::event::parcel::Parcel {
                routing_key: "branch_event_q".into(),
                message_id: Some(message_id.into()),
                ..Default::default()
            }),
            ..letter("branch_event_q", 0)
        };
        for (body, id) in [("a", "1"), ("b", "1"), ("a", "2"), ("a", "1")] {
            letters.put(&foreign(body, id), 1).await.unwrap();
        }
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
            .fetch_one(&letters.pool)
            .await
            .unwrap();
        assert_eq!(count, 3, "one of them came twice");
        letters.close().await;
    }

    #[tokio::test]
    async fn a_damaged_file_makes_way_for_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(NAME);
        let stop = CancellationToken::new();
        let metrics = Metrics::new();
        for garbage in [b"no database".to_vec(), vec![7; 10_000]] {
            std::fs::write(&file, garbage).unwrap();
            let letters = DeadLetters::new(dir.path());
            // All who find it so set it aside once: what one has kept is not taken for damaged.
            let all: Vec<_> = (1..=8).map(|seq| letter("w", seq)).collect();
            let kept = all.iter().map(|one| letters.keep(one, &metrics, &stop));
            let kept = futures::future::join_all(kept);
            let kept = tokio::time::timeout(Duration::from_secs(20), kept).await;
            assert!(kept.unwrap().into_iter().all(|kept| kept));
            assert_eq!(letters.waiting().await.unwrap()["w"], 8);
            letters.close().await;
        }
        let names = std::fs::read_dir(dir.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let aside = names.filter(|name| name.contains("damaged-"));
        assert_eq!(aside.count(), 2);
    }

    #[tokio::test]
    async fn a_letter_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(dir.path());
        let letter = letter("sqlite", 4);
        letters.put(&letter, 1).await.unwrap();
        letters.put(&letter, 2).await.unwrap();
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
            .fetch_one(&letters.pool)
            .await
            .unwrap();
        assert_eq!(count, 1);
        letters.close().await;
    }

    #[tokio::test]
    async fn letters_that_wait_are_counted_and_looking_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(dir.path());
        assert!(letters.waiting().await.unwrap().is_empty());
        assert!(!dir.path().join(NAME).exists());
        for (way, seq) in [("a", 1), ("a", 2), ("b", 1)] {
            letters.put(&letter(way, seq), 1).await.unwrap();
        }
        let desk = Desk::open(dir.path()).unwrap();
        let first = desk.waiting(0).await.unwrap()[0].id;
        assert!(desk.settle(first, State::Purged, 2).await.unwrap());
        let waiting = letters.waiting().await.unwrap();
        let expected = [("a".to_owned(), 1), ("b".to_owned(), 1)];
        assert_eq!(waiting, BTreeMap::from(expected));
        // It reads no body.
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {WAITING}")))
                .fetch_all(&letters.pool)
                .await
                .unwrap();
        assert!(plan[0].3.contains("COVERING INDEX"), "{plan:?}");
        desk.close().await;
        letters.close().await;
    }
}
