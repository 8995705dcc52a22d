//! A closed loop: so many clients, each of which sends when its last payloads were
//! acknowledged. Called by `main`.
//!
//! # Invariants
//! - Every acknowledgement is counted for the audit; those of the measured time alone make
//!   the figures.
//! - A client that was refused waits a moment, and goes on: what was refused is counted.

use crate::payload::Payloads;
use crate::system::Sender;
use anyhow::Context as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// After a refusal, so that a server in trouble is not called as fast as the loop turns.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// How long after the end of the measured time the last acknowledgements may take.
const LAST_ACK_WAIT: Duration = Duration::from_secs(30);

/// How long to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Driven {
    /// Payloads acknowledged in the measured time, a second.
    pub(crate) per_s: f64,
    /// Microseconds from a send to its acknowledgement, in the measured time.
    pub(crate) latencies_us: Vec<u32>,
    /// Payloads that were ever acknowledged.
    pub(crate) acked: u64,
    /// Payloads that were sent, and refused or not answered: they may be stored.
    pub(crate) refused: u64,
    /// What was said to the first of them.
    pub(crate) first_refusal: Option<String>,
}

impl Driven {
    /// A quantile of the latencies, in milliseconds; absent where nothing was acknowledged.
    pub(crate) fn latency_ms(&self, quantile: f64) -> Option<f64> {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * quantile) as usize;
        let us = sorted.get(at.min(sorted.len().saturating_sub(1)))?;
        Some(f64::from(*us) / 1000.0)
    }
}

/// Runs it.
pub(crate) async fn drive(
    senders: Vec<Box<dyn Sender>>,
    payloads: &Arc<Payloads>,
    payloads_per_ack: usize,
    times: Times,
) -> anyhow::Result<Driven> {
    let from = Instant::now() + times.warm_up;
    let until = from + times.measured;
    let mut clients = JoinSet::new();
    for sender in senders {
        let payloads = Arc::clone(payloads);
        clients.spawn(client(sender, payloads, payloads_per_ack, from, until));
    }
    let mut sum = Driven::default();
    let mut in_time = 0;
    let collect = async {
        while let Some(ended) = clients.join_next().await {
            let (one, one_in_time) = ended??;
            sum.latencies_us.extend(one.latencies_us);
            sum.acked += one.acked;
            sum.refused += one.refused;
            sum.first_refusal = sum.first_refusal.take().or(one.first_refusal);
            in_time += one_in_time;
        }
        anyhow::Ok(())
    };
    let limit = times.warm_up + times.measured + LAST_ACK_WAIT;
    let ended = tokio::time::timeout(limit, collect).await;
    ended.context("some payloads had no answer")??;
    sum.per_s = in_time as f64 / times.measured.as_secs_f64();
    Ok(sum)
}

async fn client(
    mut sender: Box<dyn Sender>,
    payloads: Arc<Payloads>,
    payloads_per_ack: usize,
    from: Instant,
    until: Instant,
) -> anyhow::Result<(Driven, u64)> {
    let mut driven = Driven::default();
    let mut in_time = 0;
    let count = payloads_per_ack as u64;
    while Instant::now() < until {
        let batch: Vec<_> = (0..payloads_per_ack).map(|_| payloads.next()).collect();
        let sent_at = Instant::now();
        match sender.send(&batch).await {
            Ok(()) => {
                let now = Instant::now();
                driven.acked += count;
                if from <= now && now < until {
                    in_time += count;
                    let took_us = u32::try_from((now - sent_at).as_micros())?;
                    driven.latencies_us.push(took_us);
                }
            }
            Err(error) => {
                driven.refused += count;
                driven.first_refusal.get_or_insert(format!("{error:#}"));
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
    Ok((driven, in_time))
}
