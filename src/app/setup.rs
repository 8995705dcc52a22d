//! The broker, its topology and the sinks, from the configuration. Called by `pumps`, and
//! by `cli` for `schema` and `dlq`.

use super::outward::trust;
use crate::broker::{self, Broker};
use crate::broker::{Binding, DeclareMode, Exchange, ExchangeKind, Queue, Setup, Topology};
use crate::config::{
    self, Config, Consumer, Declare, Handler, Partner, QueueType, Secret, SinkKind,
};
use crate::consume::{Taker, handlers};
use crate::event::webhook::Source;
use crate::forward::ErrorRoute;
use crate::sink::api::{self, Identity};
use crate::sink::clickhouse::{self, ClickHouse};
use crate::sink::postgres::{self, Postgres};
use crate::sink::schema::{EVENT_TABLES, Table};
use crate::sink::sqlite::{self, Sqlite};
use crate::sink::webengage::{self, WebEngage};
use crate::sink::{OptionsError, Sink};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection to the broker may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The configured broker; `name` is what its lists call the connection.
///
/// # Errors
/// When an address is none.
pub fn broker(config: &Config, name: &str) -> Result<Option<Broker>, broker::OptionsError> {
    let Some(section) = &config.rabbitmq else {
        return Ok(None);
    };
    let urls = section.urls.iter();
    Broker::new(broker::Options {
        urls: urls.map(|url| url.expose().to_owned()).collect(),
        heartbeat: section.heartbeat.get(),
        connect_timeout: CONNECT_TIMEOUT,
        name: name.to_owned(),
        trust: trust(&section.tls_ca, &section.tls_certificate, &section.tls_key),
    })
    .map(Some)
}

/// The consumers' queues of this host, each with its error queue.
#[must_use]
pub fn error_queues(config: &Config) -> Vec<(String, String)> {
    let all = config.consumers().into_iter();
    all.filter(|consumer| config.rabbitmq.is_some() && is_declared(config, consumer))
        .map(|consumer| (consumer.queue, consumer.error_queue))
        .collect()
}

/// The configured sinks.
///
/// # Errors
/// When a sink's section cannot be used as it is, such as a URL that is none.
pub fn sinks(config: &Config) -> Result<BTreeMap<SinkKind, Arc<dyn Sink>>, OptionsError> {
    let mut sinks: BTreeMap<SinkKind, Arc<dyn Sink>> = BTreeMap::new();
    if let Some(section) = &config.clickhouse {
        let sink = ClickHouse::new(clickhouse::Options {
            url: section.url.clone(),
            database: section.database.clone(),
            databases: section.databases.clone(),
            user: section.user.clone(),
            password: section.password.expose().to_owned(),
            trust: trust(&section.tls_ca, &section.tls_certificate, &section.tls_key),
            min_free_disk_bytes: section.min_free_disk_bytes.bytes(),
        })?;
        sinks.insert(SinkKind::ClickHouse, Arc::new(sink));
    }
    if let Some(section) = &config.postgres {
        let sink = Postgres::new(postgres::Options {
            url: section.url.expose().to_owned(),
            schema: section.schema.clone(),
            pool_max: section.pool_max,
            trust: trust(&section.tls_ca, &section.tls_certificate, &section.tls_key),
        })?;
        sinks.insert(SinkKind::Postgres, Arc::new(sink));
    }
    if let Some(path) = config.sqlite_path() {
        let sink = Sqlite::new(sqlite::Options { path });
        sinks.insert(SinkKind::Sqlite, Arc::new(sink));
    }
    if let Some(section) = &config.webengage {
        sinks.insert(SinkKind::WebEngage, Arc::new(webengage(config, section)?));
    }
    Ok(sinks)
}

fn webengage(config: &Config, section: &config::WebEngage) -> Result<WebEngage, OptionsError> {
    let account = |key: &Secret, events_url: &str, users_url: &str| webengage::Account {
        api_key: key.expose().to_owned(),
        events_url: events_url.to_owned(),
        users_url: users_url.to_owned(),
    };
    let identity = match (&config.identity, config.graphy_client_id()) {
        (Some(section), Some(client_id)) => {
            let calls = api::Options {
                name: "identity",
                timeout: section.timeout.get(),
                rate_max: section.rate_max,
            };
            Some(Identity::new(&calls, &section.url, client_id)?)
        }
        _ => None,
    };
    WebEngage::new(webengage::Options {
        calls: api::Options {
            name: "webengage",
            timeout: section.timeout.get(),
            rate_max: section.rate_max,
        },
        user: account(&section.api_key, &section.url, &section.user_url),
        brand: account(
            &section.brand_api_key,
            &section.brand_url,
            &section.brand_user_url,
        ),
        identity,
        graphy_to_brand: config.graphy.app_type == config::AppType::Brand,
    })
}

