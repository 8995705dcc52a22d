//! Tests of `fields`: what senders write, and what is read of it.

use super::*;

#[test]
fn large_numbers_keep_their_digits() {
    let body = br#"{"a": 9007199254740993, "b": "9223372036854775807", "c": 9223372036854775808, "d": {"x": 123456789012345678901234567890}, "e": 5.0, "f": 1e3, "g": 5.5}"#;
    let fields = Fields::of_body(body).unwrap();
    assert_eq!(fields.int("a"), Ok(Some(9_007_199_254_740_993)));
    assert_eq!(fields.int("b"), Ok(Some(i64::MAX)));
    assert!(fields.int("c").is_err());
    assert_eq!(
        fields.raw("d"),
        Some(r#"{"x": 123456789012345678901234567890}"#)
    );
    assert_eq!(fields.int("e"), Ok(Some(5)));
    assert_eq!(fields.int("f"), Ok(Some(1000)));
    assert!(fields.int("g").is_err());
}

#[test]
fn missing_null_and_wrong_types_are_told_apart() {
    let fields = Fields::of_body(br#"{"n": null, "t": "x", "l": []}"#).unwrap();
    assert!(fields.has("n") && fields.raw("n").is_none());
    assert_eq!(
        fields.demand(&["n", "t", "u", "v"]).unwrap_err(),
        "missing: u, v"
    );
    assert_eq!(fields.text("n"), Ok(None));
    assert_eq!(fields.needed_text("n").unwrap_err(), "n: missing");
    assert_eq!(
        fields.text("l").unwrap_err(),
        "l: text expected, not a list"
    );
    assert!(
        fields
            .object("t")
            .unwrap_err()
            .contains("an object expected")
    );
    for body in [&b"[]"[..], b"", b"{", b"{} {}", b"\xff\xfe{\0}\0", b"\"x\""] {
        assert!(Fields::of_body(body).is_err());
    }
    assert!(Fields::of_body(b"\xef\xbb\xbf{}").is_ok());
}

#[test]
fn no_number_and_no_date_is_too_much() {
    for number in [i64::MIN, i64::MIN + 1, i64::MAX, -100_000_000_000] {
        assert_eq!(time_ms(&number.to_string(), UTC), Some(number));
    }
    assert_eq!(time_ms("-99999999999", UTC), Some(-99_999_999_999_000));
    assert_eq!(time_ms("9223372036854775808", UTC), None);
    // At the ends of what a calendar holds, in zones that lead beyond them.
    for text in [
        "+262142-12-31 23:59:59",
        "-262143-01-01 00:00:00",
        "+262142-12-31 23:59:59 -2359",
        "-262143-01-01T00:00:00+2359",
        "9999-12-31T23:59:60Z",
        "1e308",
        "-0.0",
    ] {
        for zone in [UTC, KOLKATA] {
            // Whatever it is: it is told, and nothing panics.
            let read = time_ms(text, zone);
            assert!(read != Some(0), "{text}");
        }
    }
}

#[test]
fn times_of_all_forms() {
    let at = 1_700_000_000_000;
    for text in [
        "1700000000",
        "1700000000000",
        "2023-11-14T22:13:20Z",
        "2023-11-15T03:43:20+0530",
        "2023-11-15T03:43:20.000+05:30",
        "2023-11-14 22:13:20",
        "2023-11-14 22:13:20.000000",
        "2023-11-14 22:13:20.000000+00:00",
        "2023-11-14 22:13:20 +0000",
        "2023-11-14 22:13:20 UTC",
        "2023-11-14T22:13:20",
    ] {
        assert_eq!(time_ms(text, UTC), Some(at), "{text}");
    }
    assert_eq!(time_ms("2023-11-15 03:43:20", KOLKATA), Some(at));
    for text in [
        "",
        "yesterday",
        "2023-13-01 00:00:00",
        "2023-11-14 25:00:00",
    ] {
        assert_eq!(time_ms(text, UTC), None, "{text}");
    }
}
