//! Looks for rows in ClickHouse: how fast they appear, and how late.

use crate::LOOK_PERIOD;
use crate::filled::Progress;
use crate::rounds::percentile;
use crate::support::servers::{CLICKHOUSE_PASSWORD, CLICKHOUSE_USER, Server};
use clickhouse::Client;
use holdfast::clock::now_ms;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Events are told apart by their time in steps of so many milliseconds.
const STEP_MS: u64 = 20;

/// A look at the table `events`.
pub struct Rows(Client);

impl Rows {
    pub fn new(server: &Server) -> Self {
        let client = Client::default()
            .with_url(server.clickhouse_url())
            .with_user(CLICKHOUSE_USER)
            .with_password(CLICKHOUSE_PASSWORD)
            .with_database("holdfast");
        Self(client)
    }

    /// Empties the table, where there is one yet.
    pub async fn clear(&self) {
        let cleared = self.0.query("TRUNCATE TABLE IF EXISTS events").execute();
        cleared.await.unwrap();
    }

    /// Rows of the table; none before there is one.
    async fn count(&self) -> u64 {
        let count = self.0.query("SELECT count() FROM events");
        count.fetch_one::<u64>().await.unwrap_or(0)
    }

    /// Waits until there are so many rows; how many appeared in a second.
    pub async fn appear(self, events: u64) -> f64 {
        let mut progress = Progress::of(events);
        while !progress.look(self.count().await) {
            tokio::time::sleep(LOOK_PERIOD).await;
        }
        progress.per_s()
    }

    /// Looks until told how many rows there have to be: the 99th percentile of how late they
    /// were found, in seconds after their events were made.
    pub async fn late(self, mut done: oneshot::Receiver<u64>) -> f64 {
        let sql = format!(
            "SELECT intDiv(toUnixTimestamp64Milli(event_timestamp), {STEP_MS}) AS step, count() FROM events GROUP BY step"
        );
        let mut seen: BTreeMap<i64, u64> = BTreeMap::new();
        let mut late_s = Vec::new();
        loop {
            // Asked before the look, so that the last look is a whole one.
            let all = done.try_recv().ok();
            let looking = self.0.query(&sql).fetch_all::<(i64, u64)>();
            let steps = looking.await.unwrap();
            let now_ms = now_ms();
            for (step, count) in steps {
                let before = seen.insert(step, count).unwrap_or(0);
                // The beginning of the step: no row looks fresher than it is.
                let late = (now_ms - step * STEP_MS as i64) as f64 / 1e3;
                late_s.extend((before..count).map(|_| late));
            }
            if let Some(all) = all {
                assert_eq!(late_s.len() as u64, all, "each row is found once");
                return percentile(&mut late_s, 0.99);
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }
}
