//! The conversation with the server: queries, statements and inserts with their
//! settings, each with a bound in time. Called by this folder's `mod` only.
//!
//! # Invariants
//! - No call waits without a bound; an insert that is given up before it was sent
//!   whole is aborted, so that the server writes nothing of it.
//! - Settings that a server may lack are sent only when it has them: an unknown one
//!   fails the insert. Tests: `clickhouse_*` in tests/it/sinks.

use std::time::Duration;

use clickhouse::error::Error;
use clickhouse::{Client, Compression};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

use super::Options;
use super::binary::{COMPARE_TYPES, JSON_AS_TEXT};
use super::encode::{DOTS_IN_KEYS, Form, Layout, literal};
use crate::sink::OptionsError;
use crate::sink::inspect::LOOK_TIMEOUT;
use crate::sink::schema::Table;
use crate::trust::TrustFiles;

/// Bound on sending the rows: megabytes on a LAN take milliseconds, so a server that
/// has not taken them by then is hanging.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// Bound on the server's answer to an insert, materialized views included. A write
/// ends after at most [`QUERY_TIMEOUT`], [`SEND_TIMEOUT`] and this; where the server answered
/// that it does not take binary rows, after twice the last two.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bound on reading what a table looks like.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Bound on looking launches up by device: their table is in the order of ids, so that all of it
/// is read. Consumers wait for the answer, and ask again where there was none in time.
const LOOK_UP_TIMEOUT: Duration = Duration::from_mins(1);

/// Bound on one statement of DDL, which may wait for all replicas (the server's own
/// limit is 180 s).
const DDL_TIMEOUT: Duration = Duration::from_secs(200);

/// What a server parses of a query where nothing else is said. Only longer ones bring a bound of
/// their own: a user who may only read may not set any.
const QUERY_BYTES_USUAL: usize = 256 << 10;

/// A connection that is idle for longer is not used again: older servers close it after 3 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Between the kernel's questions whether a silent server is still there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Sent with every insert; servers of the last five years know them.
const SETTINGS: &[(&str, &str)] = &[
    ("async_insert", "0"),
    ("wait_end_of_query", "1"),
    // One block per insert: the deduplication token covers the whole batch.
    ("input_format_parallel_parsing", "0"),
];

/// Sent with every insert when the server knows them.
const SETTINGS_IF_KNOWN: &[(&str, &str)] = &[
    // Of a table that is distributed, it answers once the shards have the rows: otherwise once
    // they are in a spool of its own, which may be lost with its disk. The second is the name
    // until 23.10.
    ("distributed_foreground_insert", "1"),
    ("insert_distributed_sync", "1"),
];

/// Sent where the server parses JSON: rows, or the text of JSON columns.
const SETTINGS_OF_JSON: &[(&str, &str)] = &[
    // Takes ISO times for both DateTime and DateTime64.
    ("date_time_input_format", "best_effort"),
];

/// Sent with it when the server knows them: an unknown setting would fail the insert.
const SETTINGS_OF_JSON_IF_KNOWN: &[(&str, &str)] = &[
    // `{"a.b": 1}` stays a key with a dot.
    (DOTS_IN_KEYS, "1"),
    // Strings in native JSON stay strings, also if they look like dates.
    ("input_format_try_infer_dates", "0"),
    ("input_format_try_infer_datetimes", "0"),
    // Our numbers fit tables that keep them as text.
    ("input_format_json_read_numbers_as_strings", "1"),
    ("input_format_null_as_default", "1"),
    ("precise_float_parsing", "1"),
];

/// Sent with binary rows when the server knows them.
const SETTINGS_OF_BINARY_IF_KNOWN: &[(&str, &str)] = &[
    // Also where a user's profile says otherwise.
    ("input_format_with_names_use_header", "1"),
    (COMPARE_TYPES, "1"),
    (JSON_AS_TEXT, "1"),
];

