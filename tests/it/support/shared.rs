//! A server that many tests use at once, started by the first that asks for it.

use super::Scratch;
use super::servers::{Kind, Server};
use tokio::sync::OnceCell;

/// To be put in a static. Statics are never dropped: the server dies with the test
/// process (its guard sees to that), its files are cleared by the next run.
pub struct Shared {
    kind: Kind,
    name: &'static str,
    server: OnceCell<(Server, Scratch)>,
}

impl Shared {
    /// `name` is the scratch directory's.
    pub const fn new(kind: Kind, name: &'static str) -> Self {
        Self {
            kind,
            name,
            server: OnceCell::const_new(),
        }
    }

    /// The server, up.
    pub async fn get(&self) -> &Server {
        let start = || async {
            let scratch = Scratch::new(self.name);
            let mut server = Server::new(self.kind, &scratch);
            server.start().await;
            (server, scratch)
        };
        &self.server.get_or_init(start).await.0
    }
}
