//! Both forms bring the same: rows of any values into columns of any type that has a binary
//! form are read as the server reads either.

use super::tests::{T, batch, layout};
use super::*;
use crate::sink::clickhouse::encode;
use chrono::DateTime;
use proptest::prelude::*;
use std::collections::HashMap;

/// What a column holds after a value was read from rows.
#[derive(Debug, PartialEq)]
enum Held {
    Null,
    Text(String),
    Number(i128),
    Float(u64),
}

/// Reads rows as the server does.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes(&mut self, count: usize) -> &[u8] {
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    fn length(&mut self) -> usize {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = usize::from(self.bytes(1)[0]);
            length |= (byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return length;
            }
        }
    }

    fn text(&mut self) -> String {
        let length = self.length();
        String::from_utf8(self.bytes(length).to_vec()).unwrap()
    }

    fn number(&mut self, bytes: usize, signed: bool) -> i128 {
        let mut all = [0; 16];
        all[..bytes].copy_from_slice(self.bytes(bytes));
        if signed && all[bytes - 1] >= 0x80 {
            all[bytes..].fill(0xff);
        }
        i128::from_le_bytes(all)
    }

    fn held(&mut self, kind: &str) -> Held {
        if let Some(inner) = within(kind, "Nullable(") {
            return match self.bytes(1)[0] {
                0 => self.held(inner),
                1 => Held::Null,
                other => panic!("{other}"),
            };
        }
        match kind {
            "String" | "JSON" => Held::Text(self.text()),
            "LowCardinality(String)" => Held::Text(self.text()),
            "UInt8" => Held::Number(self.number(1, false)),
            "Int32" => Held::Number(self.number(4, true)),
            "UInt64" => Held::Number(self.number(8, false)),
            "Int64" => Held::Number(self.number(8, true)),
            "Float64" => Held::Float(u64::from_le_bytes(self.bytes(8).try_into().unwrap())),
            "DateTime" => Held::Number(self.number(4, false)),
            _ if kind.starts_with("DateTime64(") => Held::Number(self.number(8, true)),
            _ => panic!("{kind}"),
        }
    }
}

/// What a column of this type holds after the value of a JSON line.
fn held_of_json(value: &serde_json::Value, kind: &str) -> Held {
    let kind = within(kind, "Nullable(").unwrap_or(kind);
    match (value, kind) {
        (serde_json::Value::Null, _) => Held::Null,
        (value, "JSON") => Held::Text(value.to_string()),
        (serde_json::Value::String(text), _) if kind.starts_with("DateTime") => {
            let ms = DateTime::parse_from_rfc3339(text)
                .unwrap()
                .timestamp_millis();
            let per_ms = |digits: u32| 10_i128.pow(digits - 3);
            Held::Number(match kind {
                "DateTime" => i128::from(ms / 1000),
                "DateTime64(6)" => i128::from(ms) * per_ms(6),
                "DateTime64(9)" => i128::from(ms) * per_ms(9),
                _ => i128::from(ms),
            })
        }
        (serde_json::Value::String(text), "Float64") => match text.as_str() {
            "nan" => Held::Float(f64::NAN.to_bits()),
            "inf" => Held::Float(f64::INFINITY.to_bits()),
            "-inf" => Held::Float(f64::NEG_INFINITY.to_bits()),
            other => panic!("{other}"),
        },
        (serde_json::Value::String(text), _) => Held::Text(text.clone()),
        (serde_json::Value::Number(number), "Float64") => {
            Held::Float(number.as_f64().unwrap().to_bits())
        }
        (serde_json::Value::Number(number), _) => Held::Number(number.to_string().parse().unwrap()),
        (value, kind) => panic!("{value} in {kind}"),
    }
}

