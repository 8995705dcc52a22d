//! The ceiling: messages that are there already, published with confirms by lapin alone.

use crate::filled::Progress;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

/// Messages of a sample: some of each type.
const SAMPLE: u32 = 500;

/// A message as it was published.
struct Message {
    exchange: ShortString,
    key: ShortString,
    properties: BasicProperties,
    body: Vec<u8>,
}

impl Message {
    async fn publish(&self, channel: &Channel) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let (exchange, key) = (self.exchange.clone(), self.key.clone());
        let properties = self.properties.clone();
        let sending = channel.basic_publish(exchange, key, options, &self.body, properties);
        sending.await?.await
    }
}

/// What a queue held.
pub struct Sample {
    some: Vec<Message>,
    /// How many it held.
    pub messages: u64,
}

async fn open(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Messages that wait in a queue.
async fn depth(channel: &Channel, queue: &str) -> u64 {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel.queue_declare(queue.into(), options, FieldTable::default());
    queue.await.unwrap().message_count().into()
}

async fn purge(channel: &Channel, queue: &str) {
    let purged = channel.queue_purge(queue.into(), QueuePurgeOptions::default());
    purged.await.unwrap();
}

impl Sample {
    /// Takes one, and empties the queue.
    pub async fn take(url: &str, queue: &str) -> Self {
        let (connection, channel) = open(url).await;
        let messages = depth(&channel, queue).await;
        let mut some = Vec::new();
        for _ in 0..messages.min(SAMPLE.into()) {
            let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true });
            let delivery = got.await.unwrap().unwrap().delivery;
            some.push(Message {
                exchange: delivery.exchange,
                key: delivery.routing_key,
                properties: delivery.properties,
                body: delivery.data,
            });
        }
        assert!(!some.is_empty(), "nothing came to {queue}");
        purge(&channel, queue).await;
        connection.close(200, "done".into()).await.unwrap();
        Self { some, messages }
    }
}

/// Publishes as many messages as the sample's queue held, of so many events together, and
/// empties the queue; events a second.
pub async fn publish(url: &str, queue: &str, sample: &Sample, events: u64, window: usize) -> f64 {
    let (connection, channel) = open(url).await;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let mut progress = Progress::of(events);
    let mut confirms = FuturesUnordered::new();
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < sample.messages {
        while sent < sample.messages && confirms.len() < window {
            let message = &sample.some[(sent % sample.some.len() as u64) as usize];
            // Not one after the other: each waits until it is written.
            confirms.push(message.publish(&channel));
            sent += 1;
        }
        let confirmation = confirms.next().await.unwrap().unwrap();
        assert!(
            matches!(confirmation, Confirmation::Ack(None)),
            "{confirmation:?}"
        );
        confirmed += 1;
        // Not at each, so that looking costs nothing.
        if confirmed % 100 == 0 || confirmed == sample.messages {
            progress.look(events * confirmed / sample.messages);
        }
    }
    assert_eq!(depth(&channel, queue).await, sample.messages);
    purge(&channel, queue).await;
    connection.close(200, "done".into()).await.unwrap();
    progress.per_s()
}
