//! Opens sessions with the broker, from a list of addresses.
//!
//! Called by the pumps, which own the loop that opens the next session when one is lost.
//!
//! # Invariants
//! - Opening takes at most the connect timeout per address, and an attempt that is given up leaves
//!   nothing behind (`attempts_on_a_frozen_broker_leave_no_threads_behind`).
//! - All who wait on one [`Broker`] say once together that it is away, and once that it is back
//!   (`connect_forever_says_once_that_the_broker_is_away_and_once_that_it_is_back`,
//!   `many_who_wait_say_it_once_together`).
//! - A node that opens sessions and does nothing on them is left for the next address
//!   (`a_node_that_does_nothing_is_left_for_the_next_address`).
//! - Once one session is opened, all who wait for the broker try at once
//!   (`one_who_finds_the_broker_back_wakes_the_others`).
//! - No `Debug`, error or log line has a password
//!   (`a_wrong_password_is_an_error_without_the_password`).

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lapin::ConnectionProperties;
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::broker_reply;
use super::options::{Options, OptionsError, Target, target};
use super::refusals::Refusals;
use super::session::Session;
use super::wire;
use crate::drill::{Drill, Outage};
use crate::retry::Backoff;
use crate::telemetry::{Absence, Waiter};

/// The longest wait of the one who asks for all: a refused connection costs nothing, and
/// fresh events shall be there some seconds after the broker is.
const SCOUT_LONGEST: Duration = Duration::from_millis(500);

/// How long a session may take to say that it is lost: lapin ends its channels first.
const SETTLE: Duration = Duration::from_millis(500);

/// A session that is found lost this soon after another was opened was lost with the others.
const LATE: Duration = Duration::from_secs(5);

/// The broker's code for a wrong user or password.
const ACCESS_REFUSED: u16 = 403;
/// The broker's code for a vhost that does not exist or is not allowed.
const NOT_ALLOWED: u16 = 530;

/// A session could not be opened. It is always worth trying again, with backoff; see
/// [`ConnectError::needs_operator`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("no session with the broker at {address}: {reason}")]
pub struct ConnectError {
    /// `host:port/vhost` of the address tried last.
    pub address: String,
    /// What went wrong there.
    pub reason: String,
    refused: bool,
}

impl ConnectError {
    /// Whether the broker was reached and refused us (password, vhost): waiting alone will not
    /// help, though a later attempt may, once an operator has changed something.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        self.refused
    }

    /// Its kind, for the log: one line for each.
    fn kind(&self) -> &'static str {
        if self.refused { REFUSED } else { ABSENT }
    }
}

/// Kinds of an outage: an operator acts differently.
const ABSENT: &str = "absent";
const REFUSED: &str = "refused";

/// What is said of an outage.
const AWAY: &str = "the broker is away; trying again until it is back";

struct Addresses {
    targets: Vec<Target>,
    options: Options,
    /// Where the next session starts to try: the address that worked last, or one further where
    /// what was done on a session with that one failed.
    next: Arc<AtomicUsize>,
    /// Held by the one who asks for the others whether the broker is back.
    scout: Mutex<()>,
    /// Counts the sessions that were opened.
    opened: watch::Sender<u64>,
    /// Says that the broker is away, for all who wait.
    away: Absence,
    /// Says that it has an alarm, for all its sessions.
    alarm: Absence,
    /// What it refused by closing a channel.
    refusals: Arc<Refusals>,
    /// Plays that the broker is away; set once.
    drill: OnceLock<Drill>,
}

/// A broker, known by its addresses. Cheap to clone; holds no connection.
#[derive(Clone)]
pub struct Broker(Arc<Addresses>);

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.0.targets.iter().map(|target| &target.label);
        f.debug_list().entries(labels).finish()
    }
}

