//! Dead letters of this host: rows that a sink refused without a broker, and messages that
//! no queue took.

use super::{ARRIVAL, ask, audit};
use crate::support::cli::holdfast;
use crate::support::collector::{Collector, send};
use crate::support::servers::{Kind, Server};
use crate::support::{Scratch, eventually};
use holdfast::broker::{
    Binding, Broker, DeclareMode, Exchange, ExchangeKind, Options, Queue, QueueType, Subscription,
    Topology, declare,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_replayed_into_its_table() {
    let scratch = Scratch::new("dlq_local");
    let mut postgres = Server::new(Kind::Postgres, &scratch);
    postgres.start().await;
    let config = format!("[postgres]\nurl = \"{}\"\n", postgres.postgres_url());
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    let none = ask(&collector, "dlq ls");
    assert!(
        none.code == 0 && none.err.contains("nothing was refused"),
        "{none:?}"
    );
    let pool = crate::support::judge::postgres(&postgres).await;
    let run = async |sql: &'static str| {
        sqlx::query(sql).execute(&pool).await.unwrap();
    };
    eventually("tables are there", ARRIVAL, || async {
        let there = sqlx::query("SELECT 1 FROM branch_events").fetch_all(&pool);
        there.await.is_ok()
    })
    .await;
    run("ALTER TABLE events ADD CONSTRAINT calm CHECK (session_id <> 'refuse-me')").await;
    run("ALTER TABLE branch_events ADD CONSTRAINT calm CHECK (name <> 'refuse-me')").await;
    let line = |id: &str, session: &str| {
        format!(
            "{{\"header\":{{\"deviceId\":\"d\",\"sessionId\":\"{session}\"}},\"events\":[{{\"id\":\"x\",\"timestamp\":\"1700000000000\",\"launchEvent\":{{}}}},{{\"id\":\"{id}\",\"timestamp\":\"1700000000000\",\"testEvent\":{{}}}}]}}\n"
        )
    };
    let long = "x".repeat(60);
    let body = [line("a", "refuse-me"), line(&long, "s"), line("b", "s")].concat();
    let answer = send(collector.http, "POST", "/events", body.as_bytes());
    assert_eq!(answer.unwrap().0, 200);
    let webhook = br#"{"id":"w","name":"refuse-me","timestamp":1700000000123}"#;
    assert_eq!(
        send(collector.http, "POST", "/branch/event/", webhook)
            .unwrap()
            .0,
        200
    );
    collector.delivered("postgres", ARRIVAL).await;

    // "x" and "a" of the first line, the long one, the webhook.
    let listing = ask(&collector, "dlq ls --json").json();
    assert_eq!(listing["dead_letters"][0]["waiting"], 4, "{listing:#}");
    let text = ask(&collector, "dlq ls").fits();
    assert!(text.contains("postgres"), "{text}");
    let letters = ask(&collector, "dlq show --json --queue postgres").lines();
    assert_eq!(letters.len(), 4);
    assert_eq!(letters[0]["seq"], 1, "{letters:#?}");

    // Nothing changes while the table still refuses, but the reason.
    let early = ask(&collector, "dlq replay --type TestEvent --apply");
    assert!(
        early.code == 1 && early.err.contains("0 letters replayed"),
        "{early:?}"
    );
    // A sink that is away is no refusal.
    postgres.kill();
    let away = ask(&collector, "dlq replay --all --apply");
    assert!(
        away.code == 1 && away.err.contains("postgres is away"),
        "{away:?}"
    );
    postgres.start().await;
    let pool = crate::support::judge::postgres(&postgres).await;
    for table in ["events", "branch_events"] {
        let sql = format!("ALTER TABLE {table} DROP CONSTRAINT calm");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&pool)
            .await
            .unwrap();
    }
    let said = ask(&collector, "dlq replay --all --apply --json");
    assert_eq!(said.code, 1, "the long id is still too long: {said:?}");
    assert_eq!(said.json()["places"][0]["done"], 3, "{said:?}");
    // Mended, it goes, too.
    let mut letter = ask(&collector, "dlq show --json").lines().remove(0);
    letter["body"] = letter["body"]
        .as_str()
        .unwrap()
        .replace(&long, "short")
        .into();
    // And one that is nowhere is named.
    let mut unknown = letter.clone();
    unknown["id"] = "no-such-letter".into();
    let file = collector.dir.join("mended.ndjson");
    std::fs::write(&file, format!("{letter}\n{unknown}\n")).unwrap();
    let words = format!("dlq replay --repaired {}", file.display());
    for (words, does) in [
        (words.clone(), "1 letter would be replayed"),
        (format!("{words} --apply"), "1 letter replayed"),
    ] {
        let said = ask(&collector, &words);
        assert!(
            said.code == 1 && said.err.contains(does) && said.err.contains("no-such-letter"),
            "{said:?}"
        );
    }
    assert_eq!(audit(&collector)[3]["result"], "not all");
    let events: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT event_id, ingest_seq::bigint, ingest_index::bigint FROM events ORDER BY ingest_seq, ingest_index",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let is: Vec<_> = events
        .iter()
        .map(|(id, seq, at)| (id.as_str(), *seq, *at))
        .collect();
    // "x" is one event in three batches: one row, and the first to come is it.
    let whole: Vec<_> = is.iter().filter(|row| row.0 != "x").collect();
    assert_eq!(whole, [&("a", 1, 1), &("short", 2, 1), &("b", 3, 1)]);
    assert_eq!(is.len(), 4, "{is:?}");
    let branch: (String, i64) = sqlx::query_as("SELECT id, ingest_seq::bigint FROM branch_events")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(branch, ("w".to_owned(), 4));
    let listing = ask(&collector, "dlq ls --json").json();
    let dead = &listing["dead_letters"][0];
    assert_eq!(
        (&dead["waiting"], &dead["replayed"]),
        (&0.into(), &4.into())
    );
    assert_eq!(audit(&collector).len(), 4);
    assert!(collector.terminate().success());

    // The disk of a dead host can be looked at without any configuration.
    let dir = collector.data_dir();
    let there = holdfast(&format!("dlq ls --json --data-dir {}", dir.display())).json();
    assert_eq!(there["dead_letters"][0]["replayed"], 4, "{there:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_no_queue_took_is_sent_again_once_there_is_one() {
    let scratch = Scratch::new("dlq_unroutable");
    let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
    rabbitmq.start().await;
    let config = format!("[rabbitmq]\nurls = [\"{}\"]\n", rabbitmq.amqp_url());
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    let webhook = br#"{"name":"view","n":9007199254740993}"#;
    assert_eq!(
        send(collector.http, "POST", "/vidooly/event/", webhook)
            .unwrap()
            .0,
        200
    );
    collector.delivered("rabbitmq", ARRIVAL).await;
    let letter = ask(&collector, "dlq show --json").lines().remove(0);
    assert_eq!(
        (&letter["type"], &letter["queue"]),
        (&"VIEW".into(), &"rabbitmq".into())
    );
    let still = ask(&collector, "dlq replay --queue rabbitmq --apply");
    assert!(
        still.code == 1 && still.err.contains("nothing takes"),
        "{still:?}"
    );
    // A broker that is away is no reason of the letter's.
    let reason = || ask(&collector, "dlq show --json").lines().remove(0)["reason"].clone();
    let before = reason();
    rabbitmq.kill();
    let away = ask(&collector, "dlq replay --queue rabbitmq --apply");
    assert!(
        away.code == 1 && away.err.contains("the broker is away"),
        "{away:?}"
    );
    assert_eq!(reason(), before);
    rabbitmq.start().await;

    let broker = Broker::new(Options {
        urls: vec![rabbitmq.amqp_url()],
        ..Options::default()
    });
    let session = broker.unwrap().session().await.unwrap();
    let topology = Topology {
        exchanges: vec![Exchange {
            name: "vidooly_event.tx".into(),
            kind: ExchangeKind::Topic,
        }],
        queues: vec![Queue {
            name: "views_q".into(),
            bindings: vec![Binding {
                exchange: "vidooly_event.tx".into(),
                key: "#".into(),
            }],
        }],
    };
    declare(&session, &topology, DeclareMode::Active, QueueType::Quorum)
        .await
        .unwrap();
    let said = ask(&collector, "dlq replay --queue rabbitmq --apply");
    assert!(
        said.code == 0 && said.err.contains("1 letter replayed"),
        "{said:?}"
    );
    let mut subscription = Subscription::open(&session, "views_q", 1, "")
        .await
        .unwrap();
    let delivery = subscription.next().await.unwrap().unwrap();
    let message = delivery.message;
    assert_eq!(
        (message.exchange.as_str(), message.routing_key.as_str()),
        ("vidooly_event.tx", "VIEW")
    );
    assert_eq!(&message.body[..], webhook);
    assert_eq!(
        message.headers.text("x-holdfast-host").as_deref(),
        letter["host"].as_str()
    );
    assert_eq!(message.headers.int("x-holdfast-seq"), Some(1));
    subscription.close().await;
    session.close().await;
    assert!(collector.terminate().success());
}
