//! A start with a large backlog: it accepts at once and in little memory, whatever
//! waits to be delivered. `tests/campaign backlog` does it with 20 GiB.

use crate::support::Scratch;
use crate::support::collector::{Collector, get};
use crate::support::raw::dispatch;
use holdfast::event::proto::{Event, Events, Header, TestEvent, event::EventOf};
use prost::Message as _;
use std::time::{Duration, Instant};

/// Time from the start of the process until its heartbeat says that it accepts.
const ACCEPT_MAX: Duration = Duration::from_secs(1);

/// Memory that it may have resident, in KiB.
const MEMORY_MAX_KIB: u64 = 256 * 1024;

const REQUEST_BYTES: usize = 500_000;

fn request(number: usize) -> Vec<u8> {
    let noise: String = (0..REQUEST_BYTES / 8)
        .map(|i| {
            format!(
                "{:08x}",
                (number * 7919 + i).wrapping_mul(0x9e37_79b1) as u32
            )
        })
        .collect();
    let event = Event {
        id: format!("event-{number}"),
        timestamp: "1700000000000".to_owned(),
        event_of: Some(EventOf::TestEvent(TestEvent {
            test_param1: noise,
            ..TestEvent::default()
        })),
        ..Event::default()
    };
    let header = Header {
        device_id: "device".to_owned(),
        ..Header::default()
    };
    let batch = Events {
        header: Some(header),
        events: vec![event],
    };
    batch.encode_to_vec()
}

/// Starts it; how long it took until it accepted.
async fn start(collector: &mut Collector) -> Duration {
    let started = Instant::now();
    collector.launch();
    while get(collector.http, "/heartbeat/").is_none_or(|(status, _)| status != 200) {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "it does not accept"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_a_backlog_accepts_at_once_and_in_little_memory() {
    let mib: u64 = std::env::var("HOLDFAST_TEST_BACKLOG_MIB").map_or(300, |n| n.parse().unwrap());
    let scratch = Scratch::new("backlog");
    let is_short = mib < 1024;
    let generation = if is_short { "8MiB" } else { "64MiB" };
    // The broker is not there: everything stays.
    let config = format!(
        "[rabbitmq]\nurls = [\"amqp://127.0.0.1:1\"]\n[journal]\nmax_bytes = \"60GiB\"\nmin_free_bytes = \"1GiB\"\nack_deadline = \"30s\"\ngeneration_bytes = \"{generation}\"\n"
    );
    let mut collector = Collector::new(&scratch, &config);
    let empty_start = start(&mut collector).await;
    let address = collector.address();
    let count = (mib << 20) as usize / REQUEST_BYTES;
    let mut number = 0;
    while number < count {
        let calls = (0..8).map(|i| dispatch(&address, request(number + i)));
        for answer in futures::future::join_all(calls).await {
            answer.unwrap();
        }
        number += 8;
    }
    let state =
        |what: &str| collector.metric(&format!("holdfast_journal_state{{what=\"{what}\"}}"));
    let (generations, used) = (state("generations"), state("used_bytes"));
    let mut starts = Vec::new();
    for _ in 0..3 {
        collector.kill();
        starts.push(start(&mut collector).await);
        dispatch(&address, request(number)).await.unwrap();
        number += 1;
    }
    let pending = "holdfast_journal_backlog_requests{cursor=\"rabbitmq\"}";
    assert_eq!(
        collector.metric(pending),
        number as f64,
        "all of it is pending"
    );
    let memory = collector.peak_memory_kib();
    eprintln!(
        "{generations} generations, {used} bytes on disk, {mib} MiB of requests: starts {starts:?}, an empty one {empty_start:?}, {memory} KiB"
    );
    assert!(generations > if is_short { 20.0 } else { 100.0 });
    assert!(starts.iter().all(|start| *start < ACCEPT_MAX), "{starts:?}");
    assert!(memory < MEMORY_MAX_KIB, "{memory} KiB");
    assert!(collector.terminate().success());
}
