//! Tests of the older names: layers, sections, exchanges, errors, and the README's table.

use super::names::{NAMES, Rule, SCRAPE_QUEUES};
use crate::config::shipped::shipped;
use crate::config::{Config, Errors, Partner, load_from};

fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(n, v)| ((*n).into(), (*v).into()))
        .collect();
    pairs.into_iter()
}

pub(super) fn load(text: &str, pairs: &[(&str, &str)]) -> Config {
    load_from(text, env(pairs)).unwrap()
}

pub(super) fn errors(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    let Errors(errors) = load_from(text, env(pairs)).unwrap_err();
    errors
}

/// The exchange and the rows of a batch of a consumer.
fn consumer(config: &Config, queue: &str) -> (String, usize) {
    let all = config.consumers();
    let found = all.iter().find(|c| c.queue == queue).unwrap();
    (found.exchange.clone(), found.batch_rows)
}

#[test]
fn older_names_are_the_lowest_layer() {
    let names = [
        ("CLICKHOUSE_HOST", "old"),
        ("CLICKHOUSE_USER", "old"),
        ("CLICKHOUSE_PASSWORD", "old"),
        ("CLICKHOUSE_DBNAME", "old"),
        ("PORT", "7017"),
        ("GIN_PORT", "7019"),
        ("HOLDFAST__CLICKHOUSE__USER", "variable"),
    ];
    let text =
        "[clickhouse]\ndatabase = \"file\"\nuser = \"file\"\n[grpc]\nlisten = \"127.0.0.1:1\"";
    let config = load(text, &names);
    let clickhouse = config.clickhouse.unwrap();
    assert_eq!(clickhouse.user, "variable");
    assert_eq!(clickhouse.database, "file");
    assert_eq!(clickhouse.password.expose(), "old");
    assert_eq!(clickhouse.url, "http://old:8123");
    assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.http.listen.to_string(), "0.0.0.0:7019");
    assert_eq!(
        config.origin.older_names,
        ["GIN_PORT", "CLICKHOUSE_HOST", "CLICKHOUSE_PASSWORD"],
        "the others did not take effect"
    );
}

#[test]
fn a_section_is_switched_on_by_its_address() {
    let rest: Vec<_> = NAMES
        .iter()
        .filter(|name| name.needs.is_some() && name.needs != Some(name.name))
        .map(|name| (name.name, "1"))
        .collect();
    let config = load("", &rest);
    assert!(config.rabbitmq.is_none() && config.clickhouse.is_none());
    assert!(config.postgres.is_none() && config.webengage.is_none());
    assert!(config.identity.is_none() && config.social_stream.is_none());
    assert!(config.sqlite_path().is_some(), "as with nothing at all");
    assert_eq!(config.origin, crate::config::Origin::default());
    let config = load(
        "[rabbitmq]\nurls = [\"amqp://h\"]",
        &[("EVENT_EXCHANGE", "e.tx")],
    );
    assert_eq!(config.rabbitmq.unwrap().exchange, "grpc_event.tx");
}

#[test]
fn empty_values_are_none() {
    let blank: Vec<_> = NAMES.iter().map(|name| (name.name, " ")).collect();
    assert_eq!(load("", &blank).origin, crate::config::Origin::default());
    let empty: Vec<_> = NAMES.iter().map(|name| (name.name, "")).collect();
    assert_eq!(load("", &empty).origin, crate::config::Origin::default());
}

