//! How each part does at this moment: connected or not, when it last got something done,
//! and what troubled it last. Fed by the methods of `Metrics`, read by `admin` for status.
//!
//! # Invariants
//! - Bounded: one entry for each way out, consumer and sink of the configuration, each with
//!   one trouble of bounded length (test `the_last_trouble_is_kept_until_it_is_over`).

use crate::clock::now_ms;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Characters of a trouble's text: reasons quote servers, which quote at length.
const TEXT_CHARS_MAX: usize = 500;

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Since when, epoch milliseconds.
    pub since_ms: i64,
    /// What was said last.
    pub text: String,
}

/// How a part does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vital {
    /// Whether it has its connection; `None` for parts that hold none.
    pub connected: Option<bool>,
    /// When it last got something done, epoch milliseconds.
    pub done_at_ms: Option<i64>,
    /// What is wrong now; `None` when nothing is.
    pub trouble: Option<Trouble>,
}

/// All parts, by name; shared by clones.
#[derive(Debug, Clone, Default)]
pub struct Vitals(Arc<Mutex<BTreeMap<String, Vital>>>);

impl Vitals {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vital>> {
        // A panic elsewhere leaves a map of facts, no less.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, who: &str, change: impl FnOnce(&mut Vital)) {
        let mut all = self.lock();
        if let Some(vital) = all.get_mut(who) {
            change(vital);
        } else {
            change(all.entry(who.to_owned()).or_default());
        }
    }

    /// A part has its connection, or has lost it. A connection ends its trouble.
    pub(super) fn connected(&self, who: &str, is: bool) {
        self.at(who, |vital| {
            vital.connected = Some(is);
            if is {
                vital.trouble = None;
            }
        });
    }

    /// A part got something done, which ends its trouble.
    pub(super) fn done(&self, who: &str) {
        let now = now_ms();
        self.at(who, |vital| {
            vital.done_at_ms = Some(now);
            vital.trouble = None;
        });
    }

    /// A part got something done, and what troubles it goes on.
    pub(super) fn did(&self, who: &str) {
        let now = now_ms();
        self.at(who, |vital| vital.done_at_ms = Some(now));
    }

    /// Something troubles a part; since the first of its kind, in the last one's words.
    pub(super) fn trouble(&self, who: &str, text: &str) {
        let now = now_ms();
        let text: String = text.chars().take(TEXT_CHARS_MAX).collect();
        self.at(who, |vital| {
            let since_ms = vital.trouble.as_ref().map_or(now, |t| t.since_ms);
            vital.trouble = Some(Trouble { since_ms, text });
        });
    }

    /// How all parts do.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, Vital> {
        self.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_trouble_is_kept_until_it_is_over() {
        let vitals = Vitals::default();
        vitals.trouble("q", "first");
        let since = vitals.all()["q"].trouble.clone().unwrap().since_ms;
        vitals.trouble("q", &"x".repeat(10_000));
        let trouble = vitals.all()["q"].trouble.clone().unwrap();
        assert_eq!((trouble.since_ms, trouble.text.len()), (since, 500));
        vitals.connected("q", false);
        assert!(vitals.all()["q"].trouble.is_some());
        vitals.connected("q", true);
        assert_eq!(vitals.all()["q"].trouble, None);
        vitals.trouble("s", "away");
        vitals.did("s");
        assert!(vitals.all()["s"].trouble.is_some() && vitals.all()["s"].done_at_ms.is_some());
        vitals.done("s");
        let all = vitals.all();
        assert!(all["s"].trouble.is_none() && all["s"].done_at_ms.is_some());
        assert_eq!((all.len(), all["s"].connected), (2, None));
    }
}
