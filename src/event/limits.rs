//! Bounds of the domain that no configuration changes, each with its reason.
//! Bounds that an operator may change are in `config`.

/// Events in one message to the broker. Keeps the `x-holdfast-indexes` header
/// far under AMQP's frame limit (128 KiB by default, and headers must fit one
/// frame) and one message's rows well under a sink's batch.
pub const EVENTS_PER_MESSAGE_MAX: usize = 500;

/// Bytes of encoded events after which a broker message is closed, so that one
/// request of many megabytes does not become one message of many megabytes.
/// A single larger event still travels, alone.
pub const MESSAGE_BYTES_SOFT_MAX: usize = 1 << 20;

/// Types that this build does not know which one request has as messages of their own. An
/// app that is a version ahead brings a handful; a sender that makes numbers up would have
/// the request's header copied for each. Further ones share a message.
pub const UNKNOWN_TYPES_MAX: usize = 32;

/// Bytes of rows after which a message is closed: each row repeats the header, and a
/// message's rows are in memory together. A header of 32 KiB just fills it with
/// [`EVENTS_PER_MESSAGE_MAX`] events.
pub const MESSAGE_ROWS_BYTES_SOFT_MAX: usize = 16 << 20;

/// Bytes that the copies of one request's header may have in all of its messages, which
/// are in memory together. Headers of apps are some KiB and a request has at most some
/// hundreds of messages, so only one made for it comes near.
pub const HEADER_COPIES_BYTES_MAX: usize = 32 << 20;

/// How many times a request's own bytes the copies of its header may have in all of its
/// rows; up to [`HEADER_COPIES_BYTES_MAX`] they always may. Events of 60 bytes, which is
/// an id and a time, under a header of 3 KiB keep to it.
pub const HEADER_ROWS_FACTOR: usize = 64;

/// Bytes that the copies of a message's header may have in its rows. Messages from here
/// have at most twice [`MESSAGE_ROWS_BYTES_SOFT_MAX`]; a foreign producer's may be larger,
/// within what a worker can hold.
pub const MESSAGE_HEADERS_BYTES_MAX: usize = 128 << 20;

/// Events of a request that are kept decoded between the two looks at it, for speed: a
/// decoded event may take hundreds of times the memory of its bytes.
pub const DECODED_EVENTS_MAX: usize = 1000;

/// Bytes of the events that are kept decoded, for the same reason.
pub const DECODED_BYTES_MAX: usize = 256 << 10;

/// Characters of a reason that travel in headers, rows and logs: reasons quote
/// foreign text, and AMQP headers must fit one frame.
pub const REASON_CHARS_MAX: usize = 1000;

/// Cuts a reason to [`REASON_CHARS_MAX`] characters and drops control
/// characters, which break logs and are refused by Postgres.
#[must_use]
pub fn reason(text: &str) -> String {
    text.chars()
        .take(REASON_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
