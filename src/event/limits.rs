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
