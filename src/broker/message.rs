//! The message as the rest of the house sees it, and its translation to and from lapin's types.
//!
//! Called by the forwarder, which builds messages, by the consumers, which read them and publish
//! them again to retry and error queues, and inside this folder by `publish` and `consume`.
//!
//! # Invariants
//! - A message that is received and published again keeps each header and property with its wire
//!   type, known or not (`headers_of_every_kind_survive_a_round_trip`), except what would change
//!   its fate: `expiration` (it would vanish from an error queue), `user_id` (the broker refuses
//!   another's), `CC` and `BCC` (copies to other queues), what the broker counts, and our own
//!   publish number (`what_would_change_the_fate_of_a_message_is_left_out`).
//! - Every published message is persistent (`persistent_is_not_a_choice`).
//! - A name that AMQP cannot carry is an error, never a panic (`names_over_255_bytes_are_refused`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

/// The header that numbers a publish on its channel, so that a returned message can be told from
/// others in flight. It stays private to this folder: reading a message takes it out.
pub(super) const PUBLISH_NUMBER: &str = "x-holdfast-publish";

/// Headers that route copies of a message to further queues (RabbitMQ's sender-selected routing).
const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];

/// Headers that the broker itself puts on a delivery. Published again they would stay, and
/// say of the new message what was true of the old one.
const BROKER_HEADERS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];

/// AMQP's delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// One AMQP message: where it goes or came from, what it says, and its body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The exchange it is published to or came through; empty for the default exchange.
    pub exchange: String,
    /// The routing key; for the default exchange the name of the queue.
    pub routing_key: String,
    /// The sender's id of the message.
    pub message_id: Option<String>,
    /// The MIME type of the body.
    pub content_type: Option<String>,
    /// When the sender made it, in seconds since 1970.
    pub timestamp_s: Option<u64>,
    /// The headers, ours and others'.
    pub headers: Headers,
    /// The payload.
    pub body: Bytes,
    /// The properties that no part of the house reads, kept for publishing again.
    pub other: OtherProperties,
}

/// AMQP properties that are carried along but not understood (encoding, correlation id, type, …):
/// seldom any, and as large as all else of a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OtherProperties(Option<Box<BasicProperties>>);

/// A header's value.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderValue {
    /// Text (AMQP long string in UTF-8).
    Text(String),
    /// A whole number (AMQP signed 64 bit).
    Int(i64),
    /// Yes or no.
    Bool(bool),
    /// A list of texts.
    List(Vec<String>),
    /// Anything else; it can be read as text or number where that makes sense, and is published
    /// again exactly as it came.
    Other(Opaque),
}

/// A foreign header value, kept as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Opaque(pub(super) AMQPValue);

/// A name in a header table costs its length, a type and a size on top of its text.
const HEADER_OVERHEAD: usize = 8;

/// A message's headers, ordered by name (lapin sends and keeps them so).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(pub(super) BTreeMap<Cow<'static, str>, HeaderValue>);

