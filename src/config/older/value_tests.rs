//! Tests of how the values of older names are read, and what URLs they make.

use super::tests::{errors, load};

#[test]
fn logins_and_names_survive_the_url() {
    let odd = "p@:/?#[]%& \u{e9}\"";
    let config = load(
        "",
        &[
            ("RABBIT_HOST", "mq_1.local"),
            ("RABBIT_USER", odd),
            ("RABBIT_PASSWORD", odd),
            ("RABBIT_VHOST", "/"),
            ("POSTGRES_HOST", "10.0.0.1"),
            ("POSTGRES_PORT", "6432"),
            ("POSTGRES_USER", odd),
            ("POSTGRES_PASSWORD", odd),
            ("POSTGRES_DBNAME", "a/b"),
            ("POSTGRES_EVENT_SCHEMA", "_e"),
        ],
    );
    let rabbitmq = config.rabbitmq.unwrap();
    let encoded = "p%40%3A%2F%3F%23%5B%5D%25%26%20%C3%A9%22";
    assert_eq!(
        rabbitmq.urls[0].expose(),
        format!("amqp://{encoded}:{encoded}@mq_1.local:5672/%2F")
    );
    let postgres = config.postgres.unwrap();
    assert_eq!(postgres.schema, "_e");
    assert_eq!(
        postgres.url.expose(),
        format!("postgres://{encoded}:{encoded}@10.0.0.1:6432/a%2Fb")
    );
    let options: sqlx::postgres::PgConnectOptions = postgres.url.expose().parse().unwrap();
    assert_eq!(options.get_username(), odd);
    assert_eq!(options.get_database(), Some("a/b"));
    assert_eq!((options.get_host(), options.get_port()), ("10.0.0.1", 6432));
}

#[test]
fn what_is_left_out_of_an_address_has_its_usual_value() {
    let url = |more: &[(&str, &str)]| {
        let mut all = vec![("RABBIT_HOST", "h"), ("POSTGRES_HOST", "h")];
        all.extend(more);
        let config = load("", &all);
        let (rabbitmq, postgres) = (config.rabbitmq.unwrap(), config.postgres.unwrap());
        let urls = [rabbitmq.urls[0].expose(), postgres.url.expose()];
        urls.map(str::to_owned)
    };
    assert_eq!(url(&[]), ["amqp://h:5672", "postgres://h:5432"]);
    let users = [("RABBIT_USER", "u"), ("POSTGRES_USER", "u")];
    assert_eq!(url(&users), ["amqp://u@h:5672", "postgres://u@h:5432"]);
    let named = [("RABBIT_VHOST", "/v"), ("POSTGRES_DBNAME", "d")];
    assert_eq!(url(&named), ["amqp://h:5672/%2Fv", "postgres://h:5432/d"]);
}

#[test]
fn ports_of_clickhouse_s_native_protocol_stand_for_those_of_http() {
    for (port, url) in [
        ("", "http://h:8123"),
        ("9000", "http://h:8123"),
        ("9440", "https://h:8443"),
        ("8123", "http://h:8123"),
        ("18123", "http://h:18123"),
    ] {
        let config = load("", &[("CLICKHOUSE_HOST", "h"), ("CLICKHOUSE_PORT", port)]);
        assert_eq!(config.clickhouse.unwrap().url, url, "{port:?}");
    }
}

#[test]
fn the_first_database_is_the_default_where_none_is_named() {
    let databases = |text: &str, default: &str, list: &str| {
        let names = [
            ("CLICKHOUSE_HOST", "h"),
            ("CLICKHOUSE_DBNAME", default),
            ("CLICKHOUSE_DB_NAMES", list),
        ];
        let clickhouse = load(text, &names).clickhouse.unwrap();
        (clickhouse.database, clickhouse.databases.join(" "))
    };
    let is = |database: &str, all: &str| (database.to_owned(), all.to_owned());
    assert_eq!(databases("", "a", "b, c"), is("a", "b c"));
    assert_eq!(databases("", "", "b,c,"), is("b", "b c"));
    assert_eq!(databases("", "", " , "), is("default", ""));
    let file = "[clickhouse]\ndatabase = \"f\"\ndatabases = [\"g\"]";
    assert_eq!(databases(file, "", "b,c"), is("f", "g"));
}

#[test]
fn levels_are_zerolog_s_numbers_or_names() {
    for (value, level) in [
        ("-1", "trace"),
        ("0", "debug"),
        ("1", "info"),
        ("2", "warn"),
        ("3", "error"),
        ("4", "error"),
        ("5", "error"),
        ("7", "off"),
        ("8", "error"),
        ("Warn", "warn"),
        ("fatal", "error"),
        ("disabled", "off"),
    ] {
        assert_eq!(
            load("", &[("LOG_LEVEL", value)]).log.level,
            level,
            "{value}"
        );
    }
    for value in ["-2", "loud", "1.5", "hunter2=trace"] {
        let errors = errors("", &[("LOG_LEVEL", value)]);
        assert!(
            errors[0].starts_with("LOG_LEVEL: is no level"),
            "{errors:?}"
        );
    }
}

#[test]
fn heartbeats_are_rounded_up_to_seconds() {
    for (ms, seconds) in [("1", 1), ("1000", 1), ("10001", 11), ("0", 20), ("", 20)] {
        let names = [("RABBIT_HOST", "h"), ("RABBIT_HEARTBEAT", ms)];
        let heartbeat = load("", &names).rabbitmq.unwrap().heartbeat.get();
        assert_eq!(heartbeat.as_secs(), seconds, "{ms:?}");
    }
}

#[test]
fn calls_have_their_addresses_and_keys() {
    let names = [
        ("RABBIT_HOST", "h"),
        ("WEBENGAGE_URL", "https://w/events"),
        ("WEBENGAGE_USER_URL", "https://w/users"),
        ("WEBENGAGE_API_KEY", "k1"),
        ("WEBENGAGE_BRAND_URL", "https://b/events"),
        ("WEBENGAGE_BRAND_USER_URL", "https://b/users"),
        ("WEBENGAGE_BRAND_API_KEY", "k2"),
        ("IDENTITY_URL", "http://i"),
        ("CUSTOMER_APP_CLIENT_ID", "c1"),
        ("HOST_APP_CLIENT_ID", "c2"),
        ("GCC_HOST_APP_CLIENT_ID", "c3"),
        ("GCC_BRAND_CLIENT_ID", "c4"),
        ("SOCIAL_STREAM_URL", "http://s"),
        ("HMAC_SECRET", "c2VjcmV0"),
    ];
    let config = load("", &names);
    let w = config.webengage.unwrap();
    let urls = [w.url, w.user_url, w.brand_url, w.brand_user_url];
    let expected = ["w/events", "w/users", "b/events", "b/users"];
    assert_eq!(urls, expected.map(|url| format!("https://{url}")));
    let keys = (w.api_key.expose(), w.brand_api_key.expose());
    assert_eq!(keys, ("k1", "k2"));
    let i = config.identity.unwrap();
    assert_eq!(i.url, "http://i");
    let ids = [i.customer_app_client_id, i.host_app_client_id];
    assert_eq!(ids, ["c1", "c2"]);
    let ids = [i.gcc_host_app_client_id, i.gcc_brand_client_id];
    assert_eq!(ids, ["c3", "c4"]);
    assert_eq!(config.social_stream.unwrap().url, "http://s");
    assert_eq!(config.webhooks.hmac_secret.expose(), "c2VjcmV0");
    assert_eq!(config.origin.older_names.len(), names.len());
}
