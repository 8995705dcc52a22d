//! Postgres: a batch is one `INSERT … SELECT FROM UNNEST`, in one round trip. Made by
//! `app`, called through [`Sink`] by the consumers and the brokerless pump.
//!
//! # Invariants
//! - `Ok` only after the commit was answered, and the commit is durable: a server set
//!   to `synchronous_commit = off` is overruled for our sessions.
//! - The same rows again change nothing (`ON CONFLICT DO NOTHING` on the table's key; where it
//!   has none, only rows that are not there yet are inserted).
//! - Nothing waits without a bound, and nothing connects before it is needed.
//! - Passwords are in no error, log or `Debug` text.
//!
//! Tests: `tests` in this folder's files, `postgres_*` in tests/it/sinks.

mod ddl;
mod insert;
mod inspect;
mod keys;
mod tables;
mod verdict;

use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use chrono::Utc;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use self::insert::Array;
use self::keys::{Keys, Lookup};
use self::tables::Warned;
use super::convert::{check_shape, unavailable};
use super::inspect::Inspect;
use super::schema::{EVENT_TABLES, Partition, Table};
use super::{Batch, OptionsError, SchemaError, Sink, WriteError};
use crate::trust::TrustFiles;

/// Bound on getting a connection, a new one included. A LAN takes milliseconds; the
/// pool knocks at a closed port again and again until then.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bound on one question to the server, an insert as well: a thousand rows take tens of
/// milliseconds, so a server that has not answered by then is hanging. A batch is one insert, and
/// without a key one for each of its days that are no neighbours.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The server gives up on its own before we do, so that it does not go on writing
/// what we try again.
const STATEMENT_TIMEOUT: &str = "25s";

/// Bound on all of the schema work in one call.
const SCHEMA_TIMEOUT: Duration = Duration::from_mins(10);

/// A connection that was idle for longer is tried before it is used; a younger one
/// is not, to spare the round trip.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);

/// Where Postgres is and who we are there.
#[derive(Clone)]
pub struct Options {
    /// `postgres://user:password@host:5432/database?sslmode=…`.
    pub url: String,
    /// The schema of the tables, and of batches that name none.
    pub schema: String,
    /// Most connections at a time; 20 is usual.
    pub pool_max: u32,
    /// Whom to trust, and who we are; read for each connection. Servers must prove their
    /// names then, unless the URL asks for less (`sslmode`).
    pub trust: TrustFiles,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL holds a password.
        f.debug_struct("Options")
            .field("schema", &self.schema)
            .field("pool_max", &self.pool_max)
            .finish_non_exhaustive()
    }
}

/// The sink named "postgres".
pub struct Postgres {
    connect: PgConnectOptions,
    schema: String,
    pool_max: u32,
    /// Made at the first use: a pool needs a runtime, `new` does not.
    pool: OnceLock<PgPool>,
    /// Tables whose partitions `maintain` makes ahead.
    tables: Mutex<Vec<&'static Table>>,
    keys: Keys,
    warned: Warned,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres")
            .field("host", &self.connect.get_host())
            .field("port", &self.connect.get_port())
            .field("database", &self.connect.get_database())
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Postgres {
    /// Makes the sink; connects to nothing.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        // The parser's error is not passed on: it may quote the URL, thus the password.
        if !options.url.starts_with("postgres://") && !options.url.starts_with("postgresql://") {
            return Err(OptionsError {
                reason: "postgres.url: does not begin with postgres://".into(),
            });
        }
        let connect = PgConnectOptions::from_str(&options.url).map_err(|_| OptionsError {
            reason: "postgres.url: not a valid URL of Postgres".into(),
        })?;
        let connect = trusting(connect, &options)?;
        if options.pool_max == 0 {
            return Err(OptionsError {
                reason: "postgres: a pool of 0 connections".into(),
            });
        }
        Ok(Self {
            connect: connect
                .application_name("holdfast")
                .disable_statement_logging(),
            schema: options.schema,
            pool_max: options.pool_max,
            pool: OnceLock::new(),
            tables: Mutex::new(EVENT_TABLES.to_vec()),
            keys: Keys::default(),
            warned: Warned::default(),
        })
    }