impl Headers {
    /// The value with this exact name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&HeaderValue> {
        self.0.get(name)
    }

    /// The value as text: the first of a list, bytes that are not UTF-8 with replacement
    /// characters, numbers in decimal. `None` if it is absent, an empty list or a table.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        match self.0.get(name)? {
            HeaderValue::Text(text) => Some(Cow::Borrowed(text)),
            HeaderValue::Int(number) => Some(Cow::Owned(number.to_string())),
            HeaderValue::Bool(yes) => Some(Cow::Owned(yes.to_string())),
            HeaderValue::List(list) => list.first().map(|text| Cow::Borrowed(text.as_str())),
            HeaderValue::Other(Opaque(value)) => text_of(value),
        }
    }

    /// The value as a whole number, whatever its width on the wire, also from decimal text.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.0.get(name)? {
            HeaderValue::Int(number) => Some(*number),
            HeaderValue::Text(text) => text.trim().parse().ok(),
            HeaderValue::Other(Opaque(value)) => int_of(value),
            HeaderValue::Bool(_) | HeaderValue::List(_) => None,
        }
    }

    /// The texts of a list; a single value is a list of one, and nothing an empty one.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(HeaderValue::List(list)) => list.clone(),
            _ => self.text(name).map(Cow::into_owned).into_iter().collect(),
        }
    }

    /// Sets a header, and returns the value it had.
    pub fn set(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<HeaderValue>,
    ) -> Option<HeaderValue> {
        self.0.insert(name.into(), value.into())
    }

    /// Removes a header, and returns the value it had.
    pub fn remove(&mut self, name: &str) -> Option<HeaderValue> {
        self.0.remove(name)
    }

    /// About how many bytes the headers take on the wire, and no fewer.
    pub(super) fn encoded_len(&self) -> usize {
        let overhead = HEADER_OVERHEAD;
        let each = |(name, value): (&Cow<'static, str>, &HeaderValue)| {
            let value = match value {
                HeaderValue::Text(text) => text.len(),
                HeaderValue::Int(_) | HeaderValue::Bool(_) => 0,
                HeaderValue::List(list) => list.iter().map(|text| text.len() + overhead).sum(),
                HeaderValue::Other(Opaque(value)) => len_of(value, overhead),
            };
            name.len() + value + overhead
        };
        self.0.iter().map(each).sum()
    }

    /// All headers, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<String>> for HeaderValue {
    fn from(list: Vec<String>) -> Self {
        Self::List(list)
    }
}

impl From<i64> for HeaderValue {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl HeaderValue {
    /// Understands only what it can give back with the same wire type; the rest stays opaque.
    fn from_wire(value: &AMQPValue) -> Self {
        match value {
            AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
                Ok(text) => Self::Text(text.to_owned()),
                Err(_) => Self::Other(Opaque(value.clone())),
            },
            AMQPValue::LongLongInt(number) => Self::Int(*number),
            AMQPValue::Boolean(yes) => Self::Bool(*yes),
            AMQPValue::FieldArray(array) => array
                .as_slice()
                .iter()
                .map(|item| match Self::from_wire(item) {
                    Self::Text(text) => Some(text),
                    Self::Int(_) | Self::Bool(_) | Self::List(_) | Self::Other(_) => None,
                })
                .collect::<Option<Vec<_>>>()
                .map_or_else(|| Self::Other(Opaque(value.clone())), Self::List),
            _ => Self::Other(Opaque(value.clone())),
        }
    }

    fn to_wire(&self) -> AMQPValue {
        match self {
            Self::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Self::Int(number) => AMQPValue::LongLongInt(*number),
            Self::Bool(yes) => AMQPValue::Boolean(*yes),
            Self::List(list) => AMQPValue::FieldArray(
                list.iter()
                    .map(|text| AMQPValue::LongString(text.as_str().into()))
                    .collect::<Vec<_>>()
                    .into(),
            ),
            Self::Other(Opaque(value)) => value.clone(),
        }
    }
}

pub(super) fn text_of(value: &AMQPValue) -> Option<Cow<'_, str>> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::ByteArray(bytes) => Some(String::from_utf8_lossy(bytes.as_slice())),
        AMQPValue::ShortString(text) => Some(Cow::Borrowed(text.as_str())),
        AMQPValue::FieldArray(array) => array.as_slice().first().and_then(text_of),
        AMQPValue::Boolean(yes) => Some(Cow::Owned(yes.to_string())),
        AMQPValue::Float(number) => Some(Cow::Owned(number.to_string())),
        AMQPValue::Double(number) => Some(Cow::Owned(number.to_string())),
        _ => int_of(value).map(|number| Cow::Owned(number.to_string())),
    }
}

pub(super) fn int_of(value: &AMQPValue) -> Option<i64> {
    match *value {
        AMQPValue::ShortShortInt(number) => Some(number.into()),
        AMQPValue::ShortShortUInt(number) => Some(number.into()),
        AMQPValue::ShortInt(number) => Some(number.into()),
        AMQPValue::ShortUInt(number) => Some(number.into()),
        AMQPValue::LongInt(number) => Some(number.into()),
        AMQPValue::LongUInt(number) => Some(number.into()),
        AMQPValue::LongLongInt(number) => Some(number),
        AMQPValue::Timestamp(seconds) => i64::try_from(seconds).ok(),
        _ => None,
    }
}

