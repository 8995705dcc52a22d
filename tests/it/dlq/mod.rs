//! What was refused, from the operator's chair: `holdfast dlq` on real error queues and
//! dead letters. The judge reads queues and tables by means of its own.

mod local;
mod odd;
mod queues;

use crate::support::cli::{Said, holdfast};
use crate::support::collector::Collector;
use serde_json::Value as Json;
use std::time::Duration;

const ARRIVAL: Duration = Duration::from_secs(60);

/// `holdfast` with the collector's own configuration.
fn ask(collector: &Collector, words: &str) -> Said {
    let config = collector.dir.join("holdfast.toml");
    holdfast(&format!("{words} --config {}", config.display()))
}

/// The lines of the audit.
fn audit(collector: &Collector) -> Vec<Json> {
    let text = std::fs::read_to_string(collector.data_dir().join("audit.ndjson"));
    text.unwrap_or_default()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
