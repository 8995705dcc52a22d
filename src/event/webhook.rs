//! Partners' webhooks: what is kept of a request, and the message that it becomes.
//! Called by `ingest` (checks and keeps), `forward` and `consume` (publish and handle).
//!
//! # Invariants
//! - Pure: a journaled webhook gives the same message at each attempt, so that ids and
//!   times in it are stable (test `a_message_is_the_same_each_time`).
//! - What the door accepted makes a message: the door checks by making one.
//! - Credentials are not kept (test `credentials_are_not_kept`).

use super::envelope::BODY_ID_HEADER;
use super::fields::{Fields, UTC};
use super::identity::{HostId, Seq, derived_id};
use bytes::Bytes;
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// The key, and the name, of an event whose sender gave it none.
pub const NO_EVENT_NAME: &str = "NO_EVENT_NAME";

/// Bytes of a routing key: a short string of AMQP 0-9-1.
const KEY_BYTES_MAX: usize = 255;

/// Bytes of headers that are kept of one request; far above what senders use, and
/// bounds what a record holds beside its body.
pub const HEADER_BYTES_MAX: usize = 16 << 10;

/// A route of webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// `/vidooly/event/`
    Vidooly,
    /// `/branch/event/`
    Branch,
    /// `/graphy/event/`
    Graphy,
    /// `/webengage/event/`
    WebEngageEvent,
    /// `/webengage/event/users`
    WebEngageUser,
    /// `/shopify/event/`
    Shopify,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Vidooly,
        Self::Branch,
        Self::Graphy,
        Self::WebEngageEvent,
        Self::WebEngageUser,
        Self::Shopify,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vidooly => "vidooly",
            Self::Branch => "branch",
            Self::Graphy => "graphy",
            Self::WebEngageEvent => "webengage_event",
            Self::WebEngageUser => "webengage_user",
            Self::Shopify => "shopify",
        }
    }

    /// Its path, without the slash at the end.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Vidooly => "/vidooly/event",
            Self::Branch => "/branch/event",
            Self::Graphy => "/graphy/event",
            Self::WebEngageEvent => "/webengage/event",
            Self::WebEngageUser => "/webengage/event/users",
            Self::Shopify => "/shopify/event",
        }
    }

    /// What its webhooks count as in the ledger.
    #[must_use]
    pub fn event_name(self) -> &'static str {
        match self {
            Self::Vidooly => "(webhook vidooly)",
            Self::Branch => "(webhook branch)",
            Self::Graphy => "(webhook graphy)",
            Self::WebEngageEvent => "(webhook webengage_event)",
            Self::WebEngageUser => "(webhook webengage_user)",
            Self::Shopify => "(webhook shopify)",
        }
    }

    /// Whether a header is kept. Names are in lower case.
    fn keeps(self, name: &str) -> bool {
        if is_credential(name) {
            return false;
        }
        match self {
            Self::Graphy => true,
            Self::Shopify => name.starts_with("x-shopify-") || travels(name),
            _ => travels(name),
        }
    }
}

/// Headers that the queues' consumers read, too.
fn travels(name: &str) -> bool {
    name.starts_with("x-bb-") || matches!(name, "accept-language" | "x-apollo-operation-name")
}

/// Whether a header may hold what lets others in. Rather one too many.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    const PARTS: [&str; 10] = [
        "auth",
        "cookie",
        "signature",
        "hmac",
        "secret",
        "token",
        "api-key",
        "apikey",
        "password",
        "session",
    ];
    PARTS.iter().any(|part| name.contains(part))
}

/// What is journaled of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Kept headers: names in lower case, values in the order they came.
    pub headers: BTreeMap<String, Vec<String>>,
    /// The body, verbatim.
    pub body: Bytes,
}

/// The message that a webhook becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its routing key.
    pub key: String,
    /// Its body, JSON.
    pub body: Vec<u8>,
    /// Headers that travel with it.
    pub headers: BTreeMap<String, String>,
}

