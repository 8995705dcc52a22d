//! Where each sink's events are on this host, by its consumers. Called by `mod.rs`, and by
//! `app::arrivals`.
//!
//! # Invariants
//! - Only declared consumers say where rows go: those of events for `events`, those of refused
//!   events for `error_events` (tests `tables_have_namespaces_of_their_own`,
//!   `what_is_not_declared_says_nothing`).
//! - Where consumers fill several namespaces of a sink, each is a place of its own, and is to
//!   have the types that its consumers are bound to (test `each_namespace_is_a_place`).

use crate::app::setup;
use crate::config::{Config, Handler, SinkKind, binding_matches};
use crate::event::tally::TypeKey;
use crate::sink::{OptionsError, Sink};
use std::sync::Arc;

/// The key of a type that this build does not know: which it is, receipts do not say.
const UNKNOWN_KEY: &str = "Unknown.0";

/// A sink that gets events on this host.
pub(in crate::app) struct EventSink {
    pub(in crate::app) sink: Arc<dyn Sink>,
    /// At least one.
    pub(in crate::app) places: Vec<EventPlace>,
}

/// A pair of tables that events go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::app) struct EventPlace {
    /// The ClickHouse database or Postgres schema of `events`; `None`: the sink's default.
    pub(in crate::app) events: Option<String>,
    /// That of `error_events`.
    pub(in crate::app) errors: Option<String>,
    /// The queues whose dead letters tell what became of its events.
    pub(super) queues: Vec<String>,
    /// Exchange and key of each binding that brings it events; `None`: it is to have all.
    bindings: Option<Vec<(String, String)>>,
}

impl EventPlace {
    /// Whether events of a type belong here.
    pub(super) fn takes(&self, event: TypeKey) -> bool {
        let Some(bindings) = &self.bindings else {
            return true;
        };
        let key = match event {
            TypeKey::UNKNOWN => UNKNOWN_KEY,
            known => known.name(),
        };
        let mut bindings = bindings.iter();
        bindings.any(|(exchange, binding)| binding_matches(exchange, binding, key))
    }
}

/// The sinks that get events on this host.
pub(in crate::app) fn event_sinks(config: &Config) -> Result<Vec<EventSink>, OptionsError> {
    let sinks = setup::sinks(config)?.into_iter();
    let sinks = sinks.filter(|(kind, _)| kind.takes_rows());
    let sinks = sinks.map(|(kind, sink)| EventSink {
        sink,
        places: places(config, kind),
    });
    Ok(sinks.filter(|found| !found.places.is_empty()).collect())
}

