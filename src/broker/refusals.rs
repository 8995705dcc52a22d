//! What a broker refused by closing the channel: a message larger than it takes, an exchange that
//! does not exist or that this user may not write to.
//!
//! Called inside this folder: `collect` learns from how a channel ended, `publish` asks before it
//! sends, `topology` says which exchanges are there. Shared by all sessions with one broker.
//!
//! # Invariants
//! - A message that ended a channel does not end the next one: it is not sent while what was
//!   learned holds, and its caller hears why, so that it is set aside and the others go on
//!   (`a_message_that_is_too_large_ends_one_channel_and_is_invalid_then`,
//!   `a_missing_exchange_ends_one_channel_and_is_unroutable_then`).
//! - What was learned holds for a time: a broker can be told to take more
//!   (`what_was_learned_holds_for_a_time`).
//! - Only texts that name a size or an exchange are learned from; all else is a lost channel
//!   (`other_texts_teach_nothing`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::NOT_FOUND;

/// The broker's code for a user without the right to do it.
const ACCESS_REFUSED: u16 = 403;
/// The broker's code for a message that is larger than it takes, and for much else.
const PRECONDITION_FAILED: u16 = 406;

/// How long a limit of sizes holds. Asking anew costs a channel with all that is in flight on it,
/// and the limit is a setting of the broker's configuration.
const SIZE_HOLDS: Duration = Duration::from_hours(1);

/// How long an exchange counts as refused: an operator who makes it, or gives the right to write
/// to it, waits for so long.
const PLACE_HOLDS: Duration = Duration::from_mins(1);

/// What the broker calls the default exchange.
pub(super) const DEFAULT_EXCHANGE: &str = "amq.default";

/// What one broker refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    size: Option<Learned<usize>>,
    /// As many as are published to.
    places: BTreeMap<Place, Learned<(u16, String)>>,
}

/// An exchange, with a key where only that is refused.
type Place = (String, Option<String>);

#[derive(Debug)]
struct Learned<T> {
    what: T,
    at: Instant,
}

impl<T> Learned<T> {
    fn holds(&self, limit: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < limit
    }
}

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker closed a channel with these words.
    pub(super) fn learn(&self, code: u16, text: &str, now: Instant) {
        let mut known = self.lock();
        match code {
            PRECONDITION_FAILED => {
                let Some(size) = size_in(text) else { return };
                let before = known.size.as_ref();
                // All that was in flight brings the same words.
                if before.is_none_or(|size| !size.holds(SIZE_HOLDS, now)) {
                    tracing::warn!(
                        text,
                        "the broker does not take messages of this size; they are set aside"
                    );
                }
                // The lowest of a broker with several nodes.
                let what = before.filter(|size| size.holds(SIZE_HOLDS, now));
                let what = what.map_or(size, |before| before.what.min(size));
                known.size = Some(Learned { what, at: now });
            }
            NOT_FOUND | ACCESS_REFUSED => {
                let Some(place) = place_in(text) else { return };
                let before = known.places.get(&place);
                if before.is_none_or(|place| !place.holds(PLACE_HOLDS, now)) {
                    tracing::warn!(
                        text,
                        "the broker takes nothing for an exchange; what is for it goes elsewhere"
                    );
                }
                let what = (code, text.to_owned());
                known.places.insert(place, Learned { what, at: now });
            }
            _ => {}
        }
    }

    /// The largest body that the broker takes, where it said so.
    pub(super) fn max_body(&self, now: Instant) -> Option<usize> {
        let known = self.lock();
        let size = known.size.as_ref();
        Some(size.filter(|size| size.holds(SIZE_HOLDS, now))?.what)
    }

    /// Code and text with which the broker refuses what is for this exchange and key.
    pub(super) fn refused(&self, exchange: &str, key: &str, now: Instant) -> Option<(u16, String)> {
        let mut known = self.lock();
        if known.places.is_empty() {
            return None;
        }
        known
            .places
            .retain(|_, place| place.holds(PLACE_HOLDS, now));
        let of = |key: Option<&str>| {
            let place = (exchange.to_owned(), key.map(str::to_owned));
            known.places.get(&place)
        };
        let found = of(None).or_else(|| of(Some(key)))?;
        Some(found.what.clone())
    }

    /// An exchange was declared, or looked up: it is no longer missing.
    pub(super) fn found(&self, exchange: &str) {
        let is_missing = |place: &Learned<(u16, String)>| place.what.0 == NOT_FOUND;
        let mut known = self.lock();
        known
            .places
            .retain(|(name, _), place| name != exchange || !is_missing(place));
    }
}

