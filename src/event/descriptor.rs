//! What the .proto says, at run time: message descriptors and event-type names.
//! Called by `split`, `json`, `validate` and the gRPC reflection service.
//!
//! # Invariants
//! - An event's name is its oneof case's field name in Go's exported form, which
//!   is what tables and routing keys in the field use (`otpVerifiedEvent` is
//!   stored as `OtpVerifiedEvent`, whatever its message is called).

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, OneofDescriptor, Value};
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
    /// The stored names of its cases, by field number.
    names: HashMap<u32, String>,
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
    let names = event_of
        .fields()
        .map(|case| (case.number(), name_of_case(case.name())))
        .collect();
    Schema {
        events: message("event.Events"),
        header: message("event.Header"),
        event,
        event_of,
        names,
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

/// The set case of a decoded `event.Event`: its stored name and its value. Looks at the fields
/// that are set and not at all the cases, of which there are many.
#[must_use]
pub fn case_of(event: &DynamicMessage) -> Option<(&'static str, &Value)> {
    event.fields().find_map(|(field, value)| {
        let name = schema().names.get(&field.number())?;
        Some((name.as_str(), value))
    })
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
    Known(String),
    /// A field that this build does not know, by its number.
    Unknown(u32),
    /// Neither: the oneof is unset.
    None,
}

impl EventType {
    /// Reads the type of a decoded `event.Event`.
    #[must_use]
    pub fn of(event: &DynamicMessage) -> Self {
        if let Some((name, _)) = case_of(event) {
            return Self::Known(name.to_owned());
        }
        // The smallest number: independent of the order on the wire.
        match event.unknown_fields().map(|f| f.number()).min() {
            Some(number) => Self::Unknown(number),
            None => Self::None,
        }
    }

    /// The stored event name, which is the routing key as well.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Known(name) => name.clone(),
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
    }
}
