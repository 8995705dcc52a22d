//! Flat JSON into a table with the same column names: the scraper's logs, and the
//! queues that an operator adds.
//!
//! # Invariants
//! - Each key must be there. In the scraper's logs `null` is nothing, empty or 0 where
//!   the column holds no NULL, and documents that are none are `{}`; an operator's table
//!   takes a missing or null key only where its column is nullable.
//! - A time that is there must be one; a required one must be there.

use super::cells::{Cells, json, time};
use super::fields::{Fields, UTC};
use super::{Input, NewRow};
use crate::config::{Consumer, FlatColumn, FlatType};
use crate::sink::Value;
use crate::sink::schema::{Column, ColumnType, Partition, Table};

/// A log of the scraper. Keys are the columns' names.
pub(super) fn log(table: &'static Table, input: &Input<'_>, now_ms: i64) -> Result<NewRow, String> {
    let fields = Fields::of_body(input.body)?;
    let keys: Vec<_> = table
        .columns
        .iter()
        .map(|column| column.name)
        .filter(|name| *name != INSERT)
        .collect();
    fields.demand(&keys)?;
    let mut cells = Cells::new(table);
    for column in table.columns {
        let name = column.name;
        let value = match (name, column.kind) {
            (INSERT, _) => Value::TimeMs(now_ms),
            ("event_id", _) => fields
                .loose_text(name)?
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| input.derived_id())
                .into(),
            (_, ColumnType::TimeMs) if !column.nullable => {
                Value::TimeMs(fields.needed_time_ms(name, UTC)?)
            }
            (_, ColumnType::Json) => json(fields.object_or_empty(name)),
            _ => match value(&fields, column)? {
                Value::Null if !column.nullable => nothing(column.kind),
                value => value,
            },
        };
        cells = cells.put(name, value);
    }
    Ok(cells.finish(input))
}

/// When the row is made, in the logs' tables.
const INSERT: &str = "insert_timestamp";

/// A row of an operator's own table.
pub(super) fn own(table: &'static Table, input: &Input<'_>) -> Result<NewRow, String> {
    let fields = Fields::of_body(input.body)?;
    let mut cells = Cells::new(table);
    for column in table.columns {
        let value = value(&fields, column)?;
        if value == Value::Null && !column.nullable {
            return Err(format!("{}: missing", column.name));
        }
        cells = cells.put(column.name, value);
    }
    Ok(cells.finish(input))
}

/// The value for a column; NULL where the key is missing or null.
fn value(fields: &Fields<'_>, column: &Column) -> Result<Value, String> {
    let name = column.name;
    Ok(match column.kind {
        ColumnType::Text => fields.loose_text(name)?.into(),
        ColumnType::Int64 | ColumnType::UInt32 => fields.int(name)?.into(),
        ColumnType::UInt64 => fields.uint(name)?.into(),
        ColumnType::Flag => fields.flag(name)?.into(),
        ColumnType::Float64 => fields.float(name)?.into(),
        ColumnType::TimeMs => time(fields.time_ms(name, UTC)?),
        ColumnType::Json => fields
            .object(name)?
            .and_then(|_| fields.raw(name))
            .map_or(Value::Null, json),
        ColumnType::AnyJson => fields.raw(name).map_or(Value::Null, json),
    })
}

/// What stands for NULL in a column that holds none.
fn nothing(kind: ColumnType) -> Value {
    match kind {
        ColumnType::Text => Value::Text(String::new()),
        ColumnType::UInt64 => Value::UInt(0),
        ColumnType::Float64 => Value::Float(0.0),
        ColumnType::Json | ColumnType::AnyJson => json("{}"),
        ColumnType::Int64 | ColumnType::UInt32 | ColumnType::Flag | ColumnType::TimeMs => {
            Value::Int(0)
        }
    }
}