fn values() -> impl Strategy<Value = Vec<Value>> {
    let null = |share: f64, value: BoxedStrategy<Value>| {
        (proptest::bool::weighted(share), value)
            .prop_map(|(null, value)| if null { Value::Null } else { value })
    };
    let number = prop_oneof![
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::UInt),
        (-3_i64..260).prop_map(Value::Int),
    ];
    let time = prop_oneof![
        any::<i64>(),
        -2_208_988_800_002_i64..10_413_792_000_002,
        -5_000_i64..5_000,
        4_294_967_290_000_i64..4_294_967_299_000,
    ];
    let json = (".{0,20}", any::<i64>()).prop_map(|(text, number)| {
        Value::Json(serde_json::json!({ &text: [number, null, { "x": text }] }).to_string())
    });
    (
        null(0.1, ".{0,200}".prop_map(Value::Text).boxed()),
        null(0.1, number.boxed()),
        null(0.1, any::<f64>().prop_map(Value::Float).boxed()),
        null(0.1, time.prop_map(Value::TimeMs).boxed()),
        null(0.1, json.boxed()),
    )
        .prop_map(|(a, i, f, t, j)| vec![a, i, f, t, j])
}

fn types() -> impl Strategy<Value = [String; 5]> {
    let maybe = |kinds: &'static [&'static str]| {
        (proptest::sample::select(kinds), any::<bool>()).prop_map(|(kind, nullable)| {
            if nullable {
                format!("Nullable({kind})")
            } else {
                kind.to_owned()
            }
        })
    };
    [
        maybe(&["String"]).boxed(),
        maybe(&["UInt8", "Int32", "UInt64", "Int64"]).boxed(),
        maybe(&["Float64"]).boxed(),
        maybe(&[
            "DateTime",
            "DateTime64(3, 'UTC')",
            "DateTime64(6)",
            "DateTime64(9)",
        ])
        .boxed(),
        maybe(&["String", "JSON"]).boxed(),
    ]
}

/// Whether a column of this type can hold the value, NULL aside.
fn fits(value: &Value, kind: &str) -> bool {
    let is_nullable = kind.starts_with("Nullable(");
    let kind = within(kind, "Nullable(").unwrap_or(kind);
    let ranges = HashMap::from([
        ("UInt8", 0..=255),
        ("Int32", i128::from(i32::MIN)..=i32::MAX.into()),
        ("UInt64", 0..=u64::MAX.into()),
        ("Int64", i128::from(i64::MIN)..=i64::MAX.into()),
    ]);
    match value {
        Value::Null => is_nullable,
        Value::Int(number) => ranges[kind].contains(&(*number).into()),
        Value::UInt(number) => ranges[kind].contains(&(*number).into()),
        Value::TimeMs(ms) => match kind {
            "DateTime" => (0..=4_294_967_295_999).contains(ms),
            "DateTime64(9)" => ms.checked_mul(1_000_000).is_some(),
            _ => true,
        },
        _ => true,
    }
}

proptest! {
    #[test]
    fn both_forms_bring_the_same(
        rows_of in proptest::collection::vec(values(), 1..4),
        types in types(),
    ) {
        let layout = layout(types.each_ref().map(String::as_str));
        let plan = Plan::of(&T, &layout).unwrap();
        let batch = batch(rows_of);
        let binary = rows(&batch, &plan, 1 << 20);
        let lines = encode::lines(&batch, &layout, 1 << 20);
        let all_fit = batch.rows.iter().all(|row| {
            row.values.iter().zip(&types).all(|(value, kind)| fits(value, kind))
        });
        let lines = match lines {
            Err(refused) => {
                // It may have met something else before that goes as JSON.
                match binary {
                    Err(error) => prop_assert_eq!(error.to_string(), refused.to_string()),
                    Ok(rows) => prop_assert!(rows.is_none()),
                }
                return Ok(());
            }
            Ok(lines) => lines.concat(),
        };
        let Some(binary) = binary.unwrap() else {
            prop_assert!(!all_fit);
            return Ok(());
        };
        prop_assert!(all_fit);
        let binary = binary.concat();
        let mut reader = Reader(&binary);
        prop_assert_eq!(reader.length(), 5);
        for column in T.columns {
            prop_assert_eq!(reader.text(), column.name);
        }
        for kind in &types {
            prop_assert_eq!(&reader.text(), kind);
        }
        for line in String::from_utf8(lines).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            for (column, kind) in T.columns.iter().zip(&types) {
                let there = held_of_json(&line[column.name], kind);
                prop_assert_eq!(reader.held(kind), there, "{}", kind);
            }
        }
        prop_assert!(reader.0.is_empty());
    }
}
