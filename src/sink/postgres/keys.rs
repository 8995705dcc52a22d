//! Whether tables have the key by which rows are recognised: those of the field have none. Called
//! by `write` and `tables`.
//!
//! # Invariants
//! - A table is asked about once, and again after each failed write and each `maintain`: a key may
//!   be made or dropped under us (test `postgres_shows_rows_once_in_tables_without_a_key` in
//!   tests/it/sinks).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sqlx::PgConnection;

use super::ddl::full_name;
use crate::sink::schema::Table;

/// What is known, by the table's full name; as many entries as there are tables.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<HashMap<String, bool>>);

impl Keys {
    /// From memory, or from the server.
    pub(super) async fn has_key(
        &self,
        connection: &mut PgConnection,
        schema: &str,
        table: &Table,
    ) -> Result<bool, sqlx::Error> {
        let name = full_name(schema, table.name);
        let known = self.with(|known| known.get(&name).copied());
        if let Some(has_key) = known {
            return Ok(has_key);
        }
        let has_key = has_key(connection, schema, table).await?;
        self.with(|known| known.insert(name, has_key));
        Ok(has_key)
    }

    /// Has every table asked about again.
    pub(super) fn forget(&self) {
        self.with(HashMap::clear);
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, bool>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a unique index holds nothing but key columns: then the same key cannot be
/// there twice, and `ON CONFLICT` sees it. A table that is not there has none.
pub(super) async fn has_key(
    connection: &mut PgConnection,
    schema: &str,
    table: &Table,
) -> Result<bool, sqlx::Error> {
    let key: Vec<&str> = table.key.to_vec();
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM pg_index i \
         WHERE i.indrelid = to_regclass(format('%I.%I', $1, $2)) \
         AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
         AND (SELECT bool_and(a.attname::text = ANY ($3)) FROM pg_attribute a \
              WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)))",
    )
    .bind(schema)
    .bind(table.name)
    .bind(key)
    .fetch_one(connection)
    .await
}
