//! What types cannot say: bounds, and values that contradict each other. Called
//! by `load` after the layers were read; every finding names its key.

use super::bindings;
use super::consumers::{Consumer, SinkKind, resolve};
use super::forward::{DOCUMENTS_PER_MESSAGE_MAX, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN};
use super::{Config, Size};
use std::time::Duration;

/// sled needs a free segment to open a store; less free disk than some of them
/// could strand a backlog.
const MIN_FREE_BYTES_MIN: Size = Size::mib(64);

/// Less could not hold what it is kept for: one store and the small files.
const RESERVE_BYTES_MIN: Size = Size::mib(16);

/// More is never needed at once, and is lost to events.
const RESERVE_BYTES_MAX: Size = Size::gib(1);

/// A generation smaller than this is mostly sled's own first segments.
const GENERATION_BYTES_MIN: Size = Size::mib(1);

/// A generation larger than this was never measured under power cuts.
const GENERATION_BYTES_MAX: Size = Size::mib(256);

/// A generation in less time is a new store after nearly every write.
const GENERATION_AGE_MIN: Duration = Duration::from_secs(1);

/// A broker that has not confirmed for less is at work, and would be sent everything again.
const CONFIRM_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Bytes of an exchange's name, as of those of webhooks (AMQP 0-9-1 allows 255).
const EXCHANGE_BYTES_MAX: usize = 127;

/// A prefetch is 16 bits on the wire, and a worker holds a batch in memory.
pub(super) const BATCH_ROWS_MAX: usize = 10_000;

/// A request with more events would hold its consumers up for seconds.
const REQUEST_EVENTS_MAX: usize = 100_000;

