//! Batches of rows into real servers, beside raw inserts of the same rows.
//!
//!     cargo bench --bench sinks -- [--rounds N] [--batches N] [--rows N] [--connections N]
//!         [--json FILE]
//!
//! The rows are those of `events`, made of messages as the queue has them. In each round the
//! same number of batches goes into the emptied table in three ways, one after the other, over
//! as many connections:
//! - raw (the ceiling): rows that were encoded before the clock runs, by code of this bench. To
//!   ClickHouse over HTTP as RowBinary and not compressed; to Postgres as the arrays of an
//!   `INSERT … SELECT FROM UNNEST`, bound to a prepared statement.
//! - `NAME_write`: [`Sink::write`] of batches of rows.
//! - `NAME_from_messages`: the handler makes the rows of messages, and they are written.
//!
//! The table says the median of the rounds, and the spread of their ratios. A ratio is made
//! within a round, and the ways change places from round to round. `own CPU` is what an event
//! costs in this process, with the client of the raw insert as the least: it says on a busy
//! machine, too, what is ours.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "a bench has no outside, a failed unwrap is a failed bench, and `support` serves the tests"
)]

mod figures;
mod messages;
mod raw;

#[path = "../../tests/it/support/mod.rs"]
mod support;

use clap::Parser as _;
use figures::{Figures, Measured};
use holdfast::sink::clickhouse::{self, ClickHouse};
use holdfast::sink::postgres::{self, Postgres};
use holdfast::sink::schema::EVENTS;
use holdfast::sink::{Batch, Sink};
use holdfast::trust::TrustFiles;
use messages::{Messages, rows};
use raw::Raw;
use std::sync::Arc;
use std::time::Instant;
use support::Scratch;
use support::servers::{CLICKHOUSE_PASSWORD, CLICKHOUSE_USER, Kind, Server};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

#[derive(Debug, Clone, clap::Parser)]
pub struct Args {
    /// Rounds; their median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Batches of a measurement.
    #[arg(long, default_value_t = 40)]
    batches: usize,
    /// Rows of a batch: the default is that of the consumers.
    #[arg(long, default_value_t = 1000)]
    rows: usize,
    /// Batches that are on their way at the same time.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// Only this sink: `clickhouse` or `postgres`.
    #[arg(long)]
    sink: Option<String>,
    /// Add the figures to this file, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Added to the figures' names.
    #[arg(long, value_name = "TEXT", default_value = "")]
    suffix: String,
    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Raw,
    Write,
    FromMessages,
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let args = Args::parse();
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut figures = Figures::default();
    for kind in [Kind::ClickHouse, Kind::Postgres] {
        let name = format!("{kind:?}").to_lowercase();
        if args.sink.as_ref().is_none_or(|only| *only == name) {
            let scratch = Scratch::new(&format!("bench_sinks_{name}"));
            let mut server = Server::new(kind, &scratch);
            server.start().await;
            measure(&args, &name, &server, &mut figures).await;
            server.stop();
        }
    }
    figures.print();
    if let Some(file) = &args.json {
        figures.write(file, &args.suffix);
    }
}

async fn measure(args: &Args, name: &str, server: &Server, figures: &mut Figures) {
    let (sink, raw) = match name {
        "clickhouse" => (clickhouse(server), Raw::clickhouse(server)),
        _ => (
            postgres(server),
            Raw::postgres(server, args.connections).await,
        ),
    };
    let names = match name {
        "clickhouse" => ["clickhouse_write", "clickhouse_from_messages"],
        _ => ["postgres_write", "postgres_from_messages"],
    };
    sink.create_missing(&[&EVENTS]).await.unwrap();
    // Before anything counts: connections, statements, layouts.
    let mut ways = [Way::Raw, Way::Write, Way::FromMessages];
    let short = Args {
        batches: args.connections,
        ..args.clone()
    };
    for way in ways {
        run(&short, way, "warm-up", &sink, &raw).await;
    }
    for round in 0..args.rounds {
        let mut measured = [Measured::default(); 3];
        for way in ways {
            let run_name = format!("round-{round}-{way:?}");
            measured[way as usize] = run(args, way, &run_name, &sink, &raw).await;
        }
        let [ceiling, write, from_messages] = measured;
        figures.add(names[0], write, ceiling);
        figures.add(names[1], from_messages, ceiling);
        ways.rotate_left(1);
    }
}

/// Sends the batches of one measurement into the emptied table.
async fn run(args: &Args, way: Way, run_name: &str, sink: &Arc<dyn Sink>, raw: &Raw) -> Measured {
    raw.empty().await;
    let made = (0..args.batches).map(|number| Messages::make(run_name, number, args.rows));
    let made: Vec<Messages> = made.collect();
    let batches: Vec<Ready> = match way {
        Way::FromMessages => made.into_iter().map(Ready::Messages).collect(),
        Way::Write => made.iter().map(|made| Ready::Batch(batch(made))).collect(),
        Way::Raw => made
            .iter()
            .map(|made| Ready::Raw(raw.encode(&rows(made).0)))
            .collect(),
    };
    let queue = Arc::new(Mutex::new(batches));
    let (started, cpu_us) = (Instant::now(), own_cpu_us());
    let mut tasks = JoinSet::new();
    for _ in 0..args.connections {
        let (queue, sink, raw) = (Arc::clone(&queue), Arc::clone(sink), raw.clone());
        tasks.spawn(async move {
            loop {
                let next = queue.lock().await.pop();
                match next {
                    Some(Ready::Messages(made)) => sink.write(&batch(&made)).await.unwrap(),
                    Some(Ready::Batch(batch)) => sink.write(&batch).await.unwrap(),
                    Some(Ready::Raw(encoded)) => raw.insert(encoded).await,
                    None => return,
                }
            }
        });
    }
    tasks.join_all().await;
    let (taken, cpu_us) = (started.elapsed(), own_cpu_us() - cpu_us);
    let events = args.batches * args.rows;
    assert_eq!(raw.count().await, events, "{run_name}: each event is there");
    Measured {
        per_s: events as f64 / taken.as_secs_f64(),
        cpu_us: cpu_us / events as f64,
    }
}

/// Processor time that this process took so far, in microseconds.
fn own_cpu_us() -> f64 {
    /// Of the kernel's clock; the same everywhere.
    const TICK_US: f64 = 10_000.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<f64>().unwrap() * TICK_US)
        .sum()
}

/// A batch, as far as it is made before the clock runs.
enum Ready {
    Messages(Messages),
    Batch(Batch),
    Raw(raw::Encoded),
}

fn batch(made: &Messages) -> Batch {
    let (rows, ids) = rows(made);
    Batch {
        table: &EVENTS,
        namespace: None,
        rows: rows.into(),
        token: ids.concat(),
    }
}

fn clickhouse(server: &Server) -> Arc<dyn Sink> {
    let options = clickhouse::Options {
        url: server.clickhouse_url(),
        database: raw::DATABASE.to_owned(),
        databases: vec![],
        user: CLICKHOUSE_USER.to_owned(),
        password: CLICKHOUSE_PASSWORD.to_owned(),
        trust: TrustFiles::default(),
        min_free_disk_bytes: 0,
    };
    Arc::new(ClickHouse::new(options).unwrap())
}

fn postgres(server: &Server) -> Arc<dyn Sink> {
    let options = postgres::Options {
        url: server.postgres_url(),
        schema: raw::DATABASE.to_owned(),
        pool_max: 20,
        trust: TrustFiles::default(),
    };
    Arc::new(Postgres::new(options).unwrap())
}
