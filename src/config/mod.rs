//! What an operator may set: one struct for each section, typed units, defaults
//! with their reasons. Called by `cli` (load, check) and `app` (build).
//!
//! Layers, later ones win: defaults, the names of older deployments, the TOML file,
//! `HOLDFAST__SECTION__KEY`. Variables come from the environment and, where it has none
//! of the name, from `.env`.
//!
//! # Invariants
//! - An unknown key, a wrong type and a contradiction are errors, and all of them
//!   are reported at once, each with its key (test `all_errors_are_reported_at_once`).
//! - Secrets never appear in Debug output, error texts or the serialised form (tests
//!   `secrets_do_not_show`, `a_changed_secret_is_named_and_never_told`).

mod admin;
mod bindings;
mod changes;
mod check;
mod clicks;
mod clients;
mod connections;
mod consumers;
mod dotenv;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod load;
mod older;
mod origin;
mod outgoing;
mod outward;
mod place;
mod proof;
mod secret;
mod shipped;
mod tls;
mod units;
mod webhooks;

pub use admin::{Admin, Listen};
pub use bindings::matches as binding_matches;
pub use changes::changed_keys;
pub use clicks::Clicks;
pub use clients::{Client, SHA256_PREFIX, digest_of};
pub use connections::Connections;
pub use consumers::{Consumer, ConsumerEntry, FlatColumn, FlatType, Handler, SinkKind};
pub use forward::{DOCUMENTS_PER_MESSAGE_MAX, Forward};
pub use load::{Errors, load, load_from};
pub use origin::Origin;
pub use outgoing::{AppType, Graphy, Identity, Sentry, SocialStream, WebEngage};
pub use outward::{ClickHouse, Declare, Postgres, QueueType, RabbitMq};
pub use place::data_dir;
pub use proof::{Drill, Receipts};
pub use secret::{Secret, open_to_all};
pub use tls::{PortTls, Tls};
pub use units::{Size, Span};
pub use webhooks::{Partner, Verify, Webhook, Webhooks};

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The whole configuration.
#[derive(Debug, Clone, Deserialize, Serialize, Default)]
#[serde(default)]
pub struct Config {
    /// Where everything durable lives.
    pub data: Data,
    /// The gRPC door.
    pub grpc: Grpc,
    /// The HTTP door.
    pub http: Http,
    /// The page for operators.
    pub admin: Admin,
    /// What a connection may take.
    pub connections: Connections,
    /// How the ports are encrypted; absent: not at all.
    pub tls: Option<Tls>,
    /// Who may send events; none: everybody.
    pub client: Vec<Client>,
    /// The journal's bounds.
    pub journal: Journal,
    /// What the doors take.
    pub ingest: Ingest,
    /// How fast the log goes out.
    pub forward: Forward,
    /// The broker; absent: no broker, sinks read the journal directly.
    pub rabbitmq: Option<RabbitMq>,
    /// The ClickHouse sink; absent: none.
    pub clickhouse: Option<ClickHouse>,
    /// The Postgres sink; absent: none.
    pub postgres: Option<Postgres>,
    /// The SQLite sink; absent: only where no other sink and no broker is set.
    pub sqlite: Option<Sqlite>,
    /// The webhooks of partners.
    pub webhooks: Webhooks,
    /// WebEngage's API; absent: no calls.
    pub webengage: Option<WebEngage>,
    /// The Identity service's search; absent: Graphy's learners are not looked up.
    pub identity: Option<Identity>,
    /// The Social stream service.
    pub social_stream: Option<SocialStream>,
    /// What Graphy's events become.
    pub graphy: Graphy,
    /// What makes a click a bot's.
    pub clicks: Clicks,
    /// Where errors and panics are reported; absent: nowhere.
    pub sentry: Option<Sentry>,
    /// Whether `run` makes missing tables.
    pub schema: Schema,
    /// Changes to the shipped consumers, and new ones.
    #[serde(skip_serializing)]
    pub consumer: Vec<ConsumerEntry>,
    /// What the log remembers of what it has let go.
    pub receipts: Receipts,
    /// Whether outages may be played.
    pub drill: Drill,
    /// How the service talks.
    pub log: Log,
    /// What helps to find a fault of the service itself.
    pub debug: Debugging,
    /// How long a stop may take.
    pub shutdown: Shutdown,
    /// Where values came from that the file does not show; no key.
    #[serde(skip)]
    pub origin: Origin,
}

/// `[data]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Data {
    /// The data directory; its parent must exist. Default: `holdfast-data` where
    /// the service is started.
    pub dir: PathBuf,
}

/// `[grpc]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Grpc {
    /// Address of the gRPC door. Default `0.0.0.0:8017`, which clients in the
    /// field dial.
    pub listen: SocketAddr,
}

/// `[http]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Http {
    /// Address of the HTTP door. Default `0.0.0.0:8019`.
    pub listen: SocketAddr,
}