pub(super) fn check(config: &Config, errors: &mut Vec<String>) {
    let mut expect = |holds: bool, text: &str| {
        if !holds {
            errors.push(text.to_owned());
        }
    };
    let journal = &config.journal;
    let request = config.ingest.max_request_bytes;
    expect(
        (GENERATION_BYTES_MIN..=GENERATION_BYTES_MAX).contains(&journal.generation_bytes),
        "journal.generation_bytes: must be from 1MiB to 256MiB",
    );
    expect(
        journal.max_bytes.bytes() / 4 >= journal.generation_bytes.bytes(),
        "journal.max_bytes: must hold at least 4 generations (journal.generation_bytes)",
    );
    expect(
        journal.min_free_bytes >= MIN_FREE_BYTES_MIN,
        "journal.min_free_bytes: must be at least 64MiB",
    );
    expect(
        (RESERVE_BYTES_MIN..=RESERVE_BYTES_MAX).contains(&journal.reserve_bytes),
        "journal.reserve_bytes: must be from 16MiB to 1GiB",
    );
    expect(
        journal.queue_bytes.bytes() >= request.bytes().saturating_mul(2),
        "journal.queue_bytes: must be at least twice ingest.max_request_bytes",
    );
    expect(
        request >= Size::mib(1) && request <= Size::mib(64),
        "ingest.max_request_bytes: must be from 1MiB to 64MiB",
    );
    expect(
        (1..=REQUEST_EVENTS_MAX).contains(&config.ingest.max_request_events),
        "ingest.max_request_events: must be from 1 to 100000",
    );
    expect(
        !journal.ack_deadline.get().is_zero(),
        "journal.ack_deadline: must be more than 0",
    );
    expect(
        journal.generation_age.get() >= GENERATION_AGE_MIN,
        "journal.generation_age: must be at least 1s",
    );
    expect(
        config.grpc.listen != config.http.listen || config.grpc.listen.port() == 0,
        "http.listen: must be another address than grpc.listen",
    );
    expect(
        config.ingest.max_in_flight > 0,
        "ingest.max_in_flight: must be more than 0",
    );
    expect(
        !config.ingest.body_timeout.get().is_zero(),
        "ingest.body_timeout: must be more than 0",
    );
    expect(
        config.ingest.max_body_bytes.bytes() >= request.bytes().saturating_mul(4),
        "ingest.max_body_bytes: must be at least 4 times ingest.max_request_bytes",
    );
    let share = config.forward.backlog_share;
    expect(
        share > 0.0 && share <= 1.0,
        "forward.backlog_share: must be more than 0, and at most 1",
    );
    expect(
        (1..=DOCUMENTS_PER_MESSAGE_MAX).contains(&config.forward.documents_per_message),
        "forward.documents_per_message: must be from 1 to 1000",
    );
    expect(
        (MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&config.forward.message_bytes),
        "forward.message_bytes: must be from 4KiB to 128KiB",
    );
    let is_name = |name: &String| {
        let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        !name.is_empty() && name.chars().all(of_name)
    };
    expect(
        config.admin.names.iter().all(is_name),
        "admin.names: each must be the name of a host, without a port",
    );
    let readers = &config.admin.certificates;
    let asks = config.tls.as_ref().is_some_and(|tls| tls.admin.asks());
    expect(
        readers
            .iter()
            .all(|reader| super::clients::is_certificate(reader)),
        "admin.certificates: each must be a name or a fingerprint (sha256:…)",
    );
    expect(
        readers.is_empty() || asks,
        "admin.certificates: the page asks for none (tls.client_ca, tls.admin)",
    );
    if let Some(rabbitmq) = &config.rabbitmq {
        expect(
            !rabbitmq.urls.is_empty(),
            "rabbitmq.urls: must name a broker",
        );
        let are_amqp = rabbitmq.urls.iter().all(|url| {
            let url = url.expose();
            url.starts_with("amqp://") || url.starts_with("amqps://")
        });
        expect(
            are_amqp,
            "rabbitmq.urls: each must start with amqp:// or amqps://",
        );
        expect(
            (1..=100_000).contains(&rabbitmq.confirm_window),
            "rabbitmq.confirm_window: must be from 1 to 100000",
        );
        expect(
            rabbitmq.confirm_timeout.get() >= CONFIRM_TIMEOUT_MIN,
            "rabbitmq.confirm_timeout: must be at least 1s",
        );
        expect(
            (1..=EXCHANGE_BYTES_MAX).contains(&rabbitmq.exchange.len()),
            "rabbitmq.exchange: must be a name of up to 127 bytes",
        );
        expect(
            rabbitmq.prefetch_bytes >= Size::mib(1),
            "rabbitmq.prefetch_bytes: must be at least 1MiB",
        );
    }
    if let Some(postgres) = &config.postgres {
        let url = postgres.url.expose();
        expect(
            url.starts_with("postgres://") || url.starts_with("postgresql://"),
            "postgres.url: must start with postgres://",
        );
        expect(
            postgres.pool_max > 0,
            "postgres.pool_max: must be more than 0",
        );
    }
    if let Some(clickhouse) = &config.clickhouse {
        let url = &clickhouse.url;
        expect(
            url.starts_with("http://") || url.starts_with("https://"),
            "clickhouse.url: must start with http:// or https://",
        );
    }
    if let Err(error) = config.clicks.all_bot_ips() {
        errors.push(error);
    }
    super::connections::check(&config.connections, errors);
    let asks = config
        .tls
        .as_ref()
        .is_some_and(super::Tls::asks_certificates);
    super::clients::check(&config.client, asks, errors);
    if let Some(tls) = &config.tls {
        super::tls::check(tls, errors);
    }
    super::outward::check(config, errors);
    super::webhooks::check(config, errors);
    super::outgoing::check(config, errors);
    let consumers = resolve(&config.consumer, errors);
    check_consumers(config, &consumers, errors);
}

fn check_consumers(config: &Config, consumers: &[Consumer], errors: &mut Vec<String>) {
    errors.extend(bindings::conflicts(consumers));
    for consumer in consumers {
        for problem in bindings::problems(consumer, config) {
            errors.push(format!("consumer {:?}: {problem}", consumer.queue));
        }
        let queue = &consumer.queue;
        let mut expect = |holds: bool, text: &str| {
            if !holds {
                errors.push(format!("consumer {queue:?}: {text}"));
            }
        };
        expect(
            (1..=64).contains(&consumer.workers),
            "workers must be from 1 to 64",
        );
        expect(
            (1..=BATCH_ROWS_MAX).contains(&consumer.batch_rows),
            &format!("batch_rows must be from 1 to {BATCH_ROWS_MAX}"),
        );
        expect(!consumer.keys.is_empty(), "keys must name a binding key");
        expect(
            consumer.max_attempts > 0,
            "max_attempts must be more than 0",
        );
        if consumer.enabled == Some(true) && config.rabbitmq.is_some() {
            expect(
                config.has_sink(consumer.sink),
                &format!("enabled, but [{}] is not configured", consumer.sink.name()),
            );
        }
    }
}

