//! Letters out of the ordinary: refused by a clock that was ahead, or too large for the broker.
//! No collector runs: the commands alone look at the queues.

use super::{ARRIVAL, ask};
use crate::support::collector::Collector;
use crate::support::servers::{Kind, Server};
use crate::support::{Scratch, eventually};
use holdfast::broker::{
    Broker, DeclareMode, Message, Options, Publisher, Queue, QueueType, Session, Topology, declare,
};
use holdfast::clock::now_ms;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

struct Site {
    rabbitmq: Server,
    collector: Collector,
    session: Session,
    publisher: Publisher,
    _scratch: Scratch,
}

impl Site {
    async fn start(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let mut rabbitmq = Server::new(Kind::RabbitMq, &scratch);
        rabbitmq.start().await;
        let config = format!(
            "[rabbitmq]\nurls = [\"{}\"]\n[clickhouse]\nurl = \"http://127.0.0.1:1\"\n",
            rabbitmq.amqp_url()
        );
        let collector = Collector::new(&scratch, &config);
        // What changes something leaves a line there.
        std::fs::create_dir_all(collector.data_dir()).unwrap();
        let broker = Broker::new(Options {
            urls: vec![rabbitmq.amqp_url()],
            ..Options::default()
        });
        let session = broker.unwrap().session().await.unwrap();
        let queue = |name: &str| Queue {
            name: name.into(),
            bindings: vec![],
        };
        let topology = Topology {
            exchanges: vec![],
            queues: vec![queue("branch_event_q"), queue("branch_event_q_error")],
        };
        declare(&session, &topology, DeclareMode::Active, QueueType::Quorum)
            .await
            .unwrap();
        let publisher = Publisher::open(&session).await.unwrap();
        Self {
            rabbitmq,
            collector,
            session,
            publisher,
            _scratch: scratch,
        }
    }

    /// A letter as a worker refuses it at this time.
    async fn refused(&self, at_ms: i64, body: Vec<u8>) {
        let mut message = Message {
            routing_key: "branch_event_q_error".into(),
            body: body.into(),
            ..Message::default()
        };
        message.headers.set("x-holdfast-refused-at-ms", at_ms);
        message.headers.set("x-holdfast-queue", "branch_event_q");
        message.headers.set("x-holdfast-reason", "too long");
        let id = uuid::Uuid::new_v4().simple().to_string();
        message.headers.set("x-holdfast-letter", id);
        let confirm = self.publisher.publish(&message).await.unwrap();
        confirm.await.unwrap();
    }

    /// Messages of the queue and of its error queue, which the broker counts now and then.
    async fn settled(&self, is: impl Fn(u64, u64) -> bool) {
        eventually("the queues are as they should", ARRIVAL, || async {
            let depth = |queue| super::queues::depth(&self.rabbitmq, queue);
            is(depth("branch_event_q"), depth("branch_event_q_error"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_of_a_clock_that_was_ahead_are_seen() {
    let site = Site::start("dlq_ahead").await;
    for at in [now_ms() + DAY_MS, now_ms(), now_ms() + DAY_MS] {
        site.refused(at, b"{}".to_vec()).await;
    }
    let letters = ask(&site.collector, "dlq show --json").lines();
    assert_eq!(letters.len(), 3, "{letters:#?}");
    let id = letters[0]["id"].as_str().unwrap();
    let said = ask(&site.collector, &format!("dlq replay --id {id} --apply"));
    assert!(
        said.code == 0 && said.err.contains("1 letter replayed"),
        "{said:?}"
    );
    site.settled(|there, left| (there, left) == (1, 2)).await;
    let purged = ask(&site.collector, "dlq purge --all --apply --json").json();
    assert_eq!(purged["places"][0]["done"], 2, "{purged:#}");
    site.settled(|there, left| (there, left) == (1, 0)).await;
    site.session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_is_too_large_leaves_the_others_alone() {
    let site = Site::start("dlq_sizes").await;
    for bytes in [10, 2 << 20, 10, 10, 3 << 20, 10] {
        site.refused(now_ms(), vec![b' '; bytes]).await;
    }
    let limit = "application:set_env(rabbit, max_message_size, 1048576).";
    site.rabbitmq.rabbitmqctl(&["eval", limit]);
    let said = ask(&site.collector, "dlq replay --all --apply --json");
    assert_eq!(said.code, 1, "{said:?}");
    let report = &said.json()["places"][0];
    assert_eq!((&report["done"], &report["failed"]), (&4.into(), &2.into()));
    let reason = report["failures"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("at most 1048576"), "{reason}");
    // What was in flight with them may be there twice, and nothing is missing.
    site.settled(|there, left| there >= 4 && left == 2).await;
    site.session.close().await;
}
