//! What tables have by which rows are recognised: a key, which those of the field do not have, or
//! days that can be read one by one. Called by `write` and `tables`.
//!
//! # Invariants
//! - A table is asked about once, and again after each failed write and each `maintain`: a key may
//!   be made or dropped under us (test `postgres_shows_rows_once_in_tables_without_a_key` in
//!   tests/it/sinks).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sqlx::PgConnection;

use super::ddl::full_name;
use crate::sink::schema::{Partition, Table};

/// What is known, by the table's full name; as many entries as there are tables.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<HashMap<String, Lookup>>);

/// How rows are found that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// By the key.
    Key,
    /// By their day, which the table can read without the others.
    Days,
    /// By a look through all of it.
    Scan,
}

impl Keys {
    /// From memory, or from the server.
    pub(super) async fn lookup(
        &self,
        connection: &mut PgConnection,
        schema: &str,
        table: &Table,
    ) -> Result<Lookup, sqlx::Error> {
        let name = full_name(schema, table.name);
        let known = self.with(|known| known.get(&name).copied());
        if let Some(lookup) = known {
            return Ok(lookup);
        }
        let lookup = if has_key(connection, schema, table).await? {
            Lookup::Key
        } else if has_days(connection, schema, table).await? {
            Lookup::Days
        } else {
            Lookup::Scan
        };
        self.with(|known| known.insert(name, lookup));
        Ok(lookup)
    }

    /// Has every table asked about again.
    pub(super) fn forget(&self) {
        self.with(HashMap::clear);
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Lookup>) -> T) -> T {
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

/// Whether some days of a table can be read without the others: it is partitioned, or an index
/// begins with its time.
async fn has_days(
    connection: &mut PgConnection,
    schema: &str,
    table: &Table,
) -> Result<bool, sqlx::Error> {
    let Partition::ByTime(time) = table.partition else {
        return Ok(false);
    };
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM pg_class c \
         WHERE c.oid = to_regclass(format('%I.%I', $1, $2)) AND (c.relkind = 'p' \
         OR EXISTS (SELECT 1 FROM pg_index i JOIN pg_attribute a \
             ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
             WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND a.attname = $3)))",
    )
    .bind(schema)
    .bind(table.name)
    .bind(time)
    .fetch_one(connection)
    .await
}
