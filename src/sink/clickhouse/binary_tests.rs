//! Tests of binary rows: which types have them, their bytes, and what goes as JSON.

use super::*;
use crate::sink::clickhouse::ddl;
use crate::sink::clickhouse::encode;
use crate::sink::schema::{
    AFFILIATE_ORDER_EVENTS, APP_INIT_EVENTS, BRANCH_EVENTS, ERROR_EVENTS, EVENTS, POST_LOG_EVENTS,
    Partition, WEBENGAGE_EVENTS,
};

const fn column(name: &'static str, kind: ColumnType) -> Column {
    Column {
        name,
        kind,
        nullable: true,
        max_chars: None,
        comment: "",
    }
}

pub(super) static T: Table = Table {
    name: "t",
    columns: &[
        column("a", ColumnType::Text),
        column("i", ColumnType::Int64),
        column("f", ColumnType::Float64),
        column("t", ColumnType::TimeMs),
        column("j", ColumnType::Json),
    ],
    key: &["a"],
    order_by: &["a"],
    version: None,
    partition: Partition::None,
    comment: "",
};

/// The types of the columns of `T`, and what they hold.
pub(super) fn layout(types: [&str; 5]) -> Layout {
    let names = T.columns.iter().map(|column| column.name.to_owned());
    Layout {
        columns: names.zip(types.map(str::to_owned)).collect(),
        engine: String::new(),
        settings: vec![COMPARE_TYPES.to_owned(), JSON_AS_TEXT.to_owned()],
    }
}

fn plan(types: [&str; 5]) -> Result<Plan, String> {
    Plan::of(&T, &layout(types))
}

const OURS: [&str; 5] = ["String", "Int64", "Float64", "DateTime64(3, 'UTC')", "JSON"];

fn with(at: usize, kind: &str) -> Result<Plan, String> {
    let mut types = OURS;
    types[at] = kind;
    plan(types)
}

pub(super) fn batch(rows: Vec<Vec<Value>>) -> Batch {
    Batch {
        table: &T,
        namespace: None,
        rows: rows.into_iter().map(|values| Row { values }).collect(),
        token: String::new(),
    }
}

