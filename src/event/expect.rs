//! Which rows a journaled request must become: for each of its events the place, the type and
//! the identity, read off its bytes without decoding them. Called by `journal` (receipts).
//!
//! # Invariants
//! - It says of each event what `split` makes of it: whether it is refused, its id, and its
//!   time, never later than its receipt (test `what_is_expected_is_what_split_makes`).

use super::reflected::{ID_FIELD, TIMESTAMP_FIELD};
use super::tally::{EVENTS_FIELD, TypeKey, Wire, type_of};
use super::validate;
use serde::{Deserialize, Serialize};

/// An event that must show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Its place in the request.
    pub index: u32,
    /// Its type.
    pub event: TypeKey,
    /// Its id, as it came.
    pub id: String,
    /// Its time, epoch milliseconds; 0 where it has none that can be read.
    pub at_ms: i64,
    /// Whether it belongs in `error_events`.
    pub refused: bool,
}

/// The events of an encoded `event.Events` that was received at a time; `rejected`: all of it
/// was refused at the door.
#[must_use]
pub fn of_request(bytes: &[u8], received_at_ms: i64, rejected: bool) -> Vec<Expected> {
    let mut all = Vec::new();
    let mut wire = Wire(bytes);
    while let Some((number, value)) = wire.field() {
        if let (EVENTS_FIELD, Some(event)) = (number, value) {
            let index = u32::try_from(all.len()).unwrap_or(u32::MAX);
            all.push(of_event(event, index, received_at_ms, rejected));
        }
    }
    if rejected && all.is_empty() {
        // A refused batch without events is one row.
        all.push(of_event(&[], 0, received_at_ms, true));
    }
    all
}

fn of_event(event: &[u8], index: u32, received_at_ms: i64, rejected: bool) -> Expected {
    let (mut id, mut timestamp): (&[u8], &[u8]) = (&[], &[]);
    let mut wire = Wire(event);
    while let Some((number, value)) = wire.field() {
        match (number, value) {
            (ID_FIELD, Some(value)) => id = value,
            (TIMESTAMP_FIELD, Some(value)) => timestamp = value,
            _ => {}
        }
    }
    let id = String::from_utf8_lossy(id).into_owned();
    let valid = validate::event(&id, &String::from_utf8_lossy(timestamp)).ok();
    Expected {
        index,
        event: type_of(event),
        id,
        at_ms: valid.map_or(0, |at_ms| at_ms.min(received_at_ms)),
        refused: rejected || valid.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::descriptor::EventType;
    use crate::event::group::Route;
    use crate::event::proto::event::EventOf;
    use crate::event::proto::{Event, Events, Header, LaunchEvent, TestEvent};
    use crate::event::split;
    use proptest::prelude::*;
    use prost::Message as _;

    fn event() -> impl Strategy<Value = Event> {
        let timestamp = prop_oneof![
            Just(String::new()),
            Just("x".to_owned()),
            Just("99999999999999999999".to_owned()),
            (0i64..2_000_000_000_000).prop_map(|ms| ms.to_string()),
        ];
        ("[a-zé]{0,3}", timestamp, 0..3).prop_map(|(id, timestamp, case)| Event {
            id,
            timestamp,
            event_of: match case {
                0 => None,
                1 => Some(EventOf::TestEvent(TestEvent::default())),
                _ => Some(EventOf::LaunchEvent(LaunchEvent::default())),
            },
            ..Event::default()
        })
    }

    proptest! {
        #[test]
        fn what_is_expected_is_what_split_makes(
            events in proptest::collection::vec(event(), 0..12), rejected in any::<bool>()
        ) {
            let received_at_ms = 1_700_000_000_000;
            let batch = Events {
                header: Some(Header { device_id: "d".to_owned(), ..Header::default() }),
                events,
            };
            let bytes = batch.encode_to_vec();
            let expected = of_request(&bytes, received_at_ms, rejected);
            let reason = rejected.then_some("refused");
            let mut made = Vec::new();
            for group in split::split(&bytes, received_at_ms, reason).unwrap() {
                let refused = matches!(group.route, Route::Error(_));
                for (event, index) in group.events.iter().zip(&group.indexes) {
                    let timestamp = validate::timestamp_ms(&event.timestamp);
                    let id = event.id.clone();
                    made.push(Expected {
                        index: *index,
                        event: TypeKey::of(&EventType::of(event)),
                        at_ms: match timestamp {
                            Ok(at_ms) if !id.is_empty() => at_ms.min(received_at_ms),
                            _ => 0,
                        },
                        id,
                        refused,
                    });
                }
            }
            made.sort_by_key(|expected| expected.index);
            if rejected && batch.events.is_empty() {
                prop_assert_eq!(expected.len(), 1);
            } else {
                prop_assert_eq!(expected, made);
            }
        }
    }
}
