//! SQLite's part of a look at rows. Called through [`Inspect`].
//!
//! # Invariants
//! - A look makes no file (test `a_look_at_sqlite_makes_no_file` in tests/it/sinks).

use super::Sqlite;
use crate::sink::WriteError;
use crate::sink::convert::{sql_text, unavailable};
use crate::sink::inspect::{Dialect, Inspect, LOOK_TIMEOUT};
use sqlx::{AssertSqlSafe, Row as _};

#[async_trait::async_trait]
impl Inspect for Sqlite {
    fn dialect(&self) -> Dialect {
        Dialect {
            table: |_, table| format!("\"{table}\""),
            literal: sql_text,
            // Times are texts of one length, which compare as times do.
            at_ms: |column| {
                format!(
                    "(CAST(strftime('%s', {column}) AS INTEGER) * 1000 + \
                     CAST(substr({column}, 21, 3) AS INTEGER))"
                )
            },
            time: |at_ms| {
                let (s, ms) = (at_ms.div_euclid(1000), at_ms.rem_euclid(1000));
                format!("strftime('%Y-%m-%d %H:%M:%S', {s}, 'unixepoch') || '.{ms:03}'")
            },
            text: |number| format!("CAST({number} AS TEXT)"),
            quotient: |number, by| format!("({number} / {by})"),
            once: "",
        }
    }

    fn namespace(&self) -> &str {
        ""
    }

    async fn rows(&self, sql: String, columns: usize) -> Result<Vec<Vec<String>>, WriteError> {
        let path = &self.options.path;
        // The pool, which is made for writing, would make it.
        match tokio::fs::try_exists(path).await {
            Ok(true) => {}
            Ok(false) => return Err(unavailable(&format!("{} is not there", path.display()))),
            Err(error) => return Err(unavailable(&format!("{}: {error}", path.display()))),
        }
        let look = async {
            let rows = sqlx::query(AssertSqlSafe(sql))
                .fetch_all(self.pool())
                .await?;
            let cells = |row: &sqlx::sqlite::SqliteRow| {
                (0..columns)
                    .map(|at| row.try_get(at))
                    .collect::<Result<Vec<String>, _>>()
            };
            rows.iter()
                .map(cells)
                .collect::<Result<Vec<_>, sqlx::Error>>()
        };
        match tokio::time::timeout(LOOK_TIMEOUT, look).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(unavailable(&error.to_string())),
            Err(_) => Err(unavailable(&format!("no answer within {LOOK_TIMEOUT:?}"))),
        }
    }
}
