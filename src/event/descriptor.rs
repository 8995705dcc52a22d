//! What the .proto says, at run time: message descriptors and event-type names.
//! Called by `split`, `json`, `validate` and the gRPC reflection service.
//!
//! # Invariants
//! - An event's name is its oneof case's field name in Go's exported form, which
//!   is what tables and routing keys in the field use (`otpVerifiedEvent` is
//!   stored as `OtpVerifiedEvent`, whatever its message is called).

use super::reflected::Event;
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor, OneofDescriptor};
use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The encoded `FileDescriptorSet` of the service, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/file_descriptor_set.bin"));

/// The name of an event whose oneof is unset, as stored by the tables in the field.
pub const NO_TYPE_NAME: &str = "<nil>";

/// Prefix of the name of an event whose type this build does not know; the
/// unknown field's number follows.
pub const UNKNOWN_PREFIX: &str = "Unknown.";

/// Descriptors of the messages that the collector looks into.
#[derive(Debug)]
pub struct Schema {
    /// `event.Events`, the batch.
    pub events: MessageDescriptor,
    /// `event.Header`, a batch's header.
    pub header: MessageDescriptor,
    /// `event.Event`, one event.
    pub event: MessageDescriptor,
    /// The oneof `EventOf` of `event.Event`.
    pub event_of: OneofDescriptor,
    /// Its cases, each at its field number.
    cases: Vec<Option<Case>>,
    /// Their numbers, by field name.
    numbers: HashMap<String, u32>,
}

/// A case of the oneof.
#[derive(Debug)]
pub struct Case {
    /// Its field's number.
    pub number: u32,
    /// Its field's name.
    pub field: String,
    /// Its stored name.
    pub name: String,
    /// What it holds.
    pub message: MessageDescriptor,
}

impl Schema {
    /// The case of a field number.
    #[must_use]
    pub fn case(&self, number: u32) -> Option<&Case> {
        self.cases.get(number as usize)?.as_ref()
    }

    /// The case of a field name, as it is in the .proto.
    #[must_use]
    pub fn case_of_field(&self, name: &str) -> Option<&Case> {
        self.case(*self.numbers.get(name)?)
    }
}

/// Copies of the schema. prost-reflect counts the holders of one in one place, with each look at
/// a field: two threads that share it do half of what they do with one each. About as many as
/// there are threads at such work; a copy takes 1.5 MiB and 2 ms, once it is used.
const COPIES: usize = 16;

static SCHEMAS: [LazyLock<Schema>; COPIES] = [const { LazyLock::new(load) }; COPIES];

/// Threads that have asked for the schema.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Which copy is this thread's.
    static COPY: usize = THREADS.fetch_add(1, Ordering::Relaxed) % COPIES;
}

/// The compiled-in schema, in this thread's copy. Messages of two copies are of different types
/// to prost-reflect, though they say the same: what is put together takes its types from its
/// parts, or from one call of this.
#[must_use]
pub fn schema() -> &'static Schema {
    &SCHEMAS[COPY.with(|copy| *copy)]
}

fn load() -> Schema {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET)
        .expect("the descriptor set was written by build.rs from a file that compiled");
    let message = |name: &str| {
        pool.get_message_by_name(name)
            .expect("build.rs compiled a file that declares it")
    };
    let event = message("event.Event");
    let event_of = event
        .oneofs()
        .find(|oneof| oneof.name() == "EventOf")
        .expect("Event declares the oneof EventOf");
    let mut cases = Vec::new();
    let mut numbers = HashMap::new();
    for field in event_of.fields() {
        let Kind::Message(message) = field.kind() else {
            continue;
        };
        let number = field.number() as usize;
        cases.resize_with(cases.len().max(number + 1), || None);
        cases[number] = Some(Case {
            number: field.number(),
            field: field.name().to_owned(),
            name: name_of_case(field.name()),
            message,
        });
        numbers.insert(field.name().to_owned(), field.number());
    }
    Schema {
        events: message("event.Events"),
        header: message("event.Header"),
        event,
        event_of,
        cases,
        numbers,
    }
}

/// The stored name of an oneof case: its field name as Go exports it.
#[must_use]
pub fn name_of_case(field_name: &str) -> String {
    let mut name = String::with_capacity(field_name.len());
    let mut upper_next = true;
    for c in field_name.chars() {
        if c == '_' {
            upper_next = true;
        } else if upper_next {
            name.extend(c.to_uppercase());
            upper_next = false;
        } else {
            name.push(c);
        }
    }
    name
}

/// The names of all event types, in the order of their field numbers.
#[must_use]
pub fn event_names() -> Vec<String> {
    let mut cases: Vec<_> = schema().event_of.fields().collect();
    cases.sort_by_key(prost_reflect::FieldDescriptor::number);
    cases.iter().map(|c| name_of_case(c.name())).collect()
}

/// What kind of event a decoded `event.Event` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventType {
    /// A case of the oneof that this build knows, by its stored name.
    Known(&'static str),
    /// A field that this build does not know, by its number.
    Unknown(u32),
    /// Neither: the oneof is unset.
    None,
}

impl EventType {
    /// The type of an event.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        match (&event.body, event.unknown_field()) {
            (Some(body), _) => Self::Known(&body.case.name),
            (None, Some(number)) => Self::Unknown(number),
            (None, None) => Self::None,
        }
    }

    /// The stored event name, which is the routing key as well.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Known(name) => (*name).to_owned(),
            Self::Unknown(number) => format!("{UNKNOWN_PREFIX}{number}"),
            Self::None => NO_TYPE_NAME.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_spelling_that_tables_in_the_field_have() {
        for (field, name) in [
            ("launchEvent", "LaunchEvent"),
            ("otpVerifiedEvent", "OtpVerifiedEvent"),
            ("pdpTagClickEvent", "PdpTagClickEvent"),
            ("SessionIdChangeEvent", "SessionIdChangeEvent"),
            ("actionBarBagCLickEvent", "ActionBarBagCLickEvent"),
            ("snake_case_event", "SnakeCaseEvent"),
        ] {
            assert_eq!(name_of_case(field), name);
        }
    }

    #[test]
    fn there_are_56_types() {
        assert_eq!(event_names().len(), 56);
        assert_eq!(event_names()[0], "LaunchEvent");
        for field in schema().event_of.fields() {
            let case = schema().case(field.number()).unwrap();
            let by_name = schema().case_of_field(field.name()).unwrap();
            assert_eq!((case.number, &case.field), (by_name.number, &by_name.field));
        }
    }
}
