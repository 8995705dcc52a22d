//! Whether consumers, their bindings and their error routes can work together. Called
//! by `check`.
//!
//! # Invariants
//! - What would loop, starve or never match is an error here, and not a surprise at night
//!   (tests below).

use super::Config;
use super::consumers::{Consumer, Handler, SinkKind};
use std::collections::{BTreeMap, BTreeSet};

/// AMQP carries names and keys of at most so many bytes.
const NAME_BYTES_MAX: usize = 255;

/// What is wrong with one consumer, beside the bounds of its numbers.
pub(super) fn problems(consumer: &Consumer, config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expect = |holds: bool, text: String| {
        if !holds {
            problems.push(text);
        }
    };
    let names = [
        ("queue", &consumer.queue),
        ("exchange", &consumer.exchange),
        ("error_exchange", &consumer.error_exchange),
        ("error_key", &consumer.error_key),
        ("error_queue", &consumer.error_queue),
    ];
    for (key, name) in names
        .into_iter()
        .chain(consumer.keys.iter().map(|k| ("keys", k)))
    {
        expect(
            name.len() <= NAME_BYTES_MAX,
            format!("{key}: longer than {NAME_BYTES_MAX} bytes"),
        );
        let may_be_empty = key == "keys";
        expect(
            may_be_empty || !name.is_empty(),
            format!("{key}: must not be empty"),
        );
        expect(
            !name.starts_with("amq."),
            format!("{key}: {name:?} is a name of the broker's own"),
        );
    }
    for key in &consumer.keys {
        expect(
            can_match(&consumer.exchange, key),
            unmatchable(&consumer.exchange, key),
        );
    }
    let loops = consumer.error_exchange == consumer.exchange
        && consumer
            .keys
            .iter()
            .any(|key| matches(&consumer.exchange, key, &consumer.error_key));
    expect(
        !loops,
        format!(
            "what it refuses comes back: error key {:?} matches its own binding",
            consumer.error_key
        ),
    );
    expect(
        consumer.error_queue != consumer.queue,
        "error_queue must not be the queue itself".to_owned(),
    );
    fits(consumer, config, &mut expect);
    problems
}

/// Handler, sink, table and namespace.
fn fits(consumer: &Consumer, config: &Config, expect: &mut impl FnMut(bool, String)) {
    let makes_calls = consumer.handler.makes_calls();
    expect(
        makes_calls == (consumer.sink == SinkKind::WebEngage),
        format!(
            "sink {:?} cannot take what its handler makes",
            consumer.sink.name()
        ),
    );
    expect(
        !consumer.handler.looks_up() || consumer.sink == SinkKind::ClickHouse,
        "its handler looks launches up, which only sink \"clickhouse\" can".to_owned(),
    );
    expect(
        !makes_calls || consumer.batch_rows == 1,
        "batch_rows must be 1: calls are made one by one".to_owned(),
    );
    expect(
        consumer.namespace.is_none() || consumer.sink == SinkKind::ClickHouse,
        "namespace is a database of ClickHouse; other sinks have their tables in one place, \
         Postgres in postgres.schema"
            .to_owned(),
    );
    if let (Some(namespace), Some(clickhouse), SinkKind::ClickHouse) =
        (&consumer.namespace, &config.clickhouse, consumer.sink)
    {
        expect(
            *namespace == clickhouse.database || clickhouse.databases.contains(namespace),
            format!("namespace {namespace:?} is none of clickhouse.database and .databases"),
        );
    }
    let is_flat = consumer.handler == Handler::FlatJson;
    let has_own =
        consumer.table.is_some() || !consumer.columns.is_empty() || !consumer.row_key.is_empty();
    expect(
        is_flat || !has_own,
        "table, columns and row_key are for handler \"flat_json\"".to_owned(),
    );
    if is_flat {
        let table = consumer.table.as_deref().unwrap_or_default();
        expect(
            !table.is_empty(),
            "table: is required for flat_json".to_owned(),
        );
        expect(
            !consumer.columns.is_empty(),
            "columns: are required for flat_json".to_owned(),
        );
        expect(
            !consumer.row_key.is_empty(),
            "row_key: is required for flat_json".to_owned(),
        );
        for name in &consumer.row_key {
            let column = consumer.columns.iter().find(|column| column.name == *name);
            expect(
                column.is_some_and(|column| column.kind.identifies()),
                format!("row_key: {name:?} is no column that can identify a row"),
            );
        }
    }
}