#[test]
fn a_renamed_exchange_takes_its_consumers_along() {
    let names = [
        ("RABBIT_HOST", "h"),
        ("EVENT_EXCHANGE", "e2.tx"),
        ("BRANCH_EVENT_EXCHANGE", "b2.tx"),
        ("VIDOOLY_EVENT_EXCHANGE", "v2"),
        ("WEBENGAGE_EVENT_EXCHANGE", "w2.dx"),
        ("SHOPIFY_EVENT_EXCHANGE", "shopify_event.dx"),
        ("GRAPHY_EVENT_EXCHANGE", "g2.tx"),
    ];
    let text = "[webhooks.graphy]\nexchange = \"g3.tx\"\n[[consumer]]\nqueue = \"webengage_event_q\"\nexchange = \"w3.dx\"\n[[consumer]]\nqueue = \"branch_event_q\"\nworkers = 3";
    let config = load(text, &names);
    assert_eq!(config.rabbitmq.as_ref().unwrap().exchange, "e2.tx");
    for (partner, exchange) in [
        (Partner::Branch, "b2.tx"),
        (Partner::Vidooly, "v2"),
        (Partner::WebEngage, "w2.dx"),
        (Partner::Shopify, "shopify_event.dx"),
        (Partner::Graphy, "g3.tx"),
    ] {
        assert_eq!(config.webhooks.exchange(partner), exchange);
    }
    for (queue, exchange) in [
        ("grpc_clickhouse_event_q", "e2.tx"),
        ("grpc_postgres_event_q", "e2.tx"),
        ("branch_event_q", "b2.tx"),
        ("webengage_event_q", "w3.dx"),
        ("webengage_ch_event_q", "w2.dx"),
        ("webengage_user_event_q", "w2.dx"),
        ("shopify_events_q", "shopify_event.dx"),
        // The file renamed Graphy's exchange: the older name means nothing.
        ("graphy_event_q", "graphy_event.tx"),
        ("trace_log", "identity.dx"),
    ] {
        assert_eq!(consumer(&config, queue).0, exchange, "{queue}");
    }
    assert!(!config.origin.older_names.contains(&"GRAPHY_EVENT_EXCHANGE"));
    assert!(
        config
            .origin
            .older_names
            .contains(&"SHOPIFY_EVENT_EXCHANGE")
    );
    // Without a broker the handlers of webhooks are found by their exchange.
    let direct = load("", &[("BRANCH_EVENT_EXCHANGE", "b2.tx")]);
    assert_eq!(consumer(&direct, "branch_event_q").0, "b2.tx");
    // A direct exchange has no wildcards; what the operator bound himself is his.
    let direct = [("BRANCH_EVENT_EXCHANGE", "hunter2.dx")];
    let said = errors("", &direct);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("BRANCH_EVENT_EXCHANGE: does not end in .tx"));
    let own = "[[consumer]]\nqueue = \"branch_event_q\"\nkeys = [\"INSTALL\"]";
    assert_eq!(
        consumer(&load(own, &direct), "branch_event_q").0,
        "hunter2.dx"
    );
}

#[test]
fn the_scraper_s_batches_have_one_size() {
    let rows = |limit: &str| {
        let text = "[[consumer]]\nqueue = \"order_log_events_q\"\nbatch_rows = 7";
        let config = load(text, &[("SCRAPE_LOG_BUFFER_LIMIT", limit)]);
        assert_eq!(consumer(&config, "order_log_events_q").1, 7);
        assert_eq!(consumer(&config, "trace_log").1, 100);
        let mut rows = SCRAPE_QUEUES
            .map(|queue| consumer(&config, queue).1)
            .to_vec();
        rows.sort_unstable();
        rows.dedup();
        rows
    };
    assert_eq!(rows("500"), [7, 500]);
    assert_eq!(rows("0"), [7, 1000]);
    assert_eq!(rows(""), [7, 1000]);
    assert_eq!(rows("10001"), [7, 10_000]);
    for value in ["-1", "many"] {
        let said = errors("", &[("SCRAPE_LOG_BUFFER_LIMIT", value)]);
        assert_eq!(said, ["SCRAPE_LOG_BUFFER_LIMIT: is no whole number"]);
    }
    for queue in SCRAPE_QUEUES {
        assert!(shipped().iter().any(|c| c.queue == queue), "{queue}");
    }
}

#[test]
fn env_names_sentry_s_environment_where_sentry_is_configured() {
    let env = [("ENV", "PRE_PRODUCTION")];
    assert!(load("", &env).sentry.is_none());
    let text = "[sentry]\ndsn = \"https://key@host/1\"";
    let config = load(text, &env);
    let environment = config.sentry.unwrap().environment;
    assert_eq!(environment.as_deref(), Some("pre_production"));
    assert_eq!(config.origin.older_names, ["ENV"]);
    let own = format!("{text}\nenvironment = \"own\"");
    let environment = load(&own, &env).sentry.unwrap().environment;
    assert_eq!(environment.as_deref(), Some("own"));
}

