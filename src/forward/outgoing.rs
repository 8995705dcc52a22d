//! A journal record as broker messages. Pure; called by `reading` on a blocking
//! thread.
//!
//! # Invariants
//! - Each group of a record becomes a message or a letter, also where no consumer says where
//!   refused events go: a request of which nothing is left to do counts as delivered (test
//!   `refused_events_without_an_error_route_are_set_aside`).

use crate::broker::Message;
use crate::dead_letters::DeadLetter;
use crate::event::descriptor::EventType;
use crate::event::documents::Document;
use crate::event::envelope::{
    self, INDEXES_HEADER, PROTOBUF, REASON_HEADER, ROUTING_KEY_HEADER, WEBHOOK,
};
use crate::event::group::{Group, Route};
use crate::event::guarded::{PANICKED, unless_it_panics};
use crate::event::identity::{HostId, Seq, format_indexes};
use crate::event::limits;
use crate::event::parcel::{Destination, Parcel};
use crate::event::split;
use crate::event::tally::Tally;
use crate::event::webhook::{Receipt, Source, Stored};
use crate::journal::{Kind, Record};
use crate::pace::Lane;
use std::collections::BTreeMap;

/// Where refused events go: an exchange and a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorRoute {
    /// The exchange.
    pub exchange: String,
    /// The key.
    pub key: String,
}

/// One group of a record, in a message.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Which group of which record.
    pub(super) document: Document,
    /// The group's events.
    pub(super) events: Tally,
}

impl Part {
    pub(super) fn seq(&self) -> Seq {
        self.document.seq
    }

    /// Its number among the record's groups.
    pub(super) fn group(&self) -> usize {
        self.document.part as usize
    }
}

/// One message to the broker: a group of a record, or several of records of one read.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    /// Which lane it goes in.
    pub(super) lane: Lane,
    pub(super) message: Message,
    /// What it carries: one group, or one for each document in their order. Never none.
    pub(super) parts: Vec<Part>,
    /// Exchange and key that it was meant for first.
    pub(super) meant_for: (String, String),
    /// Whether nothing is left to try but the dead letters: it is on its way to the error
    /// exchange already, or has none.
    pub(super) is_error: bool,
    /// How often the broker did not take it.
    pub(super) tries: u32,
    /// Whether its queues were looked for since no queue took it.
    pub(super) is_sought: bool,
}

impl Outgoing {
    /// The first record that it carries something of.
    pub(super) fn seq(&self) -> Seq {
        self.parts.first().map_or(Seq(0), Part::seq)
    }

    /// How many events it carries.
    pub(super) fn events(&self) -> u64 {
        self.parts.iter().map(|part| part.events.total()).sum()
    }

    /// Each of its groups in a message of its own, as it would have gone alone.
    pub(super) fn apart(self) -> Vec<Self> {
        if self.parts.len() < 2 {
            return vec![self];
        }
        let singles = self.message.documents();
        let singles = singles.expect("it was joined by this process");
        let of_part = |(part, (_, message)): (Part, (_, Message))| Self {
            lane: self.lane,
            message,
            parts: vec![part],
            meant_for: self.meant_for.clone(),
            is_error: self.is_error,
            tries: self.tries,
            is_sought: self.is_sought,
        };
        self.parts.into_iter().zip(singles).map(of_part).collect()
    }
}

/// What a record becomes.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) seq: Seq,
    pub(super) events: Tally,
    pub(super) messages: Vec<Outgoing>,
    /// What cannot become a message at all: its group, its events.
    pub(super) letters: Vec<(usize, Tally, DeadLetter)>,
}

/// The name of this way out: cursor, metrics, dead letters.
pub(super) const NAME: &str = "rabbitmq";

/// What is the same for every message.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) host: HostId,
    pub(super) exchange: String,
    pub(super) error_routes: Vec<ErrorRoute>,
    pub(super) webhooks: BTreeMap<Source, String>,
}