fn plain() -> Vec<Value> {
    vec![
        Value::Text("é\0".into()),
        Value::Int(-2),
        Value::Float(0.1),
        Value::TimeMs(1_704_164_645_678),
        Value::Json(r#"{"x":1}"#.into()),
    ]
}

#[test]
fn the_tables_that_we_make_are_written_in_binary() {
    for table in [
        &EVENTS,
        &ERROR_EVENTS,
        &APP_INIT_EVENTS,
        &AFFILIATE_ORDER_EVENTS,
        &BRANCH_EVENTS,
        &POST_LOG_EVENTS,
        &WEBENGAGE_EVENTS,
    ] {
        for native_json in [true, false] {
            let layout = Layout {
                columns: ddl::types(table, native_json),
                ..layout(OURS)
            };
            let plan = Plan::of(table, &layout).unwrap();
            let has_json = table.columns.iter().any(|c| c.kind == ColumnType::Json);
            assert_eq!(plan.has_native_json, native_json && has_json);
        }
    }
}

#[test]
fn rows_come_after_names_and_types() {
    let rows = rows(&batch(vec![plain()]), &plan(OURS).unwrap(), 1000);
    let wanted = [
        b"\x05\x01a\x01i\x01f\x01t\x01j".as_slice(),
        b"\x06String\x05Int64\x07Float64\x14DateTime64(3, 'UTC')\x04JSON",
        b"\x03\xc3\xa9\0",
        &(-2_i64).to_le_bytes(),
        &0.1_f64.to_le_bytes(),
        &1_704_164_645_678_i64.to_le_bytes(),
        br#"{"x":1}"#,
    ];
    let mut wanted = wanted.concat();
    wanted.insert(wanted.len() - 7, 7);
    assert_eq!(rows.unwrap().unwrap().concat(), wanted);
}

#[test]
fn numbers_that_are_none_are_one() {
    let with = |number: f64| {
        let mut row = plain();
        row[2] = Value::Float(number);
        rows(&batch(vec![row]), &plan(OURS).unwrap(), 1000).unwrap()
    };
    let other = f64::from_bits(f64::NAN.to_bits() | 1 << 63 | 5);
    assert!(other.is_nan());
    assert_eq!(with(other), with(f64::NAN));
    assert_ne!(with(f64::INFINITY), with(f64::NAN));
}

#[test]
fn pieces_are_of_about_the_size_asked_for() {
    let long = Value::Text("x".repeat(300));
    let row = || [vec![long.clone()], plain()[1..].to_vec()].concat();
    let batch = batch((0..100).map(|_| row()).collect());
    let plan = plan(OURS).unwrap();
    let pieces = rows(&batch, &plan, 1000).unwrap().unwrap();
    assert!(pieces.iter().all(|piece| piece.len() < 1500));
    let whole = rows(&batch, &plan, 1 << 20).unwrap().unwrap();
    assert_eq!(whole.len(), 1);
    assert_eq!(pieces.concat(), whole.concat());
    // 300 needs two bytes.
    let text = [b"\xac\x02".as_slice(), &b"x".repeat(300)].concat();
    assert!(whole[0].windows(302).any(|bytes| bytes == text));
}

#[test]
fn types_of_which_we_are_not_sure_are_left_to_json() {
    for (at, kind) in [
        (0, "FixedString(16)"),
        (0, "UUID"),
        (0, "Enum8('a' = 1)"),
        (0, "Array(String)"),
        (0, "Map(String, String)"),
        (0, "LowCardinality(FixedString(2))"),
        (0, "Int64"),
        (0, "JSON"),
        (1, "String"),
        (1, "Decimal(9, 2)"),
        (1, "Int128"),
        (1, "Float64"),
        (1, "LowCardinality(Int64)"),
        (1, "SimpleAggregateFunction(sum, Int64)"),
        (2, "Float32"),
        (2, "BFloat16"),
        (3, "Date"),
        (3, "Date32"),
        (3, "DateTime64(0)"),
        (3, "DateTime64(2, 'UTC')"),
        (3, "DateTime64(10)"),
        (3, "DateTime32('x'"),
        (3, "String"),
        (4, "Object('json')"),
        (4, "Dynamic"),
        (4, "Variant(JSON, String)"),
        (4, "LowCardinality(String"),
    ] {
        let reason = with(at, kind).unwrap_err();
        assert!(reason.ends_with(kind), "{kind}: {reason}");
    }
    for (at, kind) in [
        (0, "LowCardinality(String)"),
        (0, "LowCardinality(Nullable(String))"),
        (0, "Nullable(String)"),
        (1, "Nullable(UInt8)"),
        (1, "Bool"),
        (3, "DateTime"),
        (3, "DateTime('Asia/Kolkata')"),
        (3, "Nullable(DateTime64(6, 'UTC'))"),
        (4, "JSON(max_dynamic_paths=8, a Int64)"),
        (4, "Nullable(JSON)"),
        (4, "String"),
    ] {
        assert!(with(at, kind).is_ok(), "{kind}");
    }
    for (settings, is_fit) in [
        (vec![COMPARE_TYPES.to_owned()], false),
        (vec![JSON_AS_TEXT.to_owned()], false),
        (layout(OURS).settings, true),
    ] {
        let layout = Layout {
            settings,
            ..layout(OURS)
        };
        assert_eq!(Plan::of(&T, &layout).is_ok(), is_fit, "{layout:?}");
    }
    let mut fewer = layout(OURS);
    fewer.columns.remove("f");
    let reason = Plan::of(&T, &fewer).unwrap_err();
    assert_eq!(reason, "there is no column f");
}

#[test]
fn what_only_json_says_sends_its_batch_there() {
    let is_json = |types: [&str; 5], at: usize, value: Value| {
        let mut row = plain();
        row[at] = value;
        let batch = batch(vec![plain(), row, plain()]);
        rows(&batch, &plan(types).unwrap(), 1000).unwrap().is_none()
    };
    for at in 0..5 {
        assert!(is_json(OURS, at, Value::Null), "{at}");
    }
    let narrow = ["String", "Int8", "Float64", "DateTime", "JSON"];
    for (number, is) in [(127, false), (-128, false), (128, true), (-129, true)] {
        assert_eq!(is_json(narrow, 1, Value::Int(number)), is, "{number}");
    }
    assert!(is_json(OURS, 1, Value::UInt(u64::MAX)));
    for (ms, is) in [
        (0, false),
        (-1, true),
        (4_294_967_295_999, false),
        (4_294_967_296_000, true),
    ] {
        assert_eq!(is_json(narrow, 3, Value::TimeMs(ms)), is, "{ms}");
    }
    let nanoseconds = ["String", "Int8", "Float64", "DateTime64(9)", "JSON"];
    // The last second of 2299 is more nanoseconds than 64 bits hold.
    assert!(is_json(nanoseconds, 3, Value::TimeMs(10_413_791_999_000)));
    for text in ["null", "[1]", "\"{}\"", " 1"] {
        assert!(is_json(OURS, 4, Value::Json(text.into())), "{text}");
    }
    assert!(!is_json(OURS, 4, Value::Json("\n {}".into())));
}

#[test]
fn what_is_refused_is_refused_in_the_same_words() {
    for (at, value) in [
        (3, Value::TimeMs(i64::MIN)),
        (3, Value::TimeMs(10_413_792_000_000)),
        (3, Value::TimeMs(-2_208_988_800_001)),
        (4, Value::Json("{}{}".into())),
        (4, Value::Json(String::new())),
        (0, Value::Int(1)),
        (1, Value::Text("1".into())),
        (2, Value::Int(1)),
        (3, Value::Int(1)),
        (4, Value::Text("{}".into())),
    ] {
        let mut row = plain();
        row[at] = value;
        let batch = batch(vec![plain(), row]);
        let here = rows(&batch, &plan(OURS).unwrap(), 1000).unwrap_err();
        let there = encode::lines(&batch, &layout(OURS), 1000).unwrap_err();
        assert!(!here.is_retryable());
        assert_eq!(here.to_string(), there.to_string());
    }
}
