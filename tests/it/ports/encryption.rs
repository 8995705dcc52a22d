//! TLS on all ports: who is let in, and certificates that change under open connections.

use super::identities::{Issuer, ask, connect, section, shown};
use super::{LIMIT, have_ended};
use crate::support::cli::holdfast;
use crate::support::collector::{Collector, get};
use crate::support::{Scratch, eventually, root};
use holdfast::event::proto::event_service_client::EventServiceClient;
use holdfast::event::proto::{Events, Header};
use std::process::Command;
use tokio::io::AsyncReadExt as _;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as Own};

/// Tells by plain HTTP how it is, while gRPC is encrypted.
const PLAIN_HTTP: &str = "http = \"off\"\n";

fn grpc(collector: &Collector, tls: ClientTlsConfig) -> EventServiceClient<Channel> {
    let address = format!("https://localhost:{}", collector.grpc);
    let endpoint = Endpoint::from_shared(address).unwrap().tls_config(tls);
    EventServiceClient::new(endpoint.unwrap().connect_lazy())
}

fn batch() -> Events {
    Events {
        header: Some(Header {
            device_id: "phone-1".to_owned(),
            ..Header::default()
        }),
        ..Events::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_http_and_the_page_are_encrypted_by_one_certificate() {
    let scratch = Scratch::new("tls_ports");
    let issuer = Issuer::new();
    let identity = issuer.issue("localhost");
    identity.install(&scratch.0);
    let ca = scratch.0.join("ca.pem");
    std::fs::write(&ca, issuer.pem()).unwrap();
    let mut collector = Collector::new(&scratch, &section(&scratch.0, "admin = \"on\"\n"));
    collector.launch();
    let status = async |port: u16, path: &str| {
        let mut stream = connect(port, &issuer, None).await.ok()?;
        let answer = ask(&mut stream, path).await.ok()?;
        assert_eq!(shown(&stream), identity.der());
        answer.split(' ').nth(1)?.parse::<u16>().ok()
    };
    eventually("it accepts", LIMIT, || async {
        status(collector.http, "/heartbeat/").await == Some(200)
    })
    .await;
    // It binds its port in a task of its own.
    eventually("its page is there", LIMIT, || async {
        status(collector.admin, "/status").await == Some(200)
    })
    .await;
    let trust = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(issuer.pem()));
    let mut client = grpc(&collector, trust);
    assert_eq!(
        client.dispatch(batch()).await.unwrap().get_ref().status,
        "SUCCESS"
    );
    // HTTP/2 over TLS, by somebody else's client.
    let curl = Command::new("curl")
        .args(["-sS", "--http2", "--cacert"])
        .arg(&ca)
        .args(["-w", "%{http_version} %{http_code}", "-o", "/dev/null"])
        .arg(format!("https://localhost:{}/heartbeat/", collector.http))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "2 200", "{curl:?}");
    // What is not encrypted gets no answer.
    assert_eq!(get(collector.http, "/heartbeat/"), None);
    let events = root().join("examples/events.ndjson");
    let sent = holdfast(&format!(
        "dispatch --to https://localhost:{} --ca {} {}",
        collector.grpc,
        ca.display(),
        events.display()
    ));
    assert_eq!(sent.code, 0, "{sent:?}");
    let distrusted = holdfast(&format!(
        "dispatch --to https://localhost:{} --retry-for 1s {}",
        collector.grpc,
        events.display()
    ));
    assert_ne!(distrusted.code, 0, "{distrusted:?}");
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_show_certificates_where_they_must() {
    let scratch = Scratch::new("tls_clients");
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    issuer.issue("localhost").install(&scratch.0);
    let ca = scratch.0.join("ca.pem");
    std::fs::write(&ca, issuer.pem()).unwrap();
    let more = format!(
        "client_ca = \"{}\"\ngrpc = \"required\"\nhttp = \"off\"\nadmin = \"optional\"\n",
        ca.display()
    );
    let mut collector = Collector::new(&scratch, &section(&scratch.0, &more));
    collector.start().await;
    let trust = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(issuer.pem()));
    let own = |issuer: &Issuer| {
        let identity = issuer.issue("edge.example");
        trust().identity(Own::from_pem(identity.certificate, identity.key))
    };
    grpc(&collector, trust())
        .dispatch(batch())
        .await
        .unwrap_err();
    grpc(&collector, own(&stranger))
        .dispatch(batch())
        .await
        .unwrap_err();
    have_ended(&collector, "grpc", "handshake", 2.0).await;
    grpc(&collector, own(&issuer))
        .dispatch(batch())
        .await
        .unwrap();
    // Where they may, those without one are let in, and those with a foreign one are not.
    for (identity, is_let_in) in [
        (None, true),
        (Some(issuer.issue("edge.example")), true),
        (Some(stranger.issue("edge.example")), false),
    ] {
        let answer = async {
            let mut stream = connect(collector.admin, &issuer, identity.as_ref()).await?;
            ask(&mut stream, "/status").await
        };
        assert_eq!(answer.await.is_ok(), is_let_in);
    }
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_for_new_connections_and_a_broken_one_for_none() {
    let scratch = Scratch::new("tls_reload");
    let issuer = Issuer::new();
    let (first, second) = (issuer.issue("localhost"), issuer.issue("localhost"));
    first.install(&scratch.0);
    let admin = format!("{PLAIN_HTTP}admin = \"on\"\n");
    let mut collector = Collector::new(&scratch, &section(&scratch.0, &admin));
    collector.start().await;
    let now = async || shown(&connect(collector.grpc, &issuer, None).await.unwrap());
    // One connection lives through all of it, with a stream of calls on it.
    let trust = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(issuer.pem()));
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", collector.grpc));
    let channel = endpoint.unwrap().tls_config(trust).unwrap();
    let mut client = EventServiceClient::new(channel.connect().await.unwrap());
    client.dispatch(batch()).await.unwrap();
    let closed = "holdfast_port_connections_ended_total{outcome=\"closed\",port=\"grpc\"}";
    assert_eq!(now().await, first.der());
    second.install(&scratch.0);
    eventually("the new one is shown", LIMIT, || async {
        now().await == second.der()
    })
    .await;
    client.dispatch(batch()).await.unwrap();
    let expiry = collector.metric("holdfast_tls_certificate_expiry_timestamp_seconds");
    assert!(expiry > 1.7e9, "{expiry}");
    let failed = || collector.metric("holdfast_tls_certificate_reload_failed");
    assert!(failed() < 0.5);

    std::fs::write(scratch.0.join("cert.pem"), "broken").unwrap();
    eventually("that is noticed", LIMIT, || async { failed() > 0.5 }).await;
    assert_eq!(now().await, second.der());
    client.dispatch(batch()).await.unwrap();
    first.install(&scratch.0);
    eventually("the next is shown", LIMIT, || async {
        now().await == first.der()
    })
    .await;
    eventually("nothing failed since", LIMIT, || async { failed() < 0.5 }).await;
    client.dispatch(batch()).await.unwrap();
    // The client's own connection was never one of those that ended.
    let looks = collector.metric(closed);
    drop(client);
    eventually("its own ends at last", LIMIT, || async {
        collector.metric(closed) > looks
    })
    .await;
    assert!(collector.terminate().success());
    let log = collector.log();
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("the new certificate cannot be used"), 1, "{log}");
    assert_eq!(count("the certificate was read anew"), 2, "{log}");
    assert!(!log.contains("PRIVATE KEY"));
}