/// `[journal]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Journal {
    /// Bytes on disk that the journal may use; past it requests are refused until
    /// deliveries free room. Default 16 GiB: hours of backlog on a common disk.
    pub max_bytes: Size,
    /// Bytes that the disk must keep free; below it requests are refused. Default
    /// 1 GiB: room to open stores (one segment each) and for everyone else.
    pub min_free_bytes: Size,
    /// Bytes that the journal keeps for its own needs, beside those, and gives
    /// back to itself when the disk is full. Default 64 MiB: four stores, or any
    /// number of manifests, cursors and dead letters.
    pub reserve_bytes: Size,
    /// Payload after which a generation is sealed; deleted as a whole once
    /// delivered. Default 64 MiB: opens in a fraction of a second and bounds what
    /// a damaged store can cost.
    pub generation_bytes: Size,
    /// Age at which a generation with records is sealed, so that a quiet host's
    /// delivered records leave the disk, too. Default 10 min.
    pub generation_age: Span,
    /// How long a request may wait for its sync before it is refused. Default 1 s;
    /// a client's own shorter deadline wins.
    pub ack_deadline: Span,
    /// Bytes of requests waiting for their sync, in memory. Default 64 MiB; at
    /// least twice the largest request.
    pub queue_bytes: Size,
}

/// `[ingest]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Ingest {
    /// Bytes of one request, after decompression. Default 16 MiB: a hundred times
    /// the largest batch seen, small enough that a few do not hurt.
    pub max_request_bytes: Size,
    /// Events of one request. Each takes a thousand bytes or so while the request is taken
    /// apart, however few it has on the wire. Default 10,000.
    pub max_request_events: usize,
    /// Requests in work on one door, from the last byte of the body to the answer; more
    /// wait. Default 4096.
    pub max_in_flight: usize,
    /// How long a body may take from the head of its request to its last byte. Default 30 s:
    /// the largest request, at 5 Mbit/s.
    pub body_timeout: Span,
    /// Bodies in memory until their answer, all together; one peer's address may have half.
    /// Default 256 MiB: a request that finds no room is sent again a second later.
    pub max_body_bytes: Size,
    /// Whether an incomplete batch is kept and sent to the error exchange.
    /// Default true.
    pub keep_rejected: bool,
    /// Who may switch the heartbeat (`PUT /heartbeat/`). Default `anyone` who reaches the port,
    /// as deployments in the field do it from elsewhere.
    pub heartbeat_from: HeartbeatFrom,
}

/// Who may switch the heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeartbeatFrom {
    /// Who reaches the HTTP port (the default).
    Anyone,
    /// Who reaches it by a loopback address: processes of this host, and whom a proxy on it
    /// lets through.
    ThisHost,
}

/// `[sqlite]`
#[derive(Debug, Clone, Deserialize, Serialize, Default)]
#[serde(default)]
pub struct Sqlite {
    /// The database file. Default `events.sqlite` in the data directory.
    pub path: Option<PathBuf>,
}

/// `[schema]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Schema {
    /// Whether `run` creates missing tables, columns and partitions. Default true.
    pub create_missing: bool,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people (the default).
    Text,
    /// One JSON object a line.
    Json,
    /// Fields of systemd's journal.
    Journald,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives of
    /// tracing-subscriber's EnvFilter. Default `info`.
    pub level: String,
    /// The form of the lines on stderr.
    pub format: LogFormat,
}

/// `[debug]`
#[derive(Debug, Clone, Deserialize, Serialize, Default)]
#[serde(default)]
pub struct Debugging {
    /// Whether the kernel may write the memory of a crashed process down, with events and
    /// secrets in it, and other processes of its user may look into it. Default false.
    pub core_dumps: bool,
}

/// `[shutdown]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Shutdown {
    /// How long a stop waits for requests in work and for confirms before it goes
    /// on without them (nothing is lost: they are delivered again). Default 20 s,
    /// under systemd's 90 s.
    pub grace: Span,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("holdfast-data"),
        }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8017)),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8019)),
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            max_bytes: Size::gib(16),
            min_free_bytes: Size::gib(1),
            reserve_bytes: Size::mib(64),
            generation_bytes: Size::mib(64),
            generation_age: Span::secs(600),
            ack_deadline: Span::secs(1),
            queue_bytes: Size::mib(64),
        }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            max_request_bytes: Size::mib(16),
            max_request_events: 10_000,
            max_in_flight: 4096,
            body_timeout: Span::secs(30),
            max_body_bytes: Size::mib(256),
            keep_rejected: true,
            heartbeat_from: HeartbeatFrom::Anyone,
        }
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self {
            create_missing: true,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            grace: Span::secs(20),
        }
    }
}

impl Config {
    /// The SQLite file that rows go to, if SQLite is a way out: asked for, or
    /// nothing else is configured.
    #[must_use]
    pub fn sqlite_path(&self) -> Option<PathBuf> {
        let default = || self.data.dir.join("events.sqlite");
        match &self.sqlite {
            Some(sqlite) => Some(sqlite.path.clone().unwrap_or_else(default)),
            None => {
                let alone =
                    self.rabbitmq.is_none() && self.clickhouse.is_none() && self.postgres.is_none();
                alone.then(default)
            }
        }
    }
}
