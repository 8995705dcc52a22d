//! A message as it is set aside in a file, and the message of what was set aside.
//!
//! Called by the pumps, for dead letters, and by `dlq`, which sends them again.
//!
//! # Invariants
//! - A message that is set aside and sent again has its id, its time and its headers
//!   (`a_message_survives_being_set_aside`).

use bytes::Bytes;
use serde_json::Value as Json;

use super::message::{HeaderValue, Headers, Message, Opaque, OtherProperties, int_of, text_of};
use crate::event::parcel::Parcel;

impl Message {
    /// Everything but the body, as JSON can hold it: values of kinds that JSON does not have
    /// become texts, tables and properties that no part of the house reads are left out.
    #[must_use]
    pub fn to_parcel(&self) -> Parcel {
        let value = |(name, value): (&str, &HeaderValue)| {
            let json = match value {
                HeaderValue::Text(text) => Json::from(text.as_str()),
                HeaderValue::Int(number) => Json::from(*number),
                HeaderValue::Bool(yes) => Json::from(*yes),
                HeaderValue::List(list) => Json::from(list.clone()),
                HeaderValue::Other(Opaque(value)) => match int_of(value) {
                    Some(number) => Json::from(number),
                    None => Json::from(text_of(value)?),
                },
            };
            Some((name.to_owned(), json))
        };
        Parcel {
            exchange: self.exchange.clone(),
            routing_key: self.routing_key.clone(),
            message_id: self.message_id.clone(),
            timestamp_s: self.timestamp_s,
            headers: self.headers.iter().filter_map(value).collect(),
        }
    }

    /// The message of a parcel.
    #[must_use]
    pub fn of_parcel(parcel: Parcel, content_type: &str, body: Bytes) -> Self {
        let value = |(name, value): (String, Json)| {
            let value = match value {
                Json::Number(number) => HeaderValue::Int(number.as_i64()?),
                Json::Bool(yes) => HeaderValue::Bool(yes),
                Json::String(text) => HeaderValue::Text(text),
                Json::Array(list) => HeaderValue::List(
                    list.into_iter()
                        .filter_map(|item| item.as_str().map(str::to_owned))
                        .collect(),
                ),
                Json::Null | Json::Object(_) => return None,
            };
            Some((name.into(), value))
        };
        Self {
            exchange: parcel.exchange,
            routing_key: parcel.routing_key,
            message_id: parcel.message_id,
            content_type: Some(content_type.to_owned()).filter(|kind| !kind.is_empty()),
            timestamp_s: parcel.timestamp_s,
            headers: Headers(parcel.headers.into_iter().filter_map(value).collect()),
            body,
            other: OtherProperties::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::AMQPValue;

    #[test]
    fn a_message_survives_being_set_aside() {
        let mut message = Message {
            exchange: "e".into(),
            routing_key: "k".into(),
            message_id: Some("m".into()),
            content_type: Some("application/json".into()),
            timestamp_s: Some(7),
            body: Bytes::from_static(b"{}"),
            ..Message::default()
        };
        message.headers.set("text", "t");
        message.headers.set("number", i64::MAX);
        message
            .headers
            .set("list", vec!["a".to_owned(), "b".to_owned()]);
        message
            .headers
            .0
            .insert("yes".into(), HeaderValue::Bool(true));
        let parcel = message.to_parcel();
        let again = Message::of_parcel(parcel, "application/json", message.body.clone());
        assert_eq!(again, message);
        // What JSON has no word for.
        let other = |value| HeaderValue::Other(Opaque(value));
        let headers = &mut message.headers.0;
        headers.insert("int".into(), other(AMQPValue::LongInt(-3)));
        headers.insert("half".into(), other(AMQPValue::Double(0.5)));
        headers.insert("void".into(), other(AMQPValue::Void));
        let kept = message.to_parcel().headers;
        assert_eq!(
            (&kept["int"], &kept["half"]),
            (&Json::from(-3), &Json::from("0.5"))
        );
        assert!(!kept.contains_key("void"));
    }
}
