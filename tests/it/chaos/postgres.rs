//! What can happen to Postgres. Used by `site`.
//!
//! # Invariants
//! - A fault's end returns once the server answers again.

use super::Subject;
use super::site::SERVER_DISK_BYTES;
use crate::support::Scratch;
use crate::support::servers::{Kind, Server};
use crate::support::small_disk::{Hog, SmallDisk};
use rand::rngs::StdRng;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Killed,
    Restarted,
    Frozen,
    /// Every transaction is read-only, as on a standby.
    ReadOnly,
    /// Its disk is full to the last byte.
    OutOfSpace,
    /// The table is locked.
    Locked,
    /// Each row takes a while.
    Slow,
    /// Its connections are ended by an administrator, again and again.
    Terminated,
    WrongPassword,
    /// A column that we write is away.
    ColumnAway,
    /// A column that we do not know comes.
    ColumnAdded,
}

/// How often a change of a table may be the one that gives way.
const DEADLOCKS_MAX: usize = 20;

/// What a row takes on a slow server, seconds.
const SLOW_S: &str = "0.005";

pub struct Postgres {
    pub server: Server,
    disk: SmallDisk,
    hog: Option<Hog>,
    lock: Option<PgConnection>,
    added: usize,
}

impl Postgres {
    pub async fn start(scratch: &Scratch) -> Self {
        let mut server = Server::new(Kind::Postgres, scratch);
        // Without bounds its log alone would fill the disk.
        server.settings = ["max_wal_size=96MB", "min_wal_size=32MB"]
            .map(str::to_owned)
            .to_vec();
        let disk = SmallDisk::mount(&server.data_dir(), SERVER_DISK_BYTES);
        server.start().await;
        Self {
            server,
            disk,
            hog: None,
            lock: None,
            added: 0,
        }
    }

    /// A connection of the administrator's.
    async fn connect(&self) -> PgConnection {
        let url = format!(
            "postgres://postgres@127.0.0.1:{}/holdfast",
            self.server.port
        );
        PgConnection::connect(&url).await.unwrap()
    }

    async fn run(&self, statements: &[&str]) {
        let mut connection = self.connect().await;
        for sql in statements {
            // A change of a table may meet an insert's locks in the other order.
            let mut tries = 0..DEADLOCKS_MAX;
            while let Err(error) = sqlx::query(AssertSqlSafe(*sql))
                .execute(&mut connection)
                .await
            {
                let is_deadlock = error
                    .as_database_error()
                    .is_some_and(|error| error.code().as_deref() == Some("40P01"));
                assert!(is_deadlock && tries.next().is_some(), "{sql}: {error}");
            }
        }
        connection.close().await.unwrap();
    }

    /// Who may come in how: a line before all others, or none.
    async fn admit(&self, line: &str) {
        let file = self.server.data_dir().join("data/pg_hba.conf");
        let text = std::fs::read_to_string(&file).unwrap();
        let rest = text.lines().filter(|line| !line.ends_with("# fault"));
        let text: Vec<_> = std::iter::once(line).chain(rest).collect();
        // In place: the file is the server's user's.
        std::fs::write(&file, text.join("\n") + "\n").unwrap();
        self.run(&["SELECT pg_reload_conf()", END_CONNECTIONS])
            .await;
    }
}

const END_CONNECTIONS: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'holdfast'";

const SLOW: &str = "CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS \
                    $$ BEGIN PERFORM pg_sleep(SECONDS); RETURN NEW; END $$";

impl Subject for Postgres {
    type Fault = Fault;
    const FAULTS: &'static [Fault] = &[
        Fault::Killed,
        Fault::Restarted,
        Fault::Frozen,
        Fault::ReadOnly,
        Fault::OutOfSpace,
        Fault::Locked,
        Fault::Slow,
        Fault::Terminated,
        Fault::WrongPassword,
        Fault::ColumnAway,
        Fault::ColumnAdded,
    ];

    fn needs_others_well(fault: Fault) -> bool {
        // As with ClickHouse's.
        fault == Fault::ColumnAway
    }

    async fn begin(&mut self, fault: Fault, _random: &mut StdRng) {
        match fault {
            Fault::Killed => self.server.kill(),
            Fault::Restarted => self.server.stop(),
            Fault::Frozen => self.server.pause().await,
            Fault::ReadOnly => {
                self.run(&[
                    "ALTER SYSTEM SET default_transaction_read_only = on",
                    "SELECT pg_reload_conf()",
                ])
                .await;
            }
            Fault::OutOfSpace => {
                let mut hog = Hog::new(&self.disk);
                hog.fill();
                self.hog = Some(hog);
            }
            Fault::Locked => {
                let mut lock = self.connect().await;
                for sql in ["BEGIN", "LOCK TABLE events IN ACCESS EXCLUSIVE MODE"] {
                    sqlx::query(sql).execute(&mut lock).await.unwrap();
                }
                self.lock = Some(lock);
            }
            Fault::Slow => {
                self.run(&[
                    &SLOW.replace("SECONDS", SLOW_S),
                    "CREATE TRIGGER slowly BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slowly()",
                ])
                .await;
            }
            Fault::Terminated => {
                for _ in 0..5 {
                    self.run(&[END_CONNECTIONS]).await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            Fault::WrongPassword => {
                self.run(&["ALTER ROLE holdfast PASSWORD 'another'"]).await;
                self.admit("host all holdfast 127.0.0.1/32 scram-sha-256 # fault")
                    .await;
            }
            Fault::ColumnAway => {
                self.run(&["ALTER TABLE events RENAME COLUMN utm_medium TO away"])
                    .await;
            }
            Fault::ColumnAdded => {
                self.added += 1;
                let column = format!("later_{}", self.added);
                let sql = format!("ALTER TABLE events ADD COLUMN {column} text DEFAULT 'x'");
                self.run(&[&sql]).await;
            }
        }
    }

    async fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Killed | Fault::Restarted => self.server.launch(),
            Fault::Frozen => self.server.resume().await,
            Fault::ReadOnly => {
                self.run(&[
                    "ALTER SYSTEM RESET default_transaction_read_only",
                    "SELECT pg_reload_conf()",
                ])
                .await;
            }
            Fault::OutOfSpace => {
                if let Some(hog) = self.hog.take() {
                    hog.leave(&self.disk);
                }
                self.server.ready_again().await;
            }
            Fault::Locked => {
                if let Some(lock) = self.lock.take() {
                    lock.close().await.unwrap();
                }
            }
            Fault::Slow => self.run(&["DROP TRIGGER slowly ON events"]).await,
            Fault::WrongPassword => self.admit("").await,
            Fault::ColumnAway => {
                self.run(&["ALTER TABLE events RENAME COLUMN away TO utm_medium"])
                    .await;
            }
            Fault::Terminated | Fault::ColumnAdded => {}
        }
        self.server.ready().await;
    }

    fn longest(fault: Fault) -> Duration {
        // Longer than a write that hangs is waited for, at times.
        let is_silent = matches!(fault, Fault::Locked | Fault::Frozen);
        Duration::from_secs(if is_silent { 8 } else { 4 })
    }
}
