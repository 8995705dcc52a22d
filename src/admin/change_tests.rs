//! Tests of `change`: a dry run changes nothing, and nothing is changed without
//! its line in the audit.

use super::super::status::Counts;
use super::*;
use crate::event::proto::event::EventOf;
use crate::event::proto::{Event, Events, Header, LaunchEvent, TestEvent};
use crate::event::scan;
use crate::journal::{Kind, Limits, NewRecord, Options, Span};
use prost::Message as _;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

struct Site {
    journal: Journal,
    audit: Audit,
    dir: tempfile::TempDir,
}

const WHO: fn() -> Who = || Who::new(0, Some(1), None);

/// An empty journal in this directory.
pub(in super::super) fn journal(data_dir: &Path) -> Journal {
    Journal::open(&Options {
        data_dir: data_dir.to_owned(),
        limits: Limits {
            max_bytes: 1 << 30,
            min_free_bytes: 0,
            reserve_bytes: 1 << 20,
            record_bytes_max: 1 << 20,
            generation_bytes: 1 << 20,
            generation_age: Duration::from_secs(600),
            queue_bytes_max: 1 << 22,
        },
        ack_deadline: Duration::from_secs(20),
        receipts: crate::journal::ReceiptLimits {
            keep: Duration::from_secs(7 * 24 * 3600),
            max_bytes: 1 << 30,
        },
    })
    .unwrap()
}

impl Site {
    /// A journal with five requests (one launch, two tests each) and two ways out,
    /// `a` at the first of them and `b` at the third.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(&dir.path().join("data"));
        let event = |event_of| Event {
            id: "e".into(),
            timestamp: "1".into(),
            event_of: Some(event_of),
            ..Event::default()
        };
        let test = || event(EventOf::TestEvent(TestEvent::default()));
        let launch = event(EventOf::LaunchEvent(LaunchEvent::default()));
        let batch = Events {
            header: Some(Header {
                device_id: "d".into(),
                ..Header::default()
            }),
            events: vec![launch, test(), test()],
        };
        journal.cursor("a").unwrap();
        let tally = scan::request(&batch.encode_to_vec(), 3).unwrap().tally;
        for _ in 0..5 {
            let record = NewRecord {
                kind: Kind::Dispatch,
                received_at_ms: 1,
                reason: None,
                events: tally.clone(),
                content: batch.encode_to_vec().into(),
            };
            journal.append(record, None).await.unwrap();
        }
        let site = Self {
            audit: Audit::new(&dir.path().join("data")),
            journal,
            dir,
        };
        site.journal.cursor("b").unwrap();
        site.skip("b", Some(3), None, true).unwrap();
        std::fs::remove_file(site.audit_file()).unwrap();
        site
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn audit_file(&self) -> PathBuf {
        self.data_dir().join("audit.ndjson")
    }

    fn make(&self, wanted: &Change) -> Result<Outcome, ChangeError> {
        let data_dir = self.data_dir();
        let ground = Ground::Running {
            journal: &self.journal,
            data_dir: &data_dir,
        };
        change(&ground, &self.audit, wanted, &WHO())
    }

    fn skip(
        &self,
        way: &str,
        to: Option<u64>,
        count: Option<u64>,
        apply: bool,
    ) -> Result<Outcome, ChangeError> {
        let way = way.to_owned();
        let sudo_user = None;
        self.make(&Change::Skip(SkipRequest {
            way,
            to,
            count,
            apply,
            sudo_user,
        }))
    }

    fn purge(
        &self,
        to: Option<u64>,
        way: Option<&str>,
        quarantine: Option<u64>,
        apply: bool,
    ) -> Result<Outcome, ChangeError> {
        let way = way.map(str::to_owned);
        let sudo_user = None;
        self.make(&Change::Purge(PurgeRequest {
            to,
            way,
            quarantine,
            apply,
            sudo_user,
        }))
    }

    /// Where the ways out stand.
    fn next(&self) -> Vec<(String, u64)> {
        let cursors = self.journal.stats().cursors;
        cursors
            .into_iter()
            .map(|at| (at.name, at.next_seq.0))
            .collect()
    }
}

fn at(a: u64, b: u64) -> Vec<(String, u64)> {
    vec![("a".to_owned(), a), ("b".to_owned(), b)]
}

