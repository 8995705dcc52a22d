//! A collector under the recorder, and everything that is known of its run afterwards.
//! Called by the proofs and the controls.
//!
//! # Invariants
//! - The log replayed on an empty directory gives the real directory byte for byte, or
//!   the recording panics: no call that counts went past the recorder.
//! - Every acknowledgement that a client saw was found in the log.

use super::acks::acks;
use super::load::{self, Load, Request, Token};
use super::log::Log;
use super::recorder;
use super::world::World;
use crate::support::collector::get;
use crate::support::guarded::Guarded;
use crate::support::{Scratch, eventually, free_port};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The recorder and a shared machine make everything slower; nothing hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Connections of each phase of [`life`].
const CLIENTS: u64 = 8;

/// A whole life: a load that is delivered as it comes, a backlog of several
/// generations behind a locked database, a restart with it, more load while it drains.
pub async fn life(binary: &Path, scratch: &Scratch, seed: u64) -> Recording {
    let settings = [("HOLDFAST__JOURNAL__GENERATION_BYTES", "1MiB")];
    let mut collector = Recorded::new(binary, scratch, &settings);
    collector.start().await;
    collector.load(seed, 0..CLIENTS, 40).await;
    let mut lock =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(collector.database()))
            .await
            .unwrap();
    // The collector's own connections stay open: this one leaves no trace in the file.
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut lock)
        .await
        .unwrap();
    collector.load(seed, CLIENTS..2 * CLIENTS, 40).await;
    collector.stop();
    collector.start().await;
    collector.load(seed, 2 * CLIENTS..3 * CLIENTS, 5).await;
    sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
    collector.load(seed, 3 * CLIENTS..4 * CLIENTS, 20).await;
    collector.delivered().await;
    lock.close().await.unwrap();
    collector.finish()
}

/// Names a recording that is judged again; see [`Recording::read`].
pub const AGAIN: &str = "HOLDFAST_TEST_RECORDING";

/// What is known of a run.
pub struct Recording {
    pub log: Log,
    /// Every request that was sent; all were acknowledged.
    pub sent: HashMap<Token, Request>,
    /// The operation number of each acknowledgement's send.
    pub acks: HashMap<Token, usize>,
    /// Where the recorded directory is, with `data` in it.
    pub dir: PathBuf,
}

impl Recording {
    /// Reads a scratch directory that a failed proof has kept.
    pub fn read(base: &Path) -> Self {
        let bytes = std::fs::read(base.join("sent")).unwrap();
        let mut rest = &bytes[..];
        let mut sent = Vec::new();
        while let Some((head, tail)) = rest.split_first_chunk::<16>() {
            let token = Token(u64::from_le_bytes(head[..8].try_into().unwrap()));
            let len = u64::from_le_bytes(head[8..].try_into().unwrap()) as usize;
            let content = tail[..len].to_vec();
            sent.push(Request { token, content });
            rest = &tail[len..];
        }
        Self::new(base, sent)
    }

    fn new(base: &Path, sent: Vec<Request>) -> Self {
        let dir = base.join("box");
        let log = Log::read(&base.join("calls"));
        let mut world = World::new(log.clone());
        world.advance(log.ops.len());
        let wrong = world.differences(&dir);
        assert!(wrong.is_empty(), "calls were not recorded: {wrong:#?}");
        let acks = acks(&log);
        let sent: HashMap<_, _> = sent.into_iter().map(|r| (r.token, r)).collect();
        let unseen: Vec<_> = sent
            .keys()
            .filter(|token| !acks.contains_key(token))
            .collect();
        assert!(
            unseen.is_empty(),
            "acknowledgements not in the log: {unseen:?}"
        );
        assert_eq!(acks.len(), sent.len(), "acknowledgements of nothing");
        eprintln!(
            "recorded: {} calls, {} MiB, {} acknowledgements, {} files grown unseen",
            log.ops.len(),
            log.len_bytes() >> 20,
            acks.len(),
            world.unseen_growth
        );
        Self {
            log,
            sent,
            acks,
            dir,
        }
    }
}

/// A collector whose calls are recorded, as long as it runs.
pub struct Recorded {
    binary: PathBuf,
    base: PathBuf,
    pub grpc: u16,
    pub http: u16,
    settings: Vec<(String, String)>,
    process: Option<Guarded>,
    sent: Vec<Request>,
}

impl Recorded {
    pub fn new(binary: &Path, scratch: &Scratch, more: &[(&str, &str)]) -> Self {
        let base = scratch.0.clone();
        std::fs::create_dir(base.join("box")).unwrap();
        let (grpc, http) = (free_port(), free_port());
        let mut settings = vec![
            (
                "HOLDFAST__GRPC__LISTEN".to_owned(),
                format!("127.0.0.1:{grpc}"),
            ),
            (
                "HOLDFAST__HTTP__LISTEN".to_owned(),
                format!("127.0.0.1:{http}"),
            ),
            ("HOLDFAST__ADMIN__LISTEN".to_owned(), "off".to_owned()),
            (
                "HOLDFAST__DATA__DIR".to_owned(),
                base.join("box/data").display().to_string(),
            ),
            // The least: it is copied into every image.
            (
                "HOLDFAST__JOURNAL__RESERVE_BYTES".to_owned(),
                "16MiB".to_owned(),
            ),
            // No request of the load is refused for being late.
            (
                "HOLDFAST__JOURNAL__ACK_DEADLINE".to_owned(),
                "60s".to_owned(),
            ),
        ];
        for (name, value) in more {
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
        Self {
            binary: binary.to_owned(),
            base,
            grpc,
            http,
            settings,
            process: None,
            sent: Vec::new(),
        }
    }

    pub async fn start(&mut self) {
        let command = [self.binary.display().to_string(), "run".to_owned()];
        let process = recorder::start(
            &command,
            &self.settings,
            &self.base.join("box"),
            &self.base.join("calls"),
            &self.base.join("collector.log"),
        );
        self.process = Some(process);
        let http = self.http;
        eventually("the collector accepts", PATIENCE, || async move {
            get(http, "/heartbeat/").is_some_and(|(status, _)| status == 200)
        })
        .await;
    }

    pub fn stop(&mut self) {
        let status = self.process.take().expect("it runs").terminate(PATIENCE);
        assert!(status.success(), "{status}");
    }

    pub async fn load(&mut self, seed: u64, clients: std::ops::Range<u64>, requests: u64) {
        let load = Load {
            seed,
            clients,
            requests,
            grpc: self.grpc,
            http: self.http,
        };
        self.sent.extend(load::run(&load).await);
    }

    /// Waits until everything is in SQLite.
    pub async fn delivered(&self) {
        let series = "holdfast_journal_backlog_requests{cursor=\"sqlite\"} 0\n";
        eventually("all is delivered", PATIENCE, || async {
            get(self.http, "/metrics").is_some_and(|(_, text)| text.contains(series))
        })
        .await;
    }

    pub fn database(&self) -> PathBuf {
        self.base.join("box/data/events.sqlite")
    }

    /// Ends the run, and reads what was recorded of it.
    pub fn finish(mut self) -> Recording {
        self.stop();
        let mut bytes = Vec::new();
        for request in &self.sent {
            bytes.extend(request.token.0.to_le_bytes());
            bytes.extend((request.content.len() as u64).to_le_bytes());
            bytes.extend(&request.content);
        }
        std::fs::write(self.base.join("sent"), bytes).unwrap();
        Recording::new(&self.base, self.sent)
    }
}
