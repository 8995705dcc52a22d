//! A message in the form in which it is set aside: everything that is needed to send it
//! again, as JSON beside its body. Written by the pumps through `dead_letters`, read by
//! `dlq`.
//!
//! # Invariants
//! - What is set aside can be sent again with its ids and headers (test
//!   `a_destination_survives_its_json`); header values of kinds that JSON does not have
//!   are kept as text.

use super::webhook::Source;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A broker message without its body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Parcel {
    /// The exchange; empty for a queue by its name.
    pub exchange: String,
    /// The routing key, or the queue.
    pub routing_key: String,
    /// The sender's id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// When it was made, epoch seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_s: Option<u64>,
    /// Texts, whole numbers, booleans and lists of texts, by name.
    #[serde(default)]
    pub headers: BTreeMap<String, Value>,
}

/// Where something was going that could not be handed on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// To the broker.
    Message(Parcel),
    /// Into `events` or `error_events`, by their handlers.
    Table {
        /// The table.
        name: String,
        /// Why the event is one of the refused, in `error_events`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// To the handlers of a source's webhooks.
    Webhook {
        /// The source.
        source: Source,
        /// When the door received it, epoch milliseconds.
        received_at_ms: i64,
        /// The headers that were kept.
        headers: BTreeMap<String, Vec<String>>,
    },
    /// Nowhere: it cannot be read.
    #[default]
    Nowhere,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_destination_survives_its_json() {
        let headers = json!({"a": "text", "b": i64::MIN, "c": ["x"], "d": true});
        let Value::Object(headers) = headers else {
            unreachable!("an object")
        };
        for destination in [
            Destination::Message(Parcel {
                exchange: "e.tx".into(),
                routing_key: "k".into(),
                message_id: Some("m".into()),
                timestamp_s: Some(u64::MAX),
                headers: headers.into_iter().collect(),
            }),
            Destination::Table {
                name: "events".into(),
                reason: None,
            },
            Destination::Table {
                name: "error_events".into(),
                reason: Some("no id".into()),
            },
            Destination::Webhook {
                source: Source::Branch,
                received_at_ms: -1,
                headers: [("x-bb-os".to_owned(), vec!["a".to_owned()])].into(),
            },
            Destination::Nowhere,
        ] {
            let text = serde_json::to_string(&destination).unwrap();
            let again: Destination = serde_json::from_str(&text).unwrap();
            assert_eq!(again, destination, "{text}");
        }
    }
}
