//! The sections of servers that events go to: RabbitMQ, ClickHouse, Postgres; and what
//! contradicts itself in their encryption. Called by `app` and `check`; the files of
//! certificates are read by `app`.

use super::Config;
use super::secret::Secret;
use super::units::{Size, Span};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How the broker's exchanges and queues come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Declare {
    /// Declare what is missing (the default).
    Active,
    /// Check that it is there, and warn.
    Passive,
    /// Leave it to others.
    Off,
}

/// The kind of queue that is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    /// Replicated and synced (the default).
    Quorum,
    /// One node.
    Classic,
}

/// `[rabbitmq]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct RabbitMq {
    /// AMQP URLs of the cluster's nodes, tried in turn:
    /// `amqp://user:password@host:5672/vhost`.
    pub urls: Vec<Secret>,
    /// Who makes exchanges and queues. Default `active`.
    pub declare: Declare,
    /// Kind of the queues that are declared. Default `quorum`.
    pub queue_type: QueueType,
    /// Exchange that events are published to. Default `grpc_event.tx`.
    pub exchange: String,
    /// Messages that may wait for their confirm. Default 2000: some round trips'
    /// worth, and what a reconnect sends again at most.
    pub confirm_window: usize,
    /// How long a confirm may take before the connection counts as dead. Default
    /// 60 s: quorum queues under disk pressure take tens of seconds.
    pub confirm_timeout: Span,
    /// Bytes of messages that all workers of consumers together hold until they are acknowledged,
    /// in equal parts and as reckoned from those that came; each may hold 8 messages in any
    /// case. Default 512 MiB: of the shipped 80 workers each may hold a batch of single events.
    pub prefetch_bytes: Size,
    /// Heartbeat interval. Default 20 s: a dead peer is noticed within 40 s.
    pub heartbeat: Span,
    /// The authorities to trust, as PEM. Default: the system's.
    pub tls_ca: Option<PathBuf>,
    /// A certificate to show to a server that asks for one, as PEM.
    pub tls_certificate: Option<PathBuf>,
    /// Its key, as PEM.
    pub tls_key: Option<PathBuf>,
}

/// `[clickhouse]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct ClickHouse {
    /// URL of the HTTP interface.
    pub url: String,
    /// Default database.
    pub database: String,
    /// Further databases that consumers may name.
    pub databases: Vec<String>,
    /// User.
    pub user: String,
    /// Password.
    pub password: Secret,
    /// The authorities to trust, as PEM. Default: the system's.
    pub tls_ca: Option<PathBuf>,
    /// A certificate to show to a server that asks for one, as PEM.
    pub tls_certificate: Option<PathBuf>,
    /// Its key, as PEM.
    pub tls_key: Option<PathBuf>,
    /// While less is left on its disk, inserts are refused and wait; 0 never refuses. Default
    /// 1 GiB: more than others write to the disk while an insert is under way.
    pub min_free_disk_bytes: Size,
}

/// `[postgres]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Postgres {
    /// `postgres://user:password@host:5432/database`.
    pub url: Secret,
    /// Schema that every table is reached through. Default `public`.
    pub schema: String,
    /// Connections. Default 20.
    pub pool_max: u32,
    /// The authorities to trust, as PEM. They count beside the
    /// system's.
    pub tls_ca: Option<PathBuf>,
    /// A certificate to show to a server that asks for one, as PEM.
    pub tls_certificate: Option<PathBuf>,
    /// Its key, as PEM.
    pub tls_key: Option<PathBuf>,
}

impl Default for RabbitMq {
    fn default() -> Self {
        Self {
            urls: vec![Secret::new("amqp://guest:guest@127.0.0.1:5672/%2f")],
            declare: Declare::Active,
            queue_type: QueueType::Quorum,
            exchange: "grpc_event.tx".to_owned(),
            confirm_window: 2000,
            confirm_timeout: Span::secs(60),
            prefetch_bytes: Size::mib(512),
            heartbeat: Span::secs(20),
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
        }
    }
}

impl Default for ClickHouse {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8123".to_owned(),
            database: "default".to_owned(),
            databases: Vec::new(),
            user: "default".to_owned(),
            password: Secret::new(""),
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            min_free_disk_bytes: Size::gib(1),
        }
    }
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            url: Secret::new("postgres://127.0.0.1:5432/postgres"),
            schema: "public".to_owned(),
            pool_max: 20,
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
        }
    }
}

/// Adds what is wrong with `tls_ca`, `tls_certificate` and `tls_key`.
pub(super) fn check(config: &Config, errors: &mut Vec<String>) {
    let mut section = |name: &str, files: [&Option<PathBuf>; 3], is_plain: bool, scheme: &str| {
        let [ca, certificate, key] = files.map(Option::is_some);
        if certificate != key {
            let missing = if key { "certificate" } else { "key" };
            errors.push(format!(
                "{name}.tls_{missing}: is required: tls_certificate and tls_key belong together"
            ));
        }
        // A password would be sent in the clear to whoever answers.
        if (ca || certificate || key) && is_plain {
            errors.push(format!(
                "{name}: must be reached by {scheme} where tls_ca or tls_certificate is set"
            ));
        }
    };
    if let Some(own) = &config.rabbitmq {
        let mut urls = own.urls.iter();
        let is_plain = urls.any(|url| !url.expose().starts_with("amqps://"));
        let files = [&own.tls_ca, &own.tls_certificate, &own.tls_key];
        section("rabbitmq", files, is_plain, "amqps://");
    }
    if let Some(own) = &config.clickhouse {
        let is_plain = !own.url.starts_with("https://");
        let files = [&own.tls_ca, &own.tls_certificate, &own.tls_key];
        section("clickhouse", files, is_plain, "https://");
    }
    if let Some(own) = &config.postgres {
        // Its URL is read by the sink, with the mode in it.
        let files = [&own.tls_ca, &own.tls_certificate, &own.tls_key];
        section("postgres", files, false, "");
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load_from;

    #[test]
    fn what_contradicts_itself_is_named() {
        let load = |text: &str| {
            let loaded = load_from(text, std::iter::empty());
            loaded
                .err()
                .map_or(String::new(), |errors| errors.to_string())
        };
        let pair = "tls_certificate = \"c\"\ntls_key = \"k\"\ntls_ca = \"a\"\n";
        let rabbitmq = "[rabbitmq]\nurls = [\"amqps://h\"]\n";
        let clickhouse = "[clickhouse]\nurl = \"https://h:8443\"\n";
        for good in [rabbitmq, clickhouse, "[postgres]\n"] {
            let section = good[1..].split(']').next().unwrap();
            assert_eq!(load(&format!("{good}{pair}")), "");
            for (key, missing) in [("certificate", "key"), ("key", "certificate")] {
                let errors = load(&format!("{good}tls_{key} = \"x\"\n"));
                assert!(
                    errors.contains(&format!("{section}.tls_{missing}: is required")),
                    "{errors}"
                );
            }
        }
        for (plain, named) in [
            (
                "[rabbitmq]\nurls = [\"amqps://h\", \"amqp://i\"]\n",
                "rabbitmq: must be reached by amqps://",
            ),
            ("[clickhouse]\n", "clickhouse: must be reached by https://"),
        ] {
            assert_eq!(load(plain), "");
            for key in ["tls_ca = \"a\"\n", pair] {
                let errors = load(&format!("{plain}{key}"));
                assert!(errors.contains(named), "{errors}");
            }
        }
    }
}
