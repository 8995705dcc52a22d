//! The ports of the real process: what it lets in and for how long, and how it is encrypted.

mod bounds;
mod certificates;
mod encryption;
pub mod identities;
mod messages;
mod windows;

use crate::support::collector::Collector;
use crate::support::eventually;
use std::time::Duration;

/// How long what has to happen may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// Waits until a port has ended so many connections like that; asks over plain HTTP.
async fn have_ended(collector: &Collector, port: &str, outcome: &str, count: f64) {
    let series =
        format!("holdfast_port_connections_ended_total{{outcome=\"{outcome}\",port=\"{port}\"}}");
    eventually(&format!("{series} {count}"), LIMIT, || async {
        collector.metric(&series) >= count
    })
    .await;
}