/// Whether a consumer's queue is declared by this host. Unset: where its sink is
/// configured. A host without any sink only forwards; it declares the ClickHouse
/// queues, so that events have a place before the first consumer host comes up.
pub(super) fn is_declared(config: &Config, consumer: &Consumer) -> bool {
    consumer.enabled.unwrap_or_else(|| {
        let edge_only = !config.sinks().into_iter().any(SinkKind::takes_rows);
        let can_work =
            consumer.handler != Handler::GraphyCall || config.graphy_client_id().is_some();
        (config.has_sink(consumer.sink) && can_work)
            || (edge_only && consumer.sink == SinkKind::ClickHouse)
    })
}

/// The consumers whose queues this host declares, each with the table that it fills.
/// Call it once: tables of an operator's own live as long as the process.
#[must_use]
pub fn consumers(config: &Config) -> Vec<(Consumer, &'static Table)> {
    let all = config.consumers().into_iter();
    all.filter(|consumer| is_declared(config, consumer))
        .map(|consumer| {
            let table = handlers::table_of(&consumer);
            (consumer, table)
        })
        .collect()
}

/// What works on this host, as status names it: kind and name.
pub(super) fn parts(config: &Config) -> Vec<(&'static str, String)> {
    let mut parts = Vec::new();
    let sinks = config.sinks();
    if config.rabbitmq.is_some() {
        parts.push(("way_out", crate::forward::Forwarder::CURSOR.to_owned()));
        let all = config.consumers().into_iter();
        let here = all.filter(|c| is_declared(config, c) && sinks.contains(&c.sink));
        parts.extend(here.map(|consumer| ("consumer", consumer.queue)));
    } else {
        let rows = sinks.iter().filter(|sink| sink.takes_rows());
        parts.extend(rows.map(|sink| ("way_out", sink.name().to_owned())));
    }
    parts.extend(sinks.iter().map(|sink| ("sink", sink.name().to_owned())));
    parts
}

/// The queues that launches come by.
pub(super) fn launch_queues(config: &Config) -> Arc<[String]> {
    let all = config.consumers().into_iter();
    let launches = all.filter(|consumer| consumer.handler == Handler::LaunchRefer);
    launches.map(|consumer| consumer.queue).collect()
}

/// Without a broker: the handlers of webhooks, each with the table that it fills. Calls of
/// APIs and look-ups need a broker's queues. Call it once, as [`consumers`].
#[must_use]
pub fn takers(config: &Config) -> Vec<Taker> {
    if config.rabbitmq.is_some() {
        return Vec::new();
    }
    let mut takers: Vec<Taker> = Vec::new();
    for consumer in config.consumers() {
        let handler = consumer.handler;
        let is_off = consumer.enabled == Some(false);
        if is_off || handler.makes_calls() || handler.looks_up() {
            continue;
        }
        let sources = Source::ALL.into_iter();
        let sources: Vec<_> = sources
            .filter(|source| config.webhooks.exchange(partner(*source)) == consumer.exchange)
            .collect();
        if sources.is_empty() {
            continue;
        }
        let table = handlers::table_of(&consumer);
        takers.extend(sources.into_iter().map(|source| Taker {
            source,
            exchange: consumer.exchange.clone(),
            keys: consumer.keys.clone(),
            handler,
            table,
        }));
    }
    takers
}

/// Whose section a source has.
pub(super) fn partner(source: Source) -> Partner {
    match source {
        Source::Vidooly => Partner::Vidooly,
        Source::Branch => Partner::Branch,
        Source::Graphy => Partner::Graphy,
        Source::WebEngageEvent | Source::WebEngageUser => Partner::WebEngage,
        Source::Shopify => Partner::Shopify,
    }
}

/// The exchange of each source's webhooks.
pub(super) fn webhook_exchanges(config: &Config) -> BTreeMap<Source, String> {
    let exchange = |source| (source, config.webhooks.exchange(partner(source)).to_owned());
    Source::ALL.into_iter().map(exchange).collect()
}