fn len_of(value: &AMQPValue, overhead: usize) -> usize {
    overhead
        + match value {
            AMQPValue::LongString(text) => text.len(),
            AMQPValue::ShortString(text) => text.as_str().len(),
            AMQPValue::ByteArray(bytes) => bytes.len(),
            AMQPValue::FieldArray(array) => array
                .as_slice()
                .iter()
                .map(|item| len_of(item, overhead))
                .sum(),
            AMQPValue::FieldTable(table) => {
                let each =
                    |(name, item): (&ShortString, _)| name.as_str().len() + len_of(item, overhead);
                table.inner().iter().map(each).sum()
            }
            _ => 0,
        }
}

/// Text as an AMQP short string; the error names what was too long.
pub(super) fn short(what: &str, text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text)
        .map_err(|_| format!("{what} has {} bytes, AMQP carries at most 255", text.len()))
}

impl Message {
    /// About how many bytes it takes: its body and its headers, which others may fill with as much.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.body.len() + self.headers.encoded_len()
    }

    /// The properties to publish with, numbered.
    pub(super) fn to_properties(&self, number: u64) -> Result<BasicProperties, String> {
        let mut table = BTreeMap::new();
        for (name, value) in &self.headers.0 {
            let name_is = |names: &[&str]| names.contains(&&**name);
            if !name_is(&ROUTING_HEADERS) && !name_is(&BROKER_HEADERS) {
                table.insert(short("a header's name", name)?, value.to_wire());
            }
        }
        // i64 lasts for longer than any channel: at a million a second for 292,000 years.
        table.insert(PUBLISH_NUMBER.into(), AMQPValue::LongLongInt(number as i64));
        let other = self.other.0.as_deref().cloned().unwrap_or_default();
        let mut properties = other
            .with_headers(FieldTable::from(table))
            .with_delivery_mode(PERSISTENT);
        if let Some(id) = &self.message_id {
            properties = properties.with_message_id(short("the message id", id)?);
        }
        if let Some(kind) = &self.content_type {
            properties = properties.with_content_type(short("the content type", kind)?);
        }
        if let Some(seconds) = self.timestamp_s {
            properties = properties.with_timestamp(seconds);
        }
        Ok(properties)
    }

    /// A received message.
    pub(super) fn from_wire(
        exchange: ShortString,
        routing_key: ShortString,
        properties: &BasicProperties,
        body: Vec<u8>,
    ) -> Self {
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        let headers = properties.headers().iter().flat_map(|table| table.inner());
        Self {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            message_id: text(properties.message_id()),
            content_type: text(properties.content_type()),
            timestamp_s: *properties.timestamp(),
            headers: Headers(
                headers
                    .filter(|(name, _)| name.as_str() != PUBLISH_NUMBER)
                    .map(|(name, value)| (name.to_string().into(), HeaderValue::from_wire(value)))
                    .collect(),
            ),
            body: body.into(),
            other: OtherProperties::from_wire(properties),
        }
    }
}

impl OtherProperties {
    /// Copies by name what may be published again; `expiration` and `user_id` are not among them.
    fn from_wire(all: &BasicProperties) -> Self {
        let mut kept = BasicProperties::default();
        if let Some(value) = all.content_encoding() {
            kept = kept.with_content_encoding(value.clone());
        }
        if let Some(value) = all.priority() {
            kept = kept.with_priority(*value);
        }
        if let Some(value) = all.correlation_id() {
            kept = kept.with_correlation_id(value.clone());
        }
        if let Some(value) = all.reply_to() {
            kept = kept.with_reply_to(value.clone());
        }
        if let Some(value) = all.kind() {
            kept = kept.with_type(value.clone());
        }
        if let Some(value) = all.app_id() {
            kept = kept.with_app_id(value.clone());
        }
        if let Some(value) = all.cluster_id() {
            kept = kept.with_cluster_id(value.clone());
        }
        Self((kept != BasicProperties::default()).then(|| Box::new(kept)))
    }
}

/// The publish number of a message that the broker returned.
pub(super) fn publish_number(properties: &BasicProperties) -> Option<u64> {
    match properties.headers().as_ref()?.inner().get(PUBLISH_NUMBER)? {
        AMQPValue::LongLongInt(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
