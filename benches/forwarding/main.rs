//! From the journal into RabbitMQ, beside a plain publisher of the same messages.
//!
//!     cargo bench --bench forwarding -- [--rounds N] [--requests N] [--json FILE]
//!         [--set forward.KEY=VALUE]... [--suffix _TEXT]
//!
//! Ours is the real binary, which starts with requests of 3 KB and ten events in its journal
//! and publishes them, each message confirmed by a real broker. The ceiling is a publisher of
//! lapin's in this process that sends the same messages: as many as the broker had of ours,
//! taken from a sample of them with their bodies, headers and keys, to the same exchange and
//! queue of the same broker, with as many waiting for their confirm. It makes nothing and
//! reads nothing. Nobody consumes meanwhile; the queue is emptied between measurements.
//!
//! Figures:
//! - `forwarding`: events a second. The pace of a backlog is not in it: the requests look
//!   fresh.
//! - `forwarding_message_events`: events of a message, which is what coalescing changes; it has
//!   no ceiling.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "a bench has no outside, a failed unwrap is a failed bench, and `support` serves several"
)]

mod publisher;

#[path = "../support/disk.rs"]
mod disk;
#[path = "../support/filled.rs"]
mod filled;
#[path = "../support/payload.rs"]
mod payload;
#[path = "../support/rounds.rs"]
mod rounds;
#[path = "../../tests/it/support/mod.rs"]
mod support;

use clap::Parser as _;
use publisher::{Sample, publish};
use rounds::{Figures, Options};
use support::Scratch;
use support::collector::Collector;
use support::servers::{Kind, Server};

/// The queue that events wait in; the collector has no sink, and declares it all the same.
const QUEUE: &str = "grpc_clickhouse_event_q";

/// The default of `rabbitmq.confirm_window`.
const WINDOW: usize = 2_000;

#[derive(Debug, clap::Parser)]
struct Args {
    #[command(flatten)]
    options: Options,
    /// Requests of a round; some seconds' worth.
    /// Of 50,000, a forwarder makes a backlog whatever their time.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..50_000))]
    requests: u32,
    /// Kind of the queue: `quorum` or `classic`.
    #[arg(long, default_value = "quorum")]
    queue_type: String,
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let args = Args::parse();
    let options = &args.options;
    let window = options.setting("rabbitmq.confirm_window");
    let window = window.map_or(WINDOW, |window| window.parse().unwrap());
    let scratch = Scratch::new("bench_forwarding");
    let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
    rabbitmq.start().await;
    let config = format!(
        "[rabbitmq]\nurls = [\"{}\"]\nqueue_type = \"{}\"\n",
        rabbitmq.amqp_url(),
        args.queue_type
    );
    let mut figures = Figures::new(options);
    for round in 0..options.rounds {
        // The ceiling needs a sample of ours, so that ours comes first in each round.
        let scratch = Scratch::new("bench_forwarding_collector");
        let mut collector = Collector::new(&scratch, &config);
        collector.environment = options.environment();
        let run = format!("forwarding-{round}");
        let events = filled::fill(&collector, &run, args.requests as usize).await;
        let ours = filled::forward(&mut collector, events).await;
        collector.terminate();
        let sample = Sample::take(&rabbitmq.amqp_url(), QUEUE).await;
        let most = publish(&rabbitmq.amqp_url(), QUEUE, &sample, events, window).await;
        figures.add("forwarding", "events/s", ours, most);
        let in_message = events as f64 / sample.messages as f64;
        figures.add_alone("forwarding_message_events", "events/message", in_message);
    }
    figures.write();
    rabbitmq.stop();
}
