//! Exports: what is written can be sent again and gives the same rows; what cannot
//! be written is named.

use super::{ARRIVAL, Site, request, test_event};
use crate::support::collector::{Collector, send};
use crate::support::raw::dispatch;
use crate::support::{Scratch, eventually};
use holdfast::event::proto::Events;
use prost::Message as _;
use std::path::Path;
use std::process::Command;

/// All columns that the sender decides.
const ROWS: &str = "SELECT event_id, event_name, event_timestamp, device_id, user_id, current_url, event_params FROM events ORDER BY event_id";

fn rows(data_dir: &Path) -> String {
    let database = data_dir.join("events.sqlite");
    let output = Command::new("sqlite3").arg(database).arg(ROWS).output();
    let output = output.expect("sqlite3 is installed by tests/run");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_sent_again_gives_the_same_rows() {
    let mut site = Site::start("operator_export").await;
    site.send_requests("a", 25).await;
    let ahead = (holdfast::clock::now_ms() + 3_600_000).to_string();
    let odd = request(vec![
        test_event("ahead", &ahead, "from a clock that is an hour ahead"),
        test_event(
            "text",
            "1700000000001",
            "line\nbreak, \"quotes\", लिपस्टिक, \u{1F484}",
        ),
    ]);
    dispatch(&site.collector.address(), odd.encode_to_vec())
        .await
        .unwrap();
    site.collector.delivered("sqlite", ARRIVAL).await;
    // Refused by the door and kept for diagnosis: not accepted, not exported.
    let refused = Events {
        header: None,
        events: odd.events.clone(),
    };
    dispatch(&site.collector.address(), refused.encode_to_vec())
        .await
        .unwrap_err();
    site.shows(28).await;
    let file = site.scratch.0.join("export.ndjson");
    let said = site.look(&format!("journal export -o {}", file.display()));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.is_empty());
    assert!(
        said.err.contains("exported 77 events in 26 requests"),
        "{said:?}"
    );
    assert!(
        said.err.contains("1 request that the door had refused"),
        "{said:?}"
    );
    assert!(site.collector.terminate().success());
    let piped = site.look("journal export");
    assert!(
        piped.out == std::fs::read(&file).unwrap(),
        "stopped or not, the export is the same"
    );

    let scratch = Scratch::new("operator_export_to");
    let mut second = Collector::new(&scratch, "");
    second.start().await;
    let to = second.address();
    let said = super::holdfast(&format!("dispatch --to {to} {}", file.display()));
    assert_eq!(said.code, 0, "{said:?}");
    let expected = rows(&site.data_dir());
    assert_eq!(expected.matches("TestEvent").count(), 52);
    let arrived = || async { rows(&second.data_dir()) == expected };
    eventually("the same rows", ARRIVAL, arrived).await;
    // The same over HTTP: nothing shows twice.
    let (status, text) = send(second.http, "POST", "/events", &piped.out).unwrap();
    assert_eq!(status, 200, "{text}");
    second.delivered("sqlite", ARRIVAL).await;
    assert!(rows(&second.data_dir()) == expected);
    assert!(second.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_json_cannot_carry_is_named_and_protobuf_has_it() {
    let mut site = Site::start("operator_export_pb").await;
    site.send_requests("a", 2).await;
    site.send_unknown().await;
    site.shows(4).await;
    let said = site.look("journal export");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains("sequence 3, event 1, Unknown.200"),
        "{said:?}"
    );
    let lines = said.lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["events"].as_array().unwrap().len(), 1);
    // Asked for what JSON can carry, nothing is left out.
    let said = site.look("journal export --type LaunchEvent");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.lines().len(), 3);

    let said = site.look("journal export --format pb");
    assert_eq!(said.code, 0, "{said:?}");
    let mut bytes = &said.out[..];
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        batches.push(Events::decode_length_delimited(&mut bytes).unwrap());
    }
    assert_eq!(batches.len(), 3);
    assert_eq!(batches[2].events.len(), 2);
    assert_eq!(batches[2].events[1].id, "unknown");
    assert!(said.out.ends_with(&[0xc2, 0x0c, 0x02, b'h', b'i']));
    assert!(site.collector.terminate().success());
}
