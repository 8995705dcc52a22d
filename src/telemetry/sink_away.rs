//! Who waits for a sink, and for which of its tables. Called by all who write into sinks or look
//! into them, and by who needs to know whether rows are held.
//!
//! # Invariants
//! - A sink is away, and a table held, while anybody waits for it (test
//!   `a_sink_is_away_while_anybody_waits_for_it`).

use super::metrics::Metrics;
use super::news::{Absence, Waiter};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A sink and one of its tables.
type Place = (String, &'static str);

/// How many wait for each place.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<Mutex<BTreeMap<Place, u32>>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A table of a sink is waited for, until this is dropped.
#[derive(Debug)]
pub struct TableHeld {
    metrics: Metrics,
    place: Place,
}

impl Drop for TableHeld {
    fn drop(&mut self) {
        let mut held = self.metrics.held.lock();
        if let Some(waiting) = held.get_mut(&self.place) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                held.remove(&self.place);
            }
        }
    }
}

impl Metrics {
    /// A table of a sink is waited for, though nobody knows yet that the sink is away.
    #[must_use]
    pub fn table_held(&self, sink: &str, table: &'static str) -> TableHeld {
        let place = (sink.to_owned(), table);
        *self.held.lock().entry(place.clone()).or_default() += 1;
        TableHeld {
            metrics: self.clone(),
            place,
        }
    }

    /// A table of a sink is waited for, until the guard is dropped.
    #[must_use]
    pub fn sink_away(&self, sink: &str, table: &'static str) -> SinkAway {
        SinkAway {
            table: self.table_held(sink, table),
            waiter: Some(self.at_sink(sink, |away| away.wait())),
        }
    }

    /// Whether anybody waits for this table of a sink.
    #[must_use]
    pub fn is_held(&self, sink: &str, table: &'static str) -> bool {
        self.held.lock().contains_key(&(sink.to_owned(), table))
    }
}

/// Somebody waits for a table of a sink.
#[derive(Debug)]
pub struct SinkAway {
    table: TableHeld,
    /// Until it is dropped.
    waiter: Option<Waiter>,
}

impl SinkAway {
    /// Whether it has to be said that an attempt failed; see [`Waiter::is_new`].
    #[must_use]
    pub fn is_new(&self, kind: &str, began: Instant) -> bool {
        let waiter = self.waiter.as_ref();
        waiter.is_some_and(|waiter| waiter.is_new(kind, began))
    }

    /// The sink answered.
    pub fn back(self) {
        let TableHeld { metrics, place } = &self.table;
        metrics.at_sink(&place.0, Absence::worked);
    }
}

impl Drop for SinkAway {
    fn drop(&mut self) {
        let waiter = self.waiter.take();
        let TableHeld { metrics, place } = &self.table;
        metrics.at_sink(&place.0, |_| drop(waiter));
    }
}
