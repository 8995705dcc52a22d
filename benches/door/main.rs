//! The door beside a gRPC server that does nothing: how much of a call's price is ours.
//!
//!     cargo bench --bench door -- [--rounds N] [--seconds S] [--json FILE] [--set KEY=VALUE]
//!
//! Ours is the real binary in a process of its own, with its journal on the disk below
//! target/. Its broker is away, so that it takes, syncs and keeps, and sends nothing on. The
//! ceiling is a tonic server in a process of its own that takes a request's raw bytes and
//! answers at once. `holdfast load` calls both, in a third process, with the same requests:
//! its price is in both sides.
//!
//! Figures:
//! - `door_256_calls`: calls a second, 256 in flight over 4 connections, 10 events of 300
//!   bytes each;
//! - `door_256_p99`: milliseconds that the slowest hundredth of them takes at least;
//! - `door_256_cpu`: microseconds of processor time that the server's process takes for one of
//!   them, which says more than the rate where the machine is not quiet;
//! - `door_1_p50`: microseconds of a call when there is no other, to those of the server that
//!   does nothing and 1.3 times an append of 4 KiB with its fdatasync, measured beside it.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "a bench has no outside, a failed unwrap is a failed bench, and `support` serves several"
)]

mod no_op;

#[path = "../support/disk.rs"]
mod disk;
#[path = "../support/driver.rs"]
mod driver;
#[path = "../support/rounds.rs"]
mod rounds;
#[path = "../support/served.rs"]
mod served;
#[path = "../../tests/it/support/mod.rs"]
mod support;

use clap::Parser as _;
use driver::{Loaded, cpu_us, door_only, load};
use rounds::{Figures, Options, Side, sides};
use std::collections::BTreeMap;
use std::time::Duration;
use support::Scratch;
use support::collector::Collector;

/// What a lone call may take beside the server that does nothing, in syncs.
const SYNCS: f64 = 1.3;

#[derive(Debug, clap::Parser)]
struct Args {
    #[command(flatten)]
    options: Options,
    /// Be the server that does nothing, on this port.
    #[arg(long, hide = true)]
    serve: Option<u16>,
}

/// What is measured of one side.
struct Measured {
    many: Loaded,
    /// Processor time of one of these calls.
    cpu_us: f64,
    alone: Loaded,
}

fn measure(address: &str, pid: u32, measured: Duration) -> Measured {
    let before = cpu_us(pid);
    let many = load(address, "--connections 4 --in-flight 256", measured);
    Measured {
        cpu_us: (cpu_us(pid) - before) / many.calls,
        many,
        alone: load(address, "--connections 1 --in-flight 1", measured),
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let args = Args::parse();
    if let Some(port) = args.serve {
        return no_op::serve(port).await;
    }
    let options = args.options;
    let mut figures = Figures::new(&options);
    for round in 0..options.rounds {
        let scratch = Scratch::new("bench_door");
        let mut measured = BTreeMap::new();
        for side in sides(round) {
            let is = match side {
                Side::Ours => {
                    let mut collector = Collector::new(&scratch, &door_only());
                    collector.environment = options.environment();
                    collector.start().await;
                    let is = measure(&collector.address(), collector.pid(), options.measured());
                    collector.terminate();
                    is
                }
                Side::Ceiling => {
                    let (server, address) = no_op::start(&scratch).await;
                    let is = measure(&address, server.pid(), options.measured());
                    server.kill();
                    is
                }
            };
            measured.insert(side == Side::Ours, is);
        }
        let (ours, no_op) = (&measured[&true], &measured[&false]);
        let (is, most) = (&ours.many, &no_op.many);
        figures.add(
            "door_256_calls",
            "calls/s",
            is.calls_per_s,
            most.calls_per_s,
        );
        figures.add("door_256_p99", "ms", is.p99_us / 1e3, most.p99_us / 1e3);
        figures.add("door_256_cpu", "us", ours.cpu_us, no_op.cpu_us);
        let sync_us = disk::sync_us(&scratch.0);
        eprintln!(
            "no-op p50 {:.0} us, an append of 4 KiB and its fdatasync {sync_us:.0} us",
            no_op.alone.p50_us
        );
        let most_us = no_op.alone.p50_us + SYNCS * sync_us;
        figures.add("door_1_p50", "us", ours.alone.p50_us, most_us);
    }
    figures.write();
}
