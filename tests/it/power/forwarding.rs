//! The proof of the way out to RabbitMQ: the cursor passes a message only when a queue
//! has it. Called by the tests and the controls; with a real broker.

use super::load::{self, Load, Request, Token, tokens};
use super::verdict::{Fault, Finding, Verdict};
use crate::support::collector::{Collector, get};
use crate::support::guarded::Guarded;
use crate::support::servers::{Kind, Server};
use crate::support::{Scratch, eventually};
use lapin::options::BasicGetOptions;
use lapin::{Connection, ConnectionProperties};
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);

/// How long a frozen broker is watched: a forwarder that counts what was not confirmed
/// has moved its cursor long before.
const WATCH: Duration = Duration::from_secs(3);

/// Where the forwarder's messages may be: events, refused events, what consumers refuse.
const QUEUES: [&str; 3] = [
    "grpc_clickhouse_event_q",
    "grpc_clickhouse_event_error_q",
    "grpc_clickhouse_event_error_q_error",
];

/// Each client sends so many requests.
const CLIENTS: u64 = 4;
const REQUESTS: u64 = 10;

const BACKLOG: &str = "holdfast_journal_backlog_requests{cursor=\"rabbitmq\"}";

/// A collector that only forwards, and its broker.
struct Site {
    broker: Server,
    /// Its addresses and configuration; the process is ours.
    collector: Collector,
    process: Guarded,
}

impl Site {
    async fn start(binary: &Path, scratch: &Scratch, more: &str) -> Self {
        let mut broker = Server::new(Kind::RabbitMq, scratch);
        broker.start().await;
        let url = broker.amqp_url();
        let config =
            format!("[journal]\nack_deadline = \"60s\"\n[rabbitmq]\nurls = [\"{url}\"]\n{more}");
        let collector = Collector::new(scratch, &config);
        let config = collector.dir.join("holdfast.toml").display().to_string();
        let command = [
            binary.display().to_string(),
            "run".to_owned(),
            "--config".to_owned(),
            config,
        ];
        let process = Guarded::start(&command, &[], &collector.dir.join("collector.log"));
        let connected = "holdfast_connected{who=\"rabbitmq\"}";
        let site = Self {
            broker,
            collector,
            process,
        };
        eventually("the forwarder is connected", PATIENCE, || async {
            site.collector.metric(connected) == 1.0
        })
        .await;
        site
    }

    async fn load(&self, seed: u64) -> Vec<Request> {
        let load = Load {
            seed,
            clients: 0..CLIENTS,
            requests: REQUESTS,
            grpc: self.collector.grpc,
            http: self.collector.http,
        };
        load::run(&load).await
    }

    fn nothing_pending(&self) -> bool {
        get(self.collector.http, "/metrics")
            .is_some_and(|(_, text)| text.contains(&format!("{BACKLOG} 0\n")))
    }

    /// Waits until the cursor is at the end; then each request must be in a queue.
    async fn judge(self, sent: &[Request]) -> Verdict {
        eventually("nothing is pending", PATIENCE, || async {
            self.nothing_pending()
        })
        .await;
        let found = self.in_queues().await;
        let missing = sent.iter().filter(|r| !found.contains(&r.token));
        let findings = missing.map(|request| {
            let text = format!("{:?} is in no queue", request.token);
            Finding::new(Fault::NeverDelivered, text)
        });
        let verdict = Verdict {
            checked: sent.len(),
            findings: findings.collect(),
        };
        let status = self.process.terminate(PATIENCE);
        assert!(status.success(), "{status}");
        verdict
    }

    async fn in_queues(&self) -> HashSet<Token> {
        let url = self.broker.amqp_url();
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut found = HashSet::new();
        for queue in QUEUES {
            let options = BasicGetOptions { no_ack: true };
            while let Some(got) = channel.basic_get(queue.into(), options).await.unwrap() {
                found.extend(tokens(&got.delivery.data));
            }
        }
        found
    }
}

/// Messages that no queue takes: to the error exchange, and counted only there.
pub async fn prove_unroutable(binary: &Path, scratch: &Scratch, seed: u64) -> Verdict {
    let site = Site::start(binary, scratch, "exchange = \"lonely.tx\"\n").await;
    let sent = site.load(seed).await;
    site.judge(&sent).await
}

/// Messages that were published and not confirmed: the broker is frozen, so that
/// everything sent to it is lost when it is killed then.
pub async fn prove_unconfirmed(binary: &Path, scratch: &Scratch, seed: u64) -> Verdict {
    let mut site = Site::start(binary, scratch, "").await;
    tokio::task::block_in_place(|| site.broker.settle_queues());
    site.broker.pause().await;
    let sent = site.load(seed).await;
    // Watched for a while: a cursor that stays is what is hoped for.
    let until = Instant::now() + WATCH;
    while Instant::now() < until && !site.nothing_pending() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::task::block_in_place(|| site.broker.kill());
    site.broker.start().await;
    site.judge(&sent).await
}
