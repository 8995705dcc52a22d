//! Postgres's part of a look at rows. Called through [`Inspect`].

use super::{Postgres, verdict};
use crate::sink::WriteError;
use crate::sink::convert::{sql_text, unavailable};
use crate::sink::inspect::{Dialect, Inspect, LOOK_TIMEOUT};
use sqlx::{AssertSqlSafe, Row as _};

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[async_trait::async_trait]
impl Inspect for Postgres {
    fn dialect(&self) -> Dialect {
        Dialect {
            table: |schema, table| format!("{}.{}", quoted(schema), quoted(table)),
            literal: sql_text,
            at_ms: |column| format!("(extract(epoch FROM {column}) * 1000)::bigint"),
            time: |at_ms| format!("to_timestamp({at_ms}::numeric / 1000)"),
            text: |number| format!("({number})::text"),
            quotient: |number, by| format!("div({number}::numeric, {by})"),
            once: "",
        }
    }

    fn namespace(&self) -> &str {
        &self.schema
    }

    async fn rows(&self, sql: String, columns: usize) -> Result<Vec<Vec<String>>, WriteError> {
        let look = async {
            // The pool's own limit is made for inserts.
            let mut look = self.pool().begin().await?;
            let millis = LOOK_TIMEOUT.as_millis();
            let limit = format!("SET LOCAL statement_timeout = {millis}");
            sqlx::raw_sql(AssertSqlSafe(limit))
                .execute(&mut *look)
                .await?;
            let rows = sqlx::query(AssertSqlSafe(sql)).persistent(false);
            let rows = rows.fetch_all(&mut *look).await?;
            let cells = |row: &sqlx::postgres::PgRow| {
                (0..columns)
                    .map(|at| row.try_get(at))
                    .collect::<Result<Vec<String>, _>>()
            };
            rows.iter().map(cells).collect::<Result<Vec<_>, _>>()
        };
        match tokio::time::timeout(LOOK_TIMEOUT, look).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(unavailable(&verdict::text(&error))),
            Err(_) => Err(unavailable(&format!("no answer within {LOOK_TIMEOUT:?}"))),
        }
    }
}
