//! What can happen to ClickHouse. Used by `site`.
//!
//! # Invariants
//! - A fault's end returns once the server answers again.

use super::Subject;
use super::site::{MIN_FREE_DISK_BYTES, SERVER_DISK_BYTES};
use crate::support::collector::send;
use crate::support::judge::query_clickhouse;
use crate::support::servers::{Kind, Server};
use crate::support::small_disk::{Hog, SmallDisk};
use crate::support::{Scratch, eventually};
use rand::Rng as _;
use rand::rngs::StdRng;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Killed,
    Restarted,
    Frozen,
    /// Inserts are refused as on a replica that lost its keeper.
    ReadOnly,
    /// Its disk is full to the last byte.
    OutOfSpace,
    /// Each query takes a second or two.
    Slow,
    /// Queries hang.
    Hanging,
    /// Inserts are done, and their answers lost.
    AnswersLost,
    WrongPassword,
    /// Too many parts, as the server says it.
    TooManyParts,
    /// A column that we write is away.
    ColumnAway,
    /// A column that we do not know comes.
    ColumnAdded,
}

pub struct ClickHouse {
    pub server: Server,
    disk: SmallDisk,
    hog: Option<Hog>,
}

impl ClickHouse {
    pub async fn start(scratch: &Scratch) -> Self {
        let mut server = Server::new(Kind::ClickHouse, scratch);
        let disk = SmallDisk::mount(&server.data_dir(), SERVER_DISK_BYTES);
        server.start().await;
        Self {
            server,
            disk,
            hog: None,
        }
    }

    fn set(&self, mode: &str, only: &str) {
        let path = format!("/__fault?mode={mode}&only={only}");
        let answer = send(self.server.port, "POST", &path, b"");
        let status = answer.expect("the front answers").0;
        assert_eq!(status, 200, "{mode}");
    }

    /// Waits until a table of the system has no row that is so.
    async fn runs_no(&self, what: &str, is: &str) {
        let sql = format!("SELECT 1 FROM system.{what} WHERE {is} LIMIT 1");
        let none = format!("no {what} where {is}");
        eventually(&none, Duration::from_secs(30), || async {
            let running = query_clickhouse(&self.server, &sql).await;
            running.is_ok_and(|rows| rows.is_empty())
        })
        .await;
    }

    async fn run(&self, sql: &str) {
        query_clickhouse(&self.server, sql).await.unwrap();
    }
}

impl Subject for ClickHouse {
    type Fault = Fault;
    const FAULTS: &'static [Fault] = &[
        Fault::Killed,
        Fault::Restarted,
        Fault::Frozen,
        Fault::ReadOnly,
        Fault::OutOfSpace,
        Fault::Slow,
        Fault::Hanging,
        Fault::AnswersLost,
        Fault::WrongPassword,
        Fault::TooManyParts,
        Fault::ColumnAway,
        Fault::ColumnAdded,
    ];

    fn needs_others_well(fault: Fault) -> bool {
        // A collector that starts meanwhile makes the column that it misses, and there
        // would be two.
        fault == Fault::ColumnAway
    }

    async fn begin(&mut self, fault: Fault, random: &mut StdRng) {
        match fault {
            Fault::Killed => self.server.kill(),
            Fault::Restarted => self.server.stop(),
            Fault::Frozen => self.server.pause().await,
            Fault::ReadOnly => self.set("readonly", "insert"),
            Fault::OutOfSpace => {
                // A merge that meets a full disk ruins rows that were committed long ago: the
                // engine gives the merged part its name though a file of it is empty.
                self.run("SYSTEM STOP MERGES events").await;
                // It stops those that run, and does not wait for them.
                self.runs_no("merges", "table = 'events'").await;
                let mut hog = Hog::new(&self.disk);
                // An insert, too, is acknowledged whose files are empty: those that it has let in
                // end first, and no other is.
                hog.fill_to(&self.disk, MIN_FREE_DISK_BYTES);
                self.runs_no("processes", "query_kind = 'Insert'").await;
                hog.fill();
                self.hog = Some(hog);
            }
            Fault::Slow => {
                let delay_ms = random.random_range(800..2_500);
                self.set(&format!("slow:{delay_ms}"), "all");
            }
            Fault::Hanging => self.set("hang", "all"),
            Fault::AnswersLost => self.set("drop-after", "insert"),
            Fault::WrongPassword => self.set("error:516", "all"),
            Fault::TooManyParts => self.set("error:252", "insert"),
            Fault::ColumnAway => {
                // Another table in its place: the engine itself loses the values of rows that
                // are inserted while their column is renamed.
                self.run("CREATE TABLE narrow AS events").await;
                self.run("ALTER TABLE narrow DROP COLUMN utm_medium").await;
                self.run("EXCHANGE TABLES events AND narrow").await;
            }
            Fault::ColumnAdded => {
                let number: u32 = random.random();
                let column = format!("later_{number} String DEFAULT 'x'");
                self.run(&format!("ALTER TABLE events ADD COLUMN {column}"))
                    .await;
            }
        }
    }

    async fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Killed | Fault::Restarted => self.server.launch(),
            Fault::Frozen => self.server.resume().await,
            Fault::OutOfSpace => {
                if let Some(hog) = self.hog.take() {
                    hog.leave(&self.disk);
                }
                self.server.ready_again().await;
                // Those of one that was launched again go on already.
                self.run("SYSTEM START MERGES events").await;
            }
            Fault::ColumnAway => {
                self.run("EXCHANGE TABLES events AND narrow").await;
                let sql = "SELECT 1 FROM narrow LIMIT 1";
                let taken = query_clickhouse(&self.server, sql).await.unwrap();
                assert!(
                    taken.is_empty(),
                    "a row without all of its columns: {taken:?}"
                );
                self.run("DROP TABLE narrow").await;
            }
            Fault::ColumnAdded => {}
            Fault::ReadOnly
            | Fault::Slow
            | Fault::Hanging
            | Fault::AnswersLost
            | Fault::WrongPassword
            | Fault::TooManyParts => self.set("off", "all"),
        }
        self.server.ready().await;
    }

    fn longest(fault: Fault) -> Duration {
        // Longer than a write that hangs is waited for, at times.
        let is_silent = matches!(fault, Fault::Hanging | Fault::Frozen);
        Duration::from_secs(if is_silent { 8 } else { 4 })
    }
}
