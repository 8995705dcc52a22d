//! RabbitMQ, one node: persistent messages into a quorum queue or a classic one, each
//! acknowledged by its confirm. One connection and one channel, as a forwarder has.

use crate::guarded::Guarded;
use crate::process;
use crate::system::{Promise, Sender, Server, System, Traced};
use anyhow::{bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

const QUEUE: &str = "league";

/// AMQP's number for a persistent message.
const PERSISTENT: u8 = 2;

/// RabbitMQ with a kind of queue.
pub(crate) struct RabbitMq {
    pub(crate) is_quorum: bool,
}

impl RabbitMq {
    fn kind(&self) -> &'static str {
        match self.is_quorum {
            true => "quorum",
            false => "classic",
        }
    }
}

struct RabbitMqProcess {
    process: Guarded,
    port: u16,
    connection: Connection,
}

#[async_trait]
impl System for RabbitMq {
    fn name(&self) -> &'static str {
        match self.is_quorum {
            true => "rabbitmq-quorum",
            false => "rabbitmq-classic",
        }
    }

    fn about(&self) -> String {
        format!("RabbitMQ {} queue, confirms", self.kind())
    }

    fn promise(&self) -> Promise {
        Promise::Synced
    }

    /// Class 60, method 80: a `basic.ack`.
    fn ack_text(&self) -> &'static str {
        "\\0<\\0P"
    }

    async fn start(&self, dir: &Path) -> anyhow::Result<Box<dyn Server>> {
        let port = process::free_port()?;
        // The distribution's port, and that of its name server after it.
        let more = process::free_ports(2)?;
        let script = process::equipment("rabbitmq.sh");
        let (port_text, more_text) = (port.to_string(), more.to_string());
        let (node, data) = (format!("league{port}"), dir.join("data"));
        let data = data.display().to_string();
        let command = [&*script, &node, &port_text, &more_text, &data];
        let environment = [("ERL_EPMD_PORT".to_owned(), (more + 1).to_string())];
        let mut process = process::start(&command, &environment, dir)?;
        let connection = process::ready("rabbitmq", &mut process, || connect(port)).await?;
        let channel = connection.create_channel().await?;
        let kind = AMQPValue::LongString(self.kind().into());
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), kind);
        let options = declare(false);
        channel
            .queue_declare(QUEUE.into(), options, arguments)
            .await?;
        Ok(Box::new(RabbitMqProcess {
            process,
            port,
            connection,
        }))
    }
}

/// A durable queue: made, or only looked at.
fn declare(passive: bool) -> QueueDeclareOptions {
    QueueDeclareOptions {
        passive,
        durable: true,
        ..QueueDeclareOptions::default()
    }
}

async fn connect(port: u16) -> anyhow::Result<Connection> {
    let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    Ok(Connection::connect(&url, ConnectionProperties::default()).await?)
}

#[async_trait]
impl Server for RabbitMqProcess {
    fn traced(&self) -> Option<Traced> {
        Some(Traced {
            pid: self.process.pid(),
            port: self.port,
        })
    }

    async fn senders(&self, count: usize) -> anyhow::Result<Vec<Box<dyn Sender>>> {
        let channel = self.connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let client = Client {
            channel,
            turn: Arc::default(),
        };
        let sender = || Box::new(client.clone()) as Box<dyn Sender>;
        Ok((0..count).map(|_| sender()).collect())
    }

    async fn stored(&self) -> anyhow::Result<Option<u64>> {
        let channel = self.connection.create_channel().await?;
        let options = declare(true);
        let queue = channel
            .queue_declare(QUEUE.into(), options, FieldTable::default())
            .await?;
        Ok(Some(queue.message_count().into()))
    }
}

/// Publishes on the one channel.
#[derive(Clone)]
struct Client {
    channel: Channel,
    /// Held while a message is numbered and queued, which the first poll of a publish does:
    /// two at once could swap their confirms.
    turn: Arc<Mutex<()>>,
}

#[async_trait]
impl Sender for Client {
    async fn send(&mut self, payloads: &[Bytes]) -> anyhow::Result<()> {
        let [payload] = payloads else {
            bail!("a message is one payload");
        };
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let publish = async {
            let (exchange, queue) = ("".into(), QUEUE.into());
            let publish = self
                .channel
                .basic_publish(exchange, queue, options, payload, properties);
            publish.await?.await
        };
        let mut publish = pin!(publish);
        let first = poll_fn(|context| {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            Poll::Ready(publish.as_mut().poll(context))
        });
        let confirmation = match first.await {
            Poll::Ready(done) => done?,
            Poll::Pending => publish.await?,
        };
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            other => {
                ensure!(!other.is_ack(), "the message was returned");
                bail!("not confirmed: {other:?}");
            }
        }
    }
}
