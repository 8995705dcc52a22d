//! The table of the older names: all of them, each with what it sets or why it sets
//! nothing. Called by `older`.
//!
//! # Invariants
//! - README's table is this one (test `the_readme_lists_every_older_name`).

use super::super::webhooks::Partner;
use super::values::{self, Lookup, ReadText, ReadUrl};

/// One name.
pub(super) struct Name {
    pub(super) name: &'static str,
    /// The name that must be set, too, or this one means nothing: the section's address.
    pub(super) needs: Option<&'static str>,
    pub(super) rule: Rule,
}

/// What a name does.
pub(super) enum Rule {
    /// It is the key's value.
    Key(&'static str, ReadText),
    /// With its parts it is the key's value, a URL.
    Address(&'static str, ReadUrl),
    /// It is a part of the URL of this key.
    Part(&'static str),
    /// `clickhouse.databases`; the first is the default where no other is named.
    Databases,
    /// The exchange of a partner, or of events, and of the consumers bound to it.
    Exchange(&'static str, Option<Partner>),
    /// `batch_rows` of the scraper's consumers.
    BatchRows,
    /// `sentry.environment`; it has picked the file of variables before.
    SentryEnvironment,
    /// Nothing, for this reason.
    Nothing(&'static str),
}

impl Rule {
    /// The key that it sets alone.
    pub(super) fn key(&self) -> Option<&'static str> {
        match self {
            Self::Key(key, _) | Self::Address(key, _) | Self::Exchange(key, _) => Some(key),
            Self::Databases => Some("clickhouse.databases"),
            Self::SentryEnvironment => Some("sentry.environment"),
            Self::Part(_) | Self::BatchRows | Self::Nothing(_) => None,
        }
    }

    /// The key of an address.
    pub(super) fn address(&self) -> Option<&'static str> {
        match self {
            Self::Address(key, _) => Some(key),
            _ => None,
        }
    }
}

/// The consumers whose batches had one size, set by one variable.
pub(super) const SCRAPE_QUEUES: [&str; 10] = [
    "post_log_events_q",
    "sentiment_log_events_q",
    "post_activity_log_events_q",
    "profile_log_events_q",
    "profile_relationship_log_events_q",
    "scrape_request_log_events_q",
    "order_log_events_q",
    "shopify_events_q",
    "post_log_events_q_bkp",
    "activity_tracker_q",
];

const POOLS: &str = "the doors run on one runtime, and the log orders what they took";
const CHANNELS: &str = "the log on the disk stands where the channels were";
const REDIS: &str = "clicks are counted in the process";
const COLLECTOR: &str = "there is no garbage to collect";
const DEBUG: &str = "`LOG_LEVEL` says it";

/// A name that stands alone.
const fn alone(name: &'static str, rule: Rule) -> Name {
    Name {
        name,
        needs: None,
        rule,
    }
}

/// A name of a section that its address switches on.
const fn of(address: &'static str, name: &'static str, rule: Rule) -> Name {
    Name {
        name,
        needs: Some(address),
        rule,
    }
}

const fn rabbit(name: &'static str, rule: Rule) -> Name {
    of("RABBIT_HOST", name, rule)
}

const fn clickhouse(name: &'static str, rule: Rule) -> Name {
    of("CLICKHOUSE_HOST", name, rule)
}

const fn postgres(name: &'static str, rule: Rule) -> Name {
    of("POSTGRES_HOST", name, rule)
}

const fn webengage(name: &'static str, key: &'static str) -> Name {
    of("WEBENGAGE_URL", name, Rule::Key(key, values::text))
}

const fn identity(name: &'static str, key: &'static str) -> Name {
    of("IDENTITY_URL", name, Rule::Key(key, values::text))
}

const fn partner(name: &'static str, key: &'static str, partner: Partner) -> Name {
    alone(name, Rule::Exchange(key, Some(partner)))
}

/// All of them.
pub(super) const NAMES: &[Name] = &[
    alone("ENV", Rule::SentryEnvironment),
    alone("PORT", Rule::Key("grpc.listen", values::port)),
    alone("GIN_PORT", Rule::Key("http.listen", values::port)),
    alone("LOG_LEVEL", Rule::Key("log.level", values::level)),
    rabbit("RABBIT_HOST", Rule::Address("rabbitmq.urls", amqp)),
    rabbit("RABBIT_PORT", Rule::Part("rabbitmq.urls")),
    rabbit("RABBIT_USER", Rule::Part("rabbitmq.urls")),
    rabbit("RABBIT_PASSWORD", Rule::Part("rabbitmq.urls")),
    rabbit("RABBIT_VHOST", Rule::Part("rabbitmq.urls")),
    rabbit(
        "RABBIT_HEARTBEAT",
        Rule::Key("rabbitmq.heartbeat", values::heartbeat),
    ),
    rabbit("EVENT_EXCHANGE", Rule::Exchange("rabbitmq.exchange", None)),
    partner(
        "BRANCH_EVENT_EXCHANGE",
        "webhooks.branch.exchange",
        Partner::Branch,
    ),
    partner(
        "VIDOOLY_EVENT_EXCHANGE",
        "webhooks.vidooly.exchange",
        Partner::Vidooly,
    ),
    partner(
        "WEBENGAGE_EVENT_EXCHANGE",
        "webhooks.webengage.exchange",
        Partner::WebEngage,
    ),
    partner(
        "SHOPIFY_EVENT_EXCHANGE",
        "webhooks.shopify.exchange",
        Partner::Shopify,
    ),
    partner(
        "GRAPHY_EVENT_EXCHANGE",
        "webhooks.graphy.exchange",
        Partner::Graphy,
    ),
    alone(
        "HMAC_SECRET",
        Rule::Key("webhooks.hmac_secret", values::text),
    ),
    alone("SCRAPE_LOG_BUFFER_LIMIT", Rule::BatchRows),
    clickhouse("CLICKHOUSE_HOST", Rule::Address("clickhouse.url", http)),
    clickhouse("CLICKHOUSE_PORT", Rule::Part("clickhouse.url")),
    clickhouse(
        "CLICKHOUSE_USER",
        Rule::Key("clickhouse.user", values::text),
    ),
    clickhouse(
        "CLICKHOUSE_PASSWORD",
        Rule::Key("clickhouse.password", values::text),
    ),
    clickhouse(
        "CLICKHOUSE_DBNAME",
        Rule::Key("clickhouse.database", values::text),
    ),
    clickhouse("CLICKHOUSE_DB_NAMES", Rule::Databases),
    postgres("POSTGRES_HOST", Rule::Address("postgres.url", pg)),
    postgres("POSTGRES_PORT", Rule::Part("postgres.url")),
    postgres("POSTGRES_USER", Rule::Part("postgres.url")),
    postgres("POSTGRES_PASSWORD", Rule::Part("postgres.url")),
    postgres("POSTGRES_DBNAME", Rule::Part("postgres.url")),
    postgres(
        "POSTGRES_EVENT_SCHEMA",
        Rule::Key("postgres.schema", values::text),
    ),
    webengage("WEBENGAGE_URL", "webengage.url"),
    webengage("WEBENGAGE_USER_URL", "webengage.user_url"),
    webengage("WEBENGAGE_API_KEY", "webengage.api_key"),
    webengage("WEBENGAGE_BRAND_URL", "webengage.brand_url"),
    webengage("WEBENGAGE_BRAND_USER_URL", "webengage.brand_user_url"),
    webengage("WEBENGAGE_BRAND_API_KEY", "webengage.brand_api_key"),
    identity("IDENTITY_URL", "identity.url"),
    identity("CUSTOMER_APP_CLIENT_ID", "identity.customer_app_client_id"),
    identity("HOST_APP_CLIENT_ID", "identity.host_app_client_id"),
    identity("GCC_HOST_APP_CLIENT_ID", "identity.gcc_host_app_client_id"),
    identity("GCC_BRAND_CLIENT_ID", "identity.gcc_brand_client_id"),
    of(
        "SOCIAL_STREAM_URL",
        "SOCIAL_STREAM_URL",
        Rule::Key("social_stream.url", values::text),
    ),
    alone("DEBUG", Rule::Nothing(DEBUG)),
    alone("GOGC", Rule::Nothing(COLLECTOR)),
    alone("REDIS_CLUSTER_ADDRESSES", Rule::Nothing(REDIS)),
    alone("REDIS_CLUSTER_PASSWORD", Rule::Nothing(REDIS)),
    alone("EVENT_WORKER_POOL_SIZE", Rule::Nothing(POOLS)),
    alone("BRANCH_EVENT_WORKER_POOL_SIZE", Rule::Nothing(POOLS)),
    alone("VIDOOLY_EVENT_WORKER_POOL_SIZE", Rule::Nothing(POOLS)),
    alone("WEBENGAGE_EVENT_WORKER_POOL_SIZE", Rule::Nothing(POOLS)),
    alone("SHOPIFY_EVENT_WORKER_POOL_SIZE", Rule::Nothing(POOLS)),
    alone("GRAPHY_EVENT_WORKER_POOL_SIZE", Rule::Nothing(POOLS)),
    alone("EVENT_BUFFERED_CHANNEL_SIZE", Rule::Nothing(CHANNELS)),
    alone(
        "BRANCH_EVENT_BUFFERED_CHANNEL_SIZE",
        Rule::Nothing(CHANNELS),
    ),
    alone(
        "VIDOOLY_EVENT_BUFFERED_CHANNEL_SIZE",
        Rule::Nothing(CHANNELS),
    ),
    alone(
        "WEBENGAGE_EVENT_BUFFERED_CHANNEL_SIZE",
        Rule::Nothing(CHANNELS),
    ),
    alone(
        "SHOPIFY_EVENT_BUFFERED_CHANNEL_SIZE",
        Rule::Nothing(CHANNELS),
    ),
    alone(
        "GRAPHY_EVENT_BUFFERED_CHANNEL_SIZE",
        Rule::Nothing(CHANNELS),
    ),
];

/// The broker's address. A vhost is named as it is, so that `/` is the one that is named so.
fn amqp(get: Lookup<'_>) -> values::Url {
    let port = values::port_of(get, "RABBIT_PORT");
    let host = values::host_of(get, "RABBIT_HOST");
    let (port, host) = values::both(port, host)?;
    let login = values::login(get, "RABBIT_USER", "RABBIT_PASSWORD");
    let vhost = get("RABBIT_VHOST").map(|name| format!("/{}", values::encoded(&name)));
    let url = format!(
        "amqp://{login}{host}:{}{}",
        port.unwrap_or(5672),
        vhost.unwrap_or_default()
    );
    Ok(toml::Value::Array(vec![url.into()]))
}

/// ClickHouse's address. The ports of its native protocol, which the older system spoke,
/// stand for those of HTTP.
fn http(get: Lookup<'_>) -> values::Url {
    let port = values::port_of(get, "CLICKHOUSE_PORT");
    let host = values::host_of(get, "CLICKHOUSE_HOST");
    let (port, host) = values::both(port, host)?;
    let (scheme, port) = match port {
        None | Some(9000) => ("http", 8123),
        Some(9440) => ("https", 8443),
        Some(port) => ("http", port),
    };
    Ok(format!("{scheme}://{host}:{port}").into())
}

/// Postgres' address.
fn pg(get: Lookup<'_>) -> values::Url {
    let port = values::port_of(get, "POSTGRES_PORT");
    let host = values::host_of(get, "POSTGRES_HOST");
    let (port, host) = values::both(port, host)?;
    let login = values::login(get, "POSTGRES_USER", "POSTGRES_PASSWORD");
    let database = get("POSTGRES_DBNAME").map(|name| format!("/{}", values::encoded(&name)));
    let url = format!(
        "postgres://{login}{host}:{}{}",
        port.unwrap_or(5432),
        database.unwrap_or_default()
    );
    Ok(url.into())
}