#[test]
fn check_config_reads_the_certificate_and_its_key() {
    let scratch = Scratch::new("tls_check");
    let issuer = Issuer::new();
    let (one, other) = (issuer.issue("localhost"), issuer.issue("localhost"));
    one.install(&scratch.0);
    let file = scratch.0.join("holdfast.toml");
    std::fs::write(&file, section(&scratch.0, "")).unwrap();
    let check = || holdfast(&format!("check-config --config {}", file.display()));
    let good = check();
    assert_eq!(good.code, 0, "{good:?}");
    assert!(
        good.err.contains("the certificate of [tls] is good until "),
        "{good:?}"
    );
    std::fs::write(scratch.0.join("key.pem"), other.key).unwrap();
    let bad = check();
    assert_eq!(bad.code, 78, "{bad:?}");
    assert!(
        bad.err.contains("does not belong to the certificate"),
        "{bad:?}"
    );
}

/// The commands of the README make what its configuration needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_s_commands_make_certificates_that_work() {
    let scratch = Scratch::new("tls_readme");
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, part) = readme.split_once("\n### Encryption\n").unwrap();
    let block = |part: &str, kind: &str| {
        let (_, block) = part.split_once(&format!("```{kind}\n")).unwrap();
        block.split_once("\n```").unwrap().0.to_owned()
    };
    let made = Command::new("sh")
        .args(["-e", "-c", &block(part, "sh")])
        .current_dir(&scratch.0)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let here = format!("{}/", scratch.0.display());
    let config = block(part, "toml").replace("/etc/holdfast/", &here);
    let mut collector =
        Collector::new(&scratch, &config.replace("http = \"on\"", "http = \"off\""));
    collector.start().await;
    let file = |name: &str| scratch.0.join(name).display().to_string();
    let sent = holdfast(&format!(
        "dispatch --to https://localhost:{} --ca {} --certificate {} --key {} {}",
        collector.grpc,
        file("ca.pem"),
        file("client.pem"),
        file("client.key"),
        root().join("examples/events.ndjson").display()
    ));
    assert_eq!(sent.code, 0, "{sent:?}");
    let mut silent = tokio::net::TcpStream::connect(("127.0.0.1", collector.grpc))
        .await
        .unwrap();
    assert!(collector.terminate().success());
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
}
