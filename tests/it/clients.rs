//! Clients with their tokens and certificates: who is heard, what each may send and how
//! fast, over both doors of the real binary.

use crate::support::Scratch;
use crate::support::cli::holdfast;
use crate::support::collector::{Collector, get, send_with};
use crate::support::raw::{dispatch, dispatch_as};
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::{Event, Events, Header, LaunchEvent, TestEvent};
use prost::Message as _;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// A new token, and the lines of configuration that `holdfast token` printed for it.
fn token(name: &str) -> (String, String) {
    let said = holdfast(&format!("token {name}"));
    assert_eq!(said.code, 0, "{said:?}");
    let token = said.text().trim().to_owned();
    assert!(token.starts_with("hf_") && token.len() == 46, "{token}");
    assert!(!said.err.contains(&token), "{}", said.err);
    (format!("Bearer {token}"), said.err)
}

fn batch(prefix: &str, types: &[EventOf]) -> Vec<u8> {
    let events = types.iter().enumerate().map(|(at, event_of)| Event {
        id: format!("{prefix}-{at}"),
        timestamp: "1700000000000".to_owned(),
        event_of: Some(event_of.clone()),
        ..Event::default()
    });
    let batch = Events {
        header: Some(Header {
            device_id: "d".to_owned(),
            ..Header::default()
        }),
        events: events.collect(),
    };
    batch.encode_to_vec()
}

fn launch() -> EventOf {
    EventOf::LaunchEvent(LaunchEvent::default())
}

fn test() -> EventOf {
    EventOf::TestEvent(TestEvent::default())
}

