//! Clients of other toolchains: Python's grpcio, protobuf and pika, the grpc-web
//! runtime from npm. Their scripts are in tests/clients; each ends with exit code 0
//! when all was as it must be, and otherwise says what was not.

use crate::support::collector::Collector;
use crate::support::scripts::Script;
use crate::support::servers::{Kind, Server};
use crate::support::{Scratch, eventually, root};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The smallest bound on a request that the configuration takes.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The folder that Python's generated classes go to, below the scratch directory.
const STUBS: &str = "stubs";

/// A collector of its own without a broker: its rows go to SQLite.
async fn brokerless(scratch: &Scratch) -> Collector {
    let config = format!("[ingest]\nmax_request_bytes = {REQUEST_BYTES_MAX}\n");
    let mut collector = Collector::new(scratch, &config);
    collector.start().await;
    collector
}

/// How long a script may take; it ends by itself before that.
const SCRIPT: Duration = Duration::from_secs(130);

/// Runs a script of tests/clients to its end.
async fn run(scratch: &Scratch, interpreter: &str, script: &str, arguments: &[&str]) {
    let running = Script::start(scratch, interpreter, script, arguments);
    tell(script, &running.ends(SCRIPT).await);
}

async fn python(scratch: &Scratch, script: &str, arguments: &[&str]) {
    let running = Script::start_python(scratch, script, arguments);
    tell(script, &running.ends(SCRIPT).await);
}

fn tell(script: &str, said: &str) {
    if !said.is_empty() {
        eprintln!("{script}: {said}");
    }
}

/// Paths and addresses as the scripts take them.
struct Places {
    stubs: String,
    record: String,
    grpc: String,
    http: String,
}

impl Places {
    fn new(scratch: &Scratch, collector: &Collector) -> Self {
        Self {
            stubs: scratch.0.join(STUBS).display().to_string(),
            record: scratch.0.join("dispatched.jsonl").display().to_string(),
            grpc: format!("127.0.0.1:{}", collector.grpc),
            http: format!("127.0.0.1:{}", collector.http),
        }
    }
}

/// Compares the rows in SQLite with what the scripts recorded, by Python's lights.
async fn compare_rows(scratch: &Scratch, collector: &Collector, places: &Places) {
    collector.delivered("sqlite", LIMIT).await;
    let file = collector.data_dir().join("events.sqlite");
    let file = file.display().to_string();
    let arguments = [&places.stubs, &file, &places.record].map(String::as_str);
    python(scratch, "rows.py", &arguments).await;
}

#[tokio::test]
async fn a_python_client_dispatches_plain_and_gzip_and_its_events_are_rows() {
    let scratch = Scratch::new("foreign_dispatch");
    let collector = brokerless(&scratch).await;
    let places = Places::new(&scratch, &collector);
    let arguments = ["send", &places.stubs, &places.grpc, &places.record];
    python(&scratch, "dispatch.py", &arguments).await;
    compare_rows(&scratch, &collector, &places).await;
}

#[tokio::test]
async fn a_python_client_reads_why_it_is_refused() {
    let scratch = Scratch::new("foreign_refusals");
    let collector = brokerless(&scratch).await;
    let places = Places::new(&scratch, &collector);
    let bound = REQUEST_BYTES_MAX.to_string();
    let arguments = ["refusals", &places.stubs, &places.grpc, &bound];
    python(&scratch, "dispatch.py", &arguments).await;
    // Counted, each as what it was.
    for (outcome, count) in [("incomplete", 3.0), ("malformed", 4.0), ("accepted", 1.0)] {
        let series =
            format!("holdfast_ingest_requests_total{{door=\"grpc\",outcome=\"{outcome}\"}}");
        assert_eq!(collector.metric(&series), count, "{series}");
    }
    // The incomplete ones are kept for diagnosis, the malformed are not.
    collector.delivered("sqlite", LIMIT).await;
    let rows = Command::new("sqlite3")
        .arg(collector.data_dir().join("events.sqlite"))
        .arg("SELECT error_reason, count(*) FROM error_events GROUP BY 1 ORDER BY 1")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&rows.stdout),
        "incomplete event: header.deviceId is empty|2\n\
         incomplete event: the batch has no header|3\n",
        "{rows:?}"
    );
}

#[tokio::test]
async fn a_client_without_our_proto_learns_the_service_by_reflection() {
    let scratch = Scratch::new("foreign_reflection");
    let collector = brokerless(&scratch).await;
    let places = Places::new(&scratch, &collector);
    let arguments = ["reflection", &places.stubs, &places.grpc];
    python(&scratch, "dispatch.py", &arguments).await;
}

#[tokio::test]
async fn a_health_watch_sees_the_heartbeat_go_off_and_on() {
    let scratch = Scratch::new("foreign_health");
    let collector = brokerless(&scratch).await;
    let places = Places::new(&scratch, &collector);
    let arguments = ["health", &places.stubs, &places.grpc, &places.http];
    python(&scratch, "dispatch.py", &arguments).await;
}

#[tokio::test]
async fn protobuf_json_posted_by_python_becomes_rows() {
    let scratch = Scratch::new("foreign_http");
    let collector = brokerless(&scratch).await;
    let places = Places::new(&scratch, &collector);
    let bound = REQUEST_BYTES_MAX.to_string();
    let arguments = [&places.stubs, &places.http, &places.record, &bound].map(String::as_str);
    python(&scratch, "http_events.py", &arguments).await;
    compare_rows(&scratch, &collector, &places).await;
}

#[tokio::test]
async fn a_foreign_reader_of_the_queue_parses_what_a_foreign_client_dispatched() {
    let scratch = Scratch::new("foreign_queue");
    let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
    rabbitmq.start().await;
    let url = rabbitmq.amqp_url();
    let mut collector = Collector::new(&scratch, &format!("[rabbitmq]\nurls = [\"{url}\"]\n"));
    collector.start().await;
    let places = Places::new(&scratch, &collector);
    // The collector declares the exchange; then the reader binds its queue.
    eventually("the collector has the broker", LIMIT, || async {
        collector.metric("holdfast_connected{who=\"rabbitmq\"}") > 0.0
    })
    .await;
    python(&scratch, "read_queue.py", &["bind", &places.stubs, &url]).await;
    let arguments = ["send", &places.stubs, &places.grpc, &places.record];
    python(&scratch, "dispatch.py", &arguments).await;
    collector.delivered("rabbitmq", LIMIT).await;
    let arguments = ["check", &places.stubs, &url, &places.record];
    python(&scratch, "read_queue.py", &arguments).await;
}

#[tokio::test]
async fn a_browser_client_dispatches_in_both_grpc_web_modes() {
    let scratch = Scratch::new("foreign_web");
    let collector = brokerless(&scratch).await;
    let places = Places::new(&scratch, &collector);
    let proto = root().join("proto/eventservice.proto");
    let proto = proto.display().to_string();
    let address = collector.address();
    let arguments = [&proto, &address, &places.record].map(String::as_str);
    run(&scratch, "node", "web/dispatch.js", &arguments).await;
    compare_rows(&scratch, &collector, &places).await;
}