fn events(launches: u64) -> Counts {
    Counts::from([
        ("LaunchEvent".into(), launches),
        ("TestEvent".into(), 2 * launches),
    ])
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_changes_nothing() {
    let site = Site::new().await;
    let moved = |way: &str, from, to, launches| Move {
        way: way.into(),
        from,
        to,
        passed_over: vec![Span {
            first: Seq(from),
            end: Seq(to),
        }],
        events: events(launches),
    };
    for outcome in [
        site.skip("a", Some(3), None, false).unwrap(),
        site.skip("a", None, Some(2), false).unwrap(),
        site.purge(Some(3), None, None, false).unwrap(),
        site.purge(Some(3), Some("all"), None, false).unwrap(),
    ] {
        assert!(!outcome.applied);
        // `b` has passed it already: a purge is not about it.
        assert_eq!(outcome.moves, [moved("a", 1, 3, 2)]);
    }
    let outcome = site.purge(Some(5), None, None, false).unwrap();
    assert_eq!(outcome.moves, [moved("a", 1, 5, 4), moved("b", 3, 5, 2)]);
    let outcome = site.purge(Some(5), Some("b"), None, false).unwrap();
    assert_eq!(outcome.moves, [moved("b", 3, 5, 2)]);
    assert_eq!(site.next(), at(1, 3));
    assert!(!site.audit_file().exists());
    site.journal.close();
}

#[tokio::test]
async fn a_change_is_in_the_audit_before_and_after_it() {
    let site = Site::new().await;
    let outcome = site.purge(Some(5), None, None, true).unwrap();
    assert!(outcome.applied);
    assert_eq!(outcome.audit_error, None);
    assert_eq!(site.next(), at(5, 5));
    // Nothing left to do: no line.
    assert!(!site.purge(Some(5), None, None, true).unwrap().applied);
    assert!(!site.skip("a", None, Some(0), true).unwrap().applied);
    assert!(!site.skip("a", Some(1), None, true).unwrap().applied);
    let text = std::fs::read_to_string(site.audit_file()).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["verb"], "purge");
    assert_eq!(line["args"]["to"], 5);
    assert_eq!(line["by"]["uid"], 0);
    assert_eq!(line["result"], "applied");
    for half in ["planned", "done"] {
        let moves = if half == "done" {
            &line["done"]
        } else {
            &line["planned"]["moves"]
        };
        assert_eq!(moves[0]["events"], json!(events(4)), "{half}");
        assert_eq!(moves[1]["events"], json!(events(2)), "{half}");
    }
    let purged = site
        .journal
        .ledger()
        .ways
        .into_iter()
        .map(|way| counts(&way.ledger.purged));
    assert_eq!(purged.collect::<Vec<_>>(), [events(4), events(4)]);
    site.journal.close();
}

#[tokio::test]
async fn without_an_audit_nothing_is_changed() {
    let site = Site::new().await;
    std::fs::create_dir(site.audit_file()).unwrap();
    let error = site.skip("a", Some(3), None, true).unwrap_err();
    assert!(matches!(error, ChangeError::Audit(_)), "{error}");
    let error = site.purge(Some(3), None, None, true).unwrap_err();
    assert!(matches!(error, ChangeError::Audit(_)), "{error}");
    assert_eq!(site.next(), at(1, 3));
    // A dry run needs none.
    site.skip("a", Some(3), None, false).unwrap();
    site.journal.close();
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let site = Site::new().await;
    for error in [
        site.skip("c", Some(3), None, true).unwrap_err(),
        site.skip("a", None, None, true).unwrap_err(),
        site.skip("a", Some(3), Some(3), true).unwrap_err(),
        site.purge(None, None, None, true).unwrap_err(),
        site.purge(Some(1), None, Some(1), true).unwrap_err(),
        site.purge(Some(3), Some("c"), None, true).unwrap_err(),
        site.purge(None, None, Some(1), true).unwrap_err(),
    ] {
        assert!(matches!(error, ChangeError::Request(_)), "{error}");
    }
    // Past the end.
    for error in [
        site.skip("a", Some(7), None, true).unwrap_err(),
        site.skip("a", None, Some(u64::MAX), true).unwrap_err(),
        site.purge(Some(7), None, None, true).unwrap_err(),
    ] {
        assert!(matches!(error, ChangeError::Refused(_)), "{error}");
    }
    assert_eq!(site.next(), at(1, 3));
    assert!(!site.audit_file().exists());
    site.journal.close();
}
