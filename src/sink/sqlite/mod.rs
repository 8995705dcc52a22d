//! SQLite: one file, one transaction per batch; the sink of a machine that has no
//! other. Made by `app`, called through [`Sink`] by the brokerless pump and the
//! consumers.
//!
//! # Invariants
//! - `Ok` only after a commit that is on the disk (`synchronous = FULL`): the caller
//!   moves its cursor past the rows then.
//! - The same rows again change nothing (`ON CONFLICT DO NOTHING` on the table's key).
//! - A file has no schemas: rows of all namespaces are in the same tables.
//! - Readers (`sqlite3` by hand) do not stop the writer, nor it them (WAL).
//!
//! Tests: `tests` below and in `statements`, `sqlite_*` in tests/it/sinks.

mod inspect;
mod statements;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _};

use self::statements::Cell;
use super::convert::{Place, brief, check_shape, refused, unavailable};
use super::inspect::Inspect;
use super::schema::Table;
use super::{Batch, SchemaError, Sink, WriteError};

/// How long SQLite itself waits for another process' write (a backup, a `DELETE` by
/// hand).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Bound on a batch, waiting for the batches before it included. Longer than
/// [`BUSY_TIMEOUT`], so that a locked file is told as such.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// `SQLITE_TOOBIG`, `SQLITE_CONSTRAINT`, `SQLITE_MISMATCH`: the codes that blame the
/// rows. All others are about the file (locked, full, missing, read-only, corrupt),
/// its tables or our statements, and wait.
const ABOUT_CONTENT: [i32; 3] = [18, 19, 20];

/// Where the file is.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file, created if missing; its directory must exist.
    pub path: PathBuf,
}

/// The sink named "sqlite".
pub struct Sqlite {
    options: Options,
    /// Made at the first use; one connection, because SQLite has one writer.
    pool: OnceLock<SqlitePool>,
}

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sqlite")
            .field("path", &self.options.path)
            .finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Makes the sink; opens nothing.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            pool: OnceLock::new(),
        }
    }

    fn pool(&self) -> &SqlitePool {
        self.pool.get_or_init(|| {
            let connect = SqliteConnectOptions::new()
                .filename(&self.options.path)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT)
                .disable_statement_logging();
            SqlitePoolOptions::new()
                .max_connections(1)
                .acquire_timeout(WRITE_TIMEOUT)
                // SQLite ends a transaction by itself when the disk is full or fails, and
                // sqlx, whose ROLLBACK finds none then, would never begin another on
                // this connection. The ping waits for that ROLLBACK.
                .after_release(|connection, _| {
                    Box::pin(async move {
                        connection.ping().await?;
                        Ok(!connection.is_in_transaction())
                    })
                })
                // Nothing is gained by closing a file now and then.
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_lazy_with(connect)
        })
    }

    async fn insert(&self, table: &Table, cells: Vec<Vec<Cell<'_>>>) -> Result<(), sqlx::Error> {
        // IMMEDIATE waits for other writers at the start; a transaction that begins by
        // reading and finds a writer later would fail without waiting.
        let mut tx = self.pool().begin_with("BEGIN IMMEDIATE").await?;
        let per_statement = statements::rows_per_statement(table);
        for rows in cells.chunks(per_statement) {
            let statement = AssertSqlSafe(statements::insert(table, rows.len()));
            let mut query = sqlx::query(statement).persistent(false);
            for cell in rows.iter().flatten() {
                query = match cell {
                    Cell::Text(value) => query.bind(*value),
                    Cell::Time(value) => query.bind(value.as_deref()),
                    Cell::Int(value) => query.bind(*value),
                    Cell::Float(value) => query.bind(*value),
                };
            }
            query.execute(&mut *tx).await?;
        }
        tx.commit().await
    }

    async fn create(&self, tables: &[&'static Table]) -> Result<(), sqlx::Error> {
        let mut tx = self.pool().begin_with("BEGIN IMMEDIATE").await?;
        for table in tables {
            sqlx::raw_sql(AssertSqlSafe(statements::create_table(table)))
                .execute(&mut *tx)
                .await?;
            let present: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?)")
                .bind(table.name)
                .fetch_all(&mut *tx)
                .await?;
            for column in table
                .columns
                .iter()
                .filter(|c| !present.iter().any(|name| name == c.name))
            {
                let sql = statements::add_column(table, column);
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await?;
            }
        }
        tx.commit().await
    }
}

#[async_trait::async_trait]
impl Sink for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn write(&self, batch: &Batch) -> Result<(), WriteError> {
        check_shape(batch)?;
        if batch.rows.is_empty() {
            return Ok(());
        }
        let cells = cells(batch)?;
        match tokio::time::timeout(WRITE_TIMEOUT, self.insert(batch.table, cells)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(verdict(&error)),
            Err(_) => Err(unavailable(&format!(
                "not written within {WRITE_TIMEOUT:?}"
            ))),
        }
    }

    async fn create_missing(&self, tables: &[&'static Table]) -> Result<(), SchemaError> {
        let done = tokio::time::timeout(WRITE_TIMEOUT, self.create(tables)).await;
        let path = self.options.path.display();
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(SchemaError {
                reason: format!("sqlite, {path}: {}", brief(&error.to_string())),
            }),
            Err(_) => Err(SchemaError {
                reason: format!("sqlite, {path}: not done within {WRITE_TIMEOUT:?}"),
            }),
        }
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }

    fn ddl(&self, tables: &[&'static Table]) -> Vec<String> {
        tables
            .iter()
            .map(|table| statements::create_table(table))
            .collect()
    }

    /// Nothing to do: SQLite checkpoints its log by itself.
    async fn maintain(&self) -> Result<(), SchemaError> {
        Ok(())
    }

    async fn close(&self) {
        if let Some(pool) = self.pool.get() {
            pool.close().await;
        }
    }
}

fn cells(batch: &Batch) -> Result<Vec<Vec<Cell<'_>>>, WriteError> {
    let columns = batch.table.columns;
    let mut rows = Vec::with_capacity(batch.rows.len());
    for (row, values) in batch.rows.iter().enumerate() {
        let cells = columns.iter().zip(&values.values);
        rows.push(
            cells
                .map(|(column, v)| statements::cell(Place { row, column }, v))
                .collect::<Result<_, _>>()?,
        );
    }
    Ok(rows)
}

/// What an error of writing means for the batch.
fn verdict(error: &sqlx::Error) -> WriteError {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .and_then(|code| code.parse::<i32>().ok());
    match (code, error) {
        // The low byte of an extended code is the code.
        (Some(code), _) if ABOUT_CONTENT.contains(&(code & 0xff)) => refused(&error.to_string()),
        (None, sqlx::Error::Encode(_)) => refused(&error.to_string()),
        _ => unavailable(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_no_runtime() {
        let sink = Sqlite::new(Options {
            path: "/nowhere/x.db".into(),
        });
        assert!(format!("{sink:?}").contains("/nowhere/x.db"));
    }

    #[test]
    fn what_is_no_database_error_waits() {
        assert!(verdict(&sqlx::Error::PoolTimedOut).is_retryable());
        assert!(verdict(&sqlx::Error::WorkerCrashed).is_retryable());
        assert!(!verdict(&sqlx::Error::Encode("x".into())).is_retryable());
    }
}