/// What is wrong between consumers: queues and tables that mean two things.
pub(super) fn conflicts(consumers: &[Consumer]) -> Vec<String> {
    let mut conflicts = Vec::new();
    let mut queues = BTreeSet::new();
    let mut tables: BTreeMap<(SinkKind, &str), &Consumer> = BTreeMap::new();
    let read: BTreeSet<_> = consumers.iter().map(|consumer| &consumer.queue).collect();
    let mut error_queues: BTreeMap<&str, &Consumer> = BTreeMap::new();
    for consumer in consumers {
        let queue = &consumer.queue;
        if !queues.insert(queue) {
            conflicts.push(format!("consumer {queue:?}: its queue is used twice"));
        }
        let first = error_queues
            .entry(&consumer.error_queue)
            .or_insert(consumer);
        if first.queue != *queue && !read.contains(&consumer.error_queue) {
            conflicts.push(format!(
                "consumer {queue:?}: error_queue {:?} is that of {:?}, too",
                consumer.error_queue, first.queue
            ));
        }
        if let Some(table) = &consumer.table {
            let first = tables.entry((consumer.sink, table)).or_insert(consumer);
            if first.columns != consumer.columns || first.row_key != consumer.row_key {
                conflicts.push(format!(
                    "consumer {queue:?}: table {table:?} has other columns for {:?}",
                    first.queue
                ));
            }
        }
    }
    conflicts
}

/// Whether an exchange is a topic exchange, by its name.
fn is_topic(exchange: &str) -> bool {
    exchange.ends_with(".tx")
}

/// Whether any message can match a binding. On a direct exchange a key is taken to the
/// letter: one with wildcards waits for ever, except `*` alone, which producers in the
/// field send as it is.
pub(super) fn can_match(exchange: &str, key: &str) -> bool {
    let has_wildcards = key.contains(['*', '#']);
    if is_topic(exchange) {
        let mut words = key.split('.');
        return words.all(|word| word == "*" || word == "#" || !word.contains(['*', '#']));
    }
    key == "*" || !has_wildcards
}

fn unmatchable(exchange: &str, key: &str) -> String {
    if is_topic(exchange) {
        format!("keys: {key:?} has a wildcard within a word, which stands for itself")
    } else {
        format!("keys: {key:?} has wildcards, but {exchange:?} is a direct exchange")
    }
}

/// Whether a message with `key` goes to a binding, as the broker decides it.
#[must_use]
pub fn matches(exchange: &str, binding: &str, key: &str) -> bool {
    if !is_topic(exchange) {
        return binding == key;
    }
    let binding: Vec<_> = binding.split('.').collect();
    let key: Vec<_> = if key.is_empty() {
        Vec::new()
    } else {
        key.split('.').collect()
    };
    words_match(&binding, &key)
}

