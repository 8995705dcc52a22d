//! ClickHouse's part of a look at rows. Called through [`Inspect`].

use super::ClickHouse;
use super::encode::{identifier, literal};
use super::server::told;
use crate::sink::WriteError;
use crate::sink::convert::unavailable;
use crate::sink::inspect::{Dialect, Inspect};

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

    async fn rows(&self, sql: String, _columns: usize) -> Result<Vec<Vec<String>>, WriteError> {
        let answer = self.server.look(&sql).await;
        answer.map_err(|error| unavailable(&told(&error)))
    }
}