impl Template {
    /// Makes the messages of a record. Where they came from is not in them yet: `coalesce` tells
    /// them, each once. A record that makes us panic is set aside whole.
    pub(super) fn prepare(&self, record: &Record) -> Prepared {
        unless_it_panics(|| self.make(record)).unwrap_or_else(|| {
            let letter = DeadLetter {
                reason: PANICKED.to_owned(),
                ..self.letter_of_record(record)
            };
            Prepared {
                seq: record.seq,
                events: record.events.clone(),
                messages: Vec::new(),
                letters: vec![(0, record.events.clone(), letter)],
            }
        })
    }

    /// A record as it is in the log.
    fn letter_of_record(&self, record: &Record) -> DeadLetter {
        let (event_name, content_type) = match record.kind {
            Kind::Webhook(source) => (source.event_name(), WEBHOOK),
            Kind::Dispatch | Kind::Rejected => ("", PROTOBUF),
        };
        DeadLetter {
            event_name: event_name.to_owned(),
            indexes: record.indexes(),
            content_type: content_type.to_owned(),
            body: record.content.to_vec(),
            ..self.letter(record.seq)
        }
    }

    fn make(&self, record: &Record) -> Prepared {
        let mut prepared = Prepared {
            seq: record.seq,
            events: record.events.clone(),
            messages: Vec::new(),
            letters: Vec::new(),
        };
        if let Kind::Webhook(source) = record.kind {
            self.add_webhook(record, source, &mut prepared);
            return prepared;
        }
        let rejected = record.reason.as_deref();
        let groups = match split::split(&record.content, record.received_at_ms, rejected) {
            Ok(groups) => groups,
            Err(error) => {
                let letter = DeadLetter {
                    reason: limits::reason(&error.to_string()),
                    indexes: error.indexes(),
                    ..self.letter_of_record(record)
                };
                prepared.letters.push((0, record.events.clone(), letter));
                return prepared;
            }
        };
        for (part, group) in groups.enumerate() {
            self.add_group(record, part, &group, &mut prepared);
        }
        prepared
    }

    fn add_group(&self, record: &Record, part: usize, group: &Group, prepared: &mut Prepared) {
        let indexes = format_indexes(&group.indexes);
        let events = match record.kind {
            Kind::Dispatch => Tally::of_group(group),
            Kind::Rejected | Kind::Webhook(_) => record.events.clone(),
        };
        let (content_type, body) = match envelope::encode(group) {
            Ok(encoded) => encoded,
            Err(error) => {
                let body = group.protobuf();
                let letter = DeadLetter {
                    reason: limits::reason(&error.to_string()),
                    indexes,
                    content_type: PROTOBUF.to_owned(),
                    body,
                    ..self.letter(record.seq)
                };
                prepared.letters.push((part, events, letter));
                return;
            }
        };
        let document = document(record, part, indexes);
        let mut message = Message {
            content_type: Some(content_type.to_owned()),
            body: body.into(),
            ..Message::default()
        };
        match &group.route {
            Route::Type(event_type) => {
                message.exchange.clone_from(&self.exchange);
                message.routing_key = event_type.name();
                prepared.messages.push(Outgoing {
                    lane: Lane::Fresh,
                    message,
                    parts: vec![Part { document, events }],
                    meant_for: (self.exchange.clone(), event_type.name()),
                    is_error: false,
                    tries: 0,
                    is_sought: false,
                });
            }
            Route::Error(reason) => {
                let first = group.events.first();
                let name = first.map_or_else(String::new, |event| EventType::of(event).name());
                message.routing_key = name;
                let errors = self.errors(&message, reason);
                if errors.is_empty() {
                    // No consumer of events says where refused ones go. Counting them as
                    // delivered would lose them.
                    let letter = self.letter_of_refused(document, message, reason);
                    prepared.letters.push((part, events, letter));
                    return;
                }
                let part = Part { document, events };
                prepared
                    .messages
                    .extend(errors.into_iter().map(|message| Outgoing {
                        lane: Lane::Fresh,
                        parts: vec![part.clone()],
                        meant_for: (message.exchange.clone(), message.routing_key.clone()),
                        message,
                        is_error: true,
                        tries: 0,
                        is_sought: false,
                    }));
            }
        }
    }

