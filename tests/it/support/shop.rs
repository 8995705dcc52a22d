//! A shop's sessions with known content: every event type, values from the edges
//! of their ranges, and beside each event what its row must hold. Built from the
//! descriptor, field by field, without the collector's own JSON code.

use holdfast::event::descriptor::{name_of_case, schema};
use holdfast::event::proto::Events;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, Value};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;
use std::sync::Arc;

/// What a row of `events` must hold.
#[derive(Debug, Clone)]
pub struct Expected {
    pub name: String,
    pub timestamp_ms: i64,
    pub current_url: String,
    pub header: Arc<Map<String, Json>>,
    pub params: Json,
}

/// A batch to be dispatched, with the rows that it must become, by event id.
pub struct Batch {
    pub request: Events,
    pub rows: Vec<(String, Expected)>,
}

/// The way through a shop; the types that are not on it are mixed in.
const WAY: [&str; 26] = [
    "launchEvent",
    "launchReferEvent",
    "pageOpenedEvent",
    "pageLoadedEvent",
    "widgetViewEvent",
    "widgetElementViewEvent",
    "widgetElementViewEvent",
    "widgetElementClickedEvent",
    "enterProductEvent",
    "pdpActionEvent",
    "pageOpenedEvent",
    "widgetViewEvent",
    "widgetCtaClickedEvent",
    "addToCartEvent",
    "headerCartIconClick",
    "phoneVerificationInitiateEvent",
    "phoneNumberEntered",
    "otpVerifiedEvent",
    "checkDeliveryInfoEvent",
    "goToPaymentsEvent",
    "initiatePurchaseEvent",
    "completePurchaseEvent",
    "nudgeForReview",
    "enterReviewScreen",
    "submitReview",
    "SessionIdChangeEvent",
];

const TEXTS: [&str; 16] = [
    "",
    "banner",
    "Kajal – 12h स्मज-प्रूफ",
    "口红 #3 \"ruby\"",
    "a'b\\c/d",
    "line one\nline two\ttab",
    "🛍️👩🏽‍🦱",
    "null",
    "{\"not\":\"json\"}",
    "2024-02-29T23:59:59.123+05:30",
    "2024-02-29",
    "1234567890123456789",
    "1e400",
    "  spaces  ",
    "a.b.c",
    "%2E %20",
];

const KEYS: [&str; 8] = [
    "model",
    "bucket.label",
    "",
    "ключ",
    "a b",
    "x\"y",
    "🗝",
    "deep.er.key",
];

const INTS: [i64; 9] = [
    0,
    1,
    -1,
    42,
    9_007_199_254_740_993,
    i64::MAX,
    i64::MIN,
    100_000,
    -7_000_000_000,
];

/// Column and header field, with the bound that the Postgres column has.
const HEADER: [(&str, &str, usize); 18] = [
    ("session_id", "sessionId", 50),
    ("device_id", "deviceId", 50),
    ("android_advertising_id", "androidAdvertisingId", 50),
    ("client_id", "clientId", 30),
    ("channel", "channel", 20),
    ("os", "os", 30),
    ("client_type", "clientType", 20),
    ("app_language", "appLanguage", 20),
    ("app_version", "appVersion", 20),
    ("app_version_code", "appVersionCode", 20),
    ("merchant_id", "merchantId", 20),
    ("utm_referrer", "utmReferrer", 200),
    ("utm_platform", "utmPlatform", 50),
    ("utm_source", "utmSource", 80),
    ("utm_medium", "utmMedium", 80),
    ("utm_campaign", "utmCampaign", 80),
    ("pp_id", "ppId", 200),
    ("", "currentURL", 200),
];

/// One device's visits, one batch after the other.
pub struct Visitor {
    random: StdRng,
    device: String,
    made: usize,
    now_ms: i64,
}