/// When and where a webhook became durable.
#[derive(Debug, Clone, Copy)]
pub struct Receipt<'a> {
    /// The host.
    pub host: &'a HostId,
    /// The sequence there.
    pub seq: Seq,
    /// Epoch milliseconds.
    pub received_at_ms: i64,
}

impl Stored {
    /// Keeps what may be kept of a request. `unkept` is one more header that holds a
    /// secret, in lower case.
    ///
    /// # Errors
    /// When the headers are larger than [`HEADER_BYTES_MAX`].
    pub fn of<'a>(
        source: Source,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        unkept: Option<&str>,
        body: Bytes,
    ) -> Result<Self, String> {
        let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut bytes = 0;
        for (name, value) in headers {
            if unkept == Some(name) || !source.keeps(name) {
                continue;
            }
            bytes += name.len() + value.len();
            let value = String::from_utf8_lossy(value).into_owned();
            kept.entry(name.to_owned()).or_default().push(value);
        }
        if bytes > HEADER_BYTES_MAX {
            return Err(format!("headers of more than {HEADER_BYTES_MAX} bytes"));
        }
        Ok(Self {
            headers: kept,
            body,
        })
    }

    /// The bytes that are journaled: length of the headers (u32, little endian), the
    /// headers as JSON, the body.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let headers = json!(self.headers).to_string();
        let length = u32::try_from(headers.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(4 + headers.len() + self.body.len());
        bytes.extend(length.to_le_bytes());
        bytes.extend(headers.as_bytes());
        bytes.extend(&self.body);
        bytes.into()
    }

    /// Reads what [`Stored::encode`] wrote.
    ///
    /// # Errors
    /// The reason, when it is something else.
    pub fn decode(bytes: &Bytes) -> Result<Self, String> {
        let wrong = || "not a webhook's record".to_owned();
        let length = bytes.first_chunk::<4>().ok_or_else(wrong)?;
        let end = (u32::from_le_bytes(*length) as usize).saturating_add(4);
        let headers = bytes.get(4..end).ok_or_else(wrong)?;
        Ok(Self {
            headers: serde_json::from_slice(headers).map_err(|_| wrong())?,
            body: bytes.slice(end..),
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.first().map(String::as_str)
    }

    /// The message that the webhook becomes.
    ///
    /// # Errors
    /// What is wrong with the body, fit for the sender.
    pub fn ready(&self, source: Source, receipt: Receipt<'_>) -> Result<Ready, String> {
        let fields = Fields::of_body(&self.body)?;
        let (key, body) = match source {
            Source::Vidooly | Source::Branch => (key(&fields), fields.whole().to_owned()),
            Source::Graphy => self.graphy(&fields, receipt),
            Source::WebEngageEvent => ("EVENT".to_owned(), webengage_event(&fields)?),
            Source::WebEngageUser => {
                let user = fields.text("userId")?.filter(|id| !id.is_empty());
                user.ok_or("userId: missing")?;
                ("USER_EVENT".to_owned(), fields.whole().to_owned())
            }
            Source::Shopify => ("shopify_events".to_owned(), self.shopify(&fields, receipt)?),
        };
        let headers = self.headers.iter().filter(|(name, _)| travels(name));
        let headers =
            headers.filter_map(|(name, values)| Some((name.clone(), values.first()?.clone())));
        let mut headers: BTreeMap<String, String> = headers.collect();
        if source == Source::WebEngageEvent {
            // The message has the second, and the request the millisecond.
            headers.insert(BODY_ID_HEADER.to_owned(), derived_id(&self.body, 0));
        }
        Ok(Ready {
            key,
            body: body.into_bytes(),
            headers,
        })
    }

    /// Graphy's event with the headers and what the door knows.
    fn graphy(&self, fields: &Fields<'_>, receipt: Receipt<'_>) -> (String, String) {
        let name = self.header("spayee-event").filter(|name| !name.is_empty());
        let name = name.unwrap_or(NO_EVENT_NAME);
        let headers: BTreeMap<String, &Vec<String>> = self
            .headers
            .iter()
            .map(|(name, values)| (canonical(name), values))
            .collect();
        // One id for one request, whatever it holds: two equal ones are two events.
        let id = derived_id(format!("{}/{}", receipt.host, receipt.seq).as_bytes(), 0);
        let body = fields.with(
            false,
            &[
                ("name", &json!(name).to_string()),
                (
                    "receive-timestamp",
                    &(receipt.received_at_ms / 1000).to_string(),
                ),
                ("x-eg-headers", &json!(headers).to_string()),
                ("x-eg-id", &json!(id).to_string()),
            ],
        );
        (routing_key(name), body)
    }

    /// Whether the request is one that Shopify itself sent, told by its headers.
    #[must_use]
    pub fn is_native_shopify<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
        names.any(|name| matches!(name, "x-shopify-topic" | "x-shopify-hmac-sha256"))
    }

    /// The envelope: as it came, or made of a native webhook.
    fn shopify(&self, fields: &Fields<'_>, receipt: Receipt<'_>) -> Result<String, String> {
        let Some(topic) = self.header("x-shopify-topic") else {
            fields.needed_text("eventName")?;
            fields.text("storeUrl")?;
            fields.needed_time_ms("eventTime", UTC)?;
            fields.object("eventData")?;
            return Ok(fields.whole().to_owned());
        };
        let triggered = self.header("x-shopify-triggered-at");
        let triggered = triggered.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        let time = triggered.map_or(receipt.received_at_ms, |time| time.timestamp_millis());
        // The first is the same for each delivery of an event, the second for each
        // attempt of a delivery (shopify.dev, ignore-duplicates).
        let id = self
            .header("x-shopify-event-id")
            .or_else(|| self.header("x-shopify-webhook-id"));
        let id = id.filter(|id| !id.is_empty());
        let shop = self.header("x-shopify-shop-domain").unwrap_or_default();
        let envelope = Fields::of_body(b"{}")?;
        let (shop, topic, time) = (
            json!(shop).to_string(),
            json!(topic).to_string(),
            time.to_string(),
        );
        let id = id.map(|id| json!(format!("{shop}{topic}{id}")).to_string());
        let mut set = vec![
            ("storeUrl", shop.as_str()),
            ("eventName", topic.as_str()),
            ("eventTime", time.as_str()),
            ("eventData", fields.whole()),
        ];
        if let Some(id) = &id {
            set.push(("eventId", id));
        }
        Ok(envelope.with(false, &set))
    }
}