/// Where a sink's events are; nowhere, where it gets none.
fn places(config: &Config, kind: SinkKind) -> Vec<EventPlace> {
    let Some(rabbitmq) = &config.rabbitmq else {
        return vec![EventPlace::default()];
    };
    let consumers = config.consumers();
    let declared = |handler| {
        let all = consumers
            .iter()
            .filter(move |c| c.sink == kind && c.handler == handler);
        all.filter(|consumer| setup::is_declared(config, consumer))
    };
    let mut places: Vec<EventPlace> = Vec::new();
    for consumer in declared(Handler::Events) {
        // The one that its refused messages go to, or whichever there is.
        let refused = declared(Handler::ErrorEvents)
            .find(|refused| refused.queue == consumer.error_queue)
            .or_else(|| declared(Handler::ErrorEvents).next());
        let errors = refused.and_then(|refused| refused.namespace.clone());
        let is_same =
            |place: &EventPlace| place.events == consumer.namespace && place.errors == errors;
        let at = places.iter().position(is_same).unwrap_or(places.len());
        if at == places.len() {
            places.push(EventPlace {
                events: consumer.namespace.clone(),
                errors: errors.clone(),
                ..EventPlace::default()
            });
        }
        let place = &mut places[at];
        let queues = [Some(consumer), refused].into_iter().flatten();
        place
            .queues
            .extend(queues.map(|consumer| consumer.queue.clone()));
        let bindings = place.bindings.get_or_insert_default();
        if consumer.exchange == rabbitmq.exchange {
            let keys = consumer.keys.iter();
            bindings.extend(keys.map(|key| (consumer.exchange.clone(), key.clone())));
        }
    }
    if let [place] = &mut places[..] {
        // What it is not bound to has no other place, and must not go unseen.
        place.bindings = None;
    }
    // Others may have fed it before: their letters still tell.
    let known: Vec<_> = places
        .iter()
        .flat_map(|place| place.queues.clone())
        .collect();
    let others = consumers.iter().filter(|consumer| {
        consumer.sink == kind
            && matches!(consumer.handler, Handler::Events | Handler::ErrorEvents)
            && !known.contains(&consumer.queue)
    });
    let others: Vec<_> = others.map(|consumer| consumer.queue.clone()).collect();
    for place in &mut places {
        place.queues.extend(others.iter().cloned());
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_from;

    /// The namespaces of ClickHouse's places with these consumers.
    fn found(consumers: &str) -> Vec<EventPlace> {
        let text = format!("[rabbitmq]\n[clickhouse]\ndatabases = [\"a\", \"b\"]\n{consumers}");
        let config = load_from(&text, std::iter::empty()).unwrap();
        places(&config, SinkKind::ClickHouse)
    }

    fn namespaces(places: &[EventPlace]) -> Vec<(Option<&str>, Option<&str>)> {
        let names = places.iter();
        names
            .map(|place| (place.events.as_deref(), place.errors.as_deref()))
            .collect()
    }

    const SHIPPED: &str = "[[consumer]]\nqueue = \"grpc_clickhouse_event_q\"\n";
    const SHIPPED_ERRORS: &str = "[[consumer]]\nqueue = \"grpc_clickhouse_event_error_q\"\n";

    fn own(queue: &str, key: &str, namespace: &str) -> String {
        format!(
            "[[consumer]]\nqueue = \"{queue}\"\nexchange = \"grpc_event.tx\"\nkeys = [\"{key}\"]\n\
             handler = \"events\"\nsink = \"clickhouse\"\nnamespace = \"{namespace}\"\n"
        )
    }

    #[test]
    fn tables_have_namespaces_of_their_own() {
        assert_eq!(namespaces(&found("")), [(None, None)]);
        let events = found(&format!("{SHIPPED}namespace = \"a\"\n"));
        assert_eq!(namespaces(&events), [(Some("a"), None)]);
        let errors = found(&format!("{SHIPPED_ERRORS}namespace = \"a\"\n"));
        assert_eq!(namespaces(&errors), [(None, Some("a"))]);
        assert!(errors[0].takes(TypeKey::UNKNOWN) && errors[0].takes(TypeKey::NONE));
        let brokerless = load_from("[clickhouse]", std::iter::empty()).unwrap();
        let brokerless = places(&brokerless, SinkKind::ClickHouse);
        assert_eq!(brokerless, [EventPlace::default()]);
    }

    #[test]
    fn what_is_not_declared_says_nothing() {
        let off = format!("{SHIPPED}enabled = false\nnamespace = \"b\"\n");
        let replaced = found(&format!("{off}{}", own("q", "LaunchEvent", "a")));
        assert_eq!(namespaces(&replaced), [(Some("a"), None)]);
        let place = &replaced[0];
        assert!(
            place.takes(TypeKey::of_name("TestEvent")),
            "it has no other"
        );
        // Its letters of before still tell.
        assert!(
            place
                .queues
                .iter()
                .any(|queue| queue == "grpc_clickhouse_event_q")
        );
        assert_eq!(found(&off), []);
    }

    #[test]
    fn each_namespace_is_a_place() {
        let both = found(&own("q", "LaunchEvent", "a"));
        assert_eq!(namespaces(&both), [(None, None), (Some("a"), None)]);
        let takes = |at: usize, name| both[at].takes(TypeKey::of_name(name));
        assert!(takes(0, "LaunchEvent") && takes(0, "TestEvent"));
        assert!(takes(1, "LaunchEvent") && !takes(1, "TestEvent"));
        assert!(both[0].takes(TypeKey::UNKNOWN) && !both[1].takes(TypeKey::UNKNOWN));
        let has = |at: usize, name| both[at].queues.iter().any(|queue| queue == name);
        assert!(has(1, "q") && !has(0, "q"));
        assert!(has(0, "grpc_clickhouse_event_q") && !has(1, "grpc_clickhouse_event_q"));
        let same = found(&format!(
            "{SHIPPED}namespace = \"a\"\n{}",
            own("q", "x", "a")
        ));
        assert_eq!(namespaces(&same), [(Some("a"), None)]);
    }
}
