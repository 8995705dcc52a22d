//! Who sends, and what each may send: the clients of the configuration, their tokens and
//! certificates, their event types and rates. Asked by `grpc` and `http` before a body is read
//! (who), and by `door` before anything is kept (what). A reload replaces them.
//!
//! # Invariants
//! - Where the configuration has clients, nothing is taken of anybody else (tests/it/clients,
//!   `only_those_who_prove_who_they_are_are_heard`).
//! - Tokens are compared by their hashes, so that neither the configuration nor the time that
//!   an answer takes tells one (there).
//! - A rate is a client's on this host, whatever it connects from: what one takes too much is
//!   missing to nobody else (`rate`), be it incomplete or not (tests/it/clients.rs,
//!   `what_is_incomplete_counts_as_well`).
//! - A rate takes a request whole or not at all (test `a_request_of_batches_is_not_cut`).
//! - A reload neither gives nor takes of a rate (tests `a_rate_is_kept_over_the_seconds`,
//!   `a_reload_takes_nothing_of_a_rate`).

use super::rate::Rate;
use super::refusal::Refusal;
use crate::config::{Client, digest_of};
use crate::event::descriptor::{NO_TYPE_NAME, event_names};
use crate::event::tally::{Tally, TypeKey, UNKNOWN_NAME};
use crate::port::{Peer, Whose};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::digest::{SHA256, digest};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Instant;

/// Bytes of a token that are looked at: ours have 46.
pub(super) const TOKEN_BYTES_MAX: usize = 1024;

/// All clients; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Callers(Arc<RwLock<Arc<Known>>>);

#[derive(Debug, Default)]
struct Known {
    /// By the hashes of their tokens.
    tokens: HashMap<[u8; 32], Arc<Rights>>,
    /// By the fingerprints of their certificates, and by names in them.
    fingerprints: HashMap<[u8; 32], Arc<Rights>>,
    names: HashMap<String, Arc<Rights>>,
    anonymous: Option<Arc<Rights>>,
    all: Vec<Arc<Rights>>,
}

/// What one client may.
#[derive(Debug)]
struct Rights {
    name: String,
    /// For places that are shared fairly.
    whose: Whose,
    /// `None`: all types.
    events: Option<BTreeSet<TypeKey>>,
    rate: Option<Mutex<Rate>>,
    max_rate: u64,
    is_anonymous: bool,
}

/// Who sent a request.
#[derive(Debug, Clone)]
pub struct Caller {
    rights: Option<Arc<Rights>>,
    whose: Whose,
    /// Of a request with several batches: whether its rate takes them, once the first has asked.
    whole: Option<Arc<OnceLock<bool>>>,
}

impl Callers {
    /// Those of the configuration.
    #[must_use]
    pub fn new(clients: &[Client]) -> Self {
        let callers = Self::default();
        callers.replace(clients);
        callers
    }

    /// Takes these from now on. Who stays with the same rate keeps what it has used of it.
    pub fn replace(&self, clients: &[Client]) {
        let before = self.known();
        let mut known = Known::default();
        for (at, client) in clients.iter().enumerate() {
            let kept = before.all.iter().find(|rights| {
                rights.name == client.name
                    && (rights.max_rate, rights.is_anonymous) == (client.max_rate, client.anonymous)
            });
            let rights = Arc::new(Rights::of(client, at, kept));
            for token in client.tokens.iter().filter_map(|token| digest_of(token)) {
                known.tokens.insert(token, Arc::clone(&rights));
            }
            for certificate in &client.certificates {
                match digest_of(certificate) {
                    Some(digest) => {
                        known.fingerprints.insert(digest, Arc::clone(&rights));
                    }
                    None => {
                        known.names.insert(certificate.clone(), Arc::clone(&rights));
                    }
                }
            }
            if client.anonymous {
                known.anonymous = Some(Arc::clone(&rights));
            }
            known.all.push(rights);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who sent a request with these headers over a connection of this peer.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] when it is nobody that may send.
    pub fn identify(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Caller, Refusal> {
        let known = self.known();
        if known.all.is_empty() {
            return Ok(Caller::nobody(peer));
        }
        let shown = match bearer(headers) {
            Shown::Nothing => None,
            // A token that is none of ours is a mistake, whatever else was shown.
            Shown::Unreadable => return Err(Refusal::Unauthenticated),
            Shown::Token(token) => {
                let found = known.tokens.get(&hash(token));
                Some(found.ok_or(Refusal::Unauthenticated)?)
            }
        };
        let certificate = peer.and_then(|peer| peer.certificate.as_ref());
        let by_certificate = || {
            let certificate = certificate?;
            let by_print = known.fingerprints.get(&certificate.sha256_fingerprint);
            by_print.or_else(|| {
                certificate
                    .names
                    .iter()
                    .find_map(|name| known.names.get(name))
            })
        };
        let (rights, is_anonymous) = match shown.or_else(by_certificate) {
            Some(rights) => (rights, false),
            None => (
                known.anonymous.as_ref().ok_or(Refusal::Unauthenticated)?,
                true,
            ),
        };
        Ok(Caller {
            // Of the nameless each address is one.
            whose: if is_anonymous {
                whose(peer)
            } else {
                rights.whose
            },
            rights: Some(Arc::clone(rights)),
            whole: None,
        })
    }
}

/// What is wrong with the clients' event types, for the configuration's errors.
#[must_use]
pub fn unknown_events(clients: &[Client]) -> Vec<String> {
    let known = event_names();
    let is_known =
        |name: &String| known.contains(name) || name == NO_TYPE_NAME || name == UNKNOWN_NAME;
    let wrong = clients.iter().flat_map(|client| {
        let events = client.events.iter().flatten();
        events.filter(|name| !is_known(name)).map(|name| {
            format!(
                "client[{}].events: there is no event type {name:?}",
                client.name
            )
        })
    });
    wrong.collect()
}

impl Rights {
    fn of(client: &Client, at: usize, kept: Option<&Arc<Self>>) -> Self {
        let rate = (client.max_rate > 0).then(|| {
            let kept = kept.and_then(|rights| rights.rate.as_ref());
            // With its time: what has come in since is not lost either.
            let kept = kept.map(|rate| lock(rate).clone());
            let new = || Rate::new(client.max_rate, client.anonymous, Instant::now());
            Mutex::new(kept.unwrap_or_else(new))
        });
        let events = client.events.as_ref();
        Self {
            name: client.name.clone(),
            whose: Whose::Client(at),
            events: events.map(|names| names.iter().map(|name| TypeKey::of_name(name)).collect()),
            rate,
            max_rate: client.max_rate,
            is_anonymous: client.anonymous,
        }
    }
}

fn lock(rate: &Mutex<Rate>) -> MutexGuard<'_, Rate> {
    rate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose places the peer of a connection takes.
fn whose(peer: Option<&Peer>) -> Whose {
    // Routes that are called without a port have no peer; they count as one.
    let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip());
    Whose::from(address)
}

impl Caller {
    /// Who did not have to say who it is.
    pub(super) fn nobody(peer: Option<&Peer>) -> Self {
        Self {
            rights: None,
            whose: whose(peer),
            whole: None,
        }
    }