fn code(answer: Result<Option<u64>, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

const LINE: &[u8] = br#"{"header":{"deviceId":"d"},"events":[{"id":"h","timestamp":"1700000000000","launchEvent":{}}]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_those_who_prove_who_they_are_are_heard() {
    let scratch = Scratch::new("clients");
    let (app, app_lines) = token("app");
    let (next, next_lines) = token("next");
    let config = format!("{app_lines}events = [\"LaunchEvent\"]\n[sqlite]\n");
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    let address = collector.address();
    let as_app =
        async |types: &[EventOf]| dispatch_as(&address, Some(&app), batch("a", types)).await;

    assert_eq!(code(as_app(&[launch(), launch()]).await), Code::Ok);
    let header = format!("Authorization: {app}\r\n");
    assert_eq!(
        send_with(collector.http, "/events", &header, LINE)
            .unwrap()
            .0,
        200
    );
    let secret = app.trim_start_matches("Bearer ");
    for wrong in [
        None,
        Some("Bearer x"),
        Some(secret),
        Some("Basic YTpi"),
        Some(&next),
    ] {
        let answer = dispatch_as(&address, wrong, batch("w", &[launch()])).await;
        assert_eq!(code(answer), Code::Unauthenticated, "{wrong:?}");
        let header = wrong.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
        let (status, text) = send_with(collector.http, "/events", &header, LINE).unwrap();
        assert_eq!(status, 401, "{text}");
    }
    // Nothing is read of them: not even what is wrong with it.
    let garbage = dispatch(&address, vec![0xff; 100]).await;
    assert_eq!(code(garbage), Code::Unauthenticated);
    let refused = as_app(&[launch(), test()]).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.message(), "this client may not send TestEvent");
    // Whoever balances the load has no token.
    assert_eq!(get(collector.http, "/heartbeat/").unwrap().0, 200);
    assert_eq!(get(collector.http, "/metrics").unwrap().0, 200);
    let counted = |door: &str, outcome: &str| {
        let name =
            format!("holdfast_ingest_requests_total{{door=\"{door}\",outcome=\"{outcome}\"}}");
        collector.metric(&name)
    };
    assert_eq!(counted("grpc", "unauthenticated"), 6.0);
    assert_eq!(counted("http", "unauthenticated"), 5.0);
    assert_eq!(counted("grpc", "forbidden"), 1.0);
    assert_eq!(counted("grpc", "accepted"), 1.0);

    // A reload lets the next one in and the first one out, at once.
    let file = collector.dir.join("holdfast.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, before.replace(&app_lines, &next_lines)).unwrap();
    let reload = format!("reload --config {}", file.display());
    let said = holdfast(&reload);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.text().contains("client"), "{said:?}");
    assert_eq!(code(as_app(&[launch()]).await), Code::Unauthenticated);
    let answer = dispatch_as(&address, Some(&next), batch("n", &[launch()])).await;
    assert_eq!(code(answer), Code::Ok);
    // One that names a type that there is not changes nothing.
    std::fs::write(&file, before.replace("LaunchEvent", "NoEvent")).unwrap();
    let said = holdfast(&reload);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("no event type \"NoEvent\""), "{said:?}");
    let check = format!("check-config --config {}", file.display());
    assert_eq!(holdfast(&check).code, 78);
    assert_eq!(code(as_app(&[launch()]).await), Code::Unauthenticated);

    // The command shows a token, too.
    let tokens = scratch.0.join("token");
    std::fs::write(&tokens, format!("{}\n", next.trim_start_matches("Bearer "))).unwrap();
    let lines = scratch.0.join("lines");
    std::fs::write(&lines, LINE).unwrap();
    let send = format!("dispatch {} --to {address} --retry-for 1s", lines.display());
    assert_eq!(holdfast(&send).code, 1);
    let said = holdfast(&format!("{send} --token {}", tokens.display()));
    assert_eq!(said.code, 0, "{said:?}");
    let log = collector.log();
    for token in [&app, &next] {
        let token = token.trim_start_matches("Bearer ");
        assert!(!log.contains(token), "the log has a token");
    }
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_too_fast_waits_and_the_others_do_not() {
    let scratch = Scratch::new("clients_rates");
    let (fast, fast_lines) = token("fast");
    let (slow, slow_lines) = token("slow");
    let config = format!(
        "{fast_lines}max_rate = 100\n{slow_lines}[[client]]\nname = \"web\"\nanonymous = true\n[sqlite]\n"
    );
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    let address = collector.address();
    let many = vec![launch(); 150];
    let began = Instant::now();
    let (mut accepted, mut refused) = (0, 0);
    while began.elapsed() < Duration::from_secs(3) {
        match dispatch_as(&address, Some(&fast), batch("f", &many)).await {
            Ok(_) => accepted += many.len(),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted);
                let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
                let ms: u64 = pushback.to_str().unwrap().parse().unwrap();
                assert!((100..=2000).contains(&ms), "{ms}");
                refused += 1;
            }
        }
        // Others are heard meanwhile, with a token or without.
        for token in [Some(slow.as_str()), None] {
            let answer = dispatch_as(&address, token, batch("s", &[test()])).await;
            assert_eq!(code(answer), Code::Ok);
        }
    }
    assert!(refused > 0);
    let most = 100.0 * began.elapsed().as_secs_f64() + 100.0 + many.len() as f64;
    assert!(
        accepted >= 300 && accepted as f64 <= most,
        "{accepted} of {most}"
    );
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_incomplete_counts_as_well() {
    let scratch = Scratch::new("clients_incomplete");
    let (app, lines) = token("app");
    let config = format!("{lines}events = [\"LaunchEvent\"]\nmax_rate = 1\n[sqlite]\n");
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    let address = collector.address();
    let incomplete = |types: &[EventOf]| {
        let mut batch = Events::decode(&batch("i", types)[..]).unwrap();
        batch.header = None;
        batch.encode_to_vec()
    };
    let send = async |batch: Vec<u8>| code(dispatch_as(&address, Some(&app), batch).await);
    // What it may not send at all is not kept either.
    assert_eq!(send(incomplete(&[test()])).await, Code::PermissionDenied);
    let mut codes = std::collections::BTreeMap::new();
    for _ in 0..20 {
        *codes
            .entry(send(incomplete(&[launch()])).await as i32)
            .or_insert(0) += 1;
    }
    let kept = codes[&(Code::InvalidArgument as i32)];
    assert!(kept <= 3, "{codes:?}");
    assert_eq!(codes[&(Code::ResourceExhausted as i32)], 20 - kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_many_batches_is_taken_whole() {
    const BATCHES: usize = 100;
    let scratch = Scratch::new("clients_batches");
    let (app, lines) = token("app");
    // Fewer places than batches, and a rate that the first of them uses up.
    let config = format!("{lines}max_rate = 1\n[ingest]\nmax_in_flight = 4\n[sqlite]\n");
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    let header = format!("Authorization: {app}\r\n");
    let body = [LINE, b"\n"].concat().repeat(BATCHES);
    let (status, text) = send_with(collector.http, "/events", &header, &body).unwrap();
    assert_eq!(status, 200, "{text}");
    let (status, text) = send_with(collector.http, "/events", &header, LINE).unwrap();
    assert_eq!(status, 429, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_parsed_of_who_has_sent_more_than_its_rate() {
    let scratch = Scratch::new("clients_ahead");
    let (app, lines) = token("app");
    let config = format!("{lines}max_rate = 1\n[sqlite]\n");
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    let header = format!("Authorization: {app}\r\n");
    let post = |body: &[u8]| send_with(collector.http, "/events", &header, body).unwrap();
    assert_eq!(post(b"{").0, 400);
    let body = [LINE, b"\n"].concat().repeat(100);
    let (status, text) = post(&body);
    assert_eq!(status, 200, "{text}");
    // A hundred seconds in advance: what is wrong with the next is not looked at.
    let (status, text) = post(b"{");
    assert_eq!(status, 429, "{text}");
    let refused = "holdfast_ingest_requests_total{door=\"http\",outcome=\"too_fast\"}";
    assert_eq!(collector.metric(refused), 1.0);
    assert!(collector.terminate().success());
}