    fn pool(&self) -> &PgPool {
        self.pool.get_or_init(|| {
            PgPoolOptions::new()
                .max_connections(self.pool_max)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .test_before_acquire(false)
                .before_acquire(|connection, meta| {
                    Box::pin(async move {
                        if meta.idle_for > TRUSTED_IDLE {
                            connection.ping().await?;
                        }
                        Ok(true)
                    })
                })
                .after_connect(|connection, _| {
                    Box::pin(async move {
                        // By statement and not at startup: poolers refuse startup options.
                        sqlx::query(
                            "SELECT set_config('statement_timeout', $1, false), \
                             CASE WHEN current_setting('synchronous_commit') = 'off' \
                             THEN set_config('synchronous_commit', 'on', false) END",
                        )
                        .bind(STATEMENT_TIMEOUT)
                        .persistent(false)
                        .execute(connection)
                        .await
                        .map(|_| ())
                    })
                })
                .connect_lazy_with(self.connect.clone())
        })
    }

    /// The tables that `maintain` looks after.
    fn known_tables(&self) -> Vec<&'static Table> {
        self.tables
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn remember(&self, tables: &[&'static Table]) {
        let mut known = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        for &table in tables {
            if !known.iter().any(|&other| std::ptr::eq(other, table)) {
                known.push(table);
            }
        }
    }
}

#[async_trait::async_trait]
impl Sink for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    async fn write(&self, batch: &Batch) -> Result<(), WriteError> {
        check_shape(batch)?;
        if batch.rows.is_empty() {
            return Ok(());
        }
        let schema = batch.namespace.as_deref().unwrap_or(&self.schema);
        let arrays = insert::arrays(batch)?;
        // Whatever goes wrong before the insert is not the rows' fault.
        let mut connection = self
            .pool()
            .acquire()
            .await
            .map_err(|e| unavailable(&verdict::text(&e)))?;
        let insert = async {
            let lookup = self.keys.lookup(&mut connection, schema, batch.table);
            let lookup = in_time(lookup).await?;
            let has_key = lookup == Lookup::Key;
            let statement = insert::statement(schema, batch.table, has_key);
            let parts = match lookup {
                Lookup::Days => insert::parts(batch),
                // Each part would look through all of the table.
                Lookup::Key | Lookup::Scan => Vec::new(),
            };
            if parts.is_empty() {
                return execute(&mut connection, &statement, arrays).await;
            }
            // One by one: what is there after a failure is left out the next time.
            for part in &parts {
                let arrays = insert::arrays(part).map_err(Failed::Rows)?;
                execute(&mut connection, &statement, arrays).await?;
            }
            Ok(())
        };
        let inserted = insert.await;
        if inserted.is_err() {
            self.keys.forget();
        }
        match inserted {
            Ok(()) => Ok(()),
            Err(Failed::Rows(error)) => Err(error),
            Err(Failed::Server(error)) => Err(verdict::of(&error, batch.table)),
            Err(Failed::Silent) => {
                // Its answer is still to come, if ever: it is of no more use.
                connection.close_on_drop();
                Err(unavailable(&format!(
                    "no answer to an insert within {WRITE_TIMEOUT:?}"
                )))
            }
        }
    }