/// Has the server refuse an insert while less is left on its disk, where it knows it (from 24.10
/// on). A table's own setting counts before this.
const MIN_FREE_DISK: &str = "min_free_disk_bytes_to_perform_insert";

/// A server and who we are there.
pub(super) struct Server {
    client: Client,
    min_free_disk_bytes: u64,
}

impl Server {
    /// Connects to nothing.
    pub(super) fn new(options: &Options) -> Result<Self, OptionsError> {
        let wrong = |what: &str| OptionsError {
            reason: format!("clickhouse.url: {what}"),
        };
        let url: http::Uri = options
            .url
            .parse()
            .map_err(|e: http::uri::InvalidUri| wrong(&e.to_string()))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(wrong("begins with neither http:// nor https://"));
        }
        if url.authority().is_none_or(|a| a.as_str().contains('@')) {
            return Err(wrong(
                "needs a host, and user and password in their own options",
            ));
        }
        if url.query().is_some() {
            return Err(wrong("has parameters, which would not be sent"));
        }
        let is_encrypted = url.scheme_str() == Some("https");
        if !is_encrypted && !options.trust.is_empty() {
            return Err(wrong(
                "must begin with https:// where tls_ca or tls_certificate is set",
            ));
        }
        let mut client = client(is_encrypted.then_some(&options.trust))?
            .with_url(&options.url)
            .with_compression(Compression::Lz4);
        if !options.user.is_empty() {
            client = client.with_user(&options.user);
        }
        if !options.password.is_empty() {
            client = client.with_password(&options.password);
        }
        Ok(Self {
            client,
            min_free_disk_bytes: options.min_free_disk_bytes,
        })
    }

    /// Runs a query and answers its rows as lines of JSON arrays of strings.
    pub(super) async fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, Error> {
        self.ask(sql, QUERY_TIMEOUT).await
    }

    /// As [`Server::rows`], for a question that may read a whole range of a table.
    pub(super) async fn look(&self, sql: &str) -> Result<Vec<Vec<String>>, Error> {
        self.ask(sql, LOOK_TIMEOUT).await
    }

    /// As [`Server::rows`], for a question about devices; it may be of any length.
    pub(super) async fn look_up(&self, sql: &str) -> Result<Vec<Vec<String>>, Error> {
        self.ask(sql, LOOK_UP_TIMEOUT).await
    }

    async fn ask(&self, sql: &str, limit: Duration) -> Result<Vec<Vec<String>>, Error> {
        let read = async {
            let mut query = self.client.query_raw(sql);
            if sql.len() >= QUERY_BYTES_USUAL {
                // It is too late for this where the query itself says it.
                query = query.with_setting("max_query_size", (sql.len() + 1).to_string());
            }
            let mut cursor = query.fetch_bytes("JSONCompactStringsEachRow")?;
            cursor.collect().await
        };
        let bytes = bounded(limit, read).await?;
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| {
                serde_json::from_slice(line).map_err(|e| Error::Custom(format!("odd answer: {e}")))
            })
            .collect()
    }

    pub(super) async fn execute(&self, sql: &str) -> Result<(), Error> {
        bounded(DDL_TIMEOUT, self.client.query_raw(sql).execute()).await
    }

    /// Reads what a table looks like; without columns it does not exist.
    pub(super) async fn layout(&self, database: &str, table: &Table) -> Result<Layout, Error> {
        let if_known = [
            SETTINGS_IF_KNOWN,
            SETTINGS_OF_JSON_IF_KNOWN,
            SETTINGS_OF_BINARY_IF_KNOWN,
        ];
        let settings: Vec<_> = if_known
            .into_iter()
            .flatten()
            .map(|(name, _)| *name)
            .chain([MIN_FREE_DISK])
            .map(literal)
            .collect();
        let sql = format!(
            "SELECT 'column', name, type FROM system.columns WHERE database = {0} AND table = {1} \
             UNION ALL SELECT 'engine', engine, '' FROM system.tables WHERE database = {0} AND name = {1} \
             UNION ALL SELECT 'setting', name, '' FROM system.settings WHERE name IN ({2})",
            literal(database),
            literal(table.name),
            settings.join(", ")
        );
        let mut layout = Layout::default();
        for row in self.rows(&sql).await? {
            match <[String; 3]>::try_from(row) {
                Ok([what, name, kind]) if what == "column" => {
                    layout.columns.insert(name, kind);
                }
                Ok([what, engine, _]) if what == "engine" => layout.engine = engine,
                Ok([_, name, _]) => layout.settings.push(name),
                Err(row) => return Err(Error::Custom(format!("odd answer: {row:?}"))),
            }
        }
        Ok(layout)
    }

    /// Sends encoded rows and waits for the server's word.
    pub(super) async fn insert(
        &self,
        sql: String,
        token: &str,
        layout: &Layout,
        (form, pieces): (Form, Vec<Vec<u8>>),
    ) -> Result<(), Error> {
        let mut insert = self
            .client
            .insert_formatted_with(sql)
            .with_timeouts(Some(SEND_TIMEOUT), Some(ANSWER_TIMEOUT))
            .with_setting("insert_deduplication_token", token);
        for (name, value) in settings(form, layout) {
            insert = insert.with_setting(name, value);
        }
        // None of ours leaves the server's own as it is.
        if self.min_free_disk_bytes > 0 && layout.knows(MIN_FREE_DISK) {
            insert = insert.with_setting(MIN_FREE_DISK, self.min_free_disk_bytes.to_string());
        }
        // Dropping an insert that is not ended aborts it: nothing is written then.
        bounded(SEND_TIMEOUT, async {
            for piece in pieces {
                insert.send(piece.into()).await?;
            }
            Ok(())
        })
        .await?;
        insert.end().await
    }
}