fn webengage_event(fields: &Fields<'_>) -> Result<String, String> {
    let given = |key| Ok::<_, String>(fields.text(key)?.is_some_and(|id| !id.is_empty()));
    let (user, anonymous) = (given("userId")?, given("anonymousId")?);
    if !user && !anonymous {
        return Err("userId or anonymousId: missing".to_owned());
    }
    let time = fields.needed_text("eventTime")?;
    let time = time
        .parse::<i64>()
        .ok()
        .and_then(DateTime::from_timestamp_millis);
    let time = time.ok_or("eventTime: epoch milliseconds as text expected")?;
    // With a numeric zone, as WebEngage's own documentation writes times.
    let time = json!(time.format("%Y-%m-%dT%H:%M:%S%z").to_string()).to_string();
    Ok(fields.with(false, &[("eventTime", &time)]))
}

/// The key of an event that carries its name.
fn key(fields: &Fields<'_>) -> String {
    // A name that is none is for the consumer to refuse, with the message in hand.
    let name = fields.text("name").ok().flatten().unwrap_or_default();
    routing_key(&name)
}

/// A name as routing key: in upper case, and no longer than AMQP can carry.
fn routing_key(name: &str) -> String {
    let upper = name.to_uppercase();
    let end = upper.floor_char_boundary(KEY_BYTES_MAX);
    if end == 0 {
        return NO_EVENT_NAME.to_owned();
    }
    upper[..end].to_owned()
}

/// `content-type` as `Content-Type`, as rows of before have header names.
fn canonical(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