/// The tables that a sink needs: those of events, and those of its consumers or of
/// webhooks.
#[must_use]
pub fn tables(
    config: &Config,
    consumers: &[(Consumer, &'static Table)],
    takers: &[Taker],
    sink: SinkKind,
) -> Vec<&'static Table> {
    let mut tables = EVENT_TABLES.to_vec();
    let own = consumers
        .iter()
        .filter(|(consumer, _)| config.rabbitmq.is_some() && consumer.sink == sink)
        .map(|(_, table)| *table);
    for table in own.chain(takers.iter().map(|taker| taker.table)) {
        if !tables.iter().any(|other| other.name == table.name) {
            tables.push(table);
        }
    }
    tables
}

/// The error routes of the declared event consumers: where the forwarder sends
/// events that are refused before any consumer sees them.
pub(super) fn error_routes(config: &Config) -> Vec<ErrorRoute> {
    config
        .consumers()
        .iter()
        .filter(|consumer| consumer.handler == Handler::Events && is_declared(config, consumer))
        .map(|consumer| ErrorRoute {
            exchange: consumer.error_exchange.clone(),
            key: consumer.error_key.clone(),
        })
        .collect()
}

/// Exchanges, queues and bindings of this host.
#[must_use]
pub fn topology(config: &Config) -> Setup {
    let mut exchanges: BTreeMap<String, ExchangeKind> = BTreeMap::new();
    let mut queues: BTreeMap<String, Vec<Binding>> = BTreeMap::new();
    let mut bind = |queue: &str, exchange: &str, key: &str| {
        exchanges.insert(exchange.to_owned(), kind(exchange));
        let bindings = queues.entry(queue.to_owned()).or_default();
        let binding = Binding {
            exchange: exchange.to_owned(),
            key: key.to_owned(),
        };
        if !bindings.contains(&binding) {
            bindings.push(binding);
        }
    };
    for consumer in config.consumers() {
        if !is_declared(config, &consumer) {
            continue;
        }
        for key in &consumer.keys {
            bind(&consumer.queue, &consumer.exchange, key);
        }
        let (exchange, key) = (&consumer.error_exchange, &consumer.error_key);
        bind(&consumer.error_queue, exchange, key);
    }
    let (mode, queue_type) = config.rabbitmq.as_ref().map_or(
        (DeclareMode::Off, crate::broker::QueueType::Quorum),
        |rabbitmq| {
            exchanges.insert(rabbitmq.exchange.clone(), kind(&rabbitmq.exchange));
            for name in webhook_exchanges(config).into_values() {
                let kind = kind(&name);
                exchanges.insert(name, kind);
            }
            (mode(rabbitmq.declare), queue_type(rabbitmq.queue_type))
        },
    );
    let topology = Topology {
        exchanges: exchanges
            .into_iter()
            .map(|(name, kind)| Exchange { name, kind })
            .collect(),
        queues: queues
            .into_iter()
            .map(|(name, bindings)| Queue { name, bindings })
            .collect(),
    };
    Setup::new(topology, mode, queue_type)
}

/// Names in the field end in `.tx` for topic exchanges; all others are direct.
fn kind(exchange: &str) -> ExchangeKind {
    if exchange.ends_with(".tx") {
        ExchangeKind::Topic
    } else {
        ExchangeKind::Direct
    }
}

fn mode(declare: Declare) -> DeclareMode {
    match declare {
        Declare::Active => DeclareMode::Active,
        Declare::Passive => DeclareMode::Passive,
        Declare::Off => DeclareMode::Off,
    }
}

fn queue_type(kind: QueueType) -> crate::broker::QueueType {
    match kind {
        QueueType::Quorum => crate::broker::QueueType::Quorum,
        QueueType::Classic => crate::broker::QueueType::Classic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_from;

    fn queues(text: &str) -> Vec<String> {
        let config = load_from(text, std::iter::empty()).unwrap();
        let setup = topology(&config);
        setup
            .topology()
            .queues
            .iter()
            .map(|q| q.name.clone())
            .collect()
    }

    #[test]
    fn a_host_declares_the_queues_of_its_sinks() {
        let clickhouse = queues("[rabbitmq]");
        // Each consumer has its queue and its error queue, and the error queue of the
        // first is the queue of the second.
        assert_eq!(clickhouse.len(), 24 * 2 - 1, "an edge host: {clickhouse:?}");
        for queue in [
            "grpc_clickhouse_event_error_q",
            "trace_log",
            "trace_log_error",
        ] {
            assert!(clickhouse.iter().any(|name| name == queue), "{queue}");
        }
        let postgres = [
            "grpc_postgres_event_q",
            "grpc_postgres_event_q_error",
            "grpc_postgres_event_q_error_error",
        ];
        assert_eq!(queues("[rabbitmq]\n[postgres]"), postgres);
        let both = queues("[rabbitmq]\n[postgres]\n[clickhouse]");
        assert_eq!(both.len(), clickhouse.len() + postgres.len());
    }

    #[test]
    fn error_routes_follow_the_declared_consumers() {
        let config = load_from("[rabbitmq]\n[postgres]\n[clickhouse]", std::iter::empty()).unwrap();
        let keys: Vec<_> = error_routes(&config)
            .into_iter()
            .map(|route| route.key)
            .collect();
        assert_eq!(
            keys,
            [
                "error.grpc_clickhouse_event_q",
                "error.grpc_postgres_event_q"
            ]
        );
    }
}
