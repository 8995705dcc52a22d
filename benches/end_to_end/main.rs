//! From a client's call to a row that can be queried, with RabbitMQ, ClickHouse, the collector
//! and the client on this machine, beside the slowest of the stages when it has the machine
//! for itself.
//!
//!     cargo bench --bench end_to_end -- [--rounds N] [--requests N] [--json FILE] [--set KEY=VALUE]...
//!
//! Ours is the real binary between real servers, driven by `holdfast load` as fast as it
//! takes; what counts is how fast rows become visible. The ceiling is the slowest of three,
//! each measured with the same number of requests: the door with its journal, the forwarder
//! from a full journal into RabbitMQ, the consumer from a full queue into ClickHouse.
//!
//! Figures:
//! - `end_to_end`: events a second that become visible;
//! - `end_to_end_freshness_p99`: at half of that rate, seconds from an event's making in the
//!   client until a query finds it, of the slowest hundredth at least. It is looked for every
//!   [`LOOK_PERIOD`], so up to that is the look's. It has no ceiling.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "a bench has no outside, a failed unwrap is a failed bench, and `support` serves several"
)]

mod rows;

#[path = "../support/disk.rs"]
mod disk;
#[path = "../support/driver.rs"]
mod driver;
#[path = "../support/filled.rs"]
mod filled;
#[path = "../support/payload.rs"]
mod payload;
#[path = "../support/rounds.rs"]
mod rounds;
#[path = "../../tests/it/support/mod.rs"]
mod support;

use clap::Parser as _;
use driver::{JOURNAL, REQUESTS, door_only, load, run_load};
use payload::BATCH_EVENTS;
use rounds::{Figures, Options, Side, sides};
use rows::Rows;
use std::time::Duration;
use support::Scratch;
use support::collector::Collector;
use support::servers::{Kind, Server};

/// How often one looks for rows.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// How long freshness is measured at least: many batches of the sink.
const FRESHNESS: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Parser)]
struct Args {
    #[command(flatten)]
    options: Options,
    /// Requests of ten events of a measurement; some ten seconds' worth.
    /// Of 50,000, a forwarder makes a backlog whatever their time.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..50_000))]
    requests: u32,
}

/// The servers, and what a round needs to know.
struct Site {
    rabbitmq: Server,
    clickhouse: Server,
    options: Options,
    requests: usize,
}

impl Site {
    fn broker(&self) -> String {
        let url = self.rabbitmq.amqp_url();
        format!("{JOURNAL}[rabbitmq]\nurls = [\"{url}\"]\n")
    }

    fn broker_and_sink(&self) -> String {
        format!("{}{}", self.broker(), self.clickhouse.clickhouse_section())
    }

    /// A collector that does not run yet.
    fn collector(&self, scratch: &Scratch, more: &str) -> Collector {
        let mut collector = Collector::new(scratch, more);
        collector.environment = self.options.environment();
        collector
    }

    /// Each stage with the machine for itself: its name, and its events a second.
    async fn stages(&self, run: &str) -> [(&'static str, f64); 3] {
        let scratch = Scratch::new("bench_end_to_end_door");
        let mut collector = self.collector(&scratch, &door_only());
        collector.start().await;
        let shape = "--connections 4 --in-flight 256";
        let door = load(&collector.address(), shape, self.options.measured());
        collector.terminate();

        let scratch = Scratch::new("bench_end_to_end_stages");
        let mut collector = self.collector(&scratch, &self.broker());
        let events = filled::fill(&collector, run, self.requests).await;
        let forwarding = filled::forward(&mut collector, events).await;
        collector.terminate();

        // Its log is empty, and the queue full.
        let mut collector = self.collector(&scratch, &self.broker_and_sink());
        let rows = Rows::new(&self.clickhouse);
        rows.clear().await;
        let visible = tokio::spawn(rows.appear(events));
        collector.start().await;
        let consuming = visible.await.unwrap();
        collector.terminate();
        [
            ("door", door.events_per_s),
            ("forwarding", forwarding),
            ("consuming", consuming),
        ]
    }

    /// All of it at once; events a second.
    async fn whole(&self, collector: &Collector) -> f64 {
        let rows = Rows::new(&self.clickhouse);
        rows.clear().await;
        let events = (self.requests * BATCH_EVENTS) as u64;
        let visible = tokio::spawn(rows.appear(events));
        let words = format!(
            "--to {} {REQUESTS} --calls {} --connections 4 --in-flight 256",
            collector.address(),
            self.requests
        );
        tokio::task::spawn_blocking(move || run_load(&words))
            .await
            .unwrap();
        visible.await.unwrap()
    }

    /// How late rows are at a rate, in seconds; all of them must come.
    async fn freshness(&self, collector: &Collector, events_per_s: f64) -> f64 {
        let rows = Rows::new(&self.clickhouse);
        rows.clear().await;
        let duration = self.options.measured().max(FRESHNESS);
        let words = format!(
            "--to {} {REQUESTS} --config {} --rate {:.2} --duration {}s --check --check-timeout 120s",
            collector.address(),
            collector.dir.join("holdfast.toml").display(),
            events_per_s / BATCH_EVENTS as f64,
            duration.as_secs(),
        );
        let (tell_done, done) = tokio::sync::oneshot::channel();
        let late = tokio::spawn(rows.late(done));
        let said = tokio::task::spawn_blocking(move || run_load(&words))
            .await
            .unwrap();
        // By now the check has seen all of them.
        tell_done
            .send(said["acked_events"].as_u64().unwrap())
            .unwrap();
        late.await.unwrap()
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let args = Args::parse();
    let scratch = Scratch::new("bench_end_to_end_servers");
    let mut site = Site {
        rabbitmq: Server::new(Kind::RabbitMq, &scratch),
        clickhouse: Server::new(Kind::ClickHouse, &scratch),
        options: args.options.clone(),
        requests: args.requests as usize,
    };
    site.rabbitmq.launch();
    site.clickhouse.launch();
    site.rabbitmq.ready().await;
    site.clickhouse.ready().await;
    let mut figures = Figures::new(&args.options);
    for round in 0..args.options.rounds {
        let (mut ours, mut most, mut p99_s) = (0.0, 0.0, 0.0);
        for side in sides(round) {
            if side == Side::Ceiling {
                let stages = site.stages(&format!("stages-{round}")).await;
                eprintln!("stages alone, events/s: {stages:.0?}");
                most = stages
                    .map(|(_, rate)| rate)
                    .into_iter()
                    .fold(f64::MAX, f64::min);
                continue;
            }
            let scratch = Scratch::new("bench_end_to_end_whole");
            let mut collector = site.collector(&scratch, &site.broker_and_sink());
            collector.start().await;
            ours = site.whole(&collector).await;
            p99_s = site.freshness(&collector, ours / 2.0).await;
            collector.terminate();
        }
        figures.add("end_to_end", "events/s", ours, most);
        figures.add_alone("end_to_end_freshness_p99", "s", p99_s);
    }
    figures.write();
    site.rabbitmq.stop();
    site.clickhouse.stop();
}