impl Visitor {
    pub fn new(seed: u64, number: usize, now_ms: i64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
            device: format!("device-{number}"),
            made: 0,
            now_ms,
        }
    }

    /// The next batch: a stretch of the way through the shop.
    pub fn batch(&mut self, events_max: usize) -> Batch {
        let (header, columns, header_url) = self.header();
        let columns = Arc::new(columns);
        let count = self.random.random_range(1..=40).min(events_max);
        let mut rows = Vec::with_capacity(count);
        let mut events = Vec::with_capacity(count);
        for _ in 0..count {
            let case = self.next_case();
            let (event, id, mut row) = self.event(&case, &columns);
            if row.current_url.is_empty() {
                row.current_url.clone_from(&header_url);
            }
            events.push(Value::Message(event));
            rows.push((id, row));
        }
        let mut batch = DynamicMessage::new(schema().events.clone());
        batch.set_field_by_name("header", Value::Message(header));
        batch.set_field_by_name("events", Value::List(events));
        Batch {
            request: Events::decode(&batch.encode_to_vec()[..]).unwrap(),
            rows,
        }
    }

    fn next_case(&mut self) -> String {
        let cases: Vec<_> = schema().event_of.fields().collect();
        let at = self.made;
        self.made += 1;
        if at % 3 == 2 {
            // All 56 types in turn, beside the way.
            cases[(at / 3) % cases.len()].name().to_owned()
        } else {
            WAY[at % WAY.len()].to_owned()
        }
    }

    fn header(&mut self) -> (DynamicMessage, Map<String, Json>, String) {
        let field = schema().events.get_field_by_name("header").unwrap();
        let Kind::Message(descriptor) = field.kind() else {
            panic!("header is a message");
        };
        let mut header = DynamicMessage::new(descriptor);
        let mut columns = Map::new();
        let mut url = String::new();
        for (column, name, chars_max) in HEADER {
            let mut text = self.text();
            if name == "deviceId" {
                text.clone_from(&self.device);
            }
            let text: String = text.chars().take(chars_max).collect();
            header.set_field_by_name(name, Value::String(text.clone()));
            if column.is_empty() {
                url = text;
            } else {
                columns.insert(column.to_owned(), json!(text));
            }
        }
        for (column, name) in [("bb_device_id", "bbDeviceId"), ("user_id", "userId")] {
            let number = *INTS.choose(&mut self.random).unwrap();
            header.set_field_by_name(name, Value::I64(number));
            columns.insert(column.to_owned(), json!(number));
        }
        (header, columns, url)
    }

    fn event(
        &mut self,
        case: &str,
        header: &Arc<Map<String, Json>>,
    ) -> (DynamicMessage, String, Expected) {
        let id = format!("{}-{}", self.device, self.made);
        let timestamp_ms = self.now_ms - self.random.random_range(0..3 * 86_400_000);
        let url = if self.random.random_bool(0.3) {
            format!("https://shop.example/p/{}?q=ü", self.made)
        } else {
            String::new()
        };
        let field = schema().event.get_field_by_name(case).unwrap();
        let Kind::Message(descriptor) = field.kind() else {
            panic!("{case} is a message");
        };
        let (body, params) = self.fill(&descriptor);
        let mut event = DynamicMessage::new(schema().event.clone());
        event.set_field_by_name("id", Value::String(id.clone()));
        event.set_field_by_name("timestamp", Value::String(timestamp_ms.to_string()));
        event.set_field_by_name("currentURL", Value::String(url.clone()));
        event.set_field(&field, Value::Message(body));
        let expected = Expected {
            name: name_of_case(case),
            timestamp_ms,
            current_url: url,
            header: Arc::clone(header),
            params: Json::Object(params),
        };
        (event, id, expected)
    }

    /// Fills every field of a message; beside it the JSON with zero values left out.
    fn fill(&mut self, descriptor: &MessageDescriptor) -> (DynamicMessage, Map<String, Json>) {
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut expected = Map::new();
        for field in descriptor.fields() {
            let name = field.name().to_owned();
            if field.is_map() {
                let (map, json) = self.map();
                message.set_field(&field, Value::Map(map));
                if !json.is_empty() {
                    expected.insert(name, Json::Object(json));
                }
            } else if field.is_list() {
                let list: Vec<i64> = (0..self.random.random_range(0..4))
                    .map(|_| *INTS.choose(&mut self.random).unwrap())
                    .collect();
                let values = list.iter().map(|n| Value::I64(*n)).collect();
                message.set_field(&field, Value::List(values));
                if !list.is_empty() {
                    expected.insert(name, json!(list));
                }
            } else if let Kind::Message(inner) = field.kind() {
                let (value, mut json) = self.fill(&inner);
                if !json.is_empty() && self.random.random_bool(0.8) {
                    message.set_field(&field, Value::Message(value));
                    expected.insert(name, Json::Object(std::mem::take(&mut json)));
                }
            } else if let Some((value, json)) = self.scalar(&field.kind()) {
                message.set_field(&field, value);
                expected.insert(name, json);
            }
        }
        (message, expected)
    }

    /// A value, or `None` for the type's zero.
    fn scalar(&mut self, kind: &Kind) -> Option<(Value, Json)> {
        match kind {
            Kind::String => {
                let text = self.text();
                (!text.is_empty()).then(|| (Value::String(text.clone()), json!(text)))
            }
            Kind::Int64 => {
                let number = *INTS.choose(&mut self.random).unwrap();
                (number != 0).then(|| (Value::I64(number), json!(number)))
            }
            Kind::Int32 => {
                let number = *[0, 1, -1, 7, i32::MAX, i32::MIN]
                    .choose(&mut self.random)
                    .unwrap();
                (number != 0).then(|| (Value::I32(number), json!(number)))
            }
            Kind::Float => {
                let number = *[0.0_f32, 499.99, 0.1, -2.5, 16_777_216.0, 1.0e-7]
                    .choose(&mut self.random)
                    .unwrap();
                // The number as its own shortest text says it.
                let text: f64 = number.to_string().parse().unwrap();
                (number != 0.0).then(|| (Value::F32(number), json!(text)))
            }
            Kind::Bool => {
                let is = self.random.random_bool(0.5);
                is.then(|| (Value::Bool(true), json!(true)))
            }
            other => panic!("the contract has no {other:?}"),
        }
    }

    fn text(&mut self) -> String {
        (*TEXTS.choose(&mut self.random).unwrap()).to_owned()
    }

    fn map(&mut self) -> (HashMap<MapKey, Value>, Map<String, Json>) {
        let (mut map, mut json) = (HashMap::new(), Map::new());
        for _ in 0..self.random.random_range(0..4) {
            let key = *KEYS.choose(&mut self.random).unwrap();
            let value = self.text();
            map.insert(MapKey::String(key.to_owned()), Value::String(value.clone()));
            json.insert(key.to_owned(), json!(value));
        }
        (map, json)
    }
}