    /// A webhook's message; its exchange has no error route of the forwarder's.
    fn add_webhook(&self, record: &Record, source: Source, prepared: &mut Prepared) {
        let receipt = Receipt {
            host: &self.host,
            seq: record.seq,
            received_at_ms: record.received_at_ms,
        };
        let stored = Stored::decode(&record.content);
        let ready = match stored.and_then(|stored| stored.ready(source, receipt)) {
            Ok(ready) => ready,
            Err(reason) => {
                let letter = DeadLetter {
                    reason: limits::reason(&reason),
                    ..self.letter_of_record(record)
                };
                prepared.letters.push((0, record.events.clone(), letter));
                return;
            }
        };
        let document = document(record, 0, "0".to_owned());
        let mut message = Message::default();
        for (name, value) in ready.headers {
            message.headers.set(name, value);
        }
        message.content_type = Some(envelope::JSON.to_owned());
        message.body = ready.body.into();
        message.routing_key = ready.key;
        message.exchange = self.webhooks.get(&source).cloned().unwrap_or_default();
        prepared.messages.push(Outgoing {
            lane: Lane::Fresh,
            parts: vec![Part {
                document,
                events: record.events.clone(),
            }],
            meant_for: (message.exchange.clone(), message.routing_key.clone()),
            message,
            is_error: true,
            tries: 0,
            is_sought: false,
        });
    }

    /// The message for each error route, with its reason.
    pub(super) fn errors(&self, message: &Message, reason: &str) -> Vec<Message> {
        self.error_routes
            .iter()
            .map(|route| {
                let mut copy = message.clone();
                copy.headers
                    .set(ROUTING_KEY_HEADER, message.routing_key.clone());
                copy.headers.set(REASON_HEADER, limits::reason(reason));
                copy.exchange.clone_from(&route.exchange);
                copy.routing_key.clone_from(&route.key);
                copy
            })
            .collect()
    }

    /// A message as a dead letter.
    pub(super) fn letter_of(&self, outgoing: &Outgoing, reason: &str) -> DeadLetter {
        let message = &outgoing.message;
        let headers = &message.headers;
        let name = headers
            .text(ROUTING_KEY_HEADER)
            .map_or_else(|| message.routing_key.clone(), |key| key.into_owned());
        let (exchange, routing_key) = outgoing.meant_for.clone();
        DeadLetter {
            event_name: name,
            reason: limits::reason(reason),
            indexes: headers
                .text(INDEXES_HEADER)
                .unwrap_or_default()
                .into_owned(),
            content_type: message.content_type.clone().unwrap_or_default(),
            body: message.body.to_vec(),
            destination: Destination::Message(Parcel {
                exchange,
                routing_key,
                ..message.to_parcel()
            }),
            ..self.letter(outgoing.seq())
        }
    }

    /// Refused events that have no error route. Sent again, once mended, they go where good
    /// ones go.
    fn letter_of_refused(&self, document: Document, message: Message, reason: &str) -> DeadLetter {
        let mut message = Message {
            exchange: self.exchange.clone(),
            ..message
        };
        message.tell(self.host.as_str(), &document);
        DeadLetter {
            event_name: message.routing_key.clone(),
            reason: limits::reason(reason),
            indexes: document.indexes,
            content_type: message.content_type.clone().unwrap_or_default(),
            body: message.body.to_vec(),
            destination: Destination::Message(message.to_parcel()),
            ..self.letter(document.seq)
        }
    }

    /// A letter of a request, with nothing in it.
    fn letter(&self, seq: Seq) -> DeadLetter {
        DeadLetter {
            way_out: NAME.to_owned(),
            event_name: String::new(),
            reason: String::new(),
            host: self.host.to_string(),
            seq: seq.0,
            indexes: String::new(),
            content_type: String::new(),
            body: Vec::new(),
            destination: Destination::Nowhere,
        }
    }
}

/// Which document a group of a record is.
fn document(record: &Record, part: usize, indexes: String) -> Document {
    Document {
        seq: record.seq,
        part: u32::try_from(part).unwrap_or(u32::MAX),
        received_at_ms: record.received_at_ms,
        indexes,
    }
}

#[cfg(test)]
#[path = "outgoing_tests.rs"]
mod tests;
