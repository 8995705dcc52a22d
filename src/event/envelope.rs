//! The form in which a group travels through the broker: body, content type and
//! the headers that carry its origin. Written by `forward`, read by `consume`.

use super::batch::{self, Batch, Pieces};
use super::descriptor::schema;
use super::group::Group;
use super::identity::{format_indexes, parse_indexes};
use super::limits::EVENTS_PER_MESSAGE_MAX;
use super::{json, split};
use prost::Message as _;

/// Header: the host whose journal took the request.
pub const HOST_HEADER: &str = "x-holdfast-host";
/// Header: the request's sequence there.
pub const SEQ_HEADER: &str = "x-holdfast-seq";
/// Header: the events' places in the request, such as `0-3,7`.
pub const INDEXES_HEADER: &str = "x-holdfast-indexes";
/// Header: when the request was received, epoch milliseconds.
pub const RECEIVED_HEADER: &str = "x-holdfast-received-at-ms";
/// Header: an id made of a webhook's body as it came, where its message says less.
pub const BODY_ID_HEADER: &str = "x-holdfast-body-id";
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
    if group.needs_protobuf() {
        Ok((PROTOBUF, group.protobuf()))
    } else {
        Ok((JSON, group.json()?))
    }
}

/// Reads a body into an `event.Events`. Anything not marked as protobuf is taken
/// as JSON: foreign producers often set no content type.
///
/// # Errors
/// When it is neither.
pub fn decode(content_type: Option<&str>, body: &[u8]) -> Result<Batch, BodyError> {
    if content_type == Some(PROTOBUF) {
        return Ok(Batch::decode(body)?);
    }
    if let Some(batch) = json::read_batch(body) {
        return Ok(batch);
    }
    let message = json::parse(&schema().events, body)?;
    Ok(Batch::decode(&message.encode_to_vec())?)
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
    if content_type == Some(PROTOBUF) {
        let pieces = Pieces::read(body)?;
        let event = pieces.events.get(at).copied();
        let one = batch::encode(pieces.header.as_deref(), event);
        return Ok((pieces.events.len() > 1).then_some(one));
    }
    let Batch { header, mut events } = decode(content_type, body)?;
    if events.len() < 2 {
        return Ok(None);
    }
    let event: Vec<_> = events.drain(..).nth(at).into_iter().collect();
    let header = header.as_ref().map(json::encode_header).transpose()?;
    Ok(Some(json::encode_batch(header.as_deref(), &event)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(batch: &Batch) -> Vec<Vec<u8>> {
        batch.events.iter().map(|e| e.encode_to_vec()).collect()
    }

    #[test]
    fn what_is_read_at_once_is_what_the_library_reads() {
        let header = |fields: &str| format!("{{\"header\":{{{fields}}}}}");
        let number = |text: &str| header(&format!("\"deviceId\":\"d\",\"userId\":{text}"));
        let event = r#"{"id":"e","timestamp":"1","launchEvent":{"appLaunchCount":"7"}}"#;
        let mut at_once = 0;
        for text in [
            "{}".to_owned(),
            " {\"events\": [] }\n".to_owned(),
            header(""),
            header("\"deviceId\":null"),
            header("\"deviceId\":7"),
            header("\"device_id\":\"d\""),
            header("\"deviceId\":\"a\",\"deviceId\":\"b\""),
            header("\"deviceId\":\"\\ud800\""),
            header("\"other\":1"),
            number("7"),
            number("\"7\""),
            number("\"9223372036854775807\""),
            number("9223372036854775808"),
            number("-9223372036854775808"),
            number("7.0"),
            number("7.5"),
            number("7e2"),
            number("\"7e2\""),
            number("\"7.0\""),
            number("\"+7\""),
            number("\"-0\""),
            number("\"007\""),
            number("\" 7\""),
            number("\"\""),
            number("true"),
            number("null"),
            "{\"header\":null,\"events\":null}".to_owned(),
            "{\"header\":{},\"header\":{}}".to_owned(),
            "{\"events\":[null]}".to_owned(),
            "{\"events\":{}}".to_owned(),
            "{\"more\":1}".to_owned(),
            "[]".to_owned(),
            "null".to_owned(),
            "{} {}".to_owned(),
            format!("{{\"events\":[{event},{event}],\"header\":{{\"userId\":\"7\"}}}}"),
            format!("{{\"events\":[{event}],\"events\":[{event}]}}"),
            "{\"events\":[{\"id\":\"e\",\"other\":1}]}".to_owned(),
        ] {
            let library = json::parse(&schema().events, text.as_bytes());
            let library = library.map(|m| Batch::decode(&m.encode_to_vec()).unwrap());
            let whole = decode(None, text.as_bytes());
            assert_eq!(whole.is_ok(), library.is_ok(), "{text}");
            let read = json::read_batch(text.as_bytes());
            at_once += u32::from(read.is_some());
            for batch in [read, whole.ok()].into_iter().flatten() {
                let library = library.as_ref().unwrap();
                assert_eq!(batch.header, library.header, "{text}");
                assert_eq!(bytes(&batch), bytes(library), "{text}");
            }
        }
        assert!(at_once > 10, "{at_once}");
    }

    #[test]
    fn one_event_of_a_body_keeps_what_stood_beside_it() {
        let unknown = b"\xc2\x0c\x02hi";
        let event = |id: &[u8]| [b"\x22\x01", id, unknown].concat();
        let header = [b"\x42\x01d", &unknown[..]].concat();
        let body = batch::encode(Some(&header), [event(b"a"), event(b"b")]);
        let one = single(Some(PROTOBUF), &body, 1).unwrap().unwrap();
        assert_eq!(one, batch::encode(Some(&header), [event(b"b")]));
        assert_eq!(single(Some(PROTOBUF), &one, 0).unwrap(), None);
        let body = br#"{"header":{"deviceId":"d","userId":7},"events":[{"id":"a"},{"id":"b"}]}"#;
        let one = single(None, body, 1).unwrap().unwrap();
        let text = r#"{"header":{"userId":"7","deviceId":"d"},"events":[{"id":"b"}]}"#;
        assert_eq!(String::from_utf8(one).unwrap(), text);
    }
}