impl Config {
    /// Whether a sink is configured.
    #[must_use]
    pub fn has_sink(&self, sink: SinkKind) -> bool {
        match sink {
            SinkKind::ClickHouse => self.clickhouse.is_some(),
            SinkKind::Postgres => self.postgres.is_some(),
            SinkKind::Sqlite => self.sqlite_path().is_some(),
            SinkKind::WebEngage => self.webengage.is_some(),
        }
    }

    /// All consumers, shipped and configured.
    #[must_use]
    pub fn consumers(&self) -> Vec<Consumer> {
        // Mistakes were reported by `check`, which every loaded configuration passed.
        resolve(&self.consumer, &mut Vec::new())
    }

    /// The sinks that are configured.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkKind> {
        SinkKind::ALL
            .into_iter()
            .filter(|&sink| self.has_sink(sink))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;

    #[test]
    fn messages_are_within_what_every_consumer_takes() {
        let errors = |documents, bytes| {
            let mut config = Config::default();
            config.forward.documents_per_message = documents;
            config.forward.message_bytes = Size::kib(bytes);
            let mut errors = Vec::new();
            check(&config, &mut errors);
            errors.len()
        };
        assert_eq!((errors(1, 4), errors(1000, 128)), (0, 0));
        for (documents, bytes) in [(0, 64), (1001, 64), (1, 3), (1, 129)] {
            assert_eq!(errors(documents, bytes), 1, "{documents}, {bytes}");
        }
    }

    #[test]
    fn what_would_stop_the_service_is_refused() {
        let errors = |change: fn(&mut Config)| {
            let mut config = Config {
                rabbitmq: Some(crate::config::RabbitMq::default()),
                ..Config::default()
            };
            let mut before = Vec::new();
            check(&config, &mut before);
            change(&mut config);
            let mut errors = Vec::new();
            check(&config, &mut errors);
            errors.retain(|error| !before.contains(error));
            errors.join("\n")
        };
        for (change, key) in [
            (
                (|config| config.journal.generation_age = Span::millis(0)) as fn(&mut Config),
                "journal.generation_age",
            ),
            (
                |config| config.http.listen = config.grpc.listen,
                "http.listen",
            ),
            (
                |config| config.rabbitmq.as_mut().unwrap().confirm_timeout = Span::millis(0),
                "rabbitmq.confirm_timeout",
            ),
            (
                |config| config.rabbitmq.as_mut().unwrap().exchange.clear(),
                "rabbitmq.exchange",
            ),
            (
                |config| {
                    config.identity = Some(super::super::Identity {
                        url: "http://i".to_owned(),
                        timeout: Span::millis(0),
                        ..Default::default()
                    })
                },
                "identity.timeout",
            ),
        ] {
            let errors = errors(change);
            assert!(
                errors.contains(key) && errors.lines().count() == 1,
                "{key}: {errors}"
            );
        }
    }

    #[test]
    fn sizes_beyond_any_disk_are_refused_and_do_not_wrap_around() {
        // Four of them are 0, where numbers wrap around.
        let huge = Size::of_bytes(1 << 62);
        let mut config = Config::default();
        config.journal.generation_bytes = huge;
        config.ingest.max_request_bytes = huge;
        config.webhooks.branch.max_waiting_bytes = Some(huge);
        config.webhooks.shopify.max_waiting_bytes = Some(huge);
        config.webhooks.webengage.max_waiting_bytes = Some(huge);
        for partner in [&mut config.webhooks.vidooly, &mut config.webhooks.graphy] {
            partner.max_waiting_bytes = Some(Size::mib(1));
        }
        let mut errors = Vec::new();
        check(&config, &mut errors);
        super::super::webhooks::check(&config, &mut errors);
        for start in [
            "journal.generation_bytes: must be from",
            "journal.max_bytes: must hold at least 4 generations",
            "journal.queue_bytes: must be at least twice",
            "webhooks: max_waiting_bytes of all lanes",
        ] {
            let found = errors.iter().any(|error| error.starts_with(start));
            assert!(found, "{start} is not among {errors:?}");
        }
    }
}