#[test]
fn all_errors_name_their_variable_and_show_no_value() {
    let names = [
        ("PORT", "hunter2"),
        ("GIN_PORT", "70000"),
        ("LOG_LEVEL", "hunter2"),
        ("RABBIT_HOST", "amqp://u:hunter2@h"),
        ("RABBIT_PORT", "hunter2"),
        ("RABBIT_HEARTBEAT", "hunter2"),
        ("CLICKHOUSE_HOST", "h:hunter2"),
        ("CLICKHOUSE_PORT", "0"),
        ("POSTGRES_HOST", "h/hunter2"),
        ("POSTGRES_PORT", "-1"),
        ("SCRAPE_LOG_BUFFER_LIMIT", "hunter2"),
        ("HMAC_SECRET", "hunter2!"),
        ("WEBENGAGE_URL", "hunter2"),
        ("WEBENGAGE_API_KEY", "hunter2"),
        ("IDENTITY_URL", "hunter2"),
        ("SOCIAL_STREAM_URL", "hunter2"),
        ("HOLDFAST__JOURNAL__MAX_BYTES", "lots"),
    ];
    let said = errors("[grpc]\nlisten = \"here\"", &names);
    for (name, _) in &names {
        let is_own = *name == "HOLDFAST__JOURNAL__MAX_BYTES";
        let start = if is_own { "journal.max_bytes" } else { name };
        // The file has a value for the port, so that nobody asks the variable.
        let is_silent = ["PORT", "WEBENGAGE_API_KEY"].contains(name);
        let has = said
            .iter()
            .any(|error| error.starts_with(&format!("{start}:")));
        assert_eq!(has, !is_silent, "{name}: {said:#?}");
    }
    for name in ["WEBENGAGE_USER_URL", "WEBENGAGE_BRAND_API_KEY"] {
        let start = format!("{name}: webengage.");
        assert!(said.iter().any(|error| error.starts_with(&start)), "{name}");
    }
    let needs = "WEBENGAGE_URL: webengage: calls are made from queues";
    assert!(
        said.iter().any(|error| error.starts_with(needs)),
        "{said:#?}"
    );
    assert!(!said.concat().contains("hunter2"), "{said:#?}");
    // An error of the file is none of a variable.
    let said = errors(
        "[webhooks]\nhmac_secret = \"!\"",
        &[("HMAC_SECRET", "c2VjcmV0")],
    );
    assert_eq!(said, ["webhooks.hmac_secret: must be base64"]);
}

#[test]
fn names_without_effect_are_told_with_their_reason() {
    let config = load("", &[("GOGC", "250"), ("DEBUG", "x"), ("PORT", "8017")]);
    assert_eq!(config.origin.older_names, ["PORT"]);
    let notes = config.origin.idle_notes().join("\n");
    assert!(
        notes.contains("DEBUG: ") && notes.contains("GOGC: "),
        "{notes}"
    );
}

#[test]
fn secrets_of_older_names_do_not_show() {
    let names: Vec<_> = NAMES
        .iter()
        .filter(|name| name.name.contains("PASSWORD") || name.name.contains("_KEY"))
        .map(|name| (name.name, "hunter2"))
        .chain([
            ("HMAC_SECRET", "aHVudGVyMg=="),
            ("RABBIT_HOST", "h"),
            ("POSTGRES_HOST", "h"),
            ("CLICKHOUSE_HOST", "h"),
        ])
        .collect();
    let config = load("", &names);
    let shown = format!("{config:?}{:?}", config.origin.notes());
    assert!(
        !shown.contains("hunter2") && !shown.contains("aHVu"),
        "{shown}"
    );
}

#[test]
fn the_readme_lists_every_older_name() {
    let readme = include_str!("../../../README.md");
    let (_, section) = readme.split_once("\n## Older environment names\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<(Vec<&str>, &str)> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let (names, sets) = line[2..].split_once(" | ").unwrap();
            let names = names.split(", ").map(|name| name.trim_matches('`'));
            (names.collect(), sets)
        })
        .collect();
    let mut listed: Vec<_> = rows.iter().flat_map(|(names, _)| names.clone()).collect();
    for name in NAMES {
        let (_, sets) = rows
            .iter()
            .find(|(names, _)| names.contains(&name.name))
            .unwrap_or_else(|| panic!("{} is not listed", name.name));
        let what = match name.rule {
            Rule::Part(key) => format!("`{key}`"),
            Rule::BatchRows => "`batch_rows`".to_owned(),
            Rule::Nothing(reason) => format!("nothing: {reason}"),
            ref rule => format!("`{}`", rule.key().unwrap()),
        };
        assert!(sets.contains(&what), "{}: {what}", name.name);
        listed.retain(|listed| *listed != name.name);
    }
    assert_eq!(listed, [""; 0], "not in the code's table, or twice");
}
