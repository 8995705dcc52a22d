//! What the broker refuses by closing the channel is set aside with its reason, and everything
//! behind it goes on; what it lost of the topology is made anew. On real servers.

use crate::support::cli::holdfast;
use crate::support::collector::{Collector, send};
use crate::support::judge::{postgres, query_postgres};
use crate::support::raw::dispatch;
use crate::support::servers::{Kind, Server};
use crate::support::{Scratch, eventually};
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::{Event, Events, Header, LaunchEvent, TestEvent};
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use prost::Message as _;
use serde_json::Value as Json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const ARRIVAL: Duration = Duration::from_secs(60);

fn request(id: &str, text: String) -> Vec<u8> {
    let event = Event {
        id: id.into(),
        timestamp: "1700000000000".into(),
        current_url: String::new(),
        event_of: Some(EventOf::TestEvent(TestEvent {
            test_param1: text,
            test_param2: 7,
        })),
    };
    let request = Events {
        header: Some(Header {
            device_id: "d".into(),
            ..Header::default()
        }),
        events: vec![event],
    };
    request.encode_to_vec()
}

struct Site {
    rabbitmq: Server,
    postgres: Server,
    scratch: Scratch,
}

impl Site {
    /// Another way to the broker, which is open as long as the first of them is kept.
    async fn channel(&self) -> (Connection, Channel) {
        let url = self.rabbitmq.amqp_url();
        let connecting = Connection::connect(&url, ConnectionProperties::default());
        let connection = connecting.await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    /// No event went elsewhere.
    async fn no_errors(&self) {
        let pool = postgres(&self.postgres).await;
        let errors = "SELECT to_json(event_id)::text FROM error_events";
        assert!(query_postgres(&pool, errors).await.unwrap().is_empty());
        pool.close().await;
    }

    async fn start(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
        let mut postgres = Server::new(Kind::Postgres, &scratch);
        rabbitmq.launch();
        postgres.launch();
        rabbitmq.ready().await;
        postgres.ready().await;
        Self {
            rabbitmq,
            postgres,
            scratch,
        }
    }

    async fn collector(&self, broker: &str) -> Collector {
        let config = format!(
            "[rabbitmq]\nurls = [\"{}\"]\n{broker}\n[postgres]\nurl = \"{}\"\n",
            self.rabbitmq.amqp_url(),
            self.postgres.postgres_url(),
        );
        let mut collector = Collector::new(&self.scratch, &config);
        collector.start().await;
        collector
    }

    async fn events(&self, count: usize) {
        let pool = postgres(&self.postgres).await;
        eventually(&format!("{count} events"), ARRIVAL, || async {
            let rows = query_postgres(&pool, "SELECT to_json(event_id)::text FROM events").await;
            rows.is_ok_and(|rows| rows.len() == count)
        })
        .await;
        pool.close().await;
    }
}

fn letters(collector: &Collector) -> Vec<Json> {
    let config = collector.dir.join("holdfast.toml");
    holdfast(&format!("dlq show --json --config {}", config.display())).lines()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_larger_than_the_broker_takes_is_set_aside_and_the_others_go_on() {
    let site = Site::start("closed_sizes").await;
    let limit = "application:set_env(rabbit, max_message_size, 1048576).";
    site.rabbitmq.rabbitmqctl(&["eval", limit]);
    let mut collector = site.collector("").await;
    let address = collector.address();
    for at in 0..10 {
        let small = request(&format!("before-{at}"), "x".into());
        dispatch(&address, small).await.unwrap();
    }
    let large = request("large", "x".repeat(2 << 20));
    let seq = dispatch(&address, large).await.unwrap();
    for at in 0..10 {
        let small = request(&format!("after-{at}"), "x".into());
        dispatch(&address, small).await.unwrap();
    }
    collector.delivered("rabbitmq", ARRIVAL).await;
    site.events(20).await;
    let letters = letters(&collector);
    let [letter] = letters.as_slice() else {
        panic!("{} letters", letters.len());
    };
    let reason = letter["reason"].as_str().unwrap();
    assert!(reason.contains("at most 1048576"), "{reason}");
    assert_eq!(letter["seq"].as_u64(), seq);
    assert_eq!(letter["type"], "TestEvent");
    assert_eq!(
        collector.metric("holdfast_forward_messages_total{outcome=\"invalid\"}"),
        1.0
    );
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_a_missing_exchange_is_set_aside_and_the_others_go_on() {
    let site = Site::start("closed_exchange").await;
    // Everything is declared, and then one exchange is gone and nobody declares it.
    let mut collector = site.collector("").await;
    dispatch(&collector.address(), request("first", "x".into()))
        .await
        .unwrap();
    collector.delivered("rabbitmq", ARRIVAL).await;
    site.events(1).await;
    assert!(collector.terminate().success());
    let (_connection, channel) = site.channel().await;
    channel
        .exchange_delete("vidooly_event.tx".into(), ExchangeDeleteOptions::default())
        .await
        .unwrap();
    let mut collector = site.collector("declare = \"off\"").await;
    let answer = send(
        collector.http,
        "POST",
        "/vidooly/event/",
        br#"{"name":"view"}"#,
    );
    assert_eq!(answer.unwrap().0, 200);
    for at in 0..10 {
        let event = request(&format!("after-{at}"), "x".into());
        dispatch(&collector.address(), event).await.unwrap();
    }
    collector.delivered("rabbitmq", ARRIVAL).await;
    site.events(11).await;
    let letters = letters(&collector);
    let [letter] = letters.as_slice() else {
        panic!("{letters:?}");
    };
    let reason = letter["reason"].as_str().unwrap();
    assert!(
        reason.contains("no exchange 'vidooly_event.tx'"),
        "{reason}"
    );
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_binding_is_made_anew_before_events_go_elsewhere() {
    let site = Site::start("closed_binding").await;
    let mut collector = site.collector("").await;
    let address = collector.address();
    let first = request("first", "x".into());
    dispatch(&address, first).await.unwrap();
    site.events(1).await;
    let (_connection, channel) = site.channel().await;
    channel
        .queue_unbind(
            "grpc_postgres_event_q".into(),
            "grpc_event.tx".into(),
            "*".into(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    for at in 0..10 {
        let event = request(&format!("after-{at}"), "x".into());
        dispatch(&address, event).await.unwrap();
    }
    collector.delivered("rabbitmq", ARRIVAL).await;
    site.events(11).await;
    site.no_errors().await;
    assert!(collector.terminate().success());
}

/// Sends events of two types until it is enough; how many.
async fn send_until(enough: CancellationToken, address: String, round: usize) -> usize {
    let launch = |id: &str| {
        let mut batch = Events::decode(&request(id, String::new())[..]).unwrap();
        batch.events[0].event_of = Some(EventOf::LaunchEvent(LaunchEvent::default()));
        batch.encode_to_vec()
    };
    let mut sent = 0;
    while !enough.is_cancelled() {
        for event in [
            request(&format!("test-{round}-{sent}"), "x".into()),
            launch(&format!("launch-{round}-{sent}")),
        ] {
            dispatch(&address, event).await.unwrap();
        }
        sent += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    2 * sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_a_queue_whose_node_is_down_waits_for_it() {
    let site = Site::start("closed_away").await;
    let mut collector = site.collector("queue_type = \"classic\"").await;
    let address = collector.address();
    dispatch(&address, request("first", "x".into()))
        .await
        .unwrap();
    collector.delivered("rabbitmq", ARRIVAL).await;
    site.events(1).await;
    // To the broker a durable queue is on a node that is down when it is among the durable ones
    // and not among those that are there: so it is for the others of a cluster.
    let queue = "grpc_postgres_event_q";
    let name = |queue: &str| format!("rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)");
    let eval = |expression: &str| site.rabbitmq.rabbitmqctl(&["eval", expression]);
    let take_away = |queue: &str| {
        let name = name(queue);
        eval(&format!("mnesia:dirty_delete(rabbit_queue, {name})."))
    };
    let give_back = |queue: &str| {
        let name = name(queue);
        eval(&format!(
            "[Q] = mnesia:dirty_read(rabbit_durable_queue, {name}), mnesia:dirty_write(rabbit_queue, Q)."
        ))
    };
    take_away(queue);
    for at in 0..10 {
        let event = request(&format!("after-{at}"), "x".into());
        dispatch(&address, event).await.unwrap();
    }
    let holds = "a queue's node is down; what is for it waits";
    eventually("it says so", ARRIVAL, || async {
        collector.log().contains(holds)
    })
    .await;
    give_back(queue);
    collector.delivered("rabbitmq", ARRIVAL).await;
    site.events(11).await;
    site.no_errors().await;
    assert!(letters(&collector).is_empty());
    assert_eq!(collector.log().matches(holds).count(), 1);

    // Where another queue takes everything, the broker confirms it all the same; and where one
    // takes some of it, what is confirmed does not count although the rest tells who is away.
    let (_other, spying) = site.channel().await;
    let options = QueueDeclareOptions::default();
    let spy = spying.queue_declare("spy_q".into(), options, FieldTable::default());
    spy.await.unwrap();
    let mut events = 11;
    for (round, key) in ["#", "TestEvent"].into_iter().enumerate() {
        let exchange = "grpc_event.tx";
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let bound = spying.queue_bind("spy_q".into(), exchange.into(), key.into(), options, none);
        bound.await.unwrap();
        let enough = CancellationToken::new();
        let sending = tokio::spawn(send_until(enough.clone(), address.clone(), round));
        take_away(queue);
        eventually("it says so", ARRIVAL, || async {
            collector.log().matches(holds).count() == 2 + round
        })
        .await;
        give_back(queue);
        enough.cancel();
        events += sending.await.unwrap();
        collector.delivered("rabbitmq", ARRIVAL).await;
        site.events(events).await;
        assert!(letters(&collector).is_empty());
        let none = FieldTable::default();
        let unbound = spying.queue_unbind("spy_q".into(), exchange.into(), key.into(), none);
        unbound.await.unwrap();
    }

    // So does what a consumer refuses, be there another queue that takes all refusals.
    let errors = "grpc_postgres_event_q_error";
    let (_connection, channel) = site.channel().await;
    let (exchange, key) = ("grpc_event_error.dx", "error.grpc_postgres_event_q");
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    let bound = spying.queue_bind("spy_q".into(), exchange.into(), key.into(), options, none);
    bound.await.unwrap();
    take_away(errors);
    // And whoever looks into it is not told that nothing was refused.
    let config = collector.dir.join("holdfast.toml");
    let listed = holdfast(&format!("dlq ls --config {}", config.display()));
    assert_eq!(listed.code, 1, "{listed:?}");
    let down = format!("queue '{errors}' in vhost '/' is down or inaccessible");
    assert!(listed.err.replace('\n', " ").contains(&down), "{listed:?}");
    let publishing = channel.basic_publish(
        "".into(),
        queue.into(),
        BasicPublishOptions::default(),
        b"no event",
        BasicProperties::default().with_content_type("application/json".into()),
    );
    publishing.await.unwrap().await.unwrap();
    let holds = format!("the node of queue \"{errors}\" is down");
    eventually("it says so", ARRIVAL, || async {
        collector.log().replace('\\', "").contains(&holds)
    })
    .await;
    give_back(errors);
    // Nobody understands it: it ends behind the errors' own consumer.
    let last = format!("{errors}_error");
    eventually("it is where refusals go", ARRIVAL, || async {
        let get = channel.basic_get(last.as_str().into(), BasicGetOptions { no_ack: true });
        let got = get.await.unwrap();
        got.is_some_and(|got| got.delivery.data == b"no event")
    })
    .await;
    assert!(letters(&collector).is_empty());
    assert!(collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_refuses_messages_is_said_once_and_gets_them_later() {
    let site = Site::start("closed_full").await;
    let mut collector = site.collector("queue_type = \"classic\"").await;
    let address = collector.address();
    let policy = r#"{"max-length":0,"overflow":"reject-publish"}"#;
    let full = ["full", "^grpc_postgres_event_q$", policy];
    let set = [&["set_policy", "--apply-to", "queues"], &full[..]].concat();
    site.rabbitmq.rabbitmqctl(&set);
    for at in 0..10 {
        let event = request(&format!("held-{at}"), "x".into());
        dispatch(&address, event).await.unwrap();
    }
    let nacked = "holdfast_forward_messages_total{outcome=\"nacked\"}";
    eventually("all are refused, some again", ARRIVAL, || async {
        collector.metric(nacked) > 10.0
    })
    .await;
    let status = collector.dir.join("holdfast.toml");
    let status = format!("status --json --config {}", status.display());
    let said = holdfast(&status).text();
    assert!(
        said.contains("grpc_event.tx/TestEvent refuses messages"),
        "{said}"
    );
    site.rabbitmq.rabbitmqctl(&["clear_policy", "full"]);
    collector.delivered("rabbitmq", ARRIVAL).await;
    site.events(10).await;
    let log = collector.log();
    for said in ["a queue refuses messages", "messages are taken again"] {
        assert_eq!(log.matches(said).count(), 1, "{said}");
    }
    assert!(!holdfast(&status).text().contains("refuses messages"));
    assert!(letters(&collector).is_empty());
    assert!(collector.terminate().success());
}
