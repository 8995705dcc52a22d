//! Tests of the translation between our messages and lapin's.
//!
//! Called by `cargo test` only, as a child module of `message`.
//!
//! # Invariants
//! - those of `message`.

use lapin::types::{ByteArray, DecimalValue, FieldArray, LongString};

use super::*;

fn table() -> FieldTable {
    let mut inner = FieldTable::default();
    inner.insert("queue".into(), AMQPValue::LongString("q".into()));
    let mut table = FieldTable::default();
    for (name, value) in [
        ("text", AMQPValue::LongString("ä".into())),
        (
            "bytes",
            AMQPValue::LongString(LongString::from(vec![b'a', 0xff])),
        ),
        (
            "list",
            AMQPValue::FieldArray(
                vec![
                    AMQPValue::LongString("one".into()),
                    AMQPValue::LongString("two".into()),
                ]
                .into(),
            ),
        ),
        (
            "mixed",
            AMQPValue::FieldArray(vec![AMQPValue::LongInt(7), AMQPValue::Void].into()),
        ),
        ("empty", AMQPValue::FieldArray(FieldArray::default())),
        ("i32", AMQPValue::LongInt(-3)),
        ("i64", AMQPValue::LongLongInt(i64::MIN)),
        ("u8", AMQPValue::ShortShortUInt(255)),
        ("double", AMQPValue::Double(1.5)),
        ("bool", AMQPValue::Boolean(true)),
        ("time", AMQPValue::Timestamp(1_700_000_000)),
        (
            "decimal",
            AMQPValue::DecimalValue(DecimalValue {
                scale: 2,
                value: 314,
            }),
        ),
        ("blob", AMQPValue::ByteArray(ByteArray::from(vec![1, 2]))),
        ("void", AMQPValue::Void),
        (
            "x-death",
            AMQPValue::FieldArray(vec![AMQPValue::FieldTable(inner)].into()),
        ),
    ] {
        table.insert(name.into(), value);
    }
    table
}

fn received(properties: BasicProperties) -> Message {
    Message::from_wire("ex".into(), "key".into(), &properties, b"body".to_vec())
}

#[test]
fn headers_of_every_kind_survive_a_round_trip() {
    let properties = BasicProperties::default()
        .with_headers(table())
        .with_content_encoding("gzip".into())
        .with_correlation_id("c".into())
        .with_type("t".into())
        .with_message_id("m".into())
        .with_content_type("application/json".into())
        .with_timestamp(5);
    let message = received(properties.clone());
    let again = message.to_properties(9).expect("all names are short");
    let mut expected = table();
    expected.insert(PUBLISH_NUMBER.into(), AMQPValue::LongLongInt(9));
    assert_eq!(
        again,
        properties.with_headers(expected).with_delivery_mode(2)
    );
    assert_eq!(publish_number(&again), Some(9));
    assert_eq!(
        received(again),
        message,
        "the number is not part of the message"
    );
}

#[test]
fn headers_read_as_text_and_numbers() {
    let headers = received(BasicProperties::default().with_headers(table())).headers;
    let text = |name: &str| headers.text(name).map(Cow::into_owned);
    assert_eq!(text("text").as_deref(), Some("ä"));
    assert_eq!(text("bytes").as_deref(), Some("a\u{fffd}"));
    assert_eq!(text("list").as_deref(), Some("one"));
    assert_eq!(text("mixed").as_deref(), Some("7"));
    assert_eq!(text("i32").as_deref(), Some("-3"));
    assert_eq!(
        (text("empty"), text("x-death"), text("absent")),
        (None, None, None)
    );
    assert_eq!(
        (headers.int("i32"), headers.int("u8"), headers.int("i64")),
        (Some(-3), Some(255), Some(i64::MIN))
    );
    assert_eq!(headers.int("text"), None);
}

#[test]
fn what_would_change_the_fate_of_a_message_is_left_out() {
    let mut table = FieldTable::default();
    table.insert(
        "CC".into(),
        AMQPValue::FieldArray(vec![AMQPValue::LongString("elsewhere".into())].into()),
    );
    table.insert("x-delivery-count".into(), AMQPValue::LongLongInt(7));
    let message = received(
        BasicProperties::default()
            .with_headers(table)
            .with_expiration("1".into())
            .with_user_id("another".into()),
    );
    assert_eq!(
        message.headers.text("CC").as_deref(),
        Some("elsewhere"),
        "it can be read"
    );
    let again = message.to_properties(1).expect("all names are short");
    assert_eq!((again.expiration(), again.user_id()), (&None, &None));
    assert!(
        again.headers().as_ref().is_some_and(
            |table| !table.contains_key("CC") && !table.contains_key("x-delivery-count")
        )
    );
}

#[test]
fn persistent_is_not_a_choice() {
    let transient = received(BasicProperties::default().with_delivery_mode(1));
    assert_eq!(
        transient.to_properties(1).expect("short").delivery_mode(),
        &Some(2)
    );
}

#[test]
fn names_over_255_bytes_are_refused() {
    let mut message = Message {
        message_id: Some("i".repeat(256)),
        ..Message::default()
    };
    assert!(
        message
            .to_properties(1)
            .is_err_and(|text| text.contains("256"))
    );
    message.message_id = None;
    message.headers.set("h".repeat(300), "v");
    assert!(
        message
            .to_properties(1)
            .is_err_and(|text| text.contains("300"))
    );
}
