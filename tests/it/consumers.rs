//! What consumers owe each other, their sinks and their host: a retry is its own queue's business,
//! a batch is one write, an idle consumer writes nothing, and what workers hold fits into memory.
//! On real servers.

mod hanging;
mod replaced;

use crate::support::collector::Collector;
use crate::support::judge::{clickhouse, query_clickhouse};
use crate::support::servers::{Kind, Server};
use crate::support::{Scratch, eventually};
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::json;
use std::time::{Duration, Instant};

const ARRIVAL: Duration = Duration::from_secs(60);

/// Rows of one batch, in the test of batches.
const BATCH: usize = 500;

struct Site {
    rabbitmq: Server,
    clickhouse: Server,
    collector: Collector,
    _connection: Connection,
    channel: Channel,
    _scratch: Scratch,
}

impl Site {
    async fn start(name: &str, consumers: &str) -> Self {
        Self::start_on(name, consumers, "").await
    }

    /// With further lines of `[rabbitmq]`.
    async fn start_on(name: &str, consumers: &str, broker: &str) -> Self {
        Self::start_by(name, consumers, broker, async |rabbitmq| {
            rabbitmq.amqp_url()
        })
        .await
    }

    /// With another way to the broker, which gives its URL.
    async fn start_by(
        name: &str,
        consumers: &str,
        broker: &str,
        way: impl AsyncFnOnce(&Server) -> String,
    ) -> Self {
        let scratch = Scratch::new(name);
        let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
        let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
        rabbitmq.launch();
        clickhouse.launch();
        rabbitmq.ready().await;
        clickhouse.ready().await;
        let config = format!(
            "[rabbitmq]\nurls = [\"{}\"]\n{broker}\n[clickhouse]\nurl = \"{}\"\ndatabase = \"holdfast\"\nuser = \"{}\"\npassword = \"{}\"\n{consumers}",
            way(&rabbitmq).await,
            clickhouse.clickhouse_url(),
            crate::support::servers::CLICKHOUSE_USER,
            crate::support::servers::CLICKHOUSE_PASSWORD,
        );
        let mut collector = Collector::new(&scratch, &config);
        collector.start().await;
        consumers_connected(&collector).await;
        eventually("tables are there", ARRIVAL, || async {
            let there = query_clickhouse(&clickhouse, "SELECT 1 FROM webengage_events LIMIT 1");
            there.await.is_ok()
        })
        .await;
        let connection = Connection::connect(&rabbitmq.amqp_url(), ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        Self {
            rabbitmq,
            clickhouse,
            collector,
            _connection: connection,
            channel,
            _scratch: scratch,
        }
    }

    async fn publish(&self, exchange: &str, key: &str, body: &str) {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let (exchange, key): (ShortString, ShortString) = (exchange.into(), key.into());
        let publish =
            self.channel
                .basic_publish(exchange, key, options, body.as_bytes(), properties);
        publish.await.unwrap().await.unwrap();
    }

    async fn count(&self, table: &str) -> u64 {
        let sql = format!("SELECT toUInt64(count()) AS n FROM {table}");
        let rows = query_clickhouse(&self.clickhouse, &sql).await.unwrap();
        rows[0]["n"].as_u64().unwrap()
    }

    /// How many of a queue's messages consumers hold, once the broker's figures, which it takes
    /// every 5 s, have all of them.
    async fn held(&self, queue: &str, messages: u64) -> u64 {
        let deadline = Instant::now() + ARRIVAL;
        loop {
            let columns = ["name", "messages_ready", "messages_unacknowledged"];
            let queues = self
                .rabbitmq
                .rabbitmqctl(&[&["-q", "list_queues"], &columns[..]].concat());
            let figures = queues.lines().find_map(|line| {
                let mut columns = line.split('\t');
                (columns.next() == Some(queue)).then(|| columns.map(|n| n.parse().unwrap()))
            });
            let figures: Vec<u64> = figures.unwrap().collect();
            let (ready, held) = (figures[0], figures[1]);
            if ready + held == messages && held > 0 {
                return held;
            }
            assert!(Instant::now() < deadline, "{ready} wait, {held} are held");
        }
    }

    fn writes(&self) -> f64 {
        self.collector
            .metric("holdfast_sink_writes_total{outcome=\"written\",sink=\"clickhouse\"}")
    }

    /// Rows are there a moment before their write is counted.
    async fn writes_come_to(&self, writes: f64) {
        eventually("the writes are counted", ARRIVAL, || async {
            self.writes() >= writes
        })
        .await;
        assert_eq!(self.writes(), writes);
    }
}

async fn consumers_connected(collector: &Collector) {
    for queue in ["webengage_ch_event_q", "post_log_events_q"] {
        let connected = format!("holdfast_connected{{who=\"{queue}\"}}");
        eventually("the consumer is connected", ARRIVAL, || async {
            collector.metric(&connected) == 1.0
        })
        .await;
    }
}

/// Prefetch by count alone would be all of these in memory, as the queue's batches have 1,000 rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_do_not_fill_the_memory() {
    const QUEUE: &str = "webengage_ch_event_q";
    const SMALL: u64 = 2000;
    const LARGE: u64 = 400;
    // Some times a batch and a worker's part, which is some MiB as by default; a sixth of them all.
    const HELD_MAX: u64 = 64;
    const MORE_KIB_MAX: u64 = 200 << 10;
    let consumers = format!("[[consumer]]\nqueue = \"{QUEUE}\"\nworkers = 1\n");
    let mut site = Site::start_on("large", &consumers, "prefetch_bytes = \"256MiB\"").await;
    let event = |user: u64, text: &str| {
        json!({"appType": "USER", "userId": format!("u{user}"), "eventName": "n",
            "eventTime": "2023-11-14T22:13:20Z", "eventData": {"text": text}})
        .to_string()
    };
    for user in 0..SMALL {
        site.publish("webengage_event.dx", "EVENT", &event(user, "t"))
            .await;
    }
    eventually("small ones are rows", ARRIVAL, || async {
        site.count("webengage_events").await == SMALL
    })
    .await;
    let before_kib = site.collector.resident_memory_kib();
    let few = |held: u64, memory_kib: u64| {
        assert!(held < HELD_MAX, "{held} messages are held");
        let more_kib = memory_kib.saturating_sub(before_kib);
        assert!(more_kib < MORE_KIB_MAX, "{before_kib} and {more_kib} KiB");
    };
    site.clickhouse.pause().await;
    let text = "t".repeat(1 << 20);
    for user in 0..LARGE {
        site.publish("webengage_event.dx", "EVENT", &event(SMALL + user, &text))
            .await;
    }
    // They come to a worker that may hold a thousand as small as those before.
    let held = site.held(QUEUE, LARGE).await;
    few(held, site.collector.resident_memory_kib());
    // They wait for a collector that starts.
    site.collector.kill();
    site.collector.start().await;
    consumers_connected(&site.collector).await;
    let held = site.held(QUEUE, LARGE).await;
    few(held, site.collector.peak_memory_kib());
    site.clickhouse.resume().await;
    eventually("all are rows", ARRIVAL, || async {
        site.count("webengage_events").await == SMALL + LARGE
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_went_unsaid_is_found_and_made_again() {
    let queue = "webengage_ch_event_q";
    // A classic one: of a quorum queue its Raft servers would be left.
    let site = Site::start_on("went_unsaid", "", "queue_type = \"classic\"").await;
    // In one call, so that it is not made again before it is looked for.
    let forget = format!(
        "Q = rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>), \
         rabbit_amqqueue:internal_delete(Q, <<\"test\">>), \
         {{error, not_found}} = rabbit_amqqueue:lookup(Q)."
    );
    site.rabbitmq.rabbitmqctl(&["eval", &forget]);
    let list = || {
        let queues = site
            .rabbitmq
            .rabbitmqctl(&["-q", "list_queues", "name", "consumers"]);
        queues.lines().find_map(|line| {
            let (name, consumers) = line.split_once('\t')?;
            (name == queue).then(|| consumers.trim().to_owned())
        })
    };
    eventually("it is there again, and consumed", ARRIVAL, || async {
        list().is_some_and(|consumers| consumers != "0")
    })
    .await;
    let event = json!({"appType": "USER", "userId": "u", "eventName": "n", "eventTime": "2023-11-14T22:13:20Z", "eventData": {}});
    site.publish("webengage_event.dx", "EVENT", &event.to_string())
        .await;
    eventually("what is published arrives", ARRIVAL, || async {
        site.count("webengage_events").await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_session_shows_while_the_sink_is_away() {
    const QUEUE: &str = "webengage_ch_event_q";
    let consumers = format!("[[consumer]]\nqueue = \"{QUEUE}\"\nworkers = 1\n");
    let mut site = Site::start("lost_unseen", &consumers).await;
    site.clickhouse.pause().await;
    let event = json!({"appType": "USER", "userId": "u", "eventName": "n", "eventTime": "2023-11-14T22:13:20Z", "eventData": {}});
    site.publish("webengage_event.dx", "EVENT", &event.to_string())
        .await;
    assert_eq!(site.held(QUEUE, 1).await, 1);
    site.rabbitmq.kill();
    let connected = format!("holdfast_connected{{who=\"{QUEUE}\"}}");
    eventually("it shows", Duration::from_secs(5), || async {
        site.collector.metric(&connected) == 0.0
    })
    .await;
    site.clickhouse.resume().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_reaches_its_own_queue_alone_and_keeps_its_key() {
    let quick = "[[consumer]]\nqueue = \"webengage_ch_event_q\"\nretry_delay = \"10ms\"\n";
    let site = Site::start("siblings", quick).await;
    // A sibling with the same key, and one that takes everything of the exchange's
    // errors, as any team may bind.
    for (queue, key) in [
        ("sibling_q", "EVENT"),
        ("spy_q", "error.webengage_ch_event_q"),
    ] {
        let (options, none) = (QueueDeclareOptions::default(), FieldTable::default());
        let declare = site
            .channel
            .queue_declare(queue.into(), options, none.clone());
        declare.await.unwrap();
        let options = QueueBindOptions::default();
        let bind = site.channel.queue_bind(
            queue.into(),
            "webengage_event.dx".into(),
            key.into(),
            options,
            none,
        );
        bind.await.unwrap();
    }
    clickhouse(&site.clickhouse)
        .query("ALTER TABLE webengage_events ADD CONSTRAINT calm CHECK user_id != 'refuse-me'")
        .execute()
        .await
        .unwrap();
    for user in ["u", "refuse-me"] {
        let event = json!({"appType": "USER", "userId": user, "eventName": "n", "eventTime": "2023-11-14T22:13:20Z", "eventData": {}});
        site.publish("webengage_event.dx", "EVENT", &event.to_string())
            .await;
    }
    let refused =
        "holdfast_consumer_rows_total{consumer=\"webengage_ch_event_q\",outcome=\"refused\"}";
    eventually("it is refused in the end", ARRIVAL, || async {
        site.collector.metric(refused) == 1.0
    })
    .await;
    let retried =
        "holdfast_consumer_rows_total{consumer=\"webengage_ch_event_q\",outcome=\"retried\"}";
    assert_eq!(site.collector.metric(retried), 2.0);
    let get = |queue: &str| {
        let options = BasicGetOptions { no_ack: true };
        site.channel.basic_get(queue.into(), options)
    };
    // It is counted before the broker has it.
    let until = Instant::now() + ARRIVAL;
    let error = loop {
        if let Some(got) = get("spy_q").await.unwrap() {
            break got.delivery;
        }
        assert!(Instant::now() < until, "the error queue has nothing");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut copies = Vec::new();
    while let Some(got) = get("sibling_q").await.unwrap() {
        copies.push(String::from_utf8(got.delivery.data).unwrap());
    }
    assert_eq!(copies.len(), 2, "one copy of each message: {copies:?}");
    let headers = error.properties.headers().clone().unwrap();
    let key = headers.inner()["x-holdfast-routing-key"].as_long_string();
    assert_eq!(key.unwrap().to_string(), "EVENT");
    assert!(get("spy_q").await.unwrap().is_none());
    // Another worker may have the other one.
    eventually("the other one is a row", ARRIVAL, || async {
        site.count("webengage_events").await == 1
    })
    .await;
    drop(site.rabbitmq);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_one_write_and_an_idle_consumer_writes_nothing() {
    let consumers = format!(
        "[[consumer]]\nqueue = \"post_log_events_q\"\nworkers = 1\nbatch_rows = {BATCH}\nbatch_age = \"20s\"\n\
         [[consumer]]\nqueue = \"trace_log\"\nbatch_age = \"50ms\"\n"
    );
    let site = Site::start("batches", &consumers).await;
    assert_eq!(site.writes(), 0.0, "nothing came, nothing was written");
    for at in 0..BATCH * 2 {
        let post = json!({
            "event_id": format!("e{at}"), "source": "s", "platform": "p", "profile_id": "1",
            "shortcode": "c", "handle": null, "metrics": {}, "dimensions": {},
            "publish_time": null, "event_timestamp": "2023-11-14 22:13:20",
        });
        site.publish("beat.dx", "post_log_events", &post.to_string())
            .await;
    }
    eventually("all are rows", ARRIVAL, || async {
        site.count("post_log_events").await == BATCH as u64 * 2
    })
    .await;
    // With a prefetch of one, as once, no batch would ever fill, and the age alone
    // would write a row each 20 s. A write counts once the server has answered.
    site.writes_come_to(2.0).await;
    // A trace log is written after its age, and then nothing any more: many ages pass
    // while the other consumer's batch grows old.
    site.publish("identity.dx", "trace_log", r#"{"uri":"/x"}"#)
        .await;
    let post = json!({
        "event_id": "last", "source": "s", "platform": "p", "profile_id": "1",
        "shortcode": "c", "handle": null, "metrics": {}, "dimensions": {},
        "publish_time": null, "event_timestamp": "2023-11-14 22:13:20",
    });
    site.publish("beat.dx", "post_log_events", &post.to_string())
        .await;
    eventually("the last one is a row", ARRIVAL, || async {
        site.count("post_log_events").await == BATCH as u64 * 2 + 1
    })
    .await;
    assert_eq!(site.count("trace_log_events").await, 1);
    site.writes_come_to(4.0).await;
}
