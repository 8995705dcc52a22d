//! A whole site under fire: a cluster, both databases, a collector on a disk of its own,
//! clients that go on whatever they are answered, and the judge of what they hold. Used by
//! the tests of this directory.
//!
//! # Invariants
//! - The judge asks the databases for all rows, and knows what was acknowledged from the
//!   clients alone.

use super::clickhouse::ClickHouse;
use super::cluster::Cluster;
use super::collector::Host;
use super::postgres::Postgres;
use crate::support::Scratch;
use crate::support::collector::{Collector, get};
use crate::support::judge::{
    Verdict, judge_clickhouse_book, judge_postgres_book, query_clickhouse,
};
use crate::support::traffic::{Book, Habits, Traffic};
use sqlx::{Connection as _, PgConnection};
use std::time::{Duration, Instant};

/// The disk of a database. What it needs for a load is far less.
pub const SERVER_DISK_BYTES: u64 = 700 << 20;

/// What is left of ClickHouse's disk when it takes no more rows.
pub const MIN_FREE_DISK_BYTES: u64 = 64 << 20;

/// What the collector may hold in memory, whatever happens.
pub const MEMORY_MAX_KIB: u64 = 512 * 1024;

/// What it holds with all its connections just opened: lapin's buffers for 30 of them are
/// 240 MiB, which it must not touch before it needs them.
const FRESH_MEMORY_MAX_KIB: u64 = 160 * 1024;

/// How long something that worked may stand still after the last fault ended: the longest
/// backoff, and what a loaded machine needs to do the work itself.
pub const STALL_MAX: Duration = Duration::from_secs(holdfast::retry::LONGEST.as_secs() + 15);

/// How long all that waits may take to arrive, once nothing is wrong any more.
const ARRIVAL: Duration = Duration::from_secs(300);

/// Clients at a time.
const CLIENTS: usize = 4;

/// Some 300 events a second: the databases of this machine take several times as many beside all
/// else, so that what came meanwhile is not what a new event waits for.
const HABITS: Habits = Habits {
    pause: Duration::from_millis(80),
    heavy_bytes: 0,
    age: Duration::from_secs(2 * 86_400),
};

pub struct Site {
    pub host: Host,
    pub cluster: Cluster,
    pub clickhouse: ClickHouse,
    pub postgres: Postgres,
    pub clients: Clients,
    /// Gone last: the others have files in it.
    _scratch: Scratch,
}

/// The clients, who may be others after a pause.
pub struct Clients {
    collector: Collector,
    seed: u64,
    next: usize,
    traffic: Option<Traffic>,
    book: Book,
}

/// How long after a fault's end a new event was acknowledged, and in each table.
#[derive(Debug, Clone, Copy)]
pub struct Stall {
    pub acked: Duration,
    pub clickhouse: Duration,
    pub postgres: Duration,
}

impl Site {
    /// Everything is up, and events flow.
    pub async fn start(name: &str, seed: u64) -> Self {
        let scratch = Scratch::new(name);
        let (cluster, clickhouse, postgres) = tokio::join!(
            Cluster::start(&scratch, seed),
            ClickHouse::start(&scratch),
            Postgres::start(&scratch),
        );
        let config = format!(
            "[rabbitmq]\nurls = {:?}\n\
             {}min_free_disk_bytes = {MIN_FREE_DISK_BYTES}\n\
             [postgres]\nurl = \"{}\"\n",
            cluster.urls(),
            clickhouse.server.clickhouse_section(),
            postgres.server.postgres_url(),
        );
        let host = Host::start(&scratch, &config).await;
        let mut clients = Clients {
            collector: host.collector.same_address(),
            seed,
            next: 0,
            traffic: None,
            book: Book::default(),
        };
        let begun = Instant::now();
        clients.start();
        let site = Self {
            host,
            cluster,
            clickhouse,
            postgres,
            clients,
            _scratch: scratch,
        };
        // Its first start makes the queues and tables.
        let stall = site.stall(begun, ARRIVAL).await;
        let fresh_kib = site.host.collector.peak_memory_kib();
        eprintln!("the first event: {stall:?}; {fresh_kib} KiB of memory");
        assert!(fresh_kib < FRESH_MEMORY_MAX_KIB, "{fresh_kib} KiB at first");
        site.cluster.settle_queues();
        site
    }

