//! Protobuf JSON, in the two forms that the outside relies on: the mapping that
//! queues carry, and the `event_params` column. Called by `split`'s users, the
//! consumers' handlers and the HTTP door.
//!
//! # Invariants
//! - Queue form: protobuf JSON mapping, int64 as text, zero fields left out, field
//!   names as in the .proto. Any language's protobuf JSON parser reads it.
//! - Params form: the same, but int64 as JSON numbers with every digit.

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
#[error("no JSON form: {0}")]
pub struct EncodeError(#[from] serde_json::Error);

/// Encodes in the form that queues carry.
///
/// # Errors
/// When a nested well-known type holds a value without JSON form; none of the
/// contract's messages has one.
pub fn encode(message: &DynamicMessage) -> Result<Vec<u8>, EncodeError> {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(true)
        .skip_default_fields(true);
    write(message, &options)
}

/// Parses protobuf JSON (either spelling of field names, numbers or text for
/// int64). Unknown keys are an error: dropping them would lose what a newer
/// sender meant.
///
/// # Errors
/// When the text is not JSON, or not of this message.
pub fn parse(descriptor: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, ParseError> {
    let fail = |source| ParseError {
        message: descriptor.full_name().to_owned(),
        source,
    };
    let mut from = serde_json::Deserializer::from_slice(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut from, &options)
        .map_err(fail)?;
    from.end().map_err(fail)?;
    Ok(message)
}

/// The `event_params` column: the event's set case as a JSON object.
///
/// # Errors
/// As [`encode`].
pub fn params(event: &DynamicMessage) -> Result<String, EncodeError> {
    let case = super::descriptor::SCHEMA
        .event_of
        .fields()
        .find(|field| event.has_field(field));
    let Some(case) = case else {
        return Ok("{}".to_owned());
    };
    let value = event.get_field(&case);
    let Value::Message(body) = &*value else {
        return Ok("{}".to_owned());
    };
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(true);
    let text = write(body, &options)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn write(message: &DynamicMessage, options: &SerializeOptions) -> Result<Vec<u8>, EncodeError> {
    let mut text = Vec::with_capacity(256);
    let mut to = serde_json::Serializer::new(&mut text);
    message.serialize_with_options(&mut to, options)?;
    Ok(text)
}
