//! Tests of all handlers of JSON messages, and what the tests beside them lean on.

use super::*;
use crate::event::guarded::trap;
use crate::sink::schema::SHOPIFY_EVENTS;
use proptest::prelude::*;

/// A message with this body and nothing else.
pub(super) fn body(text: &str) -> Input<'_> {
    Input {
        body: text.as_bytes(),
        ..Input::default()
    }
}

/// A row by its columns' names.
pub(super) struct Named(BTreeMap<&'static str, Value>);

impl Named {
    pub(super) fn of(table: &Table, new: NewRow) -> Self {
        assert_eq!(table.columns.len(), new.row.values.len());
        let names = table.columns.iter().map(|column| column.name);
        Self(names.zip(new.row.values).collect())
    }

    pub(super) fn get(&self, name: &str) -> &Value {
        &self.0[name]
    }

    pub(super) fn has(&self, name: &str, wanted: impl Into<Value>) {
        assert_eq!(self.get(name), &wanted.into(), "{name}");
    }

    pub(super) fn json_has(&self, name: &str, part: &str) {
        let Value::Json(text) = self.get(name) else {
            panic!("{name} is no JSON");
        };
        assert!(text.contains(part), "{name}: {text}");
    }
}

/// The handlers of JSON messages with a message that each takes.
pub(crate) const SAMPLES: &[(Handler, &str)] = &[
    (
        Handler::Branch,
        r#"{"id":"i","name":"n","timestamp":1700000000123}"#,
    ),
    (Handler::Graphy, r#"{"x-eg-id":"g"}"#),
    (Handler::TraceLog, r#"{"uri":"/x"}"#),
    (
        Handler::AffiliateOrder,
        r#"{"order_id":"o","created_on":"2023-11-14 22:13:20","last_modified_on":1}"#,
    ),
    (
        Handler::BigbossVote,
        r#"{"createdat":1700000000,"updatedat":1700000000}"#,
    ),
    (
        Handler::PostLog,
        r#"{"event_id":"e","source":"s","platform":"p","profile_id":1,"shortcode":null,"handle":null,"metrics":{"a":9007199254740993},"dimensions":[],"publish_time":null,"event_timestamp":"2023-11-14 22:13:20"}"#,
    ),
    (
        Handler::ProfileLog,
        r#"{"event_id":"e","source":"s","platform":"p","profile_id":"1","handle":"h","metrics":{},"dimensions":null,"event_timestamp":"2023-11-14 22:13:20"}"#,
    ),
    (
        Handler::SentimentLog,
        r#"{"event_id":"e","source":"s","platform":"p","shortcode":"c","comment_id":9007199254740993,"comment":"x","sentiment":"good","score":-0.5,"metrics":{},"dimensions":{},"event_timestamp":1700000000}"#,
    ),
    (
        Handler::PostActivityLog,
        r#"{"event_id":"e","source":"s","activity_type":"a","platform":"p","actor_profile_id":"1","shortcode":"c","metrics":{},"dimensions":{},"publish_time":"2023-11-14 22:13:20","event_timestamp":1700000000}"#,
    ),
    (
        Handler::ProfileRelationshipLog,
        r#"{"event_id":"e","source":"s","relationship_type":"r","platform":"p","source_profile_id":"1","target_profile_id":"2","source_metrics":{},"target_metrics":{},"source_dimensions":{},"target_dimensions":{},"event_timestamp":1700000000}"#,
    ),
    (
        Handler::ScrapeRequestLog,
        r#"{"event_id":"e","scl_id":"18446744073709551615","flow":"f","platform":"p","params":{},"status":"s","priority":null,"reason":null,"event_timestamp":1700000000,"picked_at":null,"expires_at":null}"#,
    ),
    (
        Handler::OrderLog,
        r#"{"event_id":"e","source":"s","platform":"p","platform_order_id":"o","store":"s","metrics":{},"dimensions":{},"event_timestamp":1700000000}"#,
    ),
    (
        Handler::Shopify,
        r#"{"storeUrl":"s","eventName":"n","eventTime":1700000000123,"eventData":{}}"#,
    ),
    (
        Handler::WebEngageEvent,
        r#"{"userId":"u","eventName":"n","eventTime":"2023-11-14T22:13:20Z","eventData":{}}"#,
    ),
    (
        Handler::Click,
        r#"{"headers":{},"clientIp":"10.0.0.1","userAgent":"u","url":"x","timestamp":1700000000}"#,
    ),
    (
        Handler::AppInit,
        r#"{"clientIp":"i","userAgent":"u","timestamp":1700000000,"userId":"1"}"#,
    ),
    (
        Handler::LaunchRefer,
        r#"{"clientIp":"i","userAgent":"u","timestamp":1700000000,"userId":1,"deepLink":"d"}"#,
    ),
    (
        Handler::AccountCreated,
        r#"{"newEntry":{"id":1,"createdOn":1700000000123,"userId":5}}"#,
    ),
    (
        Handler::ProfileCompleted,
        r#"{"newEntry":{"id":1,"userId":5,"socialAccounts":[]}}"#,
    ),
    (
        Handler::AbAssignments,
        r#"{"timestamp":1700000000,"newUser":true,"ver":1,"checksum":"c","assignments":{}}"#,
    ),
    (
        Handler::PartnerActivity,
        r#"{"eventId":"a","activityName":"n","moduleName":"m","incrementCount":1,"partnerId":1,"accountId":2,"activityId":null,"activityMeta":"{}","eventTimestamp":"2023-11-15 03:43:20"}"#,
    ),
];

fn handle(handler: Handler, input: &Input<'_>) -> Result<NewRow, String> {
    let table = table(handler).unwrap();
    let mut items = run(handler, table, input, &Context::default(), 5)?;
    assert_eq!(items.len(), 1);
    items.remove(0)
}

#[test]
fn a_redelivered_message_has_the_same_ids_and_another_message_others() {
    for (handler, text) in SAMPLES {
        let mut input = body(text);
        input.message_id = Some("m1");
        let [first, again] = [0, 1].map(|_| handle(*handler, &input).unwrap());
        assert_eq!(first.id, again.id, "{handler:?}");
        assert_eq!(first.row, again.row, "{handler:?}");
        let mut other = body(text);
        other.message_id = Some("m2");
        assert_ne!(
            first.id,
            handle(*handler, &other).unwrap().id,
            "{handler:?}"
        );
        // One number for all messages is no identity.
        let longer = text.replacen('{', "{\"more\":1,", 1);
        let mut same_number = body(&longer);
        same_number.message_id = Some("m1");
        assert_ne!(
            first.id,
            handle(*handler, &same_number).unwrap().id,
            "{handler:?}"
        );
    }
}

#[test]
fn other_encodings_and_other_documents_are_refused_with_their_reason() {
    for (handler, text) in SAMPLES {
        let latin: Vec<u8> = [&text.as_bytes()[..text.len() - 1], b",\"x\":\"\xe9\"}"].concat();
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let cut = &text.as_bytes()[..text.len() - 1];
        let list = format!("[{text}]");
        for (bytes, names) in [
            (&latin[..], "not UTF-8"),
            (&wide, "not a JSON object"),
            (cut, "not a JSON object"),
            (list.as_bytes(), "not a JSON object"),
            (b"", "not a JSON object"),
            (b"null", "not a JSON object"),
        ] {
            let input = Input {
                body: bytes,
                ..Input::default()
            };
            let reason = handle(*handler, &input).unwrap_err();
            assert!(reason.contains(names), "{handler:?}: {reason}");
        }
        let marked = format!("\u{feff}{text}");
        assert!(handle(*handler, &body(&marked)).is_ok(), "{handler:?}");
    }
}

#[test]
fn every_key_of_a_scraper_s_log_must_be_there() {
    for (handler, text) in &SAMPLES[5..12] {
        let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        for key in keys.keys() {
            let fields = fields::Fields::of_body(text.as_bytes()).unwrap();
            let without = fields.without(&[key]).with(false, &[]);
            let reason = handle(*handler, &body(&without)).unwrap_err();
            assert_eq!(reason, format!("missing: {key}"), "{handler:?}");
        }
        for (key, bad) in [
            ("event_timestamp", "null"),
            ("event_timestamp", "\"0000\""),
            ("event_id", "[]"),
        ] {
            let fields = fields::Fields::of_body(text.as_bytes()).unwrap();
            let bad = fields.with(false, &[(key, bad)]);
            let reason = handle(*handler, &body(&bad)).unwrap_err();
            assert!(reason.starts_with(key), "{handler:?}: {reason}");
        }
    }
}

#[test]
fn scraper_s_logs_keep_digits_and_take_null_for_nothing() {
    let row = |at: usize| {
        let (handler, text) = SAMPLES[at];
        Named::of(
            table(handler).unwrap(),
            handle(handler, &body(text)).unwrap(),
        )
    };
    let post = row(5);
    post.has("profile_id", "1");
    post.has("shortcode", "");
    post.has("handle", Value::Null);
    post.has("publish_time", Value::Null);
    post.has("metrics", Value::Json(r#"{"a":9007199254740993}"#.into()));
    post.has("dimensions", Value::Json("{}".into()));
    post.has("event_timestamp", Value::TimeMs(1_700_000_000_000));
    post.has("insert_timestamp", Value::TimeMs(5));
    row(7).has("comment_id", "9007199254740993");
    row(7).has("score", -0.5);
    row(8).has("publish_time", Value::TimeMs(1_700_000_000_000));
    let request = row(10);
    request.has("scl_id", u64::MAX);
    request.has("priority", Value::Null);
    request.has("expires_at", Value::Null);
}

/// Values that a sender may put in any place.
fn any_value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value as Json, json};
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,12}".prop_map(Json::from),
        Just(json!("2023-11-14 22:13:20")),
        Just(json!(1e300)),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::btree_map("[a-z~$_]{0,8}", inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_handler_panics_whatever_stands_at_its_keys(at in 0..SAMPLES.len(), key in any::<prop::sample::Index>(), value in any_value()) {
        let (handler, text) = SAMPLES[at];
        let mut message: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        let keys: Vec<_> = message.keys().cloned().collect();
        message.insert(keys[key.index(keys.len())].clone(), value.clone());
        let text = serde_json::Value::Object(message).to_string();
        let first = handle(handler, &body(&text)).map(|new| new.row);
        prop_assert_eq!(handle(handler, &body(&text)).map(|new| new.row), first);
        drop(handle(handler, &body(&value.to_string())));
    }
}

#[test]
fn a_panic_refuses_one_message() {
    let message = body("no JSON");
    let context = Context::default();
    let run = || run_guarded(Handler::Shopify, &SHOPIFY_EVENTS, &message, &context, 0);
    trap::set(0);
    assert_eq!(run().unwrap_err(), PANICKED);
    assert_ne!(run().unwrap_err(), PANICKED);
}
