//! The operator's tools, as the real binary: on a running service, and on the
//! directory that it left.

mod changes;
mod damage;
mod drains;
mod drills;
mod exports;
mod logs;
mod looks;
mod outage;
mod page;
mod reconcile_places;
mod reconciles;
mod reloads;

use crate::support::cli::{Said, holdfast};
use crate::support::collector::{Collector, send};
use crate::support::raw::dispatch;
use crate::support::{Scratch, eventually, free_port};
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::{Event, Events, Header, LaunchEvent, TestEvent};
use prost::Message as _;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the one way out that works may take.
const ARRIVAL: Duration = Duration::from_secs(60);

/// A collector with two ways out, of which one goes nowhere.
struct Site {
    collector: Collector,
    scratch: Scratch,
}

impl Site {
    async fn start(name: &str) -> Self {
        Self::with(name, "").await
    }

    /// With more lines of configuration.
    async fn with(name: &str, more: &str) -> Self {
        let clickhouse = format!("[clickhouse]\nurl = \"http://127.0.0.1:{}\"\n", free_port());
        Self::with_ways(name, &format!("{clickhouse}[sqlite]\n{more}")).await
    }

    /// With these ways out, and SQLite unless it is among them.
    async fn with_ways(name: &str, ways: &str) -> Self {
        let scratch = Scratch::new(name);
        let sqlite = if ways.contains("[sqlite]") {
            ""
        } else {
            "[sqlite]\n"
        };
        let config = format!("{ways}{sqlite}");
        let mut collector = Collector::new(&scratch, &config);
        collector.start().await;
        Self { collector, scratch }
    }

    fn data_dir(&self) -> PathBuf {
        self.collector.data_dir()
    }

    fn config(&self) -> PathBuf {
        self.collector.dir.join("holdfast.toml")
    }

    /// `holdfast` with the service's own configuration.
    fn ask(&self, words: &str) -> Said {
        holdfast(&format!("{words} --config {}", self.config().display()))
    }

    /// `holdfast` on the directory alone.
    fn look(&self, words: &str) -> Said {
        holdfast(&format!("{words} --data-dir {}", self.data_dir().display()))
    }

    fn audit(&self) -> Vec<Json> {
        let text = std::fs::read_to_string(self.data_dir().join("audit.ndjson"));
        let text = text.unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Sends so many requests of one launch and two tests each, and waits for
    /// SQLite to have them; ClickHouse never gets any.
    async fn send_requests(&self, prefix: &str, count: usize) {
        let line = |at: usize| {
            format!(
                r#"{{"header":{{"deviceId":"d"}},"events":[{{"id":"{prefix}-{at}-0","timestamp":"1700000000000","launchEvent":{{}}}},{{"id":"{prefix}-{at}-1","timestamp":"1700000000000","testEvent":{{"testParam2":"9007199254740993"}}}},{{"id":"{prefix}-{at}-2","timestamp":"1700000000000","testEvent":{{}}}}]}}"#
            ) + "\n"
        };
        let body: String = (0..count).map(line).collect();
        let answer = send(self.collector.http, "POST", "/events", body.as_bytes());
        assert_eq!(answer.unwrap().0, 200);
        self.collector.delivered("sqlite", ARRIVAL).await;
    }

    /// Waits until the directory of the running service shows this end and this
    /// position of SQLite: both are written down a moment after they are so.
    async fn shows(&self, end_seq: u64) {
        eventually("the directory shows it", ARRIVAL, || async {
            let list = self.look("journal ls --json").json();
            let generations = list["generations"].as_array().unwrap();
            let sqlite = serde_json::json!({"way": "sqlite", "next_seq": end_seq});
            generations.last().unwrap()["end_seq"] == end_seq
                && list["ways"].as_array().unwrap().contains(&sqlite)
        })
        .await;
    }

    /// One request with an event of type 200 after a launch.
    async fn send_unknown(&self) {
        let launch = Event {
            id: "known".into(),
            timestamp: "1700000000000".into(),
            event_of: Some(EventOf::LaunchEvent(LaunchEvent::default())),
            ..Event::default()
        };
        let mut unknown = Event {
            id: "unknown".into(),
            timestamp: "1700000000000".into(),
            ..Event::default()
        }
        .encode_to_vec();
        unknown.extend([0xc2, 0x0c, 0x02, b'h', b'i']);
        let mut bytes = request(vec![launch]).encode_to_vec();
        bytes.extend([0x2a, u8::try_from(unknown.len()).unwrap()]);
        bytes.extend(unknown);
        dispatch(&self.collector.address(), bytes).await.unwrap();
        self.collector.delivered("sqlite", ARRIVAL).await;
    }
}

fn request(events: Vec<Event>) -> Events {
    Events {
        header: Some(Header {
            device_id: "d".into(),
            ..Header::default()
        }),
        events,
    }
}

fn test_event(id: &str, timestamp: &str, text: &str) -> Event {
    Event {
        id: id.into(),
        timestamp: timestamp.into(),
        current_url: String::new(),
        event_of: Some(EventOf::TestEvent(TestEvent {
            test_param1: text.into(),
            test_param2: i64::MAX,
        })),
    }
}

/// One way out's part of a status document.
fn way<'a>(status: &'a Json, name: &str) -> &'a Json {
    let ways = status["ledger"]["ways"].as_array().unwrap();
    let found = ways.iter().find(|way| way["way"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {status:#}"))
}

/// Every file below a directory with its content.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.insert(path.clone(), Vec::new());
                dirs.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                files.insert(path, bytes);
            }
        }
    }
    assert!(files.len() > 5, "{files:?}");
    files
}
