//! Whether a click on a short link is a bot's: lists from the configuration, and how
//! often an address has clicked today. Called by `click`; made by `app`.
//!
//! # Invariants
//! - Clicks of a day are counted in this process alone: two hosts let through twice as
//!   many, and a restart begins anew.
//! - A click that is delivered again counts once (test `the_26th_click_is_a_bots`).
//! - Bounded in bytes: the addresses of one day, and the clicks noted of all; both as
//!   digests, since whoever clicks chooses how long their texts are (test
//!   `what_is_noted_is_bounded`).

use super::useragent::{UserAgent, is_known_crawler};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Addresses that are counted on one day; those that come later are not bots by number.
const ADDRESSES_MAX: usize = 200_000;

/// Clicks that are noted on one day, of all addresses: with 25 of each, all of them. A
/// noted click takes some 20 bytes. Those that come later are not bots by number.
const CLICKS_MAX: usize = 25 * ADDRESSES_MAX;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// What tells bots from people.
#[derive(Debug)]
pub struct Bots {
    referers: Vec<String>,
    addresses: HashSet<IpAddr>,
    per_day_max: usize,
    /// Makes digests that nobody outside can foresee.
    digests: RandomState,
    today: Mutex<Today>,
}

/// Clicks by address, both as digests.
#[derive(Debug, Default)]
struct Today {
    day: i64,
    noted: usize,
    clicks: HashMap<u64, HashSet<u64>>,
}

impl Default for Bots {
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new(), usize::MAX)
    }
}

impl Bots {
    /// From texts in Referers, addresses, and how many clicks of one address on one day
    /// may be a person's.
    #[must_use]
    pub fn new(referers: Vec<String>, addresses: Vec<IpAddr>, per_day_max: usize) -> Self {
        Self {
            referers,
            addresses: addresses.into_iter().collect(),
            per_day_max,
            digests: RandomState::new(),
            today: Mutex::default(),
        }
    }

    /// Whether a click is a bot's; the cheap and certain signs first.
    pub(super) fn is_bot(&self, click: &Click<'_>) -> bool {
        let address = click.client_ip.parse::<IpAddr>();
        click.agent.is_crawler
            || self
                .referers
                .iter()
                .any(|part| click.referer.contains(part.as_str()))
            || address.is_ok_and(|address| self.addresses.contains(&address))
            || is_known_crawler(click.user_agent)
            || self.clicks_too_often(click)
    }

    fn clicks_too_often(&self, click: &Click<'_>) -> bool {
        if click.client_ip.is_empty() || self.per_day_max == usize::MAX {
            return false;
        }
        let mut today = self.today.lock().unwrap_or_else(PoisonError::into_inner);
        let day = click.now_ms.div_euclid(DAY_MS);
        if today.day != day {
            *today = Today {
                day,
                ..Today::default()
            };
        }
        let address = self.digests.hash_one(click.client_ip);
        let id = self.digests.hash_one(click.id);
        let is_full = today.clicks.len() >= ADDRESSES_MAX;
        let has_room = today.noted < CLICKS_MAX;
        if is_full && !today.clicks.contains_key(&address) {
            return false;
        }
        let seen = today.clicks.entry(address).or_default();
        if seen.contains(&id) {
            return false;
        }
        if seen.len() >= self.per_day_max {
            return true;
        }
        if has_room {
            seen.insert(id);
            today.noted += 1;
        }
        false
    }
}

/// What is looked at.
pub(super) struct Click<'a> {
    pub(super) id: &'a str,
    pub(super) agent: &'a UserAgent,
    pub(super) user_agent: &'a str,
    pub(super) referer: &'a str,
    pub(super) client_ip: &'a str,
    pub(super) now_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn click<'a>(id: &'a str, agent: &'a UserAgent, now_ms: i64) -> Click<'a> {
        Click {
            id,
            agent,
            user_agent: "Mozilla/5.0",
            referer: "",
            client_ip: "10.0.0.1",
            now_ms,
        }
    }

    #[test]
    fn the_26th_click_is_a_bots() {
        let bots = Bots::new(Vec::new(), Vec::new(), 25);
        let person = UserAgent::default();
        let ids: Vec<_> = (0..26).map(|n| n.to_string()).collect();
        for id in &ids[..25] {
            assert!(!bots.is_bot(&click(id, &person, 5)));
            // Delivered again.
            assert!(!bots.is_bot(&click(id, &person, 5)));
        }
        assert!(bots.is_bot(&click(&ids[25], &person, 5)));
        assert!(bots.is_bot(&click(&ids[25], &person, 5)));
        assert!(!bots.is_bot(&click("0", &person, 5)));
        assert!(!bots.is_bot(&click(&ids[25], &person, 5 + DAY_MS)));
    }

    #[test]
    fn what_is_noted_is_bounded() {
        let bots = Bots::new(Vec::new(), Vec::new(), usize::MAX - 1);
        let person = UserAgent::default();
        let long = "x".repeat(1 << 20);
        for number in 0..100 {
            let id = format!("{long}{number}");
            assert!(!bots.is_bot(&click(&id, &person, 5)));
        }
        let noted = |bots: &Bots| {
            let today = bots.today.lock().unwrap();
            assert_eq!(
                today.noted,
                today.clicks.values().map(HashSet::len).sum::<usize>()
            );
            (today.clicks.len(), today.noted)
        };
        assert_eq!(noted(&bots), (1, 100));
        // What is kept of a click does not grow with it.
        let kept: fn(&Today) -> &HashMap<u64, HashSet<u64>> = |today| &today.clicks;
        assert_eq!(kept(&bots.today.lock().unwrap()).len(), 1);
        bots.today.lock().unwrap().noted = CLICKS_MAX;
        assert!(!bots.is_bot(&click("one too many", &person, 5)));
        assert_eq!(
            bots.today
                .lock()
                .unwrap()
                .clicks
                .values()
                .map(HashSet::len)
                .sum::<usize>(),
            100
        );
        assert!(!bots.is_bot(&click("the next day", &person, 5 + DAY_MS)));
        assert_eq!(noted(&bots), (1, 1));
    }

    #[test]
    fn lists_tell_bots() {
        let bots = Bots::new(
            vec!["preview.".into()],
            vec!["10.0.0.9".parse().unwrap()],
            25,
        );
        let person = UserAgent::default();
        let is_bot = |change: fn(&mut Click<'_>)| {
            let mut click = click("a", &person, 5);
            change(&mut click);
            bots.is_bot(&click)
        };
        assert!(!is_bot(|_| {}));
        assert!(is_bot(|click| click.referer = "https://preview.example"));
        assert!(is_bot(|click| click.client_ip = "10.0.0.9"));
        assert!(is_bot(|click| click.user_agent = "curl/8.0"));
        let crawler = UserAgent {
            is_crawler: true,
            ..UserAgent::default()
        };
        assert!(bots.is_bot(&click("a", &crawler, 5)));
    }
}
