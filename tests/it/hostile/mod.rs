//! Hostile inputs: each gets its refusal and nothing of it is kept, while well-behaved clients
//! beside it, one at each door, go on at their pace. At the real binary, byte by byte.

mod bodies;
mod calls;
mod heads;
mod http2;
mod proofs;
mod slow;
mod wire;

use crate::support::collector::{Collector, get};
use crate::support::raw::Caller;
use crate::support::{Scratch, http_client};
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::{Event, Events, Header, LaunchEvent};
use prost::Message as _;
use sqlx::Row as _;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{Case, Site};

/// Inputs that are sent at the same time.
const AT_ONCE: usize = 4;

/// A well-behaved client's calls beside the hostile ones: at least so many.
const CALLS_MIN: usize = 200;

/// How much slower its slowest hundredth may get: on a machine of two cores whose other
/// processes are the attackers, more than the service's own work.
const SLOWER_MAX: f64 = 2.0;

/// Below this nothing is called slow: it is the machine's own noise.
const NOISE: Duration = Duration::from_millis(25);

const CONFIG: &str = "[connections]\nheader_timeout = \"1s\"\nidle_timeout = \"2s\"\nwrite_timeout = \"1s\"\n\
    [ingest]\nmax_request_bytes = \"1MiB\"\nbody_timeout = \"1s\"\n\
    [webhooks]\nhmac_secret = \"aHVudGVyMg==\"\n\
    [webhooks.branch]\nverify = \"secret\"\nsecrets = [\"hunter2\"]\n\
    [webhooks.vidooly]\nverify = \"hmac\"\n\
    [webhooks.shopify]\nclient_secrets = [\"hunter2\"]\n";

/// A well-behaved client, with a connection that it keeps.
#[derive(Clone)]
enum Good {
    Grpc(Caller),
    Http(reqwest::Client, String),
}

impl Good {
    const fn door(&self) -> &'static str {
        match self {
            Self::Grpc(_) => "grpc",
            Self::Http(..) => "http",
        }
    }

    /// Has one event acknowledged.
    async fn call(&self, id: String) {
        match self {
            Self::Grpc(caller) => {
                let event = Event {
                    id,
                    timestamp: "1700000000000".to_owned(),
                    event_of: Some(EventOf::LaunchEvent(LaunchEvent::default())),
                    ..Event::default()
                };
                let batch = Events {
                    header: Some(Header {
                        device_id: "good".to_owned(),
                        ..Header::default()
                    }),
                    events: vec![event],
                };
                caller.dispatch(batch.encode_to_vec()).await.unwrap();
            }
            Self::Http(client, url) => {
                let batch = serde_json::json!({
                    "header": {"deviceId": "good"},
                    "events": [{"id": id, "timestamp": "1700000000000", "launchEvent": {}}],
                });
                let call = client.post(url).json(&batch);
                let answer = call.send().await.unwrap();
                assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
            }
        }
    }

    /// One call after the other, with the time each took.
    async fn behave(self, when: &str, stop: CancellationToken) -> Vec<Duration> {
        let mut took = Vec::new();
        while !stop.is_cancelled() || took.len() < CALLS_MIN {
            let id = format!("good-{}-{when}-{}", self.door(), took.len());
            let began = Instant::now();
            self.call(id).await;
            took.push(began.elapsed());
        }
        took
    }
}

/// All of them at the same time: what each one's calls took.
fn behave(
    good: &[Good],
    when: &'static str,
    stop: &CancellationToken,
) -> Vec<JoinHandle<Vec<Duration>>> {
    let behave = |good: &Good| {
        let (good, stop) = (good.clone(), stop.clone());
        tokio::spawn(async move { good.behave(when, stop).await })
    };
    good.iter().map(behave).collect()
}

/// The time that 99 of 100 calls do not exceed.
fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[(took.len() * 99).div_ceil(100) - 1]
}

fn cases(site: &Site) -> Vec<Case> {
    let mut cases = heads::cases();
    cases.extend(bodies::cases());
    cases.extend(calls::cases());
    cases.extend(proofs::cases(site));
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_inputs_are_refused_and_the_others_do_not_notice() {
    let scratch = Scratch::new("hostile");
    let token = proofs::token();
    let config = format!(
        "{CONFIG}{}[[client]]\nname = \"web\"\nanonymous = true\n",
        token.lines
    );
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    let site = Arc::new(Site {
        grpc: collector.grpc,
        http: collector.http,
        token: token.value,
    });
    let good = [
        Good::Grpc(Caller::connect(&collector.address()).await),
        Good::Http(
            http_client(),
            format!("http://127.0.0.1:{}/events", site.http),
        ),
    ];

    let quiet = CancellationToken::new();
    quiet.cancel();
    let mut alone = Vec::new();
    for calls in behave(&good, "alone", &quiet) {
        alone.push(p99(calls.await.unwrap()));
    }

    // Made before, as the bombs take a processor for a while.
    let cases = cases(&site);
    let stop = CancellationToken::new();
    let beside = behave(&good, "beside", &stop);
    let names: BTreeSet<_> = cases.iter().map(|case| case.name.clone()).collect();
    assert_eq!(names.len(), cases.len(), "two have one name");
    let number = cases.len() + slow::cases().len();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = tokio::task::JoinSet::new();
    for case in cases {
        let (site, places) = (Arc::clone(&site), Arc::clone(&places));
        running.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            tokio::task::spawn_blocking(move || case.play(&site))
                .await
                .unwrap()
        });
    }
    // Those that take their time do so all at once.
    for case in slow::cases() {
        let site = Arc::clone(&site);
        running.spawn(async move {
            tokio::task::spawn_blocking(move || case.play(&site))
                .await
                .unwrap()
        });
    }
    let wrong: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    stop.cancel();
    eprintln!("{number} inputs");
    let mut acked = CALLS_MIN * good.len();
    let mut slower = Vec::new();
    for ((good, alone), calls) in good.iter().zip(alone).zip(beside) {
        let calls = calls.await.unwrap();
        acked += calls.len();
        let (door, number) = (good.door(), calls.len());
        let beside = p99(calls);
        let line = format!("{door}: p99 alone {alone:?}, beside them {beside:?} of {number} calls");
        eprintln!("{line}");
        if beside > alone.max(NOISE).mul_f64(SLOWER_MAX) {
            slower.push(line);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {number} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(number >= 200, "{number} inputs");
    assert!(slower.is_empty(), "{}", slower.join("\n"));

    // Nothing of the hostile is kept, and it goes on.
    assert_eq!(get(collector.http, "/heartbeat/").unwrap().0, 200);
    let memory = collector.peak_memory_kib();
    assert!(memory < 400 * 1024, "{memory} KiB");
    collector.delivered("sqlite", Duration::from_secs(30)).await;
    let url = format!(
        "sqlite://{}",
        collector.data_dir().join("events.sqlite").display()
    );
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let rows = sqlx::query("SELECT event_id FROM events")
        .fetch_all(&pool)
        .await
        .unwrap();
    let ids: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let foreign: Vec<_> = ids.iter().filter(|id| !id.starts_with("good-")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert_eq!(ids.len(), acked);
    pool.close().await;
    assert!(collector.terminate().success());
}
