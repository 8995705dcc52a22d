//! Certificates of clients: who is who by them, on each port, and issuers that change.

use super::LIMIT;
use super::identities::{Identity, Issuer, ask, connect, post, section, shown};
use crate::support::collector::Collector;
use crate::support::{Scratch, eventually};
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::event_service_client::EventServiceClient;
use holdfast::event::proto::{Event, Events, Header, LaunchEvent, TestEvent};
use std::io;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity as Own};

/// `[tls]` of a host with an identity of this issuer, whose clients it takes.
fn tls(scratch: &Scratch, issuer: &Issuer, ports: &str) -> String {
    issuer.issue("localhost").install(&scratch.0);
    let ca = scratch.0.join("ca.pem");
    std::fs::write(&ca, issuer.pem()).unwrap();
    let more = format!("client_ca = \"{}\"\n{ports}", ca.display());
    section(&scratch.0, &more)
}

/// The status of the answer over HTTP/1; an error where there is none.
async fn asks(
    port: u16,
    issuer: &Issuer,
    identity: Option<&Identity>,
    events: Option<&str>,
) -> io::Result<String> {
    let mut stream = connect(port, issuer, identity).await?;
    let answer = match events {
        None => ask(&mut stream, "/heartbeat/").await?,
        Some(type_name) => {
            let batch = format!(
                r#"{{"header":{{"deviceId":"d"}},"events":[{{"id":"{type_name}","timestamp":"1700000000000","{type_name}":{{}}}}]}}"#
            );
            post(&mut stream, "/events", &batch).await?
        }
    };
    Ok(answer.split(' ').nth(1).unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_who_its_certificate_says() {
    let scratch = Scratch::new("tls_who");
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let tls = tls(
        &scratch,
        &issuer,
        "grpc = \"required\"\nhttp = \"required\"\nadmin = \"required\"\n",
    );
    let more = format!(
        "{tls}[[client]]\nname = \"edge\"\ncertificates = [\"edge.example\"]\nevents = [\"LaunchEvent\"]\n"
    );
    let mut collector = Collector::new(&scratch, &more);
    collector.launch();
    let (edge, other) = (issuer.issue("edge.example"), issuer.issue("other.example"));
    let foreign = stranger.issue("edge.example");
    for port in [collector.http, collector.admin] {
        eventually("it is there", LIMIT, || async {
            asks(port, &issuer, Some(&edge), None).await.is_ok()
        })
        .await;
        // The name alone is nothing.
        for identity in [None, Some(&foreign)] {
            assert!(asks(port, &issuer, identity, None).await.is_err());
        }
    }
    let posts = async |identity: &Identity, events: &str| {
        asks(collector.http, &issuer, Some(identity), Some(events))
            .await
            .unwrap()
    };
    assert_eq!(posts(&edge, "launchEvent").await, "200");
    assert_eq!(posts(&edge, "testEvent").await, "403");
    assert_eq!(posts(&other, "launchEvent").await, "401");

    let dispatches = async |identity: &Identity, event_of: EventOf| {
        let own = Own::from_pem(&identity.certificate, &identity.key);
        let trust = Certificate::from_pem(issuer.pem());
        let tls = ClientTlsConfig::new().ca_certificate(trust).identity(own);
        let endpoint = Endpoint::from_shared(format!("https://localhost:{}", collector.grpc));
        let channel = endpoint.unwrap().tls_config(tls).unwrap();
        let mut client = EventServiceClient::new(channel.connect_lazy());
        let batch = Events {
            header: Some(Header {
                device_id: "d".to_owned(),
                ..Header::default()
            }),
            events: vec![Event {
                id: "g".to_owned(),
                timestamp: "1700000000000".to_owned(),
                event_of: Some(event_of),
                ..Event::default()
            }],
        };
        let answer = client.dispatch(batch).await;
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    let launch = || EventOf::LaunchEvent(LaunchEvent::default());
    let test = EventOf::TestEvent(TestEvent::default());
    assert_eq!(dispatches(&edge, launch()).await, Code::Ok);
    assert_eq!(dispatches(&edge, test).await, Code::PermissionDenied);
    assert_eq!(dispatches(&other, launch()).await, Code::Unauthenticated);
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_files_are_for_all_ports_and_for_their_clients() {
    let scratch = Scratch::new("tls_all_ports");
    let (issuer, next) = (Issuer::new(), Issuer::new());
    let (first, second) = (issuer.issue("localhost"), issuer.issue("localhost"));
    let tls = tls(
        &scratch,
        &issuer,
        "grpc = \"optional\"\nhttp = \"optional\"\nadmin = \"optional\"\n",
    );
    first.install(&scratch.0);
    let mut collector = Collector::new(&scratch, &tls);
    collector.launch();
    let (old, new) = (issuer.issue("edge.example"), next.issue("edge.example"));
    let ports = [collector.grpc, collector.http, collector.admin];
    let shows = async |port: u16, identity: &Identity| {
        let stream = connect(port, &issuer, None).await;
        stream.is_ok_and(|stream| shown(&stream) == identity.der())
    };
    let lets_in = async |port: u16, identity: &Identity| {
        asks(port, &issuer, Some(identity), None).await.is_ok()
    };
    for port in ports {
        eventually("it is there", LIMIT, || async { shows(port, &first).await }).await;
        assert!(lets_in(port, &old).await && !lets_in(port, &new).await);
    }
    second.install(&scratch.0);
    std::fs::write(scratch.0.join("ca.pem"), next.pem()).unwrap();
    for port in ports {
        eventually("the new one is shown", LIMIT, || async {
            shows(port, &second).await
        })
        .await;
        eventually("the new issuer counts", LIMIT, || async {
            lets_in(port, &new).await
        })
        .await;
        assert!(
            !lets_in(port, &old).await,
            "the one before it counts no longer"
        );
    }
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_for_those_whose_certificates_are_named() {
    let scratch = Scratch::new("tls_page");
    let issuer = Issuer::new();
    let (named, printed) = (
        issuer.issue("operator.example"),
        issuer.issue("laptop.example"),
    );
    let print = ring::digest::digest(&ring::digest::SHA256, &printed.der());
    let print: String = print
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let tls = tls(&scratch, &issuer, "http = \"off\"\nadmin = \"optional\"\n");
    let mut collector = Collector::new(&scratch, &tls);
    let file = collector.dir.join("holdfast.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let named_ones =
        format!("[admin]\ncertificates = [\"operator.example\", \"sha256:{print}\"]\n");
    assert!(text.contains("[admin]\n"));
    std::fs::write(&file, text.replace("[admin]\n", &named_ones)).unwrap();
    collector.start().await;
    let asks = async |identity: Option<&Identity>, path: &str| {
        let mut stream = connect(collector.admin, &issuer, identity).await.ok()?;
        let answer = ask(&mut stream, path).await.ok()?;
        Some(answer.split(' ').nth(1).unwrap().to_owned())
    };
    eventually("the page is there", LIMIT, || async {
        asks(Some(&named), "/").await.is_some()
    })
    .await;
    let client = issuer.issue("edge.example");
    for path in ["/", "/look", "/status", "/nothing"] {
        let is_there = if path == "/nothing" { "404" } else { "200" };
        for identity in [&named, &printed] {
            assert_eq!(
                asks(Some(identity), path).await.unwrap(),
                is_there,
                "{path}"
            );
        }
        for identity in [None, Some(&client)] {
            assert_eq!(asks(identity, path).await.unwrap(), "403", "{path}");
        }
    }
    assert!(collector.terminate().success());
}
