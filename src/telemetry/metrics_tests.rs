//! What is there before it counts, and what a scrape shows.

use super::*;

fn shows(metrics: &Metrics, line: &str) -> bool {
    metrics.render().lines().any(|shown| shown == line)
}

#[test]
fn counters_are_there_before_they_count() {
    let metrics = Metrics::new();
    metrics.consumer("q");
    for line in [
        "holdfast_ingest_requests_total{door=\"grpc\",outcome=\"full\"} 0",
        "holdfast_forward_messages_total{outcome=\"unroutable\"} 0",
        "holdfast_consumer_rows_total{consumer=\"q\",outcome=\"refused\"} 0",
        "holdfast_connected{who=\"q\"} 0",
        "holdfast_ready 0",
    ] {
        assert!(shows(&metrics, line), "{line}\n{}", metrics.render());
    }
}

#[test]
fn a_sink_is_away_while_anybody_waits_for_it() {
    let metrics = Metrics::new();
    let shown = |value| {
        shows(
            &metrics,
            &format!("holdfast_sink_available{{sink=\"s\"}} {value}"),
        )
    };
    metrics.sink("s");
    assert!(shown(1));
    let (one, other) = (metrics.sink_away("s", "t"), metrics.sink_away("s", "t"));
    let third = metrics.sink_away("s", "u");
    drop(one);
    let held = ["t", "u"].map(|table| metrics.is_held("s", table));
    assert_eq!(held, [true, true]);
    drop(third);
    let held = ["t", "u"].map(|table| metrics.is_held("s", table));
    assert_eq!(held, [true, false]);
    metrics.sink("s");
    assert!(shown(0), "another still waits");
    drop(other);
    assert!(shown(1) && !metrics.is_held("s", "t"));
}
