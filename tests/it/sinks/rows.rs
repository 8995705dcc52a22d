//! The rows that the sinks' tests write: one column of each kind, values from the ends
//! of their ranges, and what must be read back.

use holdfast::clock::now_ms;
use holdfast::sink::schema::{Column, ColumnType, Partition, Table};
use holdfast::sink::{Batch, Row, Value};
use serde_json::Value as Json;

const fn column(name: &'static str, kind: ColumnType) -> Column {
    Column {
        name,
        kind,
        nullable: false,
        max_chars: None,
        comment: "it's a \"comment\"",
    }
}

const fn nullable(name: &'static str, kind: ColumnType) -> Column {
    Column {
        nullable: true,
        ..column(name, kind)
    }
}

const ID: Column = Column {
    max_chars: Some(20),
    ..column("id", ColumnType::Text)
};
const TIME: Column = column("at", ColumnType::TimeMs);

const fn kinds_of(columns: &'static [Column]) -> Table {
    Table {
        name: "kinds",
        columns,
        key: &["id", "at"],
        order_by: &["id", "at"],
        version: None,
        partition: Partition::ByTime("at"),
        comment: "one column of each kind",
    }
}

/// One column of each kind.
pub static KINDS: Table = kinds_of(&[
    ID,
    TIME,
    column("text", ColumnType::Text),
    column("i", ColumnType::Int64),
    column("u", ColumnType::UInt64),
    column("small", ColumnType::UInt32),
    column("f", ColumnType::Float64),
    nullable("maybe_at", ColumnType::TimeMs),
    nullable("maybe_text", ColumnType::Text),
    column("j", ColumnType::Json),
]);

/// `KINDS` as it was before columns were added to it.
pub static OLD_KINDS: Table = kinds_of(&[ID, TIME]);

/// 2024-01-02 03:04:05.678
pub const AT: i64 = 1_704_164_645_678;
const NASTY: &str =
    "'quote' \"double\" back\\slash \\N {a,b} NULL\nline\r\n\ttab é 漢字 🦀 ` $1 ? :x %s";
pub const JSON: &str = r#"{"a.b":1,"a":{"b":2,"c.d":{"e":[1,2.5,"x",null,{"f.g":true}]}},"big":9223372036854775807,"ubig":18446744073709551615,"f32":0.1,"f64":0.30000000000000004,"date":"2024-01-02T03:04:05.678Z","s":"q\" b\\ n\n é","empty":"","on":true}"#;

/// A row of `KINDS`.
pub fn kinds(id: &str) -> Vec<Value> {
    vec![
        Value::Text(id.into()),
        Value::TimeMs(AT),
        Value::Text(NASTY.into()),
        Value::Int(i64::MIN),
        Value::UInt(i64::MAX as u64),
        Value::UInt(u32::MAX.into()),
        Value::Float(0.300_000_000_000_000_04),
        Value::Null,
        Value::Null,
        Value::Json(JSON.into()),
    ]
}

/// The same with other values in some columns.
pub fn with(id: &str, changes: &[(usize, Value)]) -> Vec<Value> {
    let mut values = kinds(id);
    for (i, value) in changes {
        values[*i] = value.clone();
    }
    values
}

pub fn batch(table: &'static Table, token: &str, rows: Vec<Vec<Value>>) -> Batch {
    let rows = rows.into_iter().map(|values| Row { values }).collect();
    Batch {
        table,
        namespace: None,
        rows,
        token: token.into(),
    }
}

/// One plain row of `KINDS`.
pub fn one(id: &str) -> Batch {
    batch(&KINDS, id, vec![kinds(id)])
}

/// A good row, and one with this value.
pub fn good_and_bad(column: usize, value: Value) -> Batch {
    let rows = vec![kinds("good"), with("bad", &[(column, value)])];
    batch(&KINDS, "good and bad", rows)
}

/// Rows that hold the ends of every kind.
pub fn extremes() -> Batch {
    let ends = with(
        "ends",
        &[
            (2, Value::Text(String::new())),
            (3, Value::Int(i64::MAX)),
            (4, Value::UInt(0)),
            (5, Value::UInt(0)),
            (6, Value::Float(-1.797_693_134_862_315_7e308)),
            (7, Value::TimeMs(-1)),
            (8, Value::Text(String::new())),
            (9, Value::Json("{}".into())),
        ],
    );
    let tiny = with(
        "tiny",
        &[
            (6, Value::Float(5e-324)),
            (7, Value::TimeMs(0)),
            (8, Value::Text("NULL".into())),
        ],
    );
    batch(&KINDS, "extremes", vec![kinds("plain"), ends, tiny])
}

