//! The form in which a group travels through the broker: body, content type and
//! the headers that carry its origin. Written by `forward`, read by `consume`.

use super::identity::{format_indexes, parse_indexes};
use super::limits::EVENTS_PER_MESSAGE_MAX;
use super::split::Group;
use super::{json, split};
use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage as _};

/// Header: the host whose journal took the request.
pub const HOST_HEADER: &str = "x-holdfast-host";
/// Header: the request's sequence there.
pub const SEQ_HEADER: &str = "x-holdfast-seq";
/// Header: the events' places in the request, such as `0-3,7`.
pub const INDEXES_HEADER: &str = "x-holdfast-indexes";
/// Header: when the request was received, epoch milliseconds.
pub const RECEIVED_HEADER: &str = "x-holdfast-received-at-ms";
/// Header: why a message is in an error queue.
pub const REASON_HEADER: &str = "x-holdfast-reason";
/// Header: the reason that a message brought which no consumer here had refused yet: for
/// the consumers of refused events it is part of what they store.
pub const EARLIER_REASON_HEADER: &str = "x-holdfast-earlier-reason";
/// Header: the queue whose consumer refused it first: where a replay goes.
pub const QUEUE_HEADER: &str = "x-holdfast-queue";
/// Header: when it went to the error queue, epoch milliseconds.
pub const REFUSED_AT_HEADER: &str = "x-holdfast-refused-at-ms";
/// Header: names the message among all that were refused, however alike; made when it is
/// refused first, and kept by a replay.
pub const LETTER_HEADER: &str = "x-holdfast-letter";
/// Header: what became of it so far, a list of texts (see `history`).
pub const HISTORY_HEADER: &str = "x-holdfast-history";
/// Header: the routing key it was first published with.
pub const ROUTING_KEY_HEADER: &str = "x-holdfast-routing-key";
/// Header: how often a consumer has tried it.
pub const RETRY_COUNT_HEADER: &str = "x-retry-count";

/// Content type of protobuf JSON.
pub const JSON: &str = "application/json";
/// Content type of protobuf bytes: for event types that have no JSON form because
/// this build does not know them.
pub const PROTOBUF: &str = "application/x-protobuf";

/// Content type of a webhook's journaled form, where no message could be made of it.
pub const WEBHOOK: &str = "application/x-holdfast-webhook";

/// Where the events of a message came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origins {
    /// The host; empty for foreign producers.
    pub host: String,
    /// The sequence; 0 for foreign producers.
    pub seq: u64,
    /// One place for each event; empty for foreign producers.
    pub indexes: Vec<u32>,
}

impl Origins {
    /// Reads the three headers; what does not fit together counts as foreign.
    #[must_use]
    pub fn from_headers(host: Option<&str>, seq: Option<i64>, indexes: Option<&str>) -> Self {
        let read = || {
            let seq = u64::try_from(seq?).ok()?;
            let indexes = parse_indexes(indexes?, EVENTS_PER_MESSAGE_MAX)?;
            let host = host?.to_owned();
            Some(Self { host, seq, indexes })
        };
        read().unwrap_or_default()
    }

    /// The text of the indexes header.
    #[must_use]
    pub fn indexes_text(&self) -> String {
        format_indexes(&self.indexes)
    }

    /// The origin of one event; its place in the message where nothing is known.
    #[must_use]
    pub fn index(&self, at: usize) -> u32 {
        let place = u32::try_from(at).unwrap_or(u32::MAX);
        self.indexes.get(at).copied().unwrap_or(place)
    }
}

/// A batch that cannot be encoded or read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// No JSON form.
    #[error(transparent)]
    Encode(#[from] json::EncodeError),
    /// Not protobuf JSON of `event.Events`.
    #[error(transparent)]
    Json(#[from] json::ParseError),
    /// Not protobuf of `event.Events`.
    #[error(transparent)]
    Protobuf(#[from] split::DecodeError),
}

/// Encodes a group: its content type and body.
///
/// # Errors
/// [`BodyError::Encode`].
pub fn encode(group: &Group) -> Result<(&'static str, Vec<u8>), BodyError> {
    encode_batch(&group.batch, group.needs_protobuf())
}

fn encode_batch(
    batch: &DynamicMessage,
    protobuf: bool,
) -> Result<(&'static str, Vec<u8>), BodyError> {
    if protobuf {
        Ok((PROTOBUF, batch.encode_to_vec()))
    } else {
        Ok((JSON, json::encode(batch)?))
    }
}

/// Reads a body into an `event.Events`. Anything not marked as protobuf is taken
/// as JSON: foreign producers often set no content type.
///
/// # Errors
/// When it is neither.
pub fn decode(content_type: Option<&str>, body: &[u8]) -> Result<DynamicMessage, BodyError> {
    if content_type == Some(PROTOBUF) {
        Ok(split::decode(body)?)
    } else {
        Ok(json::parse(&super::descriptor::schema().events, body)?)
    }
}

/// A body with one event of another body, in the same encoding. `None` where the other
/// has no event beside it: then the other is it, in its producer's own words.
///
/// # Errors
/// When the other cannot be read.
pub fn single(
    content_type: Option<&str>,
    body: &[u8],
    at: usize,
) -> Result<Option<Vec<u8>>, BodyError> {
    let batch = decode(content_type, body)?;
    let events = split::events_of(&batch);
    if events.len() < 2 {
        return Ok(None);
    }
    let event = events.into_iter().nth(at);
    let one = split::batch_of(
        batch.descriptor(),
        split::header_of(&batch),
        event.into_iter().collect(),
    );
    Ok(Some(encode_batch(&one, content_type == Some(PROTOBUF))?.1))
}
