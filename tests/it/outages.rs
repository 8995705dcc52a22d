//! Outages of RabbitMQ, ClickHouse and Postgres under load: dispatch keeps acking,
//! and afterwards nothing is missing and nothing is twice.

use crate::support::collector::{Collector, send};
use crate::support::judge::{judge_clickhouse, judge_postgres};
use crate::support::load::{self, Acked, Progress};
use crate::support::raw::dispatch;
use crate::support::servers::{Kind, Server, Stack};
use crate::support::shop::Visitor;
use crate::support::{Scratch, eventually, load_events, seed};
use prost::Message as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long everything may take to arrive once all servers are up.
const ARRIVAL: Duration = Duration::from_secs(600);

/// No call may wait longer, whatever is down: the journal takes its place.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What the collector may hold in memory, whatever the backlog.
const MEMORY_MAX_KIB: u64 = 512 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_each_server_is_killed_under_load() {
    let scratch = Scratch::new("outages");
    let mut stack = Stack::start(&scratch).await;
    let mut collector = Collector::new(&scratch, &stack.config());
    collector.start().await;
    connected(&collector).await;
    stack.rabbitmq.settle_queues();
    let events = load_events();
    let progress = Progress::default();
    let outages = async {
        let mut share = 1;
        for kind in [Kind::RabbitMq, Kind::ClickHouse, Kind::Postgres] {
            progress.reached(events * share / 8).await;
            stack.server(kind).kill();
            progress.reached(events * (share + 1) / 8).await;
            stack.server(kind).start().await;
            share += 2;
        }
    };
    let (acked, ()) = tokio::join!(
        load::run(&collector, seed(), events, 16, progress.clone()),
        outages
    );
    assert_acked_throughout(&acked);
    judge(&collector, &stack, &acked).await;
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_rabbitmq_comes_only_after_the_load() {
    let scratch = Scratch::new("late_broker");
    let mut stack = Stack::new(&scratch);
    stack.clickhouse.start().await;
    stack.postgres.start().await;
    let mut collector = Collector::new(&scratch, &stack.config());
    collector.start().await;
    let acked = load::run(&collector, seed(), load_events(), 16, Progress::default()).await;
    assert_acked_throughout(&acked);
    stack.rabbitmq.start().await;
    judge(&collector, &stack, &acked).await;
    let memory = collector.peak_memory_kib();
    assert!(memory < MEMORY_MAX_KIB, "{memory} KiB");
    assert!(collector.terminate().success());
}

/// The soft limit of a process's descriptors: as many as it has, so that it gets no other; or as
/// many as it wants.
fn limit_descriptors(collector: &Collector, are_none_left: bool) {
    let pid = collector.pid().to_string();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count();
    let most = if are_none_left { open } else { 8192 };
    let limited = Command::new("prlimit")
        .args([&format!("--nofile={most}:"), "--pid", &pid])
        .status();
    assert!(limited.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_that_run_out_end_no_connection_for_good() {
    let scratch = Scratch::new("outages_descriptors");
    let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
    rabbitmq.start().await;
    let url = rabbitmq.amqp_url();
    let more = format!("[rabbitmq]\nurls = [\"{url}\"]\n[sqlite]\n");
    let mut collector = Collector::new(&scratch, &more);
    collector.start().await;
    connected(&collector).await;
    // The first connections of this process end, while nothing can be opened.
    limit_descriptors(&collector, true);
    rabbitmq.kill();
    let away = "the broker is away";
    eventually(away, Duration::from_secs(60), || async {
        collector.log().contains(away)
    })
    .await;
    limit_descriptors(&collector, false);
    rabbitmq.start().await;
    connected(&collector).await;
    let acked = load::run(&collector, seed(), 100, 2, Progress::default()).await;
    assert_acked_throughout(&acked);
    collector.delivered("rabbitmq", ARRIVAL).await;
    assert!(collector.terminate().success());
    let log = collector.log();
    assert!(!log.contains("panicked"), "{log}");
}

fn assert_acked_throughout(acked: &Acked) {
    eprintln!("longest wait {:?}", acked.longest_wait);
    assert_eq!(acked.failed_calls, 0, "calls failed during an outage");
    assert!(acked.longest_wait < WAIT_MAX, "{:?}", acked.longest_wait);
}

pub async fn connected(collector: &Collector) {
    let who = "holdfast_connected{who=\"rabbitmq\"}";
    eventually(
        "the forwarder is connected",
        Duration::from_secs(60),
        || async { collector.metric(who) == 1.0 },
    )
    .await;
}

pub async fn judge(collector: &Collector, stack: &Stack, acked: &Acked) {
    collector.delivered("rabbitmq", ARRIVAL).await;
    judge_clickhouse(&stack.clickhouse, &acked.rows, ARRIVAL)
        .await
        .assert_complete("ClickHouse");
    judge_postgres(&stack.postgres, &acked.rows, ARRIVAL)
        .await
        .assert_complete("Postgres");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_journal_refuses_with_pushback_and_takes_again_once_drained() {
    let scratch = Scratch::new("full_journal");
    let mut stack = Stack::new(&scratch);
    let bounds = "[journal]\nmax_bytes = \"64MiB\"\ngeneration_bytes = \"4MiB\"\n";
    let rabbitmq = format!("[rabbitmq]\nurls = [\"{}\"]\n", stack.rabbitmq.amqp_url());
    let mut collector = Collector::new(&scratch, &format!("{bounds}{rabbitmq}"));
    collector.start().await;
    let address = collector.address();
    let started = Instant::now();
    let mut visitor = Visitor::new(seed(), 0, holdfast::clock::now_ms());
    let mut requests = std::iter::repeat_with(|| visitor.batch(40).request.encode_to_vec());
    let state =
        |what: &str| collector.metric(&format!("holdfast_journal_state{{what=\"{what}\"}}"));
    let mut acked = 0;
    // The first refusals come from what is under way, which is charged at its most; a
    // measure that finds less lets more in. Full until something is taken out is what
    // was measured to be.
    let full = || state("pressure") == 3.0 && state("used_bytes") >= 0.98 * state("max_bytes");
    while !full() {
        let side_by_side = requests.by_ref().take(200);
        let calls = side_by_side.map(|bytes| dispatch(&address, bytes));
        let answers = futures::future::join_all(calls).await;
        acked += answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(acked < 200_000, "the bound is not kept");
        assert!(started.elapsed() < ARRIVAL, "it is never full");
    }
    let refusal = dispatch(&address, requests.next().unwrap()).await;
    let refusal = refusal.expect_err("it is full");
    assert_eq!(
        refusal.code(),
        tonic::Code::ResourceExhausted,
        "{refusal:?}"
    );
    let pushback = refusal.metadata().get("grpc-retry-pushback-ms").unwrap();
    assert!(pushback.to_str().unwrap().parse::<u64>().unwrap() > 0);
    let body = b"{\"header\":{\"deviceId\":\"d\"},\"events\":[{\"id\":\"1\",\"timestamp\":\"1\"}]}";
    let (status, _) = send(collector.http, "POST", "/events", body).unwrap();
    assert_eq!(status, 429);
    stack.rabbitmq.start().await;
    eventually("it takes requests again", ARRIVAL, || {
        let call = dispatch(&address, requests.next().unwrap());
        async { call.await.is_ok() }
    })
    .await;
    collector.delivered("rabbitmq", ARRIVAL).await;
    eventually("no pressure is left", ARRIVAL, || async {
        state("pressure") == 0.0
    })
    .await;
    assert!(collector.terminate().success());
}