/// The table of a consumer with columns of its own. It lives as long as the process, as
/// the shipped ones do: made once for each such consumer, so the configuration bounds
/// what is kept.
pub(super) fn table(consumer: &Consumer) -> &'static Table {
    let text = |text: &str| -> &'static str { Box::leak(text.into()) };
    let columns = consumer
        .columns
        .iter()
        .map(|column| own_column(column, text));
    let key: Vec<_> = consumer.row_key.iter().map(|name| text(name)).collect();
    let key: &'static [&'static str] = Box::leak(key.into());
    Box::leak(Box::new(Table {
        name: text(consumer.table.as_deref().unwrap_or_default()),
        columns: Box::leak(columns.collect()),
        key,
        order_by: key,
        version: None,
        partition: Partition::None,
        comment: text(&format!("Messages of the queue {}", consumer.queue)),
    }))
}

fn own_column(column: &FlatColumn, text: impl Fn(&str) -> &'static str) -> Column {
    let (kind, nullable) = match column.kind {
        FlatType::Text => (ColumnType::Text, false),
        FlatType::NullableText => (ColumnType::Text, true),
        FlatType::Int => (ColumnType::Int64, false),
        FlatType::NullableInt => (ColumnType::Int64, true),
        FlatType::Float => (ColumnType::Float64, false),
        FlatType::NullableFloat => (ColumnType::Float64, true),
        FlatType::Bool => (ColumnType::Flag, false),
        FlatType::Time => (ColumnType::TimeMs, false),
        FlatType::NullableTime => (ColumnType::TimeMs, true),
        FlatType::Json => (ColumnType::Json, false),
    };
    Column {
        name: text(&column.name),
        kind,
        nullable,
        max_chars: None,
        comment: "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;
    use crate::config::load_from;

    fn consumer() -> Consumer {
        let text = r#"
            [clickhouse]
            [[consumer]]
            queue = "payments_q"
            exchange = "pay.tx"
            keys = ["*"]
            handler = "flat_json"
            sink = "clickhouse"
            table = "payments"
            columns = { id = "text", amount = "int", rate = "float?", at = "time", meta = "json", ok = "bool" }
            row_key = ["id"]
        "#;
        let config = load_from(text, std::iter::empty()).unwrap();
        let found = config
            .consumers()
            .into_iter()
            .find(|c| c.queue == "payments_q");
        found.unwrap()
    }

    #[test]
    fn an_operator_s_queue_needs_no_code() {
        let table = table(&consumer());
        assert_eq!((table.name, table.key), ("payments", &["id"][..]));
        let message = r#"{"id":7,"amount":9007199254740993,"at":1700000000,"meta":{"a":1},"ok":true,"more":1}"#;
        let row = Named::of(table, own(table, &body(message)).unwrap());
        row.has("id", "7");
        row.has("amount", 9_007_199_254_740_993_i64);
        row.has("rate", Value::Null);
        row.has("at", Value::TimeMs(1_700_000_000_000));
        row.has("meta", json(r#"{"a":1}"#));
        row.has("ok", true);
    }

    #[test]
    fn a_missing_or_wrong_value_is_named() {
        let table = table(&consumer());
        for (message, reason) in [
            (r#"{"amount":1,"at":1,"meta":{},"ok":true}"#, "id: missing"),
            (
                r#"{"id":"x","amount":null,"at":1,"meta":{},"ok":true}"#,
                "amount: missing",
            ),
            (
                r#"{"id":"x","amount":"y","at":1,"meta":{},"ok":true}"#,
                "amount: a whole",
            ),
            (
                r#"{"id":"x","amount":1,"at":1,"meta":[],"ok":true}"#,
                "meta: an object",
            ),
            (
                r#"{"id":"x","amount":1,"at":1,"meta":{},"ok":"yes"}"#,
                "ok: true or false",
            ),
        ] {
            let said = own(table, &body(message)).unwrap_err();
            assert!(said.starts_with(reason), "{said}");
        }
    }
}
