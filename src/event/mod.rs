//! The domain: event types, their names, who an event is, and how a request is
//! taken apart. Called by every other part; calls none of them.
//!
//! # Invariants
//! - Pure: no I/O and no clock. Receive times and host ids come in as arguments.
//! - Names come from the proto descriptor alone, so a new event type needs no
//!   code (test `every_contract_type_has_its_name_and_fields`).
//! - The same request bytes always split into the same messages, rows and ids.

pub mod batch;
pub mod descriptor;
pub mod documents;
pub mod envelope;
pub mod expect;
pub mod fields;
mod form;
pub mod group;
pub mod guarded;
pub mod history;
pub mod identity;
pub mod json;
pub mod limits;
pub mod parcel;
mod plan;
pub mod reflected;
pub mod reject;
pub mod scan;
pub mod shape;
pub mod split;
pub mod tally;
pub mod validate;
pub mod webhook;

/// Types generated from `proto/eventservice.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod proto {
    tonic::include_proto!("event");
    // The same as protobuf JSON.
    include!(concat!(env!("OUT_DIR"), "/event.serde.rs"));
}
