//! ClickHouse over HTTP: a batch is one `INSERT`, in a binary format where the table allows it
//! (`binary`), else as JSONEachRow (`encode`). Made by `app`, called through [`Sink`] by the
//! consumers and the brokerless pump.
//!
//! # Invariants
//! - `Ok` only after the server's 200, which `wait_end_of_query` holds back until the
//!   insert is done; never an asynchronous insert.
//! - The same batch again shows once: `ReplacingMergeTree` keeps one row of each key, and
//!   replicated tables drop it whole by its deduplication token. No other table is told a token
//!   twice (`Layout::commits_tokens`).
//! - Rows that the server does not take in binary are sent as JSON before they are refused, so
//!   the form that a table gets changes no verdict (test `clickhouse_refuses_only_content`).
//! - JSON strings stay the text they were: no dates are guessed in them, and dots in
//!   keys do not turn into objects. (Readers see such keys with `%2E`, unless they
//!   set `json_type_escape_dots_in_keys = 1`.)
//! - Nothing is inserted where the server's disk is about to be full: the engine (26.9) was seen
//!   to acknowledge inserts of which it could not write all files (test
//!   `clickhouse_takes_no_rows_onto_a_disk_that_is_nearly_full`).
//! - Passwords are in no error, log or `Debug` text.
//!
//! Tests: `tests` in this folder's files, `clickhouse_*` in tests/it/sinks.

mod binary;
mod ddl;
mod encode;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod inspect;
mod known;
mod launches;
mod server;
mod verdict;

use std::sync::Arc;

use clickhouse::error::Error;

use self::encode::{Form, full_name, literal};
use self::known::{Known, Tables};
use self::server::{Server, told};
use super::convert::{brief, check_shape, unavailable};
use super::inspect::Inspect;
use super::schema::Table;
use super::{Batch, Device, Launch, OptionsError, SchemaError, Sink, WriteError};
use crate::trust::TrustFiles;

/// Rows are compressed and sent in pieces of about this size.
const PIECE_BYTES: usize = 1 << 20;

/// Where ClickHouse is and who we are there.
#[derive(Clone)]
pub struct Options {
    /// `http://host:8123` or `https://…`.
    pub url: String,
    /// The database of batches that name none.
    pub database: String,
    /// All databases whose tables are created; the default one may be left out.
    pub databases: Vec<String>,
    /// The user; empty is the server's default user.
    pub user: String,
    /// The password; may be empty.
    pub password: String,
    /// Whom to trust for `https`, and who we are; read once.
    pub trust: TrustFiles,
    /// With less left on its disk the server is to refuse inserts, in bytes; 0 is never.
    pub min_free_disk_bytes: u64,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("database", &self.database)
            .field("databases", &self.databases)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The sink named "clickhouse".
pub struct ClickHouse {
    options: Options,
    server: Server,
    /// What tables look like; read at the first write and again after an error.
    tables: Tables,
}

impl std::fmt::Debug for ClickHouse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ClickHouse").field(&self.options).finish()
    }
}