    /// Waits until an event whose call began after `since` is acknowledged and in both
    /// tables; panics where one of that takes longer than `limit`.
    pub async fn stall(&self, since: Instant, limit: Duration) -> Stall {
        let within = |what: &str| {
            let waited = since.elapsed();
            assert!(waited < limit, "a new event is not {what} after {waited:?}");
        };
        let id = loop {
            if let Some(id) = self.clients.traffic().acked_since(since) {
                break id;
            }
            within("acknowledged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let acked = since.elapsed();
        let (mut clickhouse, mut postgres) = (None, None);
        let mut connection = None;
        while clickhouse.is_none() || postgres.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut said = None;
            if clickhouse.is_none() {
                match self.is_in_clickhouse(&id).await {
                    Ok(true) => clickhouse = Some(since.elapsed()),
                    Ok(false) => {}
                    Err(error) => said = Some(error),
                }
            }
            if postgres.is_none() && self.is_in_postgres(&mut connection, &id).await {
                postgres = Some(since.elapsed());
            }
            if since.elapsed() >= limit {
                self.tell();
            }
            within(&format!(
                "stored: ClickHouse {clickhouse:?} ({said:?}), Postgres {postgres:?}"
            ));
        }
        Stall {
            acked,
            clickhouse: clickhouse.unwrap_or_default(),
            postgres: postgres.unwrap_or_default(),
        }
    }

    /// Where what is not stored may be.
    fn tell(&self) {
        eprintln!("{}", self.cluster.filled_queues());
        let metrics = get(self.host.collector.http, "/metrics");
        let metrics = metrics.map_or(String::new(), |(_, text)| text);
        for line in metrics.lines().filter(|line| {
            let is_told = [
                "holdfast_journal_backlog",
                "holdfast_consumer",
                "holdfast_sink",
            ];
            is_told.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0")
        }) {
            eprintln!("{line}");
        }
    }

    async fn is_in_clickhouse(&self, id: &str) -> Result<bool, String> {
        let sql = format!("SELECT event_id FROM events WHERE event_id = '{id}' LIMIT 1");
        let rows = query_clickhouse(&self.clickhouse.server, &sql).await;
        rows.map(|rows| !rows.is_empty())
    }

    async fn is_in_postgres(&self, kept: &mut Option<PgConnection>, id: &str) -> bool {
        let url = self.postgres.server.postgres_url();
        if kept.is_none() {
            *kept = PgConnection::connect(&url).await.ok();
        }
        let Some(connection) = kept else { return false };
        let row: Result<Option<String>, _> =
            sqlx::query_scalar("SELECT event_id FROM events WHERE event_id = $1 LIMIT 1")
                .bind(id)
                .fetch_optional(connection)
                .await;
        if row.is_err() {
            *kept = None;
        }
        matches!(row, Ok(Some(_)))
    }

    /// No new events, and all that were acknowledged are in both tables, once.
    pub async fn judge(&mut self) {
        self.clients.stop().await;
        let book = &self.clients.book;
        let begun = Instant::now();
        self.host.collector.delivered("rabbitmq", ARRIVAL).await;
        let whole = |verdict: &Verdict| verdict.missing.is_empty() || begun.elapsed() > ARRIVAL;
        loop {
            let verdict = judge_clickhouse_book(&self.clickhouse.server, book, ARRIVAL).await;
            if whole(&verdict) {
                verdict.assert_complete("ClickHouse");
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        loop {
            let verdict = judge_postgres_book(&self.postgres.server, book, ARRIVAL).await;
            if whole(&verdict) {
                verdict.assert_complete("Postgres");
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(book.hung, 0, "calls were never answered");
        let adds_up = "holdfast_ledger_adds_up{way=\"rabbitmq\"}";
        assert_eq!(self.host.collector.metric(adds_up), 1.0);
        eprintln!(
            "{} events acknowledged, {} more sent; all there after {:?}; {} KiB of memory at most; {} deaths",
            book.acked.len(),
            book.sent.len() - book.acked.len(),
            begun.elapsed(),
            self.host
                .peak_memory_kib
                .max(self.host.collector.peak_memory_kib()),
            self.host.deaths,
        );
    }

    /// Empties both tables, for what comes next.
    pub async fn clear(&mut self) {
        self.clients.book = Book::default();
        query_clickhouse(&self.clickhouse.server, "TRUNCATE TABLE events")
            .await
            .unwrap();
        let url = self.postgres.server.postgres_url();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::query("TRUNCATE events")
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }
}

impl Clients {
    /// Starts the next ones.
    pub fn start(&mut self) {
        let numbers = self.next..self.next + CLIENTS;
        self.next += CLIENTS;
        let traffic = Traffic::start_as(&self.collector, self.seed, numbers, HABITS);
        self.traffic = Some(traffic);
    }

    /// Ends those that run.
    pub async fn stop(&mut self) {
        let traffic = self.traffic.take().expect("clients run");
        self.book.add(traffic.stop().await);
    }

    pub fn traffic(&self) -> &Traffic {
        self.traffic.as_ref().expect("clients run")
    }
}
