//! One connection with the broker, for as long as it lasts.
//!
//! Called by the pumps, through `connection`, which opens it; inside this folder by `topology`,
//! `publish` and `consume`, which open channels on it.
//!
//! # Invariants
//! - Closing takes at most [`CLOSE_LIMIT`], after which nothing of it is left
//!   (`a_frozen_broker_ends_publishes_and_closing_within_their_limits`,
//!   `a_blocked_session_closes_at_once_and_leaves_no_thread`).
//! - A limit that is spent while an alarm blocks the connection does not count: only heartbeats
//!   end a blocked session (`a_blocked_connection_keeps_its_publishes_until_the_alarm_ends`,
//!   `a_broker_that_freezes_while_it_blocks_is_noticed_by_heartbeats`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use lapin::{Channel, Connection, ErrorKind, Event};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::refusals::Refusals;
use super::wire::Wire;
use super::{ANSWER_LIMIT, CLOSE_LIMIT};
use crate::drill::{Drill, Outage};
use crate::telemetry::{Absence, Waiter};

/// How often [`Session::closed`] looks for itself; lapin announces errors, but not every end.
const CLOSED_POLL: Duration = Duration::from_secs(1);

/// What a session is doing, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Usable.
    Open,
    /// The broker has an alarm and takes nothing from this connection; the text is its reason.
    Blocked(String),
    /// Lost or closed, for good.
    Closed,
}

/// One TCP connection to the broker. Clones share it; it ends when it is closed, lost, or the last
/// clone (publishers and subscriptions hold one) is dropped.
#[derive(Clone, Debug)]
pub struct Session(Arc<Inner>);