/// What an insert of rows in this form is sent with.
fn settings<'a>(
    form: Form,
    layout: &'a Layout,
) -> impl Iterator<Item = (&'static str, &'static str)> + 'a {
    let (json, binary) = match form {
        Form::Json => (true, false),
        Form::Binary { has_native_json } => (has_native_json, true),
    };
    let only = |is: bool, settings: &'static [(&str, &str)]| if is { settings } else { &[] };
    let if_known = [
        SETTINGS_IF_KNOWN,
        only(json, SETTINGS_OF_JSON_IF_KNOWN),
        only(binary, SETTINGS_OF_BINARY_IF_KNOWN),
    ];
    let always = [SETTINGS, only(json, SETTINGS_OF_JSON)];
    let if_known = if_known.into_iter().flatten();
    always
        .into_iter()
        .flatten()
        .chain(if_known.filter(|(name, _)| layout.knows(name)))
        .copied()
}

/// A client of our own: that of the library takes no authorities but the system's, and panics
/// on a host that has none.
fn client(trust: Option<&TrustFiles>) -> Result<Client, OptionsError> {
    let wrong = |error: &dyn std::fmt::Display| OptionsError {
        reason: format!("clickhouse: {error}"),
    };
    let config = match trust {
        Some(trust) => (*trust.read().map_err(|error| wrong(&error))?).clone(),
        // Nothing is encrypted.
        None => {
            ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .map_err(|error| wrong(&error))?
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth()
        }
    };
    let mut http = HttpConnector::new();
    http.set_keepalive(Some(KEEPALIVE));
    http.enforce_http(false);
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config);
    // Where the URL says https, nothing else is spoken.
    let builder = match trust {
        Some(_) => builder.https_only(),
        None => builder.https_or_http(),
    };
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build(builder.enable_http1().wrap_connector(http));
    Ok(Client::with_http_client(client))
}

/// An error with its causes: those of the network say next to nothing themselves.
pub(super) fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let more = next.to_string();
        // Some repeat what is below them.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

async fn bounded<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or(Err(Error::TimedOut))
}
