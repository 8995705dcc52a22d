//! Errors and panics arrive at Sentry, here an HTTP server of the test's, and a Sentry
//! that is in trouble delays nothing.

use crate::calls::server::{Answer, Request, Server};
use crate::support::collector::Collector;
use crate::support::raw::dispatch;
use crate::support::shop::Visitor;
use crate::support::{Scratch, eventually, seed};
use holdfast::config::{self, Log};
use holdfast::telemetry::sentry::Reporting;
use holdfast::telemetry::{self, FOLLOWS_PANIC};
use prost::Message as _;
use serde_json::Value as Json;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than a report needs on one machine.
const ARRIVAL: Duration = Duration::from_secs(10);

/// How long the process may take to end: Sentry has two seconds of it.
const END_MAX: Duration = Duration::from_secs(4);

async fn sentry(answer: Answer) -> Server {
    Server::start([answer]).await
}

fn fine() -> Answer {
    Answer::Say(200, "Content-Type: application/json\r\n", "{}".to_owned())
}

fn dsn(server: &Server) -> String {
    format!("http://the-key@127.0.0.1:{}/42", server.port)
}

fn section(server: &Server) -> String {
    let dsn = dsn(server);
    format!("[sentry]\ndsn = \"{dsn}\"\nenvironment = \"trial\"\n")
}

/// The event of an envelope.
fn event(request: &Request) -> Json {
    assert_eq!(request.line, "POST /api/42/envelope/ HTTP/1.1");
    let lines: Vec<_> = request.body.lines().collect();
    let item: Json = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(item["type"], "event", "{lines:?}");
    serde_json::from_str(lines[2]).unwrap()
}

