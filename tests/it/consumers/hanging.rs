//! A sink that hangs while something of its consumer is on its way elsewhere: what others refuse
//! arrives all the same.

use super::ARRIVAL;
use crate::calls::server::{Answer, Server as Api};
use crate::support::collector::Collector;
use crate::support::servers::{Kind, Server};
use crate::support::{Scratch, eventually};
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// How long a connection to the broker takes: long enough for a sink to begin to hang while what
/// it refused before waits for one.
const CONNECTING: Duration = Duration::from_millis(1500);

/// A way to the broker on which connecting takes long.
async fn slow_way(target: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                tokio::time::sleep(CONNECTING).await;
                let mut far = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_hangs_keeps_no_other_consumers_refusals() {
    let scratch = Scratch::new("consumers_hanging");
    let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
    rabbitmq.start().await;
    let refusal = Answer::Say(400, "", "{}".into());
    let api = Api::start([refusal, Answer::Hang]).await;
    let way = slow_way(rabbitmq.port).await;
    let url = format!("http://127.0.0.1:{}", api.port);
    let account = |prefix: &str| {
        format!(
            "{prefix}api_key = \"k\"\n{prefix}url = \"{url}/events\"\n{prefix}user_url = \"{url}/users\"\n"
        )
    };
    let config = format!(
        "[rabbitmq]\nurls = [\"amqp://guest:guest@127.0.0.1:{way}/%2f\"]\n\
         [webengage]\n{}{}timeout = \"55s\"\n\
         [[consumer]]\nqueue = \"webengage_event_q\"\nworkers = 1\nbatch_rows = 1\nretry_delay = \"10ms\"\n",
        account(""),
        account("brand_"),
    );
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    for queue in ["webengage_event_q", "webengage_user_event_q"] {
        let connected = format!("holdfast_connected{{who=\"{queue}\"}}");
        eventually(&connected, ARRIVAL, || async {
            collector.metric(&connected) == 1.0
        })
        .await;
    }
    let connection = Connection::connect(&rabbitmq.amqp_url(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let publish = async |key: &str, body: &str| {
        channel
            .basic_publish(
                "webengage_event.dx".into(),
                key.into(),
                BasicPublishOptions::default(),
                body.as_bytes(),
                BasicProperties::default(),
            )
            .await
            .unwrap();
    };
    let event = |user: &str| {
        format!(
            r#"{{"appType":"USER","userId":"{user}","eventName":"n","eventTime":"2023-11-14T22:13:20+0000","eventData":{{}}}}"#
        )
    };
    let calls = async |count: usize| {
        eventually(&format!("{count} calls"), ARRIVAL, || async {
            api.requests().len() >= count
        })
        .await;
    };
    // The first is refused, and waits for a connection when the second hangs.
    publish("EVENT", &event("refused")).await;
    calls(1).await;
    publish("EVENT", &event("hangs")).await;
    calls(2).await;
    publish("USER_EVENT", "no json").await;
    eventually("its letter", CONNECTING * 10, || async {
        let get = channel.basic_get(
            "webengage_user_event_q_error".into(),
            BasicGetOptions { no_ack: true },
        );
        get.await.unwrap().is_some()
    })
    .await;
    assert_eq!(api.requests().len(), 2, "the sink still hangs");
    collector.kill();
}
