//! Tests of the events handlers: columns in order, values as they came.

use super::*;
use crate::config::Handler;
use crate::consume::handlers::{Context, Input, run, table};
use crate::event::envelope;
use crate::event::group::Group;
use crate::event::proto::event::EventOf;
use crate::event::proto::{AddToCartEvent, Event, Events, GoToPaymentsEvent, Header};
use crate::event::split;
use crate::sink::schema::{ERROR_EVENTS, EVENTS, Table};
use std::collections::{BTreeMap, BTreeSet};

fn batch(events: Vec<Event>) -> Events {
    Events {
        header: Some(Header {
            session_id: "s".into(),
            bb_device_id: i64::MIN,
            user_id: i64::MAX,
            device_id: "d".into(),
            android_advertising_id: "aaid".into(),
            client_id: "c".into(),
            channel: "ch".into(),
            os: "os".into(),
            client_type: "ct".into(),
            app_language: "al".into(),
            app_version: "av".into(),
            app_version_code: "avc".into(),
            current_url: "header-url".into(),
            merchant_id: "m".into(),
            utm_referrer: "ur".into(),
            utm_platform: "up".into(),
            utm_source: "us".into(),
            utm_medium: "um".into(),
            utm_campaign: "uc".into(),
            pp_id: "pp".into(),
        }),
        events,
    }
}