struct Inner {
    connection: Connection,
    address: String,
    /// The reason of the alarm that blocks the connection.
    blocked: watch::Receiver<Option<String>>,
    listener: AbortHandle,
    /// What the broker refused by closing a channel, of any session.
    refusals: Arc<Refusals>,
    /// The queues of which the broker said nothing, where it answered of others, and how many
    /// times in a row.
    silent: Mutex<BTreeMap<String, u32>>,
    /// Last, so that the socket is shut after lapin's own farewell has been queued.
    wire: Wire,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Session {
    /// `alarm` says for all sessions with the broker that it has one, `refusals` what it refused.
    pub(super) fn new(
        (connection, wire): (Connection, Wire),
        address: String,
        alarm: Absence,
        refusals: Arc<Refusals>,
    ) -> Self {
        let (tell, blocked) = watch::channel(None);
        let mut events = connection.events_listener();
        // Ends with the session: lapin's stream of events has no end of its own.
        let listener = tokio::spawn(async move {
            let mut held: Option<Waiter> = None;
            while let Some(event) = events.next().await {
                match event {
                    Event::ConnectionBlocked(reason) => {
                        let held = held.get_or_insert_with(|| alarm.wait());
                        if held.is_new(&reason, Instant::now()) {
                            tracing::warn!(%reason, "the broker has an alarm and takes no messages");
                        }
                        tell.send_replace(Some(reason));
                    }
                    Event::ConnectionUnblocked => {
                        if let Some(held) = held.take() {
                            held.back();
                        }
                        tell.send_replace(None);
                    }
                    // Wakes `closed`, which looks for itself.
                    Event::Error(_) => tell.send_modify(|_| {}),
                    _ => {}
                }
            }
        })
        .abort_handle();
        Self(Arc::new(Inner {
            connection,
            address,
            blocked,
            listener,
            refusals,
            silent: Mutex::default(),
            wire,
        }))
    }

    /// Cuts the session, as a network does, once a drill plays that the broker is away.
    pub(super) fn obey(&self, drill: Drill) {
        let inner = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            while inner.strong_count() > 0 {
                tokio::select! {
                    () = drill.begun(Outage::BrokerDown) => {
                        if let Some(inner) = inner.upgrade() {
                            inner.wire.shut();
                        }
                        return;
                    }
                    () = sleep(CLOSED_POLL) => {}
                }
            }
        });
    }

    /// `host:port/vhost` of the address in use.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// The largest frame that was agreed upon, in bytes; 0: any.
    pub(super) fn frame_max(&self) -> u32 {
        self.0.connection.configuration().frame_max()
    }

    /// What the broker refused by closing a channel.
    pub(super) fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    /// How many times in a row the broker said nothing of a queue.
    pub(super) fn silence(&self, queue: &str) -> u32 {
        let silent = self.0.silent.lock();
        let silent = silent.unwrap_or_else(PoisonError::into_inner);
        silent.get(queue).copied().unwrap_or(0)
    }

    /// Notes whether it said something. As many as its host has queues.
    pub(super) fn note_silence(&self, queue: &str, is_silent: bool) {
        let silent = self.0.silent.lock();
        let mut silent = silent.unwrap_or_else(PoisonError::into_inner);
        if is_silent {
            let times = silent.entry(queue.to_owned()).or_default();
            *times = times.saturating_add(1);
        } else {
            silent.remove(queue);
        }
    }

    /// Whether it is usable, blocked by an alarm, or gone.
    #[must_use]
    pub fn state(&self) -> SessionState {
        if !self.is_connected() {
            return SessionState::Closed;
        }
        match &*self.0.blocked.borrow() {
            Some(reason) => SessionState::Blocked(reason.clone()),
            None => SessionState::Open,
        }
    }

    /// Whether it is neither lost nor closed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.connection.status().connected()
    }

    /// Whether an alarm of the broker holds back what is published here.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.0.blocked.borrow().is_some()
    }

    /// Waits until the session is lost or closed.
    pub async fn closed(&self) {
        let mut events = self.0.blocked.clone();
        while self.is_connected() {
            tokio::select! {
                changed = events.changed() => if changed.is_err() { break },
                () = sleep(CLOSED_POLL) => {}
            }
        }
    }

    /// Says goodbye, for at most 5 s; then, or if that fails, the socket is shut. What was not
    /// acknowledged goes back to its queue; publishes without a confirm are lost.
    pub async fn close(self) {
        if self.is_blocked() {
            // lapin writes nothing under an alarm, the farewell neither.
            self.0.wire.shut();
            return;
        }
        let farewell = self.0.connection.close(200, "OK".into());
        match timeout(CLOSE_LIMIT, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the session was gone before it was closed"),
            Err(_) => tracing::debug!("the broker did not answer the farewell"),
        }
        self.0.wire.shut();
    }

    /// Waits for `future` for at most `limit`, in which the time under an alarm does not count:
    /// each end of an alarm starts the limit anew. `None` if time ran out.
    pub(super) async fn patiently<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut alarm = self.0.blocked.clone();
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                done = &mut future => return Some(done),
                Ok(_) = alarm.wait_for(Option::is_some) => {}
                () = sleep(limit) => return None,
            }
            tokio::select! {
                done = &mut future => return Some(done),
                _ = alarm.wait_for(Option::is_none) => {}
            }
        }
    }

    /// Opens a channel.
    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        answer(self.0.connection.create_channel()).await
    }
}

/// Whether nothing was answered.
pub(super) fn is_silence(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::IOError(error) if error.kind() == std::io::ErrorKind::TimedOut)
}

/// Waits for one answer of the broker, for at most [`ANSWER_LIMIT`]; a lapin call may otherwise
/// wait for ever on a connection that is closing under it (lapin#409).
pub(super) async fn answer<T>(
    question: impl Future<Output = lapin::Result<T>>,
) -> lapin::Result<T> {
    answer_within(ANSWER_LIMIT, question).await
}

/// As [`answer`], for at most `limit`.
pub(super) async fn answer_within<T>(
    limit: Duration,
    question: impl Future<Output = lapin::Result<T>>,
) -> lapin::Result<T> {
    timeout(limit, question).await.unwrap_or_else(|_| {
        Err(ErrorKind::IOError(Arc::new(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer from the broker within {limit:?}"),
        )))
        .into())
    })
}
