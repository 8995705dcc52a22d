//! Reconciliation where consumers put events elsewhere than the sink does by default.

use super::{ARRIVAL, request, test_event};
use crate::support::Scratch;
use crate::support::cli::holdfast;
use crate::support::collector::Collector;
use crate::support::raw::dispatch;
use crate::support::servers::Stack;
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::{Event, LaunchEvent};
use prost::Message as _;
use serde_json::json;

/// All events in one namespace, launches in another, too, and refused ones in the default.
const CONSUMERS: &str = r#"
[[consumer]]
queue = "grpc_clickhouse_event_q"
namespace = "all_of_them"
[[consumer]]
queue = "launches"
exchange = "grpc_event.tx"
keys = ["LaunchEvent"]
handler = "events"
sink = "clickhouse"
namespace = "launches"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconcile_looks_where_consumers_put_events() {
    let scratch = Scratch::new("reconcile_places");
    let stack = Stack::start(&scratch).await;
    let databases = "[clickhouse]\ndatabases = [\"all_of_them\", \"launches\"]\n";
    let config = stack.config().replace("[clickhouse]\n", databases);
    let mut collector = Collector::new(&scratch, &format!("{config}{CONSUMERS}"));
    collector.start().await;
    let launch = |at: usize| Event {
        event_of: Some(EventOf::LaunchEvent(LaunchEvent::default())),
        ..test_event(&format!("launch-{at}"), "1700000000000", "")
    };
    let test = |at: usize| test_event(&format!("test-{at}"), "1700000000000", "x");
    let mut events: Vec<_> = (0..5).map(launch).chain((0..20).map(test)).collect();
    events.push(test_event("refused", "soon", "x"));
    let batch = request(events).encode_to_vec();
    dispatch(&collector.address(), batch).await.unwrap();
    collector.delivered("rabbitmq", ARRIVAL).await;

    let config = collector.dir.join("holdfast.toml");
    let ask = |words: &str| holdfast(&format!("{words} --config {}", config.display()));
    let said = ask("reconcile --json --wait 30s");
    assert_eq!(said.code, 0, "{said:?}");
    let report = said.json();
    let sinks = report["sinks"].as_array().unwrap().iter();
    let found: Vec<_> = sinks
        .map(|sink| {
            let total = &sink["total"];
            json!([
                sink["sink"],
                sink["namespace"],
                total["events"],
                total["rows"],
                total["set_aside"]
            ])
        })
        .collect();
    let expected = [
        json!(["clickhouse", "all_of_them", 26, 25, 1]),
        json!(["clickhouse", "launches", 6, 5, 1]),
        json!(["postgres", null, 26, 25, 1]),
    ];
    assert_eq!(found, expected);
    let text = ask("reconcile").fits();
    assert!(text.contains("CLICKHOUSE (launches)"), "{text}");
    assert!(collector.terminate().success());
}
