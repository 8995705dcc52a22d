//! Events of one request that travel together, and the header that all groups of a request
//! share. Made by `split`; written by `envelope` and read by the brokerless pump.
//!
//! # Invariants
//! - A header is copied for no group, and becomes JSON once for all of them: in small batches it
//!   is as large as an event (test `a_group_is_written_as_its_batch_would_be`).

use super::batch::{self, Parts};
use super::descriptor::EventType;
use super::json::{self, EncodeError};
use super::proto::Header;
use super::reflected::Event;
use prost::Message as _;
use std::sync::Arc;

/// Where a group goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To the consumers of this event type.
    Type(EventType),
    /// To the error exchange, for this reason.
    Error(String),
}

/// A request's header in all of its forms.
#[derive(Debug)]
pub struct SharedHeader {
    fields: Header,
    /// As it came, with what this build does not know.
    protobuf: Vec<u8>,
    /// Why, where it has no JSON form.
    json: Result<Vec<u8>, EncodeError>,
}

impl SharedHeader {
    pub(super) fn new(fields: Header, protobuf: Vec<u8>) -> Self {
        Self {
            json: json::encode_header(&fields),
            fields,
            protobuf,
        }
    }

    /// Its bytes in a message or its rows: the larger of its forms.
    pub(super) fn bytes(&self) -> usize {
        // Without a JSON form it travels in no JSON message.
        let json_bytes = self.json.as_ref().map_or(0, Vec::len);
        self.protobuf.len().max(json_bytes)
    }
}

/// Events of one request that travel together.
#[derive(Debug, Clone)]
pub struct Group {
    /// Where they go.
    pub route: Route,
    /// The request's header, if it has one.
    pub header: Option<Arc<SharedHeader>>,
    /// The events.
    pub events: Vec<Event>,
    /// Each event's place in the request; ascending, one for each event.
    pub indexes: Vec<u32>,
}

impl Group {
    /// Whether JSON would lose events: the JSON mapping has no place for a type
    /// that this build does not know, so such a group travels as protobuf.
    #[must_use]
    pub fn needs_protobuf(&self) -> bool {
        let is_unknown = |event_type: &EventType| matches!(event_type, EventType::Unknown(_));
        match &self.route {
            Route::Type(event_type) => is_unknown(event_type),
            Route::Error(_) => self.events.iter().any(|e| is_unknown(&EventType::of(e))),
        }
    }

    /// Its header and events, where they are.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        Parts {
            header: self.header.as_ref().map(|header| &header.fields),
            events: &self.events,
        }
    }

    /// An `event.Events` with the header and the events, as protobuf.
    #[must_use]
    pub fn protobuf(&self) -> Vec<u8> {
        let header = self.header.as_ref().map(|header| &header.protobuf[..]);
        batch::encode(header, self.events.iter().map(Event::encode_to_vec))
    }

    /// The same in the JSON form that queues carry.
    ///
    /// # Errors
    /// As [`json::encode`].
    pub fn json(&self) -> Result<Vec<u8>, EncodeError> {
        match self.header.as_deref() {
            None => json::encode_batch(None, &self.events),
            Some(header) => match &header.json {
                Ok(json) => json::encode_batch(Some(json), &self.events),
                // Says why, once more.
                Err(_) => json::encode_header(&header.fields)
                    .and_then(|json| json::encode_batch(Some(&json), &self.events)),
            },
        }
    }

    /// Bytes of the header and the events as protobuf.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let header_bytes = self
            .header
            .as_ref()
            .map_or(0, |header| header.protobuf.len());
        let events = self.events.iter().map(Event::encoded_len);
        header_bytes + events.sum::<usize>()
    }

    /// The same with one of its events alone.
    #[must_use]
    pub fn single(&self, at: usize) -> Self {
        Self {
            route: self.route.clone(),
            header: self.header.clone(),
            events: self.events.get(at).cloned().into_iter().collect(),
            indexes: self.indexes.get(at).copied().into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::proto::event::EventOf;
    use crate::event::proto::{self, Events, GoToPaymentsEvent, Header, LaunchEvent};
    use crate::event::split::{decode, split};
    use proptest::prelude::*;

    fn event() -> impl Strategy<Value = proto::Event> {
        let case = prop_oneof![
            Just(None),
            (any::<i64>(), ".{0,8}").prop_map(|(count, link)| {
                Some(EventOf::LaunchEvent(LaunchEvent {
                    app_launch_count: count,
                    dynamic_link: link,
                }))
            }),
            (any::<f32>(), any::<[i64; 3]>()).prop_map(|(amount, ids)| {
                Some(EventOf::GoToPaymentsEvent(GoToPaymentsEvent {
                    chargeable_amount: amount,
                    product_ids: ids.to_vec(),
                    ..GoToPaymentsEvent::default()
                }))
            }),
        ];
        (".{0,4}", "[0-9]{0,3}", case).prop_map(|(id, timestamp, event_of)| proto::Event {
            id,
            timestamp,
            event_of,
            ..proto::Event::default()
        })
    }

    fn header() -> impl Strategy<Value = Option<Header>> {
        let filled = (".{0,8}", any::<i64>()).prop_map(|(device_id, user_id)| Header {
            device_id,
            user_id,
            ..Header::default()
        });
        prop_oneof![
            Just(None),
            Just(Some(Header::default())),
            filled.prop_map(Some)
        ]
    }

    #[test]
    fn as_protobuf_a_group_keeps_what_its_header_has_beyond_this_build() {
        let unknown = b"\xc2\x0c\x02hi";
        let header = [b"\x42\x01d", &unknown[..]].concat();
        let event = [b"\x22\x01a\x2a\x011", &unknown[..]].concat();
        let request = batch::encode(Some(&header), [&event]);
        let mut groups = split(&request, 1_700_000_000_000, None).unwrap();
        let group = groups.next().unwrap();
        assert!(group.needs_protobuf());
        assert_eq!(group.protobuf(), request);
        assert_eq!(group.encoded_len(), header.len() + event.len());
    }

    proptest! {
        #[test]
        fn a_group_is_written_as_its_batch_would_be(
            header in header(),
            events in proptest::collection::vec(event(), 0..8),
            rejected in any::<bool>(),
        ) {
            let bytes = Events { header, events }.encode_to_vec();
            let reason = rejected.then_some("refused");
            for group in split(&bytes, 1_700_000_000_000, reason).unwrap() {
                let whole = json::encode(&decode(&group.protobuf()[..]).unwrap()).unwrap();
                prop_assert_eq!(
                    String::from_utf8(group.json().unwrap()),
                    String::from_utf8(whole)
                );
                for at in 0..group.events.len() {
                    let one = group.single(at);
                    prop_assert_eq!(&one.indexes, &group.indexes[at..=at]);
                    prop_assert_eq!(&one.events, &group.events[at..=at]);
                    prop_assert_eq!(
                        json::encode(&decode(&one.protobuf()[..]).unwrap()).unwrap(),
                        one.json().unwrap()
                    );
                }
            }
        }
    }
}