fn host_name() -> String {
    let output = Command::new("uname").arg("-n").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Lets the collector take an event, and damages a file that it reads at its start: the
/// start says so at level ERROR.
async fn damaged(collector: &mut Collector) {
    collector.start().await;
    let mut visitor = Visitor::new(seed(), 0, holdfast::clock::now_ms());
    let request = visitor.batch(5).request.encode_to_vec();
    dispatch(&collector.address(), request).await.unwrap();
    collector.delivered("sqlite", ARRIVAL).await;
    assert!(collector.terminate().success());
    let cursor = collector.data_dir().join("cursors/sqlite");
    let length = std::fs::read(&cursor).unwrap().len();
    std::fs::write(&cursor, vec![0x55; length]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_service_is_reported_where_a_dsn_is_set() {
    let scratch = Scratch::new("sentry");
    let server = sentry(fine()).await;
    // Who reads no log has all the more need of reports.
    let config = format!("{}[log]\nlevel = \"off\"\n", section(&server));
    let mut collector = Collector::new(&scratch, &config);
    damaged(&mut collector).await;
    assert_eq!(server.requests().len(), 0, "a run without an error");
    collector.start().await;
    eventually("the report", ARRIVAL, || async {
        !server.requests().is_empty()
    })
    .await;
    assert!(collector.terminate().success());
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    let auth = requests[0].header("x-sentry-auth").unwrap();
    assert!(auth.contains("sentry_key=the-key"), "{auth}");
    let event = event(&requests[0]);
    let said = "cursor file is damaged: delivering again from the oldest record";
    assert_eq!(event["message"], said, "{event:#}");
    assert!(event["level"].is_null(), "error, which is left out");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(event["release"], format!("holdfast@{version}"));
    assert_eq!(event["environment"], "trial");
    assert_eq!(event["server_name"], host_name());
    assert_eq!(event["contexts"]["Rust Tracing Fields"]["cursor"], "sqlite");
    for absent in ["user", "request", "breadcrumbs"] {
        assert!(event[absent].is_null(), "{absent}: {event:#}");
    }
    assert_eq!(collector.log(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_dsn_nothing_is_reported() {
    let scratch = Scratch::new("sentry_off");
    let server = sentry(fine()).await;
    let mut collector = Collector::new(&scratch, "");
    // What the library would read by itself.
    collector.environment = vec![("SENTRY_DSN".to_owned(), dsn(&server))];
    damaged(&mut collector).await;
    collector.start().await;
    assert!(collector.log().contains("cursor file is damaged"));
    assert!(collector.terminate().success());
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentry_that_hangs_delays_nothing() {
    let scratch = Scratch::new("sentry_hangs");
    let server = sentry(Answer::Hang).await;
    let mut collector = Collector::new(&scratch, &section(&server));
    damaged(&mut collector).await;
    let started = Instant::now();
    collector.start().await;
    eventually("the call that hangs", ARRIVAL, || async {
        !server.requests().is_empty()
    })
    .await;
    let mut visitor = Visitor::new(seed(), 1, holdfast::clock::now_ms());
    let request = visitor.batch(5).request.encode_to_vec();
    dispatch(&collector.address(), request).await.unwrap();
    collector.delivered("sqlite", ARRIVAL).await;
    assert!(started.elapsed() < END_MAX, "{:?}", started.elapsed());
    let stopping = Instant::now();
    assert!(collector.terminate().success());
    assert!(stopping.elapsed() < END_MAX, "{:?}", stopping.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_the_service_is_reported_before_the_end() {
    let scratch = Scratch::new("sentry_end");
    for (answer, reports) in [
        (fine(), true),
        (Answer::Hang, false),
        (Answer::Close, false),
    ] {
        let server = sentry(answer.clone()).await;
        let mut collector = Collector::new(&scratch, &section(&server));
        let taken = std::net::TcpListener::bind(("127.0.0.1", collector.grpc)).unwrap();
        let started = Instant::now();
        collector.launch();
        let status = collector.wait(ARRIVAL);
        assert_eq!(status.code(), Some(1), "{answer:?}");
        assert!(
            started.elapsed() < END_MAX,
            "{answer:?}: {:?}",
            started.elapsed()
        );
        drop(taken);
        assert_eq!(server.requests().len(), 1, "{answer:?}");
        if reports {
            let event = event(&server.requests()[0]);
            assert_eq!(event["message"], "the service ended", "{event:#}");
            let error = event["contexts"]["Rust Tracing Fields"]["error"].as_str();
            assert!(error.unwrap().contains("in use"), "{event:#}");
        }
    }
    // A Sentry that is not there at all.
    let server = sentry(fine()).await;
    let gone = section(&server).replace(&server.port.to_string(), "9");
    let mut collector = Collector::new(&scratch, &gone);
    damaged(&mut collector).await;
    collector.start().await;
    let stopping = Instant::now();
    assert!(collector.terminate().success());
    assert!(stopping.elapsed() < END_MAX, "{:?}", stopping.elapsed());
}

/// Set in the child process of the tests below, which panics in earnest: the service has
/// no place that is known to.
const DSN: &str = "HOLDFAST_TEST_DSN";

/// What the child does, with reporting as the binary starts it.
fn child(dsn: &str, work: impl FnOnce(&Reporting)) {
    drop(rustls::crypto::ring::default_provider().install_default());
    let text = format!("[sentry]\ndsn = \"{dsn}\"");
    let config = config::load_from(&text, std::iter::empty()).unwrap();
    let reporting = telemetry::sentry::start(&config.sentry.unwrap()).unwrap();
    telemetry::log::start(&Log::default(), Some(&reporting)).unwrap();
    work(&reporting);
    drop(reporting);
}

/// Runs a test of this file as a child; what it reported, and its log.
async fn reports_of(test: &str) -> (Vec<Request>, String) {
    let server = sentry(fine()).await;
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DSN, dsn(&server))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output());
    let output = output.await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    (server.requests(), log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_reported_once() {
    if let Ok(dsn) = std::env::var(DSN) {
        return child(&dsn, |reporting| {
            let fixed = std::thread::spawn(|| panic!("fixed words"));
            fixed.join().unwrap_err();
            let quoting = std::thread::spawn(|| {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                let secret = "hunter2";
                let task =
                    async move { tokio::spawn(async move { panic!("it was {secret}") }).await };
                runtime.build().unwrap().block_on(task).unwrap_err()
            });
            let error = quoting.join().unwrap();
            assert!(error.to_string().contains("hunter2"));
            // What is said about the same panic where it shows.
            tracing::error!(target: FOLLOWS_PANIC, %error, "task failed; starting it again");
            reporting.ended_by(&error.into());
        });
    }
    let (requests, log) = reports_of("sentry::a_panic_is_reported_once").await;
    assert_eq!(requests.len(), 2, "{requests:#?}");
    let events: Vec<_> = requests.iter().map(event).collect();
    for (event, message) in events
        .iter()
        .zip(["fixed words", "the host's log has the message"])
    {
        assert_eq!(event["level"], "fatal");
        assert_eq!(event["environment"], "production");
        let exception = &event["exception"]["values"][0];
        assert_eq!(exception["type"], "panic");
        let value = exception["value"].as_str().unwrap();
        let place = format!("{message} (tests/it/sentry.rs:");
        assert!(value.starts_with(&place), "{value}");
        let frames = exception["stacktrace"]["frames"].as_array().unwrap();
        let function = |frame: &Json| frame["function"].as_str().unwrap_or("").to_owned();
        let has_own = |frame| function(frame).contains("a_panic_is_reported_once");
        assert!(frames.iter().any(has_own), "{frames:#?}");
    }
    assert!(
        requests
            .iter()
            .all(|request| !request.body.contains("hunter2"))
    );
    assert!(
        log.contains("fixed words") && log.contains("it was hunter2"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_errors_of_our_own_are_reported_and_a_flood_is_bounded() {
    if let Ok(dsn) = std::env::var(DSN) {
        return child(&dsn, |_| {
            tracing::warn!(target: "holdfast::consume", reason = "hunter2", "refused");
            tracing::error!(target: "holdfaster", "a library's");
            tracing::error!(target: "sqlx::query", "a library's");
            for seq in 0..1000 {
                tracing::error!(target: "holdfast::journal", seq, body = "hunter2", "flood");
            }
        });
    }
    let name = "sentry::only_errors_of_our_own_are_reported_and_a_flood_is_bounded";
    let (requests, log) = reports_of(name).await;
    assert_eq!(requests.len(), 20);
    for request in &requests {
        let event = event(request);
        assert_eq!(event["message"], "flood");
        assert!(!request.body.contains("hunter2"), "{event:#}");
    }
    assert_eq!(log.matches("flood").count(), 1000, "the log has them all");
}
