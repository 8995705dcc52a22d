//! Whether an event costs the same whatever the shape of what comes: few connections or many,
//! small batches or large ones, one type or all, an empty log or a long one.
//!
//!     cargo bench --bench scale -- [--rounds N] [--seconds S] [--json FILE] [--set KEY=VALUE]
//!
//! The real binary takes, syncs and keeps; its broker is away. `holdfast load` calls it. Each
//! figure is the processor time that the collector takes for an event, in microseconds, beside
//! that of the usual shape, measured in the same round: 4 connections, 256 calls in flight, 10
//! events of 300 bytes and of different types, an empty log. Processor time says what a machine
//! can carry, and does not depend on what else the machine does as a rate would.
//!
//! Figures:
//! - `scale_connections_1`, `_100`, `_1000`: over so many connections, of which each has a call
//!   in flight, at least;
//! - `scale_batch_1k`, `_64k`, `_1m`: calls of so many bytes (3, 213 and 3,400 events), with as
//!   many in flight as make 16 MiB, at most 256;
//! - `scale_one_type`: events of one type, where the usual ones are of all in turn;
//! - `scale_backlog`: beside a log that waits in some 800 parts. That is what 50 GiB are, and here the
//!   parts are small: what could grow is what is done for each part, and for each look at all.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "a bench has no outside, a failed unwrap is a failed bench, and `support` serves several"
)]

#[path = "../support/disk.rs"]
mod disk;
#[path = "../support/driver.rs"]
mod driver;
#[path = "../support/payload.rs"]
mod payload;
#[path = "../support/rounds.rs"]
mod rounds;
#[path = "../../tests/it/support/mod.rs"]
mod support;

use clap::Parser as _;
use disk::append_all;
use driver::{cpu_us, door_only, run_load};
use holdfast::clock::now_ms;
use holdfast::journal::{Journal, Limits, Options as JournalOptions};
use payload::{record, request};
use rounds::{Figures, Options};
use support::Scratch;
use support::collector::Collector;

/// Parts of the log in `scale_backlog`: 50 GiB are so many of 64 MiB.
const PARTS: usize = 800;

/// Bytes of one there.
const PART_BYTES: u64 = 1 << 20;

/// Requests of 3 KB that fill one.
const PART_REQUESTS: usize = 350;

/// More than one connection's worth of descriptors for each of the largest number.
const CONNECTIONS: &str = "[connections]\nmax = 4000\n";

#[derive(Debug, clap::Parser)]
struct Args {
    #[command(flatten)]
    options: Options,
}

/// What is sent, in the words of `holdfast load`.
struct Shape {
    connections: usize,
    in_flight: usize,
    events: usize,
    types: &'static str,
}

const USUAL: Shape = Shape {
    connections: 4,
    in_flight: 256,
    events: 10,
    types: "all",
};

const SHAPES: [(&str, Shape); 7] = [
    (
        "scale_connections_1",
        Shape {
            connections: 1,
            ..USUAL
        },
    ),
    (
        "scale_connections_100",
        Shape {
            connections: 100,
            ..USUAL
        },
    ),
    (
        "scale_connections_1000",
        Shape {
            connections: 1000,
            in_flight: 1000,
            ..USUAL
        },
    ),
    ("scale_batch_1k", Shape { events: 3, ..USUAL }),
    (
        "scale_batch_64k",
        Shape {
            events: 213,
            ..USUAL
        },
    ),
    (
        "scale_batch_1m",
        Shape {
            events: 3400,
            in_flight: 16,
            ..USUAL
        },
    ),
    (
        "scale_one_type",
        Shape {
            types: "LaunchEvent",
            ..USUAL
        },
    ),
];

/// What an event of these costs the collector.
fn cost_us(collector: &Collector, shape: &Shape, options: &Options) -> f64 {
    let Shape {
        connections,
        in_flight,
        events,
        types,
    } = shape;
    let before = cpu_us(collector.pid());
    let said = run_load(&format!(
        "--to {} --warm-up 1s --duration {}ms --connections {connections} --in-flight {in_flight} \
         --batch-events {events} --event-bytes 300 --types {types}",
        collector.address(),
        options.measured().as_millis(),
    ));
    let calls = |name: &str| said[name].as_f64().unwrap();
    let sent = (calls("acked_calls") + calls("warm_up_calls")) * *events as f64;
    (cpu_us(collector.pid()) - before) / sent
}

async fn started(scratch: &Scratch, options: &Options) -> Collector {
    let mut collector = Collector::new(scratch, &format!("{}{CONNECTIONS}", door_only()));
    collector.environment = options.environment();
    collector.start().await;
    collector
}

/// Fills the log of a collector that does not run.
async fn fill(collector: &Collector) {
    let options = disk::options(&collector.data_dir());
    let options = JournalOptions {
        limits: Limits {
            generation_bytes: PART_BYTES,
            ..options.limits
        },
        ..options
    };
    let journal = Journal::open(&options).unwrap();
    let at_ms = now_ms();
    let give = move |at| {
        let made = || record(request("scale", at, at_ms), at_ms);
        (at < PARTS * PART_REQUESTS).then(made)
    };
    append_all(&journal, 64, give).await;
    let parts = journal.stats().generations;
    eprintln!("{parts} parts");
    assert!(parts >= PARTS * 4 / 5, "only {parts} parts");
    journal.close();
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let options = Args::parse().options;
    let mut figures = Figures::new(&options);
    for _ in 0..options.rounds {
        let scratch = Scratch::new("bench_scale");
        let mut collector = started(&scratch, &options).await;
        // Twice, with the others in between.
        let first = cost_us(&collector, &USUAL, &options);
        let costs = SHAPES.map(|(name, shape)| (name, cost_us(&collector, &shape, &options)));
        let usual = (first + cost_us(&collector, &USUAL, &options)) / 2.0;
        collector.terminate();
        drop(scratch);
        let scratch = Scratch::new("bench_scale_backlog");
        let mut collector = started(&scratch, &options).await;
        collector.terminate();
        fill(&collector).await;
        collector.start().await;
        let long = cost_us(&collector, &USUAL, &options);
        collector.terminate();
        for (name, cost) in costs.into_iter().chain([("scale_backlog", long)]) {
            figures.add(name, "us/event", cost, usual);
        }
    }
    figures.write();
}
