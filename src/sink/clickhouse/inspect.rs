//! ClickHouse's part of a look at rows. Called through [`Inspect`].

use super::ClickHouse;
use super::binary::within;
use super::encode::{identifier, literal};
use super::server::told;
use crate::sink::WriteError;
use crate::sink::convert::unavailable;
use crate::sink::inspect::{Dialect, Inspect, Place};

#[async_trait::async_trait]
impl Inspect for ClickHouse {
    fn dialect(&self) -> Dialect {
        Dialect {
            table: |database, table| format!("{}.{}", identifier(database), identifier(table)),
            literal,
            at_ms: |column| format!("toUnixTimestamp64Milli(toDateTime64({column}, 3))"),
            time: |at_ms| format!("fromUnixTimestamp64Milli(toInt64({at_ms}), 'UTC')"),
            text: |number| format!("toString({number})"),
            quotient: |number, by| format!("intDiv({number}, {by})"),
            once: "FINAL",
        }
    }

    fn namespace(&self) -> &str {
        &self.options.database
    }

    async fn unit_ms(&self, place: Place<'_>) -> Result<i64, WriteError> {
        let database = place.namespace.unwrap_or(&self.options.database);
        let sql = format!(
            "SELECT type FROM system.columns \
             WHERE database = {} AND table = {} AND name = 'event_timestamp'",
            literal(database),
            literal(place.table),
        );
        let types = self.rows(sql, 1).await?;
        let kind = types.first().and_then(|row| row.first());
        Ok(kind.map_or(1, |kind| unit_ms(kind)))
    }

    async fn rows(&self, sql: String, _columns: usize) -> Result<Vec<Vec<String>>, WriteError> {
        let answer = self.server.look(&sql).await;
        answer.map_err(|error| unavailable(&told(&error)))
    }
}

/// How exactly a column of this type keeps times, in milliseconds; tables that were there
/// before us may have `DateTime`, which keeps seconds.
fn unit_ms(kind: &str) -> i64 {
    let kind = within(kind, "LowCardinality(").unwrap_or(kind);
    let kind = within(kind, "Nullable(").unwrap_or(kind);
    if kind == "DateTime" || kind.starts_with("DateTime(") {
        return 1000;
    }
    let Some(inner) = within(kind, "DateTime64(") else {
        return 1;
    };
    let digits = inner.split(',').next().unwrap_or_default();
    match digits.parse() {
        Ok(0) => 1000,
        Ok(1) => 100,
        Ok(2) => 10,
        Ok(3_u8..) | Err(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_tells_its_unit() {
        for (kind, expected) in [
            ("DateTime", 1000),
            ("DateTime('Asia/Kolkata')", 1000),
            ("Nullable(DateTime)", 1000),
            ("LowCardinality(Nullable(DateTime))", 1000),
            ("DateTime64(0)", 1000),
            ("DateTime64(1, 'UTC')", 100),
            ("Nullable(DateTime64(2))", 10),
            ("DateTime64(3)", 1),
            ("DateTime64(9, 'UTC')", 1),
            ("Int64", 1),
        ] {
            assert_eq!(unit_ms(kind), expected, "{kind}");
        }
    }
}
