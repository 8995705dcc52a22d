//! How full the queues are that fresh events go to, so that a backlog does not stand in
//! front of them there. Called by `pump`, for as long as there is a lane for what is fresh.
//!
//! # Invariants
//! - A queue that nobody consumes holds up no backlog: nobody waits for what is fresh in it.
//! - What cannot be asked holds up nothing.

use crate::broker::{Depth, Session, depth};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Messages that wait in a queue from which on it is full: a second's work of a consumer
/// that writes some thousand rows a second, so that what is fresh waits no longer.
const FULL_MESSAGES: u32 = 2_000;

/// How often the queues are asked.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// A look at the queues that goes on until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    task: AbortHandle,
    full: watch::Receiver<Option<String>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Looks at these queues.
    pub(super) fn begin(session: &Session, queues: Vec<String>) -> Self {
        let (sender, full) = watch::channel(None);
        let session = session.clone();
        let looking = async move {
            loop {
                let now = fullest(&session, &queues).await;
                sender.send_if_modified(|full| {
                    let is_new = *full != now;
                    *full = now;
                    is_new
                });
                tokio::time::sleep(LOOK_PERIOD).await;
            }
        };
        Self {
            task: tokio::spawn(looking).abort_handle(),
            full,
        }
    }

    /// The next other word: which queue is full, or that none is. `Err` when the look has
    /// ended by itself. Cancel-safe.
    pub(super) async fn changed(&mut self) -> Result<Option<String>, watch::error::RecvError> {
        self.full.changed().await?;
        Ok(self.full.borrow_and_update().clone())
    }
}

async fn fullest(session: &Session, queues: &[String]) -> Option<String> {
    let mut fullest: Option<(u32, &String)> = None;
    for queue in queues {
        match depth(session, queue).await {
            Ok(Some(Depth {
                messages,
                consumers,
            })) => {
                if consumers > 0 && messages >= FULL_MESSAGES {
                    fullest = fullest.max(Some((messages, queue)));
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "a queue's depth is not known"),
        }
    }
    // Not the number, which changes with each look.
    fullest.map(|(_, queue)| format!("{queue} is full (fresh events wait in it)"))
}
