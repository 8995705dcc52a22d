//! The log, as an operator reads it in an outage: one line when a part goes away and one when
//! it is back, however many wait for it and however often they try. With `debug` lines, so
//! that the test knows that there were many tries; they do not count.

use crate::support::cli::holdfast;
use crate::support::collector::Collector;
use crate::support::servers::{CLICKHOUSE_PASSWORD, CLICKHOUSE_USER, Kind, Server};
use crate::support::{Scratch, eventually, free_port};
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long anything may take to show.
const SOON: Duration = Duration::from_secs(90);

/// How long a failure may take to be noticed.
const SLACK: Duration = Duration::from_secs(1);

/// Lines that say one thing, at most: some are said at the start, too.
const REPEATS_MAX: usize = 2;

/// Queues whose consumers are made busy, with where their messages come in.
const BUSY: [(&str, &str, &str); 3] = [
    ("post_log_events_q", "beat.dx", "post_log_events"),
    ("trace_log", "identity.dx", "trace_log"),
    ("webengage_ch_event_q", "webengage_event.dx", "EVENT"),
];

/// With fewer connections than need more descriptors than a machine may give.
fn config(rabbitmq: &Server, clickhouse: &str) -> String {
    format!(
        "[log]\nformat = \"json\"\nlevel = \"info,holdfast=debug\"\n\
         [connections]\nmax = 500\n\
         [rabbitmq]\nurls = [\"{}\"]\ndeclare = \"active\"\n\
         [clickhouse]\nurl = \"{clickhouse}\"\ndatabase = \"holdfast\"\nuser = \"{CLICKHOUSE_USER}\"\npassword = \"{CLICKHOUSE_PASSWORD}\"\n",
        rabbitmq.amqp_url(),
    )
}

/// A line of the log.
#[derive(Debug)]
struct Line {
    level: String,
    message: String,
    fields: Json,
}

/// All lines; each must be JSON with what a machine needs.
fn lines(collector: &Collector) -> Vec<Line> {
    let log = collector.log();
    // The last one may be in the writing.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parsed = whole.lines().map(|line| {
        let parsed: Json = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let text = |value: &Json| {
            value
                .as_str()
                .unwrap_or_else(|| panic!("{line}"))
                .to_owned()
        };
        Line {
            level: text(&parsed["level"]),
            message: text(&parsed["fields"]["message"]),
            fields: parsed["fields"].clone(),
        }
    });
    parsed.collect()
}

fn count(lines: &[Line], level: &str, message: &str) -> usize {
    let these = lines.iter().filter(|line| line.level == level);
    these.filter(|line| line.message.contains(message)).count()
}

async fn logs(collector: &Collector, level: &str, message: &str, at_least: usize) {
    let what = format!("{at_least} times {level} {message}");
    eventually(&what, SOON, || async {
        count(&lines(collector), level, message) >= at_least
    })
    .await;
}

/// Waits for tries that failed, at whatever level they are said.
async fn tries(collector: &Collector, messages: [&str; 2], at_least: usize) {
    let what = format!("{at_least} tries");
    eventually(&what, SOON, || async {
        let lines = lines(collector);
        let these = lines.iter().filter(|line| {
            let mut messages = messages.iter();
            messages.any(|message| line.message.contains(message))
        });
        these.count() >= at_least
    })
    .await;
}

/// How many consumers there are, once all are connected.
pub(super) async fn all_connected(collector: &Collector) -> usize {
    let mut all = 0;
    eventually("all consumers are connected", SOON, || {
        let page = crate::support::collector::get(collector.http, "/metrics");
        let text = page.map_or(String::new(), |(_, text)| text);
        let states: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("holdfast_connected{"))
            .map(|line| line.ends_with(" 1"))
            .collect();
        all = states.len();
        async move { states.len() > 1 && states.into_iter().all(|is| is) }
    })
    .await;
    all
}

/// Whether a consumer is connected by `status`, and for how long it has been in trouble.
fn consumer(collector: &Collector, queue: &str) -> (bool, Duration) {
    let config = collector.dir.join("holdfast.toml");
    let status = holdfast(&format!("status --json --config {}", config.display())).json();
    let parts = status["parts"].as_array().unwrap();
    let part = parts.iter().find(|part| part["name"] == queue).unwrap();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let since_ms = part["trouble"]["since_ms"].as_u64();
    let since = since_ms.map_or(now_ms, Duration::from_millis);
    let is_connected = part["connected"].as_bool().unwrap();
    (is_connected, now_ms.saturating_sub(since))
}

async fn channel(rabbitmq: &Server) -> (Connection, Channel) {
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(&rabbitmq.amqp_url(), properties).await;
    let connection = connection.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = ConfirmSelectOptions::default();
    channel.confirm_select(options).await.unwrap();
    (connection, channel)
}