    /// The same for a request with several batches, of which the rate takes all or none: one
    /// that was cut within would come again as a whole, and be cut there again.
    pub(super) fn of_batches(self) -> Self {
        Self {
            whole: Some(Arc::default()),
            ..self
        }
    }

    /// Whom its places are counted for.
    pub(super) fn whose(&self) -> Whose {
        self.whose
    }

    /// Its name, where it has one.
    pub(super) fn name(&self) -> Option<&str> {
        self.rights.as_ref().map(|rights| rights.name.as_str())
    }

    /// Whether it may send these events now; its rate counts them then.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for a type that it may not send, [`Refusal::TooFast`] until its
    /// rate has caught up.
    pub(super) fn admit(&self, events: &Tally) -> Result<(), Refusal> {
        self.admit_at(events, Instant::now())
    }

    fn admit_at(&self, events: &Tally, now: Instant) -> Result<(), Refusal> {
        let Some(rights) = &self.rights else {
            return Ok(());
        };
        if let Some(allowed) = &rights.events {
            let mut types = events.iter().map(|(key, _)| key);
            if let Some(key) = types.find(|key| !allowed.contains(key)) {
                return Err(Refusal::Forbidden(key.name()));
            }
        }
        let Some(rate) = &rights.rate else {
            return Ok(());
        };
        // A batch without events is kept, too, where it is incomplete.
        let events = events.total().max(1);
        let mut rate = lock(rate);
        let left = rate.left(self.whose, events, now);
        // A request is taken whole, and what it took in advance is waited for; or it is refused
        // whole, though the rate may have caught up before its last batch asks.
        let is_taken = match self.whole.as_deref() {
            Some(whole) => *whole.get_or_init(|| left.is_ok()),
            None => left.is_ok(),
        };
        if !is_taken {
            return Err(Refusal::TooFast(left.err().unwrap_or_default()));
        }
        rate.take(self.whose, events, now);
        Ok(())
    }

    /// Whether something of its rate is left, so that a request may be taken.
    ///
    /// # Errors
    /// [`Refusal::TooFast`] until its rate has caught up.
    pub(super) fn is_within_rate(&self) -> Result<(), Refusal> {
        let rate = self.rights.as_ref().and_then(|rights| rights.rate.as_ref());
        let left = rate.map(|rate| lock(rate).left(self.whose, 0, Instant::now()));
        left.unwrap_or(Ok(())).map_err(Refusal::TooFast)
    }
}

/// What stands in the `authorization` header.
pub(super) enum Shown<'a> {
    /// There is none.
    Nothing,
    /// A token, whoever's it is.
    Token(&'a [u8]),
    /// Something else.
    Unreadable,
}

pub(super) fn bearer(headers: &HeaderMap) -> Shown<'_> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key(AUTHORIZATION) {
            // Two of them: one of the hops between may have read the other.
            true => Shown::Unreadable,
            false => Shown::Nothing,
        };
    };
    let value = value.as_bytes();
    let is_bearer = value
        .get(..7)
        .is_some_and(|kind| kind.eq_ignore_ascii_case(b"bearer "));
    let token = value.get(7..).unwrap_or_default().trim_ascii();
    if !is_bearer || token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Shown::Unreadable;
    }
    Shown::Token(token)
}

fn hash(token: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token).as_ref());
    bytes
}

#[cfg(test)]
#[path = "callers_tests.rs"]
mod tests;
