//! Protobuf JSON, in the two forms that the outside relies on: the mapping that
//! queues carry, and the `event_params` column. Called by `split`'s users, the
//! consumers' handlers and the HTTP door.
//!
//! # Invariants
//! - Queue form: protobuf JSON mapping, int64 as text, zero fields left out, field
//!   names as in the .proto. Any language's protobuf JSON parser reads it.
//! - Params form: the same, but int64 as JSON numbers with every digit.

use super::batch::Batch;
use super::form;
use super::proto::Header;
use super::reflected::Event;
use serde::Deserialize;
use serde::de::IgnoredAny;

use prost_reflect::{
    DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions, Value,
};

/// Text that is not protobuf JSON of the expected message.
#[derive(Debug, thiserror::Error)]
#[error("not protobuf JSON of {message}: {source}")]
pub struct ParseError {
    message: String,
    source: serde_json::Error,
}

/// A message that has no JSON form.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A value of it has none.
    #[error("no JSON form: {0}")]
    Value(#[from] serde_json::Error),
    /// Its bytes are no such message.
    #[error("no JSON form: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// Encodes in the form that queues carry.
///
/// # Errors
/// When a nested well-known type holds a value without JSON form; none of the
/// contract's messages has one.
pub fn encode(message: &DynamicMessage) -> Result<Vec<u8>, EncodeError> {
    let mut text = Vec::with_capacity(256);
    write(message, &queue_form(), &mut text)?;
    Ok(text)
}

/// Encodes a header in the same form.
///
/// # Errors
/// None that is known.
pub fn encode_header(header: &Header) -> Result<Vec<u8>, EncodeError> {
    Ok(serde_json::to_vec(header)?)
}

/// Encodes an event in the same form.
///
/// # Errors
/// As [`encode`].
pub fn encode_event(event: &Event) -> Result<Vec<u8>, EncodeError> {
    let mut text = Vec::with_capacity(256);
    form::write(event, &queue_form(), &mut text)?;
    Ok(text)
}

/// Encodes an `event.Events` of a header that was encoded before and these events: the text is
/// that of [`encode`] for the whole.
///
/// # Errors
/// As [`encode`].
pub fn encode_batch(header: Option<&[u8]>, events: &[Event]) -> Result<Vec<u8>, EncodeError> {
    let header_bytes = header.map_or(0, <[u8]>::len);
    let mut text = Vec::with_capacity(header_bytes + 512 * events.len() + 32);
    text.push(b'{');
    if let Some(header) = header {
        text.extend(b"\"header\":");
        text.extend(header);
    }
    let options = queue_form();
    for (at, event) in events.iter().enumerate() {
        if at > 0 || header.is_some() {
            text.push(b',');
        }
        if at == 0 {
            text.extend(b"\"events\":[");
        }
        form::write(event, &options, &mut text)?;
    }
    text.extend(if events.is_empty() { &b"}"[..] } else { b"]}" });
    Ok(text)
}

fn queue_form() -> SerializeOptions {
    SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(true)
        .skip_default_fields(true)
}

/// Parses protobuf JSON (either spelling of field names, numbers or text for
/// int64). Unknown keys are an error: dropping them would lose what a newer
/// sender meant.
///
/// # Errors
/// When the text is not JSON, or not of this message.
pub fn parse(descriptor: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, ParseError> {
    let result = read(descriptor, text);
    if result.is_err()
        && let Some(text) = with_readable_float_max(text)
    {
        return read(descriptor, &text);
    }
    result
}

/// How many events [`parse`] would make of an `event.Events`, in which no key stands twice.
/// Nothing is made of them.
///
/// # Errors
/// When the text is not JSON, or its events are no list.
pub fn count_events(text: &[u8]) -> Result<usize, serde_json::Error> {
    #[derive(Deserialize)]
    struct Listed {
        // A list of what has no bytes takes none.
        #[serde(default)]
        events: Option<Vec<IgnoredAny>>,
    }
    let listed: Listed = serde_json::from_slice(text)?;
    Ok(listed.events.map_or(0, |events| events.len()))
}

/// Reads an `event.Events` as [`encode_batch`] writes one, and what is near to it; `None` where
/// [`parse`] is to be asked. What it reads is what that would read (fuzzed: `json_events`).
#[must_use]
pub fn read_batch(text: &[u8]) -> Option<Batch> {
    // Of structs serde's derive takes lists of their fields, too.
    let is_object = text.trim_ascii_start().starts_with(b"{");
    let form: BatchForm = is_object.then(|| serde_json::from_slice(text).ok())??;
    Some(Batch {
        header: form.header,
        events: form.events,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchForm {
    #[serde(default)]
    header: Option<Header>,
    #[serde(default)]
    events: Vec<Event>,
}

/// The largest 32-bit float, as its shortest text says it, is a little over its
/// exact value, and prost-reflect refuses it as out of range; so such numbers are
/// written out exactly. `None` where there is none.
fn with_readable_float_max(text: &[u8]) -> Option<Vec<u8>> {
    fn repair(value: &mut serde_json::Value) -> bool {
        match value {
            serde_json::Value::Number(number) => {
                let max = f64::from(f32::MAX);
                // Up to half a step over the largest it rounds to the largest.
                let half_step = f64::from(f32::MAX) - f64::from(f32::MAX.next_down());
                let is_max = number
                    .as_f64()
                    .filter(|n| n.abs() > max && n.abs() < max + half_step / 2.0);
                let Some(n) = is_max else {
                    return false;
                };
                *value = serde_json::Value::from(max.copysign(n));
                true
            }
            serde_json::Value::Array(list) => list
                .iter_mut()
                .fold(false, |any, value| repair(value) | any),
            serde_json::Value::Object(map) => map
                .values_mut()
                .fold(false, |any, value| repair(value) | any),
            _ => false,
        }
    }
    let mut value = serde_json::from_slice(text).ok()?;
    repair(&mut value).then(|| value.to_string().into_bytes())
}

fn read(descriptor: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, ParseError> {
    let fail = |source| ParseError {
        message: descriptor.full_name().to_owned(),
        source,
    };
    let mut from = serde_json::Deserializer::from_slice(text);
    // Unknown keys are an error.
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut from, &options)
        .map_err(fail)?;
    from.end().map_err(fail)?;
    Ok(message)
}

/// Whether JSON carries all of a message: the mapping has no place for fields that
/// this build does not know, at any depth.
#[must_use]
pub fn carries(message: &DynamicMessage) -> bool {
    fn value_is_known(value: &Value) -> bool {
        match value {
            Value::Message(message) => carries(message),
            Value::List(list) => list.iter().all(value_is_known),
            Value::Map(map) => map.values().all(value_is_known),
            _ => true,
        }
    }
    message.unknown_fields().next().is_none()
        && message.fields().all(|(_, value)| value_is_known(value))
}

/// The `event_params` column: the event's set case as a JSON object.
///
/// # Errors
/// As [`encode`].
pub fn params(event: &Event) -> Result<String, EncodeError> {
    let Some(body) = &event.body else {
        return Ok("{}".to_owned());
    };
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(true);
    let mut text = Vec::with_capacity(256);
    write(&*body.message()?, &options, &mut text)?;
    let text = String::from_utf8(text);
    Ok(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

pub(super) fn write(
    message: &DynamicMessage,
    options: &SerializeOptions,
    to: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let mut to = serde_json::Serializer::new(to);
    Ok(message.serialize_with_options(&mut to, options)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::descriptor::schema;

    #[test]
    fn every_float_survives_the_queue() {
        for amount in [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 499.99, 1.0e-45] {
            let text = format!(
                r#"{{"header":{{"deviceId":"d","userId":"9223372036854775807"}},"events":[{{"id":"e","timestamp":"1","goToPaymentsEvent":{{"chargeableAmount":{amount},"productIds":["9007199254740993"]}}}}]}}"#
            );
            let message = parse(&schema().events, text.as_bytes()).unwrap();
            let again = encode(&message).unwrap();
            assert_eq!(
                parse(&schema().events, &again).unwrap(),
                message,
                "{amount}"
            );
            let again = String::from_utf8(again).unwrap();
            assert!(again.contains("\"9223372036854775807\""), "{again}");
            assert!(again.contains("\"9007199254740993\""), "{again}");
        }
        let over = br#"{"events":[{"goToPaymentsEvent":{"chargeableAmount":3.5e38}}]}"#;
        assert!(parse(&schema().events, over).is_err());
    }

    #[test]
    fn fields_that_json_cannot_carry_are_noticed_at_any_depth() {
        use prost::Message as _;
        let unknown = [0xc2, 0x0c, 0x02, b'h', b'i'];
        let nested = |inner: &[u8], tag: u8| {
            let mut bytes = vec![tag, u8::try_from(inner.len()).unwrap()];
            bytes.extend(inner);
            bytes
        };
        let read = |bytes: &[u8]| DynamicMessage::decode(schema().events.clone(), bytes).unwrap();
        // In the batch, in its header, in an event, in an event's case.
        let case = nested(&nested(&unknown, 0x4a), 0x2a);
        for bytes in [
            &unknown[..],
            &nested(&unknown, 0x22),
            &nested(&unknown, 0x2a),
            &case,
        ] {
            assert!(!carries(&read(bytes)), "{bytes:?}");
        }
        let known = br#"{"header":{"deviceId":"d"},"events":[{"id":"e","widgetViewEvent":{"recoInfo":{"recoInfoKV":{"a":"b"}}}}]}"#;
        let known = parse(&schema().events, known).unwrap();
        assert!(carries(&known) && !known.encode_to_vec().is_empty());
    }

    #[test]
    fn as_many_events_are_counted_as_are_made() {
        for (text, count) in [
            ("{}", 0),
            (r#"{"events":null,"header":null}"#, 0),
            (r#"{"events":[]}"#, 0),
            (
                r#" {"header":{"deviceId":"events"},"events":[{},{"id":"a"}]} "#,
                2,
            ),
            (r#"{"\u0065vents" : [ {"id":"[{},{}]"} ]}"#, 1),
        ] {
            assert_eq!(count_events(text.as_bytes()).unwrap(), count, "{text}");
            let batch = parse(&schema().events, text.as_bytes()).unwrap();
            let made = batch.get_field_by_name("events").unwrap();
            assert_eq!(made.as_list().unwrap().len(), count, "{text}");
        }
        for text in [r#"{"events":{}}"#, r#"{"events":"x"}"#, "[1]", "null", "{"] {
            assert!(count_events(text.as_bytes()).is_err(), "{text}");
            assert!(parse(&schema().events, text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_keys_and_leftovers_are_refused() {
        for text in ["{\"new\":1}", "{} {}", "{", "[]", ""] {
            assert!(parse(&schema().events, text.as_bytes()).is_err(), "{text}");
        }
    }
}