/// Rows as the collector makes them, of now.
pub fn events(count: usize, table: &'static Table) -> Batch {
    let at = now_ms();
    let rows = (0..count).map(|n| {
        let value = |c: &Column| match (c.name, c.kind) {
            ("event_id", _) => Value::Text(format!("01890000-0000-7000-8000-{n:012}")),
            (_, ColumnType::Text) => Value::Text("some text".into()),
            (_, ColumnType::Int64) => Value::Int(42),
            (_, ColumnType::UInt64 | ColumnType::UInt32 | ColumnType::Flag) => {
                Value::UInt(n as u64)
            }
            (_, ColumnType::Float64) => Value::Float(1.5),
            (_, ColumnType::TimeMs) => Value::TimeMs(at),
            (_, ColumnType::Json | ColumnType::AnyJson) => {
                Value::Json(format!("{{\"page\":\"/p/{n}\",\"x.y\":{{\"n\":{n}}}}}"))
            }
        };
        table.columns.iter().map(value).collect()
    });
    batch(table, &format!("{}-{count}", table.name), rows.collect())
}

/// A row that was read (times as milliseconds, JSON as text) is what was written.
pub fn assert_row(row: &Json, values: &[Value]) {
    for (column, value) in KINDS.columns.iter().zip(values) {
        let got = &row[column.name];
        let is_same = match value {
            Value::Null => got.is_null(),
            Value::Text(text) => got == text,
            Value::Int(number) | Value::TimeMs(number) => got.as_i64() == Some(*number),
            Value::UInt(number) => got.as_u64() == Some(*number),
            Value::Float(number) => got.as_f64() == Some(*number),
            Value::Json(json) => {
                let wanted: Json = serde_json::from_str(json).unwrap();
                let got = got.as_str().and_then(|got| serde_json::from_str(got).ok());
                got == Some(wanted)
            }
        };
        assert!(is_same, "{}: {got} is not {value:?}", column.name);
    }
}

/// Rows sorted by id, each equal to its values.
pub fn assert_rows(rows: &[Json], batch: &Batch) {
    let mut wanted: Vec<_> = batch.rows.iter().map(|row| &row.values).collect();
    wanted.sort_by_key(|values| format!("{:?}", values[0]));
    assert_eq!(rows.len(), wanted.len());
    for (row, values) in rows.iter().zip(wanted) {
        assert_row(row, values);
    }
}

/// A table whose rows have versions.
pub static VERSIONS: Table = Table {
    name: "versions",
    columns: &[
        ID,
        column("changed_at", ColumnType::TimeMs),
        column("state", ColumnType::Text),
    ],
    key: &["id"],
    order_by: &["id"],
    version: Some("changed_at"),
    partition: Partition::None,
    comment: "",
};

/// Batches of versions, by token: later ones come early and early ones late, several are in
/// one batch, and some have the same time.
pub fn versions() -> Vec<Batch> {
    let row = |(id, at, state): (&str, i64, &str)| {
        let (id, state) = (Value::Text(id.into()), Value::Text(state.into()));
        vec![id, Value::TimeMs(AT + at), state]
    };
    let batches = [
        vec![("a", 1, "new"), ("b", 5, "done"), ("c", 1, "new")],
        vec![("b", 4, "late"), ("a", 3, "done"), ("a", 2, "packed")],
        vec![("c", 1, "same time"), ("d", 7, "one"), ("d", 7, "two")],
    ];
    let batches = batches.into_iter().enumerate();
    batches
        .map(|(at, rows)| {
            let rows = rows.into_iter().map(row).collect();
            batch(&VERSIONS, &at.to_string(), rows)
        })
        .collect()
}

/// What is left of `versions`, in order.
pub const VERSIONS_LEFT: [(&str, &str); 4] = [
    ("a", "done"),
    ("b", "done"),
    ("c", "same time"),
    ("d", "two"),
];