impl ClickHouse {
    /// Makes the sink; connects to nothing.
    ///
    /// # Errors
    /// When the URL is none, or holds a user or password, which belong in their own
    /// options: URLs are printed.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        let server = Server::new(&options)?;
        Ok(Self {
            options,
            server,
            tables: Tables::default(),
        })
    }

    /// The configured databases, the default one first, each once.
    fn databases(&self) -> Vec<&str> {
        let mut all = vec![self.options.database.as_str()];
        for database in &self.options.databases {
            if !all.contains(&database.as_str()) {
                all.push(database);
            }
        }
        all
    }

    /// The table from memory, or from the server.
    async fn known(&self, database: &str, table: &'static Table) -> Result<Arc<Known>, WriteError> {
        if let Some(known) = self.tables.get(database, table) {
            return Ok(known);
        }
        let layout = self
            .server
            .layout(database, table)
            .await
            .map_err(|e| unavailable(&told(&e)))?;
        if layout.columns.is_empty() {
            let name = full_name(database, table);
            return Err(unavailable(&format!(
                "table {name} does not exist, or this user may not see it"
            )));
        }
        Ok(self.tables.put(database, table, layout))
    }

    /// Sends a batch in one form.
    async fn insert(
        &self,
        (database, batch): (&str, &Batch),
        known: &Known,
        rows: (Form, Vec<Vec<u8>>),
    ) -> Result<(), Error> {
        let sql = encode::statement(database, batch.table, rows.0);
        let layout = &known.layout;
        let token = if layout.commits_tokens() {
            batch.token.clone()
        } else {
            // By the rows alone a table would recognise them, too: one that nobody knows.
            uuid::Uuid::new_v4().simple().to_string()
        };
        let inserted = self.server.insert(sql, &token, layout, rows).await;
        if inserted.is_err() {
            // The table may have been changed under us.
            self.tables.forget(database, batch.table);
        }
        inserted
    }

    async fn create_table(&self, database: &str, table: &'static Table) -> Result<(), SchemaError> {
        let during = |e| failed(&format!("table {}", full_name(database, table)), &e);
        let layout = self.server.layout(database, table).await.map_err(during)?;
        let native_json = layout.has_fit_json();
        if layout.columns.is_empty() {
            self.server
                .execute(&ddl::create_table(database, table, native_json))
                .await
                .map_err(during)?;
        } else {
            if let Some(sql) = ddl::add_columns(database, table, &layout, native_json) {
                self.server.execute(&sql).await.map_err(during)?;
            }
            self.warn_about_engine(database, table)
                .await
                .map_err(during)?;
        }
        self.tables.forget(database, table);
        Ok(())
    }

    /// A table that was there before us may keep both copies of a row.
    async fn warn_about_engine(&self, database: &str, table: &Table) -> Result<(), Error> {
        let (database_text, table_text) = (literal(database), literal(table.name));
        let sql = format!(
            "SELECT engine FROM system.tables WHERE database = {database_text} AND name = {table_text}"
        );
        for engine in self.server.rows(&sql).await?.into_iter().flatten() {
            if engine.ends_with("MergeTree") && !engine.contains("Replacing") {
                tracing::warn!(
                    database,
                    table = table.name,
                    engine,
                    "rows delivered twice may show twice"
                );
            }
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Sink for ClickHouse {
    fn name(&self) -> &'static str {
        "clickhouse"
    }

    async fn write(&self, batch: &Batch) -> Result<(), WriteError> {
        check_shape(batch)?;
        if batch.rows.is_empty() {
            return Ok(());
        }
        let database = batch.namespace.as_deref().unwrap_or(&self.options.database);
        let table = batch.table;
        let known = self.known(database, table).await?;
        let mut not_binary = None;
        if let Some(plan) = &known.binary
            && let Some(pieces) = binary::rows(batch, plan, PIECE_BYTES)?
        {
            let form = Form::Binary {
                has_native_json: plan.has_native_json,
            };
            let inserted = self.insert((database, batch), &known, (form, pieces)).await;
            match inserted {
                Ok(()) => return Ok(()),
                Err(error) if verdict::leaves_it_to_json(&error) => not_binary = Some(error),
                Err(error) => return Err(verdict::of(&error)),
            }
        }
        let pieces = encode::lines(batch, &known.layout, PIECE_BYTES)?;
        self.insert((database, batch), &known, (Form::Json, pieces))
            .await
            .map_err(|error| verdict::of(&error))?;
        if let Some(error) = not_binary {
            let reason = format!("only so the server takes them: {}", brief(&told(&error)));
            self.tables.distrust(database, table, &known, reason);
        }
        Ok(())
    }

    async fn launches(
        &self,
        namespace: Option<&str>,
        devices: &[Device],
    ) -> Result<Vec<Option<Launch>>, WriteError> {
        let database = namespace.unwrap_or(&self.options.database);
        launches::find(&self.server, database, devices)
            .await
            .map_err(|error| unavailable(&told(&error)))
    }

    async fn create_missing(&self, tables: &[&'static Table]) -> Result<(), SchemaError> {
        for database in self.databases() {
            let during = |e| failed(&format!("database {database}"), &e);
            // Asked first, so that a user without the right to create can go on.
            let sql = format!(
                "SELECT name FROM system.databases WHERE name = {}",
                literal(database)
            );
            if self.server.rows(&sql).await.map_err(during)?.is_empty() {
                self.server
                    .execute(&ddl::create_database(database))
                    .await
                    .map_err(during)?;
            }
            for table in tables {
                self.create_table(database, table).await?;
            }
        }
        Ok(())
    }

    /// As for a server with native JSON (25.8 or newer); older ones get String.
    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }

    fn ddl(&self, tables: &[&'static Table]) -> Vec<String> {
        let mut statements = Vec::new();
        for database in self.databases() {
            statements.push(ddl::create_database(database));
            statements.extend(
                tables
                    .iter()
                    .map(|table| ddl::create_table(database, table, true)),
            );
        }
        statements
    }

    /// Nothing to do: months are made by the server.
    async fn maintain(&self) -> Result<(), SchemaError> {
        Ok(())
    }
}

fn failed(what: &str, error: &Error) -> SchemaError {
    SchemaError {
        reason: format!("clickhouse, {what}: {}", brief(&told(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::schema::EVENT_TABLES;

    fn options(url: &str) -> Options {
        Options {
            url: url.into(),
            database: "a".into(),
            databases: vec!["b".into(), "a".into()],
            user: "u".into(),
            password: "hunter2".into(),
            trust: TrustFiles::default(),
            min_free_disk_bytes: 0,
        }
    }

    #[test]
    fn passwords_are_not_printed_and_urls_are_checked() {
        let sink = ClickHouse::new(options("http://localhost:8123")).unwrap();
        assert!(!format!("{sink:?}").contains("hunter2"));
        for bad in [
            "",
            "localhost",
            "tcp://x:9000",
            "http://u:hunter2@x:1",
            "/x",
            "http://x/?password=hunter2",
        ] {
            let error = ClickHouse::new(options(bad)).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{bad}");
        }
    }

    #[test]
    fn ddl_covers_each_database_once() {
        let sink = ClickHouse::new(options("http://localhost:8123")).unwrap();
        let ddl = sink.ddl(EVENT_TABLES);
        assert_eq!(ddl.len(), 2 * (1 + EVENT_TABLES.len()));
        assert_eq!(ddl[0], "CREATE DATABASE IF NOT EXISTS `a`");
    }
}