fn words_match(binding: &[&str], key: &[&str]) -> bool {
    match (binding.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), _) => {
            words_match(rest, key)
                || key
                    .split_first()
                    .is_some_and(|(_, k)| words_match(binding, k))
        }
        (Some((&word, rest)), Some((&first, key))) => {
            (word == "*" || word == first) && words_match(rest, key)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_from;

    #[test]
    fn topic_keys_match_as_the_broker_matches_them() {
        for (binding, key, does) in [
            ("*", "a", true),
            ("*", "a.b", false),
            ("*", "", false),
            ("#", "", true),
            ("#", "a.b.c", true),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("#.c", "a.b.c", true),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.c", false),
            ("error.x", "error.x", true),
        ] {
            assert_eq!(matches("e.tx", binding, key), does, "{binding} {key}");
        }
        assert!(matches("e.dx", "*", "*") && !matches("e.dx", "*", "a"));
    }

    fn errors(text: &str) -> String {
        let text = format!("[rabbitmq]\n[clickhouse]\n{text}");
        load_from(&text, std::iter::empty()).map_or_else(|e| e.to_string(), |_| String::new())
    }

    #[test]
    fn impossible_consumers_are_named() {
        let new = "[[consumer]]\nqueue = \"q\"\nsink = \"clickhouse\"\nhandler = \"branch\"\n";
        let flat = "[[consumer]]\nqueue = \"q\"\nsink = \"clickhouse\"\nhandler = \"flat_json\"\nexchange = \"e.tx\"\nkeys = [\"*\"]\n";
        let shipped =
            |queue: &str, rest: &str| format!("[[consumer]]\nqueue = \"{queue}\"\n{rest}");
        let cases = [
            (
                format!("{new}exchange = \"e.dx\"\nkeys = [\"a.*\"]"),
                "is a direct exchange",
            ),
            (
                format!("{new}exchange = \"e.tx\"\nkeys = [\"a*\"]"),
                "a wildcard within a word",
            ),
            (
                format!("{new}exchange = \"e.tx\"\nkeys = [\"#\"]"),
                "what it refuses comes back",
            ),
            (
                format!("{new}exchange = \"\"\nkeys = [\"a\"]"),
                "exchange: must not be empty",
            ),
            (
                format!("{new}exchange = \"amq.direct\"\nkeys = [\"a\"]"),
                "of the broker's own",
            ),
            (
                format!("{new}exchange = \"e.dx\"\nkeys = [\"{}\"]", "k".repeat(256)),
                "longer than 255",
            ),
            (
                format!("{new}exchange = \"e.dx\"\nkeys = [\"a\"]\nhandler = \"magic\""),
                "duplicate key",
            ),
            (new.replace("branch", "magic"), "unknown variant `magic`"),
            (
                shipped("branch_event_q", "error_queue = \"graphy_event_q_error\""),
                "is that of \"branch_event_q\", too",
            ),
            (
                shipped("webengage_event_q", "batch_rows = 5"),
                "batch_rows must be 1",
            ),
            (
                shipped("webengage_event_q", "sink = \"clickhouse\""),
                "cannot take what its handler makes",
            ),
            (
                shipped("branch_event_q", "sink = \"webengage\""),
                "cannot take what its handler makes",
            ),
            (
                shipped("create_user_account_q", "sink = \"postgres\""),
                "looks launches up",
            ),
            (
                shipped("trace_log", "namespace = \"other\""),
                "none of clickhouse.database",
            ),
            (
                shipped("grpc_postgres_event_q", "namespace = \"other\""),
                "namespace is a database of ClickHouse",
            ),
            (shipped("trace_log", "table = \"t\""), "are for handler"),
            (
                shipped("trace_log", "error_queue = \"trace_log\""),
                "must not be the queue itself",
            ),
            (flat.to_owned(), "table: is required"),
            (
                format!("{flat}table = \"t\"\ncolumns = {{ a = \"json\" }}\nrow_key = [\"a\"]"),
                "no column that can identify",
            ),
            (
                format!("{flat}table = \"t\"\ncolumns = {{ a = \"text\" }}\nrow_key = [\"b\"]"),
                "no column that can identify",
            ),
            (
                format!(
                    "{flat}table = \"t\"\ncolumns = {{ a = \"text\" }}\nrow_key = [\"a\"]\n{}table = \"t\"\ncolumns = {{ a = \"int\" }}\nrow_key = [\"a\"]",
                    flat.replace("\"q\"", "\"q2\"")
                ),
                "has other columns for",
            ),
        ];
        for (text, part) in cases {
            let said = errors(&text);
            assert!(said.contains(part), "{text}\n{said:?} has no {part:?}");
        }
        assert_eq!(
            errors(&format!(
                "{flat}table = \"t\"\ncolumns = {{ a = \"text\" }}\nrow_key = [\"a\"]"
            )),
            ""
        );
        assert_eq!(errors(""), "", "the shipped ones are possible");
    }
}