/// The limit in `message size 2097152 is larger than configured max size 1048576`.
pub(super) fn size_in(text: &str) -> Option<usize> {
    let (is, most) = text
        .split_once("message size ")?
        .1
        .split_once(" is larger than ")?;
    let (_, most) = most.split_once("max size ")?;
    let end = most.find(|c: char| !c.is_ascii_digit());
    let most: usize = most[..end.unwrap_or(most.len())].parse().ok()?;
    (most < is.parse().ok()?).then_some(most)
}

/// The exchange in `no exchange 'x' in vhost '/'` and `access to exchange 'x' in vhost '/' refused
/// …`, and the key in `access to topic 'k' in exchange 'x' in vhost '/' refused …`.
pub(super) fn place_in(text: &str) -> Option<(String, Option<String>)> {
    let (before, name) = text.split_once("exchange '")?;
    let (name, _) = name.rsplit_once("' in vhost '")?;
    let name = if name == DEFAULT_EXCHANGE { "" } else { name };
    let key = before.split_once("access to topic '");
    let key = key.and_then(|(_, key)| key.rsplit_once("' in "));
    Some((name.to_owned(), key.map(|(key, _)| key.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOO_LARGE: &str =
        "PRECONDITION_FAILED - message size 2097152 is larger than configured max size 1048576";
    const MISSING: &str = "NOT_FOUND - no exchange 'a.tx' in vhost '/'";
    const FORBIDDEN: &str =
        "ACCESS_REFUSED - write access to exchange 'b.tx' in vhost '/' refused for user 'guest'";
    const TOPIC: &str =
        "ACCESS_REFUSED - access to topic 'k' in exchange 'c.tx' in vhost '/' refused for user 'u'";

    #[test]
    fn what_was_learned_holds_for_a_time() {
        let refusals = Refusals::default();
        let now = Instant::now();
        assert_eq!(refusals.max_body(now), None);
        for (code, text) in [
            (406, TOO_LARGE),
            (404, MISSING),
            (403, FORBIDDEN),
            (403, TOPIC),
        ] {
            refusals.learn(code, text, now);
        }
        assert_eq!(refusals.max_body(now), Some(1_048_576));
        let says = |exchange, key, at| refusals.refused(exchange, key, at);
        assert_eq!(says("a.tx", "k", now), Some((404, MISSING.to_owned())));
        assert_eq!(says("b.tx", "k", now), Some((403, FORBIDDEN.to_owned())));
        assert_eq!(says("c.tx", "k", now), Some((403, TOPIC.to_owned())));
        assert_eq!(says("c.tx", "other", now), None);
        assert_eq!(says("d.tx", "k", now), None);
        // Another node takes less, one that takes more does not say so.
        refusals.learn(406, "message size 900 is larger than max size 800", now);
        assert_eq!(refusals.max_body(now), Some(800));
        let later = now + PLACE_HOLDS;
        assert_eq!(says("a.tx", "k", later), None);
        assert_eq!(refusals.max_body(later), Some(800));
        assert_eq!(refusals.max_body(now + SIZE_HOLDS), None);
        refusals.learn(406, TOO_LARGE, now + SIZE_HOLDS);
        assert_eq!(refusals.max_body(now + SIZE_HOLDS), Some(1_048_576));
    }

    #[test]
    fn an_exchange_that_is_there_is_not_missing_and_may_still_be_forbidden() {
        let refusals = Refusals::default();
        let now = Instant::now();
        refusals.learn(404, MISSING, now);
        refusals.learn(403, FORBIDDEN, now);
        for name in ["a.tx", "b.tx"] {
            refusals.found(name);
        }
        assert_eq!(refusals.refused("a.tx", "k", now), None);
        assert!(refusals.refused("b.tx", "k", now).is_some());
    }

    #[test]
    fn other_texts_teach_nothing() {
        let refusals = Refusals::default();
        let now = Instant::now();
        for (code, text) in [
            (406, "PRECONDITION_FAILED - unknown delivery tag 5"),
            (406, "message size 5 is larger than max size 9"),
            (406, "message size 5 is larger than max size "),
            (404, "NOT_FOUND - no queue 'q' in vhost '/'"),
            (403, "ACCESS_REFUSED - Login was refused"),
            (320, MISSING),
            (404, ""),
        ] {
            refusals.learn(code, text, now);
        }
        assert_eq!(refusals.max_body(now), None);
        assert_eq!(refusals.refused("a.tx", "k", now), None);
    }

    #[test]
    fn the_default_exchange_has_no_name() {
        let text = "ACCESS_REFUSED - access to exchange 'amq.default' in vhost 'it's' refused";
        assert_eq!(place_in(text), Some((String::new(), None)));
        let odd = "no exchange 'it's' in vhost '/'";
        assert_eq!(place_in(odd), Some(("it's".to_owned(), None)));
    }
}