    async fn create_missing(&self, tables: &[&'static Table]) -> Result<(), SchemaError> {
        self.remember(tables);
        let work = tables::create_missing(self.pool(), &self.schema, tables, &self.warned);
        bounded(work).await
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }

    fn ddl(&self, tables: &[&'static Table]) -> Vec<String> {
        let mut statements = vec![ddl::create_schema(&self.schema)];
        for table in tables {
            statements.extend(ddl::create_table(&self.schema, table));
            if table.partition != Partition::None {
                let days = ddl::days(Utc::now().date_naive()).into_iter();
                statements.extend(days.flat_map(|day| ddl::create_day(&self.schema, table, day)));
            }
        }
        statements
    }

    /// Makes the coming days' partitions of the tables that exist and have any.
    async fn maintain(&self) -> Result<(), SchemaError> {
        self.keys.forget();
        let tables = self.known_tables();
        bounded(tables::make_days(
            self.pool(),
            &self.schema,
            &tables,
            &self.warned,
        ))
        .await
    }

    async fn close(&self) {
        if let Some(pool) = self.pool.get() {
            pool.close().await;
        }
    }
}

/// Why a batch is not there.
enum Failed {
    /// Its rows cannot be sent.
    Rows(WriteError),
    Server(sqlx::Error),
    /// Nothing was answered in time.
    Silent,
}

async fn in_time<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Failed> {
    match tokio::time::timeout(WRITE_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(Failed::Server),
        Err(_) => Err(Failed::Silent),
    }
}

async fn execute(
    connection: &mut PgConnection,
    statement: &str,
    arrays: Vec<Array<'_>>,
) -> Result<(), Failed> {
    let query = sqlx::query(AssertSqlSafe(statement.to_owned()));
    let query = arrays
        .into_iter()
        .fold(query, |query, array| array.bind(query));
    in_time(query.execute(connection)).await.map(drop)
}

/// The files, and a mode that needs them: with `prefer`, the default, a server that is asked for
/// encryption may do without, and shows a certificate that nobody looks at.
fn trusting(
    mut connect: PgConnectOptions,
    options: &Options,
) -> Result<PgConnectOptions, OptionsError> {
    let trust = &options.trust;
    if trust.is_empty() {
        return Ok(connect);
    }
    let parameters = options.url.split_once('?').map_or("", |(_, after)| after);
    let names_mode = parameters
        .split('&')
        .any(|parameter| parameter.starts_with("sslmode=") || parameter.starts_with("ssl-mode="));
    if !names_mode {
        connect = connect.ssl_mode(PgSslMode::VerifyFull);
    }
    let verifies = matches!(
        connect.get_ssl_mode(),
        PgSslMode::VerifyFull | PgSslMode::VerifyCa
    );
    if !verifies {
        return Err(OptionsError {
            reason: "postgres.url: with tls_ca or tls_certificate its sslmode must be verify-full \
                     (the default then) or verify-ca"
                .into(),
        });
    }
    if let Some(ca) = &trust.ca {
        connect = connect.ssl_root_cert(ca);
    }
    if let Some(identity) = &trust.identity {
        connect = connect
            .ssl_client_cert(&identity.certificate)
            .ssl_client_key(&identity.key);
    }
    Ok(connect)
}

async fn bounded(work: impl Future<Output = Result<(), SchemaError>>) -> Result<(), SchemaError> {
    tokio::time::timeout(SCHEMA_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| {
            Err(SchemaError {
                reason: format!("postgres: not done within {SCHEMA_TIMEOUT:?}"),
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> Options {
        Options {
            url: url.into(),
            schema: "_e".into(),
            pool_max: 2,
            trust: TrustFiles::default(),
        }
    }

    #[test]
    fn needs_no_runtime_and_prints_no_password() {
        let options = options("postgres://u:hunter2@localhost:1/db");
        assert!(!format!("{options:?}").contains("hunter2"));
        let sink = Postgres::new(options).unwrap();
        assert!(!format!("{sink:?}").contains("hunter2"), "{sink:?}");
        assert!(format!("{sink:?}").contains("localhost"));
    }

    #[test]
    fn bad_urls_are_told_without_being_quoted() {
        for bad in [
            "",
            "mysql://u:hunter2@x/y",
            "postgres://u:hunter2@x:notaport/y",
        ] {
            let error = Postgres::new(options(bad)).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn with_an_authority_servers_prove_their_names() {
        let mode = |url: &str, ca: Option<&str>| {
            let mut options = options(url);
            options.trust.ca = ca.map(Into::into);
            let sink = Postgres::new(options);
            sink.map(|sink| format!("{:?}", sink.connect.get_ssl_mode()))
                .map_err(|error| error.reason)
        };
        let url = |mode: &str| format!("postgres://u@h/d?application_name=x&sslmode={mode}");
        assert_eq!(
            mode("postgres://u@h/d", Some("ca.pem")).unwrap(),
            "VerifyFull"
        );
        assert_eq!(
            mode(&url("verify-full"), Some("ca.pem")).unwrap(),
            "VerifyFull"
        );
        assert_eq!(mode(&url("verify-ca"), Some("ca.pem")).unwrap(), "VerifyCa");
        for weak in ["disable", "allow", "prefer", "require"] {
            let error = mode(&url(weak), Some("ca.pem")).unwrap_err();
            assert!(error.contains("verify-full"), "{error}");
        }
        assert_eq!(mode(&url("require"), None).unwrap(), "Require");
        assert_eq!(mode("postgres://u@h/d", None).unwrap(), "Prefer");
    }

    #[test]
    fn ddl_prints_the_partitions_too() {
        let ddl = Postgres::new(options("postgres://u@localhost/db"))
            .unwrap()
            .ddl(EVENT_TABLES);
        assert_eq!(ddl[0], "CREATE SCHEMA IF NOT EXISTS \"_e\"");
        assert_eq!(
            ddl.iter()
                .filter(|s| s.contains("ATTACH PARTITION"))
                .count(),
            9
        );
    }
}
