//! The two brokers of these tests, and sessions with them.

use crate::support::Scratch;
use crate::support::servers::{Kind, Server};
use crate::support::shared::Shared;
use holdfast::broker::{Broker, Options, Session};
use std::ops::{Deref, DerefMut};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio::task::block_in_place;

/// The node that nothing happens to.
pub async fn healthy() -> &'static Server {
    static NODE: Shared = Shared::new(Kind::RabbitMq, "broker_healthy");
    NODE.get().await
}

/// The node that a test may do anything to, alone, if it leaves it healthy.
pub struct Troubled(MutexGuard<'static, Server>);

pub async fn troubled() -> Troubled {
    static NODE: OnceCell<(Mutex<Server>, Scratch)> = OnceCell::const_new();
    let make = || async {
        let scratch = Scratch::new("broker_troubled");
        (Mutex::new(Server::new(Kind::RabbitMq, &scratch)), scratch)
    };
    let mut node = NODE.get_or_init(make).await.0.lock().await;
    if !node.is_running() {
        node.start().await;
    }
    Troubled(node)
}

impl Troubled {
    /// A memory alarm. The broker tells a connection of it when that publishes next.
    pub fn alarm(&self, on: bool) {
        let watermark = if on { "0.000001" } else { "0.4" };
        let command = ["set_vm_memory_high_watermark", watermark];
        block_in_place(|| self.rabbitmqctl(&command));
    }
}

impl Deref for Troubled {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl DerefMut for Troubled {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.0
    }
}

impl Drop for Troubled {
    fn drop(&mut self) {
        // Frozen or alarmed by a test that failed, it would fail the others too.
        if std::thread::panicking() && self.is_running() {
            self.kill();
        }
    }
}

/// The broker at this server; the options' own addresses are not used.
pub fn broker_with(server: &Server, options: Options) -> Broker {
    Broker::new(Options {
        urls: vec![server.amqp_url()],
        ..options
    })
    .unwrap()
}

pub async fn session(server: &Server) -> Session {
    let broker = broker_with(server, Options::default());
    broker.session().await.unwrap()
}
