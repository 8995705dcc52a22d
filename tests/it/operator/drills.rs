//! Outages that are played on a staging host, on real servers that never were away.

use super::{Site, holdfast};
use crate::outages::connected;
use crate::support::Scratch;
use crate::support::cli::Said;
use crate::support::collector::Collector;
use crate::support::servers::{Kind, Server};

fn play(collector: &Collector, words: &str) -> Said {
    let config = collector.dir.join("holdfast.toml");
    let said = holdfast(&format!("drill {words} --config {}", config.display()));
    eprintln!("$ holdfast drill {words}\n{}", said.text());
    said
}

/// How many events of a line are acknowledged, and how many refused.
fn sent(said: &Said) -> (u64, u64) {
    let text = said.text().split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, after) = text.split_once("sent ").unwrap();
    let numbers = after.split(' ').filter_map(|word| word.parse().ok());
    let numbers: Vec<u64> = numbers.take(3).collect();
    (numbers[0], numbers[2])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_are_played_and_nothing_is_missing_after_them() {
    let scratch = Scratch::new("drills");
    let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
    let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
    tokio::join!(rabbitmq.start(), clickhouse.start());
    let config = format!(
        "[drill]\nallowed = true\n[rabbitmq]\nurls = [\"{}\"]\n\
         {}",
        rabbitmq.amqp_url(),
        clickhouse.clickhouse_section()
    );
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    connected(&collector).await;

    let broker = play(&collector, "broker-down 4s --timeout 60s");
    assert_eq!(broker.code, 0, "{broker:?}");
    let text = broker.fits();
    assert!(text.contains("rabbitmq: TROUBLE"), "{text}");
    assert!(text.contains("rabbitmq: well"), "{text}");
    assert!(text.contains("complete: every event"), "{text}");
    let (acked, refused) = sent(&broker);
    assert!(acked >= 100 && refused == 0, "{text}");

    let sink = play(&collector, "sink-down 4s --timeout 60s --rate 100");
    assert_eq!(sink.code, 0, "{sink:?}");
    let text = sink.fits();
    assert!(
        text.contains("clickhouse: TROUBLE: unavailable") || text.contains("clickhouse: TROUBLE"),
        "{text}"
    );
    assert!(text.contains("complete: every event"), "{text}");

    let disk = play(&collector, "disk-full 3s --timeout 60s");
    assert_eq!(disk.code, 0, "{disk:?}");
    let text = disk.fits();
    let (_, refused) = sent(&disk);
    assert!(refused > 0, "{text}");
    assert!(text.contains("NOT SERVING"), "{text}");
    assert!(text.contains("the door: requests are taken"), "{text}");

    let audit = std::fs::read_to_string(collector.data_dir().join("audit.ndjson")).unwrap();
    assert_eq!(audit.matches("\"verb\":\"drill\"").count(), 3, "{audit}");
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_outage_is_played_where_it_is_not_allowed() {
    let mut site = Site::start("no_drills").await;
    let refused = play(&site.collector, "disk-full 5s");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("not allowed"), "{refused:?}");
    assert!(
        !site.data_dir().join("audit.ndjson").exists() || {
            let audit = std::fs::read_to_string(site.data_dir().join("audit.ndjson")).unwrap();
            !audit.contains("drill")
        }
    );
    assert!(site.collector.terminate().success());
    assert_eq!(play(&site.collector, "disk-full 5s").code, 3);
}

/// A drill whose own events nobody takes proves nothing, and says so: before the outage where
/// that can be known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_without_events_is_none() {
    let token = format!("tokens = [\"sha256:{}\"]", "0".repeat(64));
    for (client, part, has_begun) in [
        (token.as_str(), "anonymous = true", false),
        (
            "anonymous = true\nevents = [\"LaunchEvent\"]",
            "nothing was rehearsed",
            true,
        ),
    ] {
        let scratch = Scratch::new("drill_none");
        let config =
            format!("[drill]\nallowed = true\n[sqlite]\n[[client]]\nname = \"a\"\n{client}\n");
        let mut collector = Collector::new(&scratch, &config);
        collector.start().await;
        let said = play(&collector, "sink-down 1s --timeout 20s");
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(part), "{said:?}");
        let audit = std::fs::read_to_string(collector.data_dir().join("audit.ndjson")).unwrap();
        assert_eq!(audit.contains("drill"), has_begun, "{audit:?}");
        assert!(collector.terminate().success());
    }
}
