//! Tests of `webhook`.

use super::*;
use serde_json::Value;

fn stored(source: Source, headers: &[(&str, &str)], body: &str) -> Stored {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()));
    Stored::of(source, headers, None, body.to_owned().into()).unwrap()
}

fn ready(source: Source, headers: &[(&str, &str)], body: &str) -> Result<Ready, String> {
    let host = HostId::generate();
    let receipt = Receipt {
        host: &host,
        seq: Seq(7),
        received_at_ms: 1_700_000_000_999,
    };
    stored(source, headers, body).ready(source, receipt)
}

fn body(ready: &Ready) -> Value {
    serde_json::from_slice(&ready.body).unwrap()
}

#[test]
fn names_are_keys_in_upper_case() {
    for source in [Source::Vidooly, Source::Branch] {
        let text = r#"{"name": "web session start", "n": 9007199254740993}"#;
        let event = ready(source, &[("x-bb-os", "ios"), ("accept", "*/*")], text).unwrap();
        assert_eq!(event.key, "WEB SESSION START");
        assert_eq!(event.body, text.as_bytes());
        assert_eq!(
            event.headers,
            BTreeMap::from([("x-bb-os".into(), "ios".into())])
        );
        for unnamed in [
            r#"{"name": 5}"#,
            "{}",
            r#"{"name": ""}"#,
            r#"{"name": null}"#,
        ] {
            assert_eq!(
                ready(source, &[], unnamed).unwrap().key,
                NO_EVENT_NAME,
                "{unnamed}"
            );
        }
        for bad in ["[]", "", "{", "\"x\""] {
            assert!(ready(source, &[], bad).is_err(), "{bad}");
        }
        let long = ready(
            source,
            &[],
            &format!(r#"{{"name": "{}"}}"#, "é".repeat(200)),
        )
        .unwrap();
        assert_eq!(long.key.len(), 254);
    }
}

#[test]
fn graphy_gets_headers_name_time_and_id() {
    let headers = [
        ("spayee-event", "signup"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("cookie", "s"),
    ];
    let event = ready(
        Source::Graphy,
        &headers,
        r#"{"name": "other", "Email": "a@b"}"#,
    )
    .unwrap();
    assert_eq!(event.key, "SIGNUP");
    let body = body(&event);
    assert_eq!(body["name"], "signup");
    assert_eq!(body["receive-timestamp"], 1_700_000_000);
    assert_eq!(
        body["x-eg-headers"],
        json!({"Spayee-Event": ["signup"], "X-A": ["1", "2"]})
    );
    assert_eq!(body["x-eg-id"].as_str().unwrap().len(), 36);
    let unnamed = ready(Source::Graphy, &[], r#"{"name": "other"}"#).unwrap();
    assert_eq!(unnamed.key, NO_EVENT_NAME);
}

#[test]
fn webengage_events_of_one_second_are_told_apart() {
    let event = |time: &str| {
        let text = format!(r#"{{"userId":"u","eventName":"n","eventTime":"{time}"}}"#);
        ready(Source::WebEngageEvent, &[], &text).unwrap()
    };
    let (one, other) = (event("1700000000001"), event("1700000000900"));
    assert_eq!(one.body, other.body);
    assert_ne!(one.headers[BODY_ID_HEADER], other.headers[BODY_ID_HEADER]);
    assert_eq!(one, event("1700000000001"), "sent again");
}

#[test]
fn webengage_events_have_who_and_when() {
    let text = r#"{"userId":"u","eventName":"n","eventTime":"1700000000001","eventData":{"n":9007199254740993}}"#;
    let event = ready(Source::WebEngageEvent, &[], text).unwrap();
    assert_eq!(event.key, "EVENT");
    assert_eq!(body(&event)["eventTime"], "2023-11-14T22:13:20+0000");
    assert!(
        String::from_utf8(event.body)
            .unwrap()
            .contains("9007199254740993")
    );
    for bad in [
        r#"{"eventName":"n","eventTime":"1700000000001"}"#,
        r#"{"userId":"","eventTime":"1700000000001"}"#,
        r#"{"userId":"u","eventTime":"soon"}"#,
        r#"{"userId":"u","eventTime":1700000000001}"#,
        r#"{"userId":"u"}"#,
        r#"{"userId":5,"eventTime":"1700000000001"}"#,
    ] {
        assert!(ready(Source::WebEngageEvent, &[], bad).is_err(), "{bad}");
    }
    let user = ready(
        Source::WebEngageUser,
        &[],
        r#"{"userId":"u","attributes":{}}"#,
    )
    .unwrap();
    assert_eq!(user.key, "USER_EVENT");
    assert!(ready(Source::WebEngageUser, &[], r#"{"attributes":{}}"#).is_err());
}

#[test]
fn shops_send_envelopes_or_native_webhooks() {
    let text = r#"{"storeUrl":"s","eventName":"n","eventTime":1700000000001,"eventData":{}}"#;
    let event = ready(Source::Shopify, &[], text).unwrap();
    assert_eq!(
        (event.key.as_str(), event.body),
        ("shopify_events", text.as_bytes().to_vec())
    );
    for bad in [
        r#"{"eventName":"n"}"#,
        r#"{"eventName":"n","eventTime":1,"eventData":[]}"#,
    ] {
        assert!(ready(Source::Shopify, &[], bad).is_err(), "{bad}");
    }
    let native = [
        ("x-shopify-topic", "orders/create"),
        ("x-shopify-shop-domain", "shop.example"),
        ("x-shopify-event-id", "e1"),
        ("x-shopify-webhook-id", "w1"),
        ("x-shopify-triggered-at", "2023-11-14T22:13:20.001Z"),
        ("x-shopify-hmac-sha256", "secret"),
    ];
    let event = ready(Source::Shopify, &native, r#"{"id":9007199254740993}"#).unwrap();
    let body = body(&event);
    assert_eq!(body["storeUrl"], "shop.example");
    assert_eq!(body["eventName"], "orders/create");
    assert_eq!(body["eventTime"], 1_700_000_000_001_i64);
    assert!(
        String::from_utf8(event.body)
            .unwrap()
            .contains(r#"{"id":9007199254740993}"#)
    );
    let again = ready(Source::Shopify, &native[..5], r#"{"id":9007199254740993}"#).unwrap();
    let again: Value = serde_json::from_slice(&again.body).unwrap();
    assert_eq!(again["eventId"], body["eventId"]);
}

#[test]
fn credentials_are_not_kept() {
    let names = [
        "authorization",
        "cookie",
        "x-shopify-hmac-sha256",
        "x-hub-signature-256",
        "x-api-key",
        "x-webhook-secret",
        "x-access-token",
        "proxy-authorization",
    ];
    let headers: Vec<_> = names.iter().map(|name| (*name, "hunter2")).collect();
    for source in Source::ALL {
        assert_eq!(
            stored(source, &headers, "{}").headers.len(),
            0,
            "{source:?}"
        );
    }
    let own = [("x-partner", &b"hunter2"[..])];
    let kept = Stored::of(
        Source::Graphy,
        own.into_iter(),
        Some("x-partner"),
        "{}".into(),
    );
    assert!(kept.unwrap().headers.is_empty());
}

#[test]
fn large_headers_are_refused() {
    let large = "x".repeat(HEADER_BYTES_MAX + 1);
    let headers = [("x-large", large.as_bytes())];
    assert!(Stored::of(Source::Graphy, headers.into_iter(), None, "{}".into()).is_err());
    // What is not kept does not count.
    assert!(Stored::of(Source::Branch, headers.into_iter(), None, "{}".into()).is_ok());
}

#[test]
fn a_message_is_the_same_each_time() {
    let host = HostId::generate();
    let receipt = Receipt {
        host: &host,
        seq: Seq(7),
        received_at_ms: 5,
    };
    for (source, body) in [
        (Source::Graphy, r#"{"a":1}"#),
        (Source::WebEngageEvent, r#"{"userId":"u","eventTime":"5"}"#),
    ] {
        let first = stored(source, &[("x-bb-requestid", "r")], body);
        let again = Stored::decode(&first.encode()).unwrap();
        assert_eq!(again, first);
        assert_eq!(first.ready(source, receipt), again.ready(source, receipt));
    }
    for bad in [&b""[..], b"\x05\0\0\0{}", b"\x02\0\0\0[]"] {
        assert!(Stored::decode(&Bytes::from_static(bad)).is_err());
    }
}
