//! The catalogue, the README and the registered metrics are one.

use super::*;
use crate::event::webhook::Source;
use crate::telemetry::Metrics;
use std::collections::BTreeSet;

const README: &str = include_str!("../../README.md");

/// A line of the README's table.
fn row(entry: &Entry) -> String {
    let kind = format!("{:?}", entry.kind).to_lowercase();
    let labels: Vec<String> = entry
        .labels
        .iter()
        .map(|label| match label.values {
            Values::Are(values) => {
                let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
                format!("`{}`: {}", label.name, values.join(", "))
            }
            Values::OneFor(what) => format!("`{}`: each {what}", label.name),
        })
        .collect();
    format!(
        "| `{}` | {kind}, {} | {} | {} |",
        entry.name,
        entry.unit,
        labels.join("; "),
        entry.meaning
    )
}

#[test]
fn the_readme_has_this_table() {
    let (_, rest) = README.split_once("\n### Metrics\n").unwrap();
    let section = rest.split("\n#").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let theirs: Vec<&str> = rows.collect();
    let ours: Vec<String> = ALL.into_iter().map(row).collect();
    for ours in &ours {
        assert!(theirs.contains(&ours.as_str()), "README lacks:\n{ours}");
    }
    assert_eq!(theirs, ours, "README has more, or in another order");
    // Labels that differ by empty cells would not show in a table.
    assert!(section.contains("| metric | type | labels | meaning |"));
}

#[test]
fn all_that_is_registered_stands_here_once() {
    let named: BTreeSet<&str> = ALL.iter().map(|entry| entry.name).collect();
    assert_eq!(named.len(), ALL.len());
    let (_, registered) = Metrics::build();
    assert_eq!(registered.len(), ALL.len());
    assert_eq!(named, registered.into_iter().collect());
}

#[test]
fn names_say_what_is_counted() {
    for entry in ALL {
        let name = entry.name;
        assert!(name.starts_with("holdfast_"), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            entry.kind == Kind::Counter,
            "{name}"
        );
        if entry.unit.ends_with("seconds") {
            assert!(name.ends_with("_seconds"), "{name}");
        }
        assert!(!entry.meaning.ends_with('.') && !entry.meaning.contains('|'));
    }
}

#[test]
fn a_value_that_does_not_stand_here_is_not_taken() {
    assert!(REQUESTS.takes(&["grpc", "accepted"]));
    assert!(!REQUESTS.takes(&["grpc", "foreign"]));
    assert!(!REQUESTS.takes(&["grpc"]));
    assert!(BACKLOG.takes(&["any way out"]));
    assert_eq!(REQUESTS.combinations().len(), 8 * 14);
    assert!(CONSUMED.combinations().is_empty());
    for source in Source::ALL {
        assert!(REQUESTS.takes(&[source.name(), "accepted"]), "{source:?}");
    }
}