impl Broker {
    /// Checks the options; connects to nothing.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        if options.urls.is_empty() {
            return Err(OptionsError::NoAddress);
        }
        let target = |(index, url): (usize, &String)| {
            target(url, options.heartbeat).map_err(|reason| OptionsError::Address { index, reason })
        };
        let targets = options
            .urls
            .iter()
            .enumerate()
            .map(target)
            .collect::<Result<Vec<_>, _>>()?;
        let next = Arc::new(AtomicUsize::new(0));
        let back = {
            let labels: Vec<_> = targets.iter().map(|target| target.label.clone()).collect();
            let last = Arc::clone(&next);
            move |lasted| {
                let address = labels.get(last.load(Ordering::Relaxed));
                let address = address.map_or("", String::as_str);
                tracing::info!(address, away_for = ?lasted, "the broker is back");
            }
        };
        let unblocked =
            |lasted| tracing::info!(alarm_for = ?lasted, "the broker takes messages again");
        Ok(Self(Arc::new(Addresses {
            targets,
            options,
            next,
            scout: Mutex::new(()),
            opened: watch::Sender::new(0),
            away: Absence::new(back),
            alarm: Absence::new(unblocked),
            refusals: Arc::default(),
            drill: OnceLock::new(),
        })))
    }

    /// The same, away while a drill says so.
    #[must_use]
    pub fn with_drill(self, drill: Drill) -> Self {
        if self.0.drill.set(drill).is_err() {
            tracing::debug!("the broker has its drill already");
        }
        self
    }

    /// Opens one session: tries each address once, beginning with the one that worked last.
    pub async fn session(&self) -> Result<Session, ConnectError> {
        if self
            .0
            .drill
            .get()
            .is_some_and(|drill| drill.is_on(Outage::BrokerDown))
        {
            return Err(ConnectError {
                address: "the broker".to_owned(),
                reason: "a drill plays that it is away".to_owned(),
                refused: false,
            });
        }
        let count = self.0.targets.len();
        let first = self.0.next.load(Ordering::Relaxed);
        let mut last = None;
        for step in 0..count {
            let index = (first + step) % count;
            match self.open(&self.0.targets[index]).await {
                Ok(session) => {
                    self.0.next.store(index, Ordering::Relaxed);
                    self.0.away.worked();
                    self.0.opened.send_modify(|count| *count += 1);
                    if let Some(drill) = self.0.drill.get().filter(|drill| drill.is_allowed()) {
                        session.obey(drill.clone());
                    }
                    return Ok(session);
                }
                Err(error) => {
                    tracing::debug!(%error, "one broker address failed");
                    last = Some(error);
                }
            }
        }
        Err(last.expect("Broker::new has refused an empty list of addresses"))
    }

    /// Told by who ends a session for this reason, before he closes it. Where the session itself
    /// is lost, the broker counts as away until the guard is dropped, which is to be held until
    /// the next one is opened; `None` where it stands, and what was done on it failed.
    pub async fn lost(&self, session: &Session, reason: &str) -> Option<Waiter> {
        if timeout(SETTLE, session.closed()).await.is_err() {
            self.go_further(session.address());
            return None;
        }
        let waiter = self.0.away.wait();
        let now = Instant::now();
        if waiter.is_new(ABSENT, now.checked_sub(LATE).unwrap_or(now)) {
            tracing::warn!(address = session.address(), reason, "{AWAY}");
        } else {
            tracing::debug!(address = session.address(), reason, "a session is lost");
        }
        Some(waiter)
    }

    /// The next session is with another address than this one: a node may answer there that does
    /// nothing. Once for all who find it out.
    fn go_further(&self, address: &str) {
        let Addresses { targets, next, .. } = &*self.0;
        let is = next.load(Ordering::Relaxed);
        if targets.get(is).is_some_and(|at| at.label == address) {
            let further = (is + 1) % targets.len();
            // Where it fails, another has moved it.
            next.compare_exchange(is, further, Ordering::Relaxed, Ordering::Relaxed)
                .ok();
        }
    }

    /// Opens a session, however long the broker is away; `None` if `cancel` came first. All who
    /// wait log one warning together at the first failure (and one when a refusal replaces mere
    /// absence or the reverse, as an operator has to do something else then) and one line when
    /// the last of them has a session.
    ///
    /// Of all who wait on one `Broker` one asks at least twice a second, and its
    /// success wakes the others: events flow again at once, and a host with some dozens of
    /// sessions does not storm a broker that is coming up.
    pub async fn connect_forever(&self, cancel: CancellationToken) -> Option<Session> {
        self.connect_forever_telling(cancel, |_| {}).await
    }

    /// The same; `tell` hears the reason of each failed attempt, for status.
    pub async fn connect_forever_telling(
        &self,
        cancel: CancellationToken,
        tell: impl Fn(&str),
    ) -> Option<Session> {
        let mut backoff = Backoff::new();
        let mut waiting: Option<Waiter> = None;
        let mut opened = self.0.opened.subscribe();
        // Given on when this call ends: to whoever fails next.
        let mut scout = None;
        loop {
            opened.mark_unchanged();
            let began = Instant::now();
            let error = match cancel.run_until_cancelled(Box::pin(self.session())).await? {
                Ok(session) => return Some(session),
                Err(error) => error,
            };
            tell(&error.reason);
            let waiter = waiting.get_or_insert_with(|| self.0.away.wait());
            if waiter.is_new(error.kind(), began) {
                let (address, reason) = (&error.address, &error.reason);
                tracing::warn!(address, reason, "{AWAY}");
            } else {
                tracing::debug!(%error, "the broker is still away");
            }
            if scout.is_none() {
                scout = self.0.scout.try_lock().ok();
            }
            let wait = backoff.next();
            let woken = async {
                if scout.is_some() {
                    sleep(wait.min(SCOUT_LONGEST)).await;
                    return;
                }
                tokio::select! {
                    () = sleep(wait) => {}
                    _ = opened.changed() => {}
                }
            };
            cancel.run_until_cancelled(woken).await?;
        }
    }

    async fn open(&self, target: &Target) -> Result<Session, ConnectError> {
        let Addresses {
            options,
            alarm,
            refusals,
            ..
        } = &*self.0;
        let failed = |reason: String, refused| ConnectError {
            address: target.label.clone(),
            reason,
            refused,
        };
        // Never lapin's own recovery: it replays what it remembers, while the pumps must know
        // which publishes and deliveries were lost.
        let properties =
            ConnectionProperties::default().with_connection_name(options.name.as_str().into());
        let opening = wire::open(target.uri.clone(), properties, &options.trust);
        match timeout(options.connect_timeout, opening).await {
            Ok(Ok(opened)) => {
                let label = target.label.clone();
                let refusals = Arc::clone(refusals);
                Ok(Session::new(opened, label, alarm.clone(), refusals))
            }
            Ok(Err(error)) => {
                let code = broker_reply(&error).map(|(code, _)| code);
                let refused = matches!(code, Some(ACCESS_REFUSED | NOT_ALLOWED));
                Err(failed(error.to_string(), refused))
            }
            Err(_) => Err(failed(
                format!("no answer within {:?}", options.connect_timeout),
                false,
            )),
        }
    }
}
