//! TLS to RabbitMQ, ClickHouse and Postgres: who is trusted, and what becomes of events while
//! nobody is.

use super::{EVENTS, Files, LIMIT};
use crate::ports::identities::Issuer;
use crate::support::cli::holdfast;
use crate::support::collector::Collector;
use crate::support::judge::{judge_clickhouse, judge_postgres};
use crate::support::load::{self, Progress};
use crate::support::servers::{Kind, Server};
use crate::support::{Scratch, seed};
use std::path::Path;
use std::time::{Duration, Instant};

/// Waits until `holdfast status` tells of each of these troubles, and returns what it said.
async fn troubled(collector: &Collector, reasons: &[&str]) -> String {
    let words = format!(
        "status --json --data-dir {}",
        collector.data_dir().display()
    );
    let until = Instant::now() + LIMIT;
    loop {
        let text = holdfast(&words).text();
        if reasons.iter().all(|reason| text.contains(reason)) {
            return text;
        }
        assert!(
            Instant::now() < until,
            "not within {LIMIT:?}: status tells of {reasons:?}, it said at last: {text}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn postgres_url(server: &Server, host: &str, more: &str) -> String {
    format!("postgres://holdfast@{host}:{}/holdfast{more}", server.port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_authority_delivers_nothing() {
    let scratch = Scratch::new("outward_broker");
    let files = Files(&scratch);
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let ca = files.write("ca.pem", &issuer.pem());
    let wrong = files.write("wrong.pem", &stranger.pem());
    let (certificate, key) = files.identity("client", &issuer.issue("edge.example"));
    let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
    let mut postgres = Server::new(Kind::Postgres, &scratch);
    let amqps = files.encrypt(&mut rabbitmq, &issuer, Some(ca.clone()));
    files.encrypt(&mut postgres, &issuer, None);
    rabbitmq.launch();
    postgres.launch();
    rabbitmq.ready().await;
    postgres.ready().await;
    let config = |ca: &Path, more: &str| {
        let ca = ca.display();
        format!(
            "[rabbitmq]\nurls = [\"amqps://guest:guest@localhost:{amqps}/%2f\"]\ntls_ca = \"{ca}\"\n{more}\
             [postgres]\nurl = \"{}\"\ntls_ca = \"{ca}\"\n",
            postgres_url(&postgres, "localhost", "")
        )
    };
    let mut collector = Collector::new(&scratch, &config(&wrong, ""));
    collector.start().await;
    let acked = load::run(&collector, seed(), EVENTS, 2, Progress::default()).await;
    troubled(
        &collector,
        &["the broker is away: IO error: invalid peer certificate: BadSignature"],
    )
    .await;
    assert!(collector.terminate().success());
    // It knows whom to trust, and shows nobody who it is.
    let mut collector = Collector::new(&scratch, &config(&ca, ""));
    collector.start().await;
    let text = troubled(&collector, &["received fatal alert: CertificateRequired"]).await;
    assert!(!text.contains("Connection reset"), "{text}");
    assert!(collector.terminate().success());
    let queues = rabbitmq.rabbitmqctl(&["-q", "list_queues", "name"]);
    assert!(!queues.contains("grpc_postgres_event_q"), "{queues}");
    let own = format!(
        "tls_certificate = \"{}\"\ntls_key = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    // Authorities that are replaced while it runs are those of the next connections.
    let mut collector = Collector::new(&scratch, &config(&wrong, &own));
    collector.start().await;
    troubled(&collector, &["invalid peer certificate: BadSignature"]).await;
    std::fs::write(&wrong, issuer.pem()).unwrap();
    judge_postgres(&postgres, &acked.rows, LIMIT)
        .await
        .assert_complete("Postgres");
    // Over TLS, all of it.
    let listed = ["-q", "list_connections", "ssl", "peer_cert_subject"];
    let connections = rabbitmq.rabbitmqctl(&listed);
    let are_encrypted = |line: &str| line.starts_with("true");
    let mut lines = connections.lines().filter(|line| !line.starts_with("ssl"));
    assert!(lines.clone().count() >= 2, "{connections}");
    assert!(lines.all(are_encrypted), "{connections}");
    assert!(collector.terminate().success());
    let log = collector.log();
    assert!(!log.contains("PRIVATE KEY") && !log.contains("guest:guest"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_name_is_refused() {
    let scratch = Scratch::new("outward_sinks");
    let files = Files(&scratch);
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let ca = files.write("ca.pem", &issuer.pem());
    let wrong = files.write("wrong.pem", &stranger.pem());
    let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
    let mut postgres = Server::new(Kind::Postgres, &scratch);
    let https = files.encrypt(&mut clickhouse, &issuer, None);
    files.encrypt(&mut postgres, &issuer, None);
    clickhouse.launch();
    postgres.launch();
    clickhouse.ready().await;
    postgres.ready().await;
    let config = |ca: &Path, host: &str, mode: &str| {
        let ca = ca.display();
        format!(
            "[clickhouse]\nurl = \"https://{host}:{https}\"\ndatabase = \"holdfast\"\nuser = \"holdfast\"\npassword = \"click-secret\"\ntls_ca = \"{ca}\"\n\
             [postgres]\nurl = \"{}\"\ntls_ca = \"{ca}\"\n",
            postgres_url(&postgres, host, mode)
        )
    };
    let mut collector = Collector::new(&scratch, &config(&wrong, "localhost", ""));
    collector.start().await;
    let acked = load::run(&collector, seed(), EVENTS, 2, Progress::default()).await;
    // The stranger calls itself by the name of the issuer.
    let unknown = "invalid peer certificate: BadSignature";
    let both = [
        &format!("network error: client error (Connect): {unknown}")[..],
        &format!("error communicating with database: {unknown}"),
    ];
    troubled(&collector, &both).await;
    assert!(collector.terminate().success());
    let mut collector = Collector::new(&scratch, &config(&ca, "127.0.0.1", "?sslmode=verify-full"));
    collector.start().await;
    let foreign = "invalid peer certificate: certificate not valid for name \\\"127.0.0.1\\\"";
    let both = [
        &format!("network error: client error (Connect): {foreign}")[..],
        &format!("error communicating with database: {foreign}"),
    ];
    troubled(&collector, &both).await;
    assert!(collector.terminate().success());
    let mut collector = Collector::new(&scratch, &config(&ca, "localhost", ""));
    collector.start().await;
    judge_clickhouse(&clickhouse, &acked.rows, LIMIT)
        .await
        .assert_complete("ClickHouse");
    judge_postgres(&postgres, &acked.rows, LIMIT)
        .await
        .assert_complete("Postgres");
    assert!(collector.terminate().success());
}

#[test]
fn check_config_reads_the_files_of_all_servers() {
    let scratch = Scratch::new("outward_check");
    let files = Files(&scratch);
    let issuer = Issuer::new();
    let ca = files.write("ca.pem", &issuer.pem());
    let (certificate, key) = files.identity("one", &issuer.issue("a"));
    let (_, other_key) = files.identity("other", &issuer.issue("a"));
    let file = scratch.0.join("holdfast.toml");
    let check = |key: &Path, ca: &Path, mode: &str| {
        let [certificate, key, ca] = [certificate.as_path(), key, ca].map(Path::display);
        let own = format!(
            "tls_ca = \"{ca}\"\ntls_certificate = \"{certificate}\"\ntls_key = \"{key}\"\n"
        );
        let text = format!(
            "[rabbitmq]\nurls = [\"amqps://h\"]\n{own}[clickhouse]\nurl = \"https://h\"\n{own}[postgres]\nurl = \"postgres://h/d{mode}\"\n{own}"
        );
        std::fs::write(&file, text).unwrap();
        holdfast(&format!("check-config --config {}", file.display()))
    };
    let good = check(&key, &ca, "");
    assert_eq!(good.code, 0, "{good:?}");
    let missing = scratch.0.join("missing.pem");
    for (bad, reason) in [
        (
            check(&other_key, &ca, ""),
            "does not belong to the certificate",
        ),
        (check(&key, &missing, ""), "missing.pem: No such file"),
        (
            check(&key, &other_key, ""),
            "other.key: no certificate in it",
        ),
    ] {
        assert_eq!(bad.code, 78, "{bad:?}");
        for section in ["rabbitmq", "clickhouse", "postgres"] {
            let line = bad
                .err
                .lines()
                .find(|line| line.contains(&format!("{section}: ")));
            assert!(
                line.is_some_and(|line| line.contains(reason)),
                "{section}: {bad:?}"
            );
        }
        assert!(!bad.err.contains("PRIVATE"), "{bad:?}");
    }
    let weak = check(&key, &ca, "?sslmode=prefer");
    assert_eq!(weak.code, 78, "{weak:?}");
    assert!(weak.err.contains("must be verify-full"), "{weak:?}");
}
