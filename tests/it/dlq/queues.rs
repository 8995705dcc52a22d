//! Error queues: messages keep what they are and what became of them; a replay delivers
//! each once to the queue that refused it; what is not meant stays.

use super::{ARRIVAL, ask, audit};
use crate::support::collector::Collector;
use crate::support::judge::query_clickhouse;
use crate::support::servers::{Server, Stack};
use crate::support::{Scratch, eventually};
use holdfast::broker::{Broker, Message, Options, Publisher, Session};
use serde_json::{Value as Json, json};

/// Looks that an error queue gets in one test: more than RabbitMQ 4 lets a message be
/// delivered.
const LOOKS: usize = 25;

struct Site {
    collector: Collector,
    stack: Stack,
    session: Session,
    publisher: Publisher,
    _scratch: Scratch,
}

impl Site {
    async fn start(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let stack = Stack::start(&scratch).await;
        let config = format!(
            "{}[[consumer]]\nqueue = \"branch_event_q\"\nretry_delay = \"10ms\"\n\
             [[consumer]]\nqueue = \"grpc_clickhouse_event_q\"\nretry_delay = \"10ms\"\n\
             [[consumer]]\nqueue = \"grpc_clickhouse_event_error_q\"\nretry_delay = \"10ms\"\n",
            stack.config()
        );
        let mut collector = Collector::new(&scratch, &config);
        collector.start().await;
        let broker = Broker::new(Options {
            urls: vec![stack.rabbitmq.amqp_url()],
            ..Options::default()
        });
        let session = broker.unwrap().session().await.unwrap();
        let publisher = Publisher::open(&session).await.unwrap();
        let site = Self {
            collector,
            stack,
            session,
            publisher,
            _scratch: scratch,
        };
        eventually("tables are there", ARRIVAL, || async {
            let tables = ["branch_events", "events", "error_events"];
            let mut there = true;
            for table in tables {
                there &= site.count(table).await.is_some();
            }
            there
        })
        .await;
        // Its queue is declared by the forwarder or a consumer, whoever comes first.
        let connected = "holdfast_connected{who=\"branch_event_q\"}";
        eventually("consumers are there", ARRIVAL, || async {
            site.collector.metric(connected) == 1.0
        })
        .await;
        site
    }

    /// One of Branch's webhooks, as another producer publishes it.
    async fn publish(&self, body: &str, id: &str) {
        let mut message = Message {
            exchange: "branch_event.tx".into(),
            routing_key: "INSTALL".into(),
            message_id: Some(id.into()),
            body: bytes::Bytes::copy_from_slice(body.as_bytes()),
            ..Message::default()
        };
        message.headers.set("x-bb-os", "android");
        let confirm = self.publisher.publish(&message).await.unwrap();
        confirm.await.unwrap();
    }

    async fn clickhouse(&self, statement: &str) {
        let client = crate::support::judge::clickhouse(&self.stack.clickhouse);
        client.query(statement).execute().await.unwrap();
    }

    async fn count(&self, table: &str) -> Option<u64> {
        let sql = format!("SELECT toUInt64(count()) AS n FROM {table}");
        let rows = query_clickhouse(&self.stack.clickhouse, &sql).await.ok()?;
        rows[0]["n"].as_u64()
    }

    async fn rows(&self, table: &str, count: u64) {
        let what = format!("{count} rows in {table}");
        eventually(&what, ARRIVAL, || async {
            self.count(table).await == Some(count)
        })
        .await;
    }

    /// Messages of an error queue, by the judge's own count.
    fn depth(&self, queue: &str) -> u64 {
        depth(&self.stack.rabbitmq, queue)
    }

    async fn settled(&self, queue: &str, messages: u64) {
        let what = format!("{messages} messages in {queue}");
        eventually(&what, ARRIVAL, || async { self.depth(queue) == messages }).await;
    }

    async fn stop(mut self) {
        self.session.close().await;
        assert!(self.collector.terminate().success());
    }
}

pub fn depth(rabbitmq: &Server, queue: &str) -> u64 {
    let list = rabbitmq.rabbitmqctl(&["list_queues", "-q", "name", "messages"]);
    let found = list.lines().find_map(|line| {
        let (name, messages) = line.split_once('\t')?;
        (name == queue).then(|| messages.trim().parse().unwrap())
    });
    found.unwrap_or(0)
}

