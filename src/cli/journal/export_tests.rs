//! Tests of `export`: nothing is left out without a word, and what is written can
//! be sent again.

use super::*;
use crate::event::envelope;
use crate::event::proto::event::EventOf;
use crate::event::proto::{self, Events, Header, LaunchEvent, TestEvent};
use crate::event::tally::Tally;
use crate::event::webhook::Source;
use clap::Parser;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn args(line: &str) -> Args {
    let words = std::iter::once("export").chain(line.split_whitespace());
    Command::try_parse_from(words).unwrap().args
}

const RECEIVED_MS: i64 = 1_700_000_000_000;

/// Field 200 with the text "hi".
const UNKNOWN: [u8; 5] = [0xc2, 0x0c, 0x02, b'h', b'i'];

fn launch(id: &str, timestamp: &str) -> proto::Event {
    proto::Event {
        id: id.into(),
        timestamp: timestamp.into(),
        event_of: Some(EventOf::LaunchEvent(LaunchEvent::default())),
        ..proto::Event::default()
    }
}

fn test_event(id: &str) -> proto::Event {
    proto::Event {
        event_of: Some(EventOf::TestEvent(TestEvent::default())),
        ..launch(id, "1")
    }
}

fn request(events: Vec<proto::Event>) -> Vec<u8> {
    Events {
        header: Some(Header {
            device_id: "d".into(),
            ..Header::default()
        }),
        events,
    }
    .encode_to_vec()
}

/// The same with one more event of an unknown type, its id first.
fn with_unknown(mut request: Vec<u8>, id: u8) -> Vec<u8> {
    request.extend([0x2a, 8, 0x22, 1, id]);
    request.extend(UNKNOWN);
    request
}

fn record(seq: u64, content: Vec<u8>) -> Record {
    Record {
        seq: Seq(seq),
        kind: Kind::Dispatch,
        received_at_ms: RECEIVED_MS,
        reason: None,
        events: Tally::default(),
        content: content.into(),
    }
}

fn ids(lines: &[u8]) -> Vec<Vec<String>> {
    let lines = lines.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let batch = envelope::decode(None, line).unwrap();
            batch.events.into_iter().map(|event| event.id).collect()
        })
        .collect()
}

#[test]
fn what_json_cannot_carry_is_left_out_and_named() {
    let args = args("");
    let mut export = Export::new(&args);
    let mut out = Vec::new();
    let known = request(vec![launch("a", "1"), test_event("b")]);
    export.record(&record(1, known.clone()), &mut out).unwrap();
    assert_eq!(export.report(), ExitCode::SUCCESS);
    let mixed = with_unknown(known.clone(), b'c');
    export.record(&record(2, mixed), &mut out).unwrap();
    // Only the unknown event: no line at all, not one without events.
    let alone = with_unknown(request(vec![]), b'e');
    export.record(&record(3, alone), &mut out).unwrap();
    // An unknown field beside the events concerns all of them.
    let foreign = [known, UNKNOWN.to_vec()].concat();
    export.record(&record(4, foreign), &mut out).unwrap();
    assert_eq!(ids(&out), [["a", "b"], ["a", "b"]]);
    let left: Vec<_> = export
        .left_out
        .iter()
        .map(|(name, n)| (name.as_str(), *n))
        .collect();
    assert_eq!(
        left,
        [("LaunchEvent", 1), ("TestEvent", 1), ("Unknown.200", 2)]
    );
    assert_eq!(export.report(), ExitCode::FAILURE);
}

#[test]
fn protobuf_has_every_byte() {
    let content = with_unknown(request(vec![launch("a", "1")]), b'c');
    let export = |line: &str| {
        let args = args(line);
        let mut export = Export::new(&args);
        let mut out = Vec::new();
        export
            .record(&record(1, content.clone()), &mut out)
            .unwrap();
        assert_eq!(export.report(), ExitCode::SUCCESS);
        out
    };
    let all = export("--format pb");
    assert_eq!(usize::from(all[0]), content.len());
    assert_eq!(all[1..], content);
    let unknown = export("--format pb --type Unknown");
    assert_eq!(unknown[1..], with_unknown(request(vec![]), b'c'));
    assert!(export("--format pb --type TestEvent").is_empty());
}

#[test]
fn types_and_times_choose() {
    let batch = request(vec![launch("a", "1"), test_event("b"), launch("c", "1")]);
    let chosen = |line: &str| {
        let args = args(line);
        let mut out = Vec::new();
        Export::new(&args)
            .record(&record(1, batch.clone()), &mut out)
            .unwrap();
        ids(&out).concat().concat()
    };
    assert_eq!(chosen("--type LaunchEvent"), "ac");
    assert_eq!(chosen("--type TestEvent --type LaunchEvent"), "abc");
    // The record is of 2023-11-14T22:13:20Z.
    assert_eq!(chosen("--since 2023-11-14T22:13:20Z"), "abc");
    assert_eq!(chosen("--since 2023-11-14T22:13:21Z"), "");
    assert_eq!(chosen("--until 2023-11-14T22:13:20Z"), "");
    assert_eq!(chosen("--until 1m --since 1970-01-01T00:00:00Z"), "abc");
}

#[test]
fn refused_requests_are_written_on_demand_only() {
    let mut refused = record(1, request(vec![launch("a", "1")]));
    refused.kind = Kind::Rejected;
    for (line, count) in [("", 0), ("--rejected", 1)] {
        let args = args(line);
        let mut export = Export::new(&args);
        let mut out = Vec::new();
        export.record(&refused, &mut out).unwrap();
        assert_eq!(ids(&out).len(), count);
        assert_eq!(export.rejected, 1 - count as u64);
        assert_eq!(export.report(), ExitCode::SUCCESS);
    }
}

#[test]
fn webhooks_are_left_out_by_name() {
    let mut webhook = record(1, request(Vec::new()));
    webhook.kind = Kind::Webhook(Source::Branch);
    for (line, code) in [
        ("", ExitCode::FAILURE),
        ("--type LaunchEvent", ExitCode::SUCCESS),
    ] {
        let args = args(line);
        let mut export = Export::new(&args);
        let mut out = Vec::new();
        export.record(&webhook, &mut out).unwrap();
        assert!(out.is_empty());
        assert_eq!(export.report(), code, "{line}");
    }
}

#[test]
fn a_time_ahead_of_the_clock_is_written_as_the_time_of_receipt() {
    let ahead = (RECEIVED_MS + 1).to_string();
    let args = args("");
    let mut out = Vec::new();
    let batch = request(vec![
        launch("a", &ahead),
        launch("b", "7"),
        launch("c", "soon"),
    ]);
    Export::new(&args)
        .record(&record(1, batch), &mut out)
        .unwrap();
    let batch = envelope::decode(None, out.trim_ascii()).unwrap();
    let times: Vec<_> = batch.events.into_iter().map(|e| e.timestamp).collect();
    assert_eq!(times, [RECEIVED_MS.to_string(), "7".into(), "soon".into()]);
}

#[test]
fn a_lost_range_is_a_failure() {
    let args = args("");
    let mut export = Export::new(&args);
    export.lost(&Loss {
        generation: 1,
        first: Seq(3),
        end: Seq(5),
    });
    assert_eq!(export.lost, 2);
    assert_eq!(export.report(), ExitCode::FAILURE);
}
