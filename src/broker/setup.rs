//! A host's topology with the way it is made: declared on every new session before
//! anything else. Called by the pumps; made by `app`.

use super::session::Session;
use super::topology::{DeclareMode, QueueType, Topology, TopologyError, Warning, declare};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Declares a host's exchanges and queues; shared by clones.
#[derive(Debug, Clone)]
pub struct Setup {
    topology: Arc<Topology>,
    mode: DeclareMode,
    queue_type: QueueType,
    /// Warnings that were logged: each is said once, not at every reconnect.
    said: Arc<Mutex<BTreeSet<String>>>,
}

impl Setup {
    /// A topology and who makes it.
    #[must_use]
    pub fn new(topology: Topology, mode: DeclareMode, queue_type: QueueType) -> Self {
        Self {
            topology: Arc::new(topology),
            mode,
            queue_type,
            said: Arc::new(Mutex::new(BTreeSet::new())),
        }
    }

    /// What is declared.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Declares everything on a session; differences are logged once.
    ///
    /// # Errors
    /// When the session is lost or nothing can be declared; worth another try.
    pub async fn declare(&self, session: &Session) -> Result<(), TopologyError> {
        let warnings = declare(session, &self.topology, self.mode, self.queue_type).await?;
        for warning in warnings {
            self.say(&warning);
        }
        Ok(())
    }

    fn say(&self, warning: &Warning) {
        let text = warning.to_string();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(text.clone()) {
            tracing::warn!("{text}");
        }
    }
}