/// Warnings and errors, and how often each information is there, without what is once.
fn assert_said(collector: &Collector, warnings: &[&str], ends: &[&str]) {
    let lines = lines(collector);
    let of = |level: &str| {
        let these = lines.iter().filter(|line| line.level == level);
        these.map(|line| line.message.as_str()).collect::<Vec<_>>()
    };
    let told: Vec<_> = lines.iter().filter(|line| line.level != "DEBUG").collect();
    for line in &told {
        eprintln!("{} {} {}", line.level, line.message, line.fields);
    }
    assert_eq!(of("WARN"), warnings);
    assert!(of("ERROR").is_empty());
    for end in ends {
        let these = of("INFO").into_iter().filter(|message| message == end);
        assert_eq!(these.count(), 1, "{end}");
    }
    // The phases of a stop say the same of different parts, and health of both its states.
    let mut infos: BTreeMap<(&str, [String; 2]), usize> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.level == "INFO") {
        let about = ["phase", "serving"].map(|field| line.fields[field].to_string());
        *infos.entry((&line.message, about)).or_default() += 1;
    }
    assert!(infos.values().all(|n| *n <= REPEATS_MAX), "{infos:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_outage_is_one_warning_and_one_end() {
    let scratch = Scratch::new("logs_outages");
    let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
    let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
    rabbitmq.launch();
    clickhouse.launch();
    rabbitmq.ready().await;
    clickhouse.ready().await;
    let mut collector = Collector::new(&scratch, &config(&rabbitmq, &clickhouse.clickhouse_url()));
    collector.start().await;
    let consumers = all_connected(&collector).await;
    assert!(consumers > 20, "{consumers} consumers");
    logs(&collector, "INFO", "tables are there", 1).await;
    rabbitmq.settle_queues();

    rabbitmq.kill();
    let said = ["the broker is away", "the broker is still away"];
    tries(&collector, said, 2 * consumers).await;
    rabbitmq.start().await;
    all_connected(&collector).await;
    logs(&collector, "INFO", "the broker is back", 1).await;

    clickhouse.kill();
    let (_connection, channel) = channel(&rabbitmq).await;
    for (_, exchange, key) in BUSY {
        let body = match key {
            "EVENT" => {
                json!({"appType": "USER", "userId": "u", "eventName": "n", "eventTime": "2023-11-14T22:13:20Z", "eventData": {}})
            }
            "trace_log" => json!({"uri": "/x"}),
            _ => json!({
                "event_id": "e", "source": "s", "platform": "p", "profile_id": "1",
                "shortcode": "c", "handle": null, "metrics": {}, "dimensions": {},
                "publish_time": null, "event_timestamp": "2023-11-14 22:13:20",
            }),
        };
        let options = BasicPublishOptions::default();
        let body = body.to_string();
        let publish = channel.basic_publish(
            exchange.into(),
            key.into(),
            options,
            body.as_bytes(),
            BasicProperties::default(),
        );
        publish.await.unwrap().await.unwrap();
    }
    eventually(
        "each of several consumers has tried often",
        SOON,
        || async {
            let lines = lines(&collector);
            BUSY.iter().all(|(queue, ..)| {
                let tries = lines.iter().filter(|line| line.fields["who"] == *queue);
                tries.count() > 5
            })
        },
    )
    .await;
    clickhouse.start().await;
    logs(&collector, "INFO", "sink is back", 1).await;
    for (queue, ..) in BUSY {
        let written =
            format!("holdfast_consumer_rows_total{{consumer=\"{queue}\",outcome=\"written\"}}");
        eventually(&written, SOON, || async {
            collector.metric(&written) == 1.0
        })
        .await;
    }
    assert!(collector.terminate().success());
    assert_said(
        &collector,
        &[
            "the broker is away; trying again until it is back",
            "sink is away; holding",
        ],
        &["the broker is back", "sink is back"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_consumer_loses_is_its_own_line() {
    let scratch = Scratch::new("logs_consumer");
    let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
    rabbitmq.start().await;
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let mut collector = Collector::new(&scratch, &config(&rabbitmq, &nowhere));
    collector.start().await;
    all_connected(&collector).await;
    assert!(collector.terminate().success());
    // From now on nobody makes what is missing.
    let file = collector.dir.join("holdfast.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"active\"", "\"off\"")).unwrap();
    std::fs::remove_file(collector.dir.join("collector.log")).unwrap();
    collector.start().await;
    all_connected(&collector).await;

    let (_connection, channel) = channel(&rabbitmq).await;
    let delete = || channel.queue_delete("trace_log".into(), QueueDeleteOptions::default());
    delete().await.unwrap();
    let deleted = Instant::now();
    // They go on for longer than what is allowed for.
    tries(&collector, ["consumer failed", "consumer ended"], 8).await;
    // No try made it look well in between: an alert waits for minutes of it.
    let (is_connected, troubled_for) = consumer(&collector, "trace_log");
    assert!(!is_connected);
    let away = deleted.elapsed();
    assert!(away > 2 * SLACK, "{away:?}");
    assert!(troubled_for + SLACK > away, "{troubled_for:?} of {away:?}");
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declare = channel.queue_declare("trace_log".into(), options, FieldTable::default());
    declare.await.unwrap();
    logs(&collector, "INFO", "consumer works again", 1).await;
    assert!(collector.terminate().success());

    let failed = "consumer failed, the broker is there; trying again";
    let schema = "sink is away (cannot create missing tables); trying again";
    // That it was cancelled, and that its queue does not exist.
    let warnings = [schema, failed, failed];
    assert_said(&collector, &warnings, &["consumer works again"]);
    let lines = lines(&collector);
    let these = lines.iter().filter(|line| line.message == failed);
    let reasons: Vec<_> = these
        .map(|line| {
            (
                line.fields["queue"].as_str(),
                line.fields["reason"].as_str(),
            )
        })
        .collect();
    assert!(reasons.iter().all(|(queue, _)| *queue == Some("trace_log")));
    assert_ne!(reasons[0].1, reasons[1].1, "{reasons:?}");
}