const REFUSING: &str = "CONSTRAINT no_refused CHECK name != 'refused'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_replayed_once_and_the_others_stay() {
    let site = Site::start("dlq_queues").await;
    site.clickhouse(&format!("ALTER TABLE branch_events ADD {REFUSING}"))
        .await;
    let branch = |id: &str, name: &str| {
        json!({"id": id, "name": name, "timestamp": 1_700_000_000_123_i64}).to_string()
    };
    site.publish(&branch("good", "install"), "m0").await;
    for at in 0..3 {
        site.publish(&branch(&format!("r{at}"), "refused"), &format!("m{at}r"))
            .await;
    }
    site.publish(r#"{"name":"no id","timestamp":1700000000}"#, "m1")
        .await;
    site.publish("no json", "").await;
    site.settled("branch_event_q_error", 5).await;
    site.rows("branch_events", 1).await;

    // How many, why, and what.
    let list = ask(&site.collector, "dlq ls --json").json();
    assert_eq!(list["queues"].as_array().unwrap().len(), 1, "{list:#}");
    assert_eq!(list["queues"][0]["queue"], "branch_event_q");
    assert_eq!(list["queues"][0]["messages"], 5);
    let text = ask(&site.collector, "dlq ls --reasons").fits();
    assert!(
        text.contains("id: missing") && text.contains("no_refused"),
        "{text}"
    );
    let refused = ask(&site.collector, "dlq show --json --reason NO_REFUSED").lines();
    assert_eq!(refused.len(), 3);
    for letter in &refused {
        assert_eq!(letter["type"], "INSTALL");
        assert_eq!(letter["queue"], "branch_event_q");
        assert_eq!(letter["headers"]["x-bb-os"], "android");
        let history = letter["history"].as_array().unwrap();
        assert_eq!(history.len(), 3, "an attempt each: {history:?}");
        for (at, line) in history.iter().enumerate() {
            let line = line.as_str().unwrap();
            assert!(
                line.contains(&format!("branch_event_q attempt {}", at + 1)),
                "{line}"
            );
            assert!(line.contains("no_refused"), "{line}");
        }
    }
    let unreadable = ask(&site.collector, "dlq show --reason JSON").fits();
    assert!(
        unreadable.contains("no json") && unreadable.contains("attempt 1"),
        "{unreadable}"
    );

    // A dry run changes nothing, and nothing is meant by default.
    let dry = ask(&site.collector, "dlq replay --reason no_refused");
    assert!(
        dry.code == 0 && dry.err.contains("3 letters would be"),
        "{dry:?}"
    );
    let unchosen = ask(&site.collector, "dlq purge --apply");
    assert!(
        unchosen.code == 1 && unchosen.err.contains("--all"),
        "{unchosen:?}"
    );
    assert_eq!(
        (
            site.depth("branch_event_q_error"),
            audit(&site.collector).len()
        ),
        (5, 0)
    );

    // Before the fix it is refused again, with all of its history.
    let id = refused[0]["id"].as_str().unwrap();
    let early = ask(&site.collector, &format!("dlq replay --apply --id {id}"));
    assert!(
        early.code == 0 && early.err.contains("1 letter replayed"),
        "{early:?}"
    );
    eventually("it is refused again", ARRIVAL, || async {
        let letters = ask(&site.collector, &format!("dlq show --json --id {id}")).lines();
        letters.len() == 1 && letters[0]["history"].as_array().unwrap().len() == 7
    })
    .await;

    // After the fix each is a row, once; those that are not meant stay.
    site.clickhouse("ALTER TABLE branch_events DROP CONSTRAINT no_refused")
        .await;
    let fixed = ask(
        &site.collector,
        "dlq replay --queue branch_event_q --type INSTALL --reason no_refused --since 1h --apply",
    );
    assert!(
        fixed.code == 0 && fixed.err.contains("3 letters replayed"),
        "{fixed:?}"
    );
    site.rows("branch_events", 4).await;
    site.settled("branch_event_q_error", 2).await;

    // What is mended goes the same way.
    let broken = ask(&site.collector, "dlq show --json --reason missing").lines();
    let mut mended = broken[0].clone();
    mended["body"] = branch("mended", "install").into();
    let file = site.collector.dir.join("mended.ndjson");
    std::fs::write(&file, mended.to_string()).unwrap();
    let words = format!("dlq replay --apply --repaired {}", file.display());
    let said = ask(&site.collector, &words);
    assert!(
        said.code == 0 && said.err.contains("1 letter replayed"),
        "{said:?}"
    );
    site.rows("branch_events", 5).await;
    let ids = "SELECT id, count() AS n FROM branch_events GROUP BY id ORDER BY id";
    let ids = query_clickhouse(&site.stack.clickhouse, ids).await.unwrap();
    let ids: Vec<_> = ids.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["good", "mended", "r0", "r1", "r2"]);

    let purged = ask(&site.collector, "dlq purge --all --apply --json").json();
    assert_eq!(purged["places"][0]["done"], 1, "{purged:#}");
    site.settled("branch_event_q_error", 0).await;
    let lines = audit(&site.collector);
    let verbs: Vec<_> = lines.iter().map(|line| &line["verb"]).collect();
    assert_eq!(
        verbs,
        ["dlq replay", "dlq replay", "dlq replay", "dlq purge"]
    );
    assert!(
        lines.iter().all(|line| line["result"] == "applied"),
        "{lines:#?}"
    );
    assert_eq!(lines[1]["done"][0]["done"], 3, "{lines:#?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_costs_no_letter_and_a_queue_that_is_gone_holds_none_up() {
    let site = Site::start("dlq_looks").await;
    for at in 0..3 {
        site.publish(&format!("broken {at}"), &format!("m{at}"))
            .await;
    }
    site.settled("branch_event_q_error", 3).await;
    let deliveries = |letters: &[Json]| {
        let counts = letters
            .iter()
            .filter_map(|letter| letter["headers"]["x-delivery-count"].as_i64());
        counts.max().unwrap_or(0)
    };
    let (mut highest, mut bodies) = (0, Vec::new());
    for _ in 0..LOOKS {
        let letters = ask(&site.collector, "dlq show --json").lines();
        highest = highest.max(deliveries(&letters));
        bodies = letters
            .iter()
            .map(|letter| letter["body"].to_string())
            .collect();
        bodies.sort();
        assert_eq!(bodies.len(), 3);
    }
    assert_eq!(bodies, ["\"broken 0\"", "\"broken 1\"", "\"broken 2\""]);
    assert!(
        (5..12).contains(&highest),
        "deliveries begin anew: {highest}"
    );
    // One that nothing takes stays, says so, and does not hold the others up.
    let ids: Vec<_> = ask(&site.collector, "dlq show --json").lines();
    let id = ids[1]["id"].as_str().unwrap();
    let lost = ask(
        &site.collector,
        &format!("dlq replay --id {id} --to no_such_q --apply"),
    );
    assert!(lost.code == 1 && lost.err.contains("no_such_q"), "{lost:?}");
    site.settled("branch_event_q_error", 3).await;
    let back = ask(
        &site.collector,
        "dlq replay --all --to branch_event_q --apply",
    );
    assert!(
        back.code == 0 && back.err.contains("3 letters replayed"),
        "{back:?}"
    );
    site.settled("branch_event_q_error", 3).await;
    // Without the broker the file of this host can still be looked at.
    let mut site = site;
    site.stack.rabbitmq.kill();
    let away = ask(&site.collector, "dlq ls");
    assert!(
        away.code == 1 && away.err.contains("no session"),
        "{away:?}"
    );
    site.collector.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_refused_twice_goes_back_to_where_it_was_refused_first() {
    let site = Site::start("dlq_events").await;
    for table in ["events", "error_events"] {
        let statement =
            format!("ALTER TABLE {table} ADD CONSTRAINT none CHECK session_id != 'refuse-me'");
        site.clickhouse(&statement).await;
    }
    let body = r#"{"header":{"deviceId":"d","sessionId":"refuse-me"},"events":[{"id":"e1","timestamp":"1700000000000","testEvent":{}}]}"#;
    let answer =
        crate::support::collector::send(site.collector.http, "POST", "/events", body.as_bytes());
    assert_eq!(answer.unwrap().0, 200);
    site.settled("grpc_clickhouse_event_error_q_error", 1).await;
    let letter = ask(&site.collector, "dlq show --json").lines().remove(0);
    assert_eq!(letter["queue"], "grpc_clickhouse_event_q", "{letter:#}");
    assert_eq!(letter["type"], "TestEvent");
    assert_eq!(letter["history"].as_array().unwrap().len(), 6, "{letter:#}");
    for table in ["events", "error_events"] {
        site.clickhouse(&format!("ALTER TABLE {table} DROP CONSTRAINT none"))
            .await;
    }
    let said = ask(&site.collector, "dlq replay --all --apply");
    assert!(
        said.code == 0 && said.err.contains("1 letter replayed"),
        "{said:?}"
    );
    site.rows("events", 1).await;
    let origin = "SELECT event_id, ingest_host, toString(ingest_seq) AS seq FROM events";
    let row = query_clickhouse(&site.stack.clickhouse, origin)
        .await
        .unwrap();
    assert_eq!(row[0]["event_id"], "e1");
    assert_eq!(row[0]["ingest_host"], letter["host"]);
    assert_eq!(row[0]["seq"], letter["seq"].to_string());
    assert_eq!(site.count("error_events").await, Some(0));
    site.stop().await;
}