fn cart(id: &str, timestamp: &str) -> Event {
    Event {
        id: id.into(),
        timestamp: timestamp.into(),
        event_of: Some(EventOf::AddToCartEvent(AddToCartEvent {
            product_id: 9_007_199_254_740_993,
            quantity: 2,
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn named(table: &Table, row: &Row) -> BTreeMap<&'static str, Value> {
    assert_eq!(table.columns.len(), row.values.len());
    table
        .columns
        .iter()
        .map(|column| column.name)
        .zip(row.values.iter().cloned())
        .collect()
}

fn input(batch: &Events) -> (Vec<u8>, Origins) {
    let message = split::decode(&batch.encode_to_vec()[..]).unwrap();
    let origins = Origins {
        host: "h".into(),
        seq: 77,
        indexes: vec![4, 9],
    };
    (json::encode(&message).unwrap(), origins)
}

fn run_on(handler: Handler, batch: &Events, reason: Option<&str>) -> Vec<Item> {
    let (body, origins) = input(batch);
    let input = Input {
        content_type: Some("application/json"),
        body: &body,
        origins,
        reason: reason.map(str::to_owned),
        ..Input::default()
    };
    run(
        handler,
        table(handler).unwrap(),
        &input,
        &Context::default(),
        5_000,
    )
    .unwrap()
}

#[test]
fn every_column_holds_its_field() {
    let mut event = cart("e1", "1234");
    event.current_url = "own-url".into();
    let items = run_on(Handler::Events, &batch(vec![event, cart("e2", "7")]), None);
    let row = named(&EVENTS, &items[0].as_ref().unwrap().row);
    let text = |t: &str| Value::Text(t.into());
    for (column, value) in [
        ("event_id", text("e1")),
        ("event_name", text("AddToCartEvent")),
        ("event_timestamp", Value::TimeMs(1234)),
        ("insert_timestamp", Value::TimeMs(5_000)),
        ("session_id", text("s")),
        ("bb_device_id", Value::Int(i64::MIN)),
        ("user_id", Value::Int(i64::MAX)),
        ("device_id", text("d")),
        ("android_advertising_id", text("aaid")),
        ("client_id", text("c")),
        ("channel", text("ch")),
        ("os", text("os")),
        ("client_type", text("ct")),
        ("app_language", text("al")),
        ("app_version", text("av")),
        ("app_version_code", text("avc")),
        ("current_url", text("own-url")),
        ("merchant_id", text("m")),
        ("utm_referrer", text("ur")),
        ("utm_platform", text("up")),
        ("utm_source", text("us")),
        ("utm_medium", text("um")),
        ("utm_campaign", text("uc")),
        ("pp_id", text("pp")),
        (
            "event_params",
            Value::Json(r#"{"productId":9007199254740993,"quantity":2}"#.into()),
        ),
        ("ingest_host", text("h")),
        ("ingest_seq", Value::UInt(77)),
        ("ingest_index", Value::UInt(4)),
    ] {
        assert_eq!(row[column], value, "{column}");
    }
    assert_eq!(row.len(), 28);
    let second = named(&EVENTS, &items[1].as_ref().unwrap().row);
    assert_eq!(second["current_url"], text("header-url"));
    assert_eq!(second["ingest_index"], Value::UInt(9));
}

#[test]
fn floats_keep_their_own_precision() {
    let mut event = cart("e", "1");
    event.event_of = Some(EventOf::GoToPaymentsEvent(GoToPaymentsEvent {
        chargeable_amount: 499.99,
        product_ids: vec![i64::MAX],
        ..Default::default()
    }));
    let items = run_on(Handler::Events, &batch(vec![event]), None);
    let row = named(&EVENTS, &items[0].as_ref().unwrap().row);
    let params = r#"{"chargeableAmount":499.99,"productIds":[9223372036854775807]}"#;
    assert_eq!(row["event_params"], Value::Json(params.into()));
}

#[test]
fn one_bad_event_does_not_take_the_others_with_it() {
    let events = vec![
        cart("a", "1"),
        cart("b", "soon"),
        cart("", "1"),
        cart("d", "2"),
    ];
    let items = run_on(Handler::Events, &batch(events), None);
    let outcomes: Vec<_> = items.iter().map(Result::is_ok).collect();
    assert_eq!(outcomes, [true, false, false, true]);
    let mut headless = batch(vec![cart("a", "1")]);
    headless.header = None;
    assert!(run_on(Handler::Events, &headless, None)[0].is_err());
}

#[test]
fn a_message_that_is_not_events_is_unreadable() {
    for body in [&b"{"[..], b"", b"[]", b"{\"nonsense\":1}", b"\xff", b"{}"] {
        let input = Input {
            content_type: None,
            body,
            origins: Origins::default(),
            reason: None,
            ..Input::default()
        };
        assert!(
            run(Handler::Events, &EVENTS, &input, &Context::default(), 0).is_err(),
            "{body:?}"
        );
    }
}

#[test]
fn a_refused_event_always_gives_a_row() {
    let mut broken = cart("", "never");
    broken.current_url = "a\0b".into();
    let mut headless = batch(vec![broken]);
    headless.header = None;
    for batch in [headless, Events::default()] {
        let first = run_on(Handler::ErrorEvents, &batch, Some("why"));
        let again = run_on(Handler::ErrorEvents, &batch, Some("why"));
        assert_eq!(first.len(), 1);
        let row = named(&ERROR_EVENTS, &first[0].as_ref().unwrap().row);
        assert_eq!(row["error_reason"], Value::Text("why".into()));
        assert_eq!(row["event_timestamp"], Value::Null);
        assert_ne!(row["event_id"], Value::Text(String::new()));
        assert!(!format!("{row:?}").contains("\\0"));
        assert_eq!(first[0].as_ref().unwrap().id, again[0].as_ref().unwrap().id);
    }
}

#[test]
fn a_refused_event_keeps_its_time_whatever_the_clock_here() {
    // The handler's clock stands at 5,000.
    let time_of = |timestamp: &str, received_at_ms: Option<i64>| {
        let (body, origins) = input(&batch(vec![cart("e", timestamp)]));
        let input = Input {
            body: &body,
            origins,
            received_at_ms,
            ..Input::default()
        };
        let context = Context::default();
        let items = run(Handler::ErrorEvents, &ERROR_EVENTS, &input, &context, 5_000);
        named(&ERROR_EVENTS, &items.unwrap()[0].as_ref().unwrap().row)["event_timestamp"].clone()
    };
    assert_eq!(time_of("7000", Some(7_000)), Value::TimeMs(7_000));
    assert_eq!(time_of("7001", Some(7_000)), Value::Null);
    assert_eq!(time_of("7001", None), Value::TimeMs(7_001));
    // Beyond what tables hold, whoever says that it was received then.
    for received in [None, Some(i64::MAX)] {
        assert_eq!(
            time_of("4291747199999", received),
            Value::TimeMs(4_291_747_199_999)
        );
        assert_eq!(time_of("4291747200000", received), Value::Null);
    }
}

/// More events than go into one message, none with an id.
#[test]
fn made_ids_are_of_the_origin_alone() {
    let events = limits::EVENTS_PER_MESSAGE_MAX + 1;
    let content = batch(vec![cart("", "1"); events]).encode_to_vec();
    let mut origins = Origins {
        host: "h".into(),
        seq: 77,
        indexes: vec![],
    };
    let clocks = Clocks {
        received_at_ms: Some(5_000),
        now_ms: 5_000,
    };
    let id_of = |item: &Item| {
        let row = named(&ERROR_EVENTS, &item.as_ref().unwrap().row);
        row["event_id"].clone()
    };
    let mut all = Vec::new();
    for group in split::split(&content, 5_000, None).unwrap() {
        origins.indexes.clone_from(&group.indexes);
        // Without a broker, by a queue, and each as a letter of its own.
        let direct = error_rows(group.parts(), &origins, "why", &content, clocks);
        let direct: Vec<_> = direct.iter().map(id_of).collect();
        let ids_in = |group: &Group, indexes: Vec<u32>| {
            let (content_type, body) = envelope::encode(group).unwrap();
            let input = Input {
                content_type: Some(content_type),
                body: &body,
                origins: Origins {
                    indexes,
                    ..origins.clone()
                },
                ..Input::default()
            };
            let context = Context::default();
            let items = run(Handler::ErrorEvents, &ERROR_EVENTS, &input, &context, 5_000);
            items.unwrap().iter().map(id_of).collect::<Vec<_>>()
        };
        assert_eq!(ids_in(&group, group.indexes.clone()), direct);
        for (at, id) in direct.iter().enumerate() {
            let alone = ids_in(&group.single(at), vec![group.indexes[at]]);
            assert_eq!(alone, std::slice::from_ref(id));
        }
        all.extend(direct.iter().map(|id| format!("{id:?}")));
    }
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (events, events));
}
