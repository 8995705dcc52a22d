//! Making what is missing in Postgres, and the daily partitions ahead. Called by
//! `create_missing` and `maintain`.
//!
//! # Invariants
//! - One host at a time: an advisory lock per transaction; the others then find the
//!   work done.
//! - Rights are only needed for what is really missing: existence is asked first.
//! - A day whose rows are in the default partition already stays there, with a
//!   warning. Moving them would lock writers out for as long as it takes, and any
//!   number of rows may be there; where they are they are found by every query. It
//!   happens at most for the first two days of a table that got its partitions late.
//! - No statement waits long for the locks of others: behind it all writers of the
//!   table would queue. Tests: `postgres_makes_*` in tests/it/sinks.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use chrono::{NaiveDate, Utc};
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};

use super::{ddl, keys, verdict};
use crate::sink::SchemaError;
use crate::sink::convert::brief;
use crate::sink::schema::{Partition, Table};

/// "holdfast" in ASCII: the advisory lock of all its schema work in a database.
const ADVISORY_LOCK: i64 = 0x686f_6c64_6661_7374;

/// Things said once and not every hour.
#[derive(Debug, Default)]
pub(super) struct Warned(Mutex<HashSet<String>>);

impl Warned {
    fn once(&self, what: &str) {
        if self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(what.to_owned())
        {
            tracing::warn!("postgres: {what}");
        }
    }
}

/// Creates schema, tables and columns that are missing, then the partitions.
pub(super) async fn create_missing(
    pool: &PgPool,
    schema: &str,
    tables: &[&'static Table],
    warned: &Warned,
) -> Result<(), SchemaError> {
    let mut tx = begin(pool).await.map_err(|e| failed(schema, &e))?;
    create_schema(&mut tx, schema)
        .await
        .map_err(|e| failed(schema, &e))?;
    for table in tables {
        create_table(&mut tx, schema, table, warned)
            .await
            .map_err(|e| failed(table.name, &e))?;
    }
    tx.commit().await.map_err(|e| failed(schema, &e))?;
    make_days(pool, schema, tables, warned).await
}

/// Makes the partitions of the coming days, for those of the tables that exist and
/// are partitioned.
pub(super) async fn make_days(
    pool: &PgPool,
    schema: &str,
    tables: &[&'static Table],
    warned: &Warned,
) -> Result<(), SchemaError> {
    for table in tables
        .iter()
        .filter(|table| table.partition != Partition::None)
    {
        let missing = missing_days(pool, schema, table)
            .await
            .map_err(|e| failed(table.name, &e))?;
        for day in missing {
            make_day(pool, schema, table, day, warned)
                .await
                .map_err(|e| failed(table.name, &e))?;
        }
    }
    Ok(())
}

async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut tx = pool.begin().await?;
    // Attaching a partition may read all of the default one, for longer than a write
    // may take. The lock of another host's work is waited for without the short limit.
    run(&mut tx, "SET LOCAL statement_timeout = '5min'").await?;
    run(
        &mut tx,
        &format!("SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"),
    )
    .await?;
    run(&mut tx, "SET LOCAL lock_timeout = '5s'").await?;
    Ok(tx)
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .map(|_| ())
}

async fn create_schema(tx: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)")
            .bind(schema)
            .fetch_one(&mut *tx)
            .await?;
    if exists {
        Ok(())
    } else {
        run(tx, &ddl::create_schema(schema)).await
    }
}

async fn create_table(
    tx: &mut PgConnection,
    schema: &str,
    table: &Table,
    warned: &Warned,
) -> Result<(), sqlx::Error> {
    let Some(partitioned) = is_partitioned(tx, schema, table).await? else {
        for sql in ddl::create_table(schema, table) {
            run(tx, &sql).await?;
        }
        return Ok(());
    };
    let present: Vec<String> = sqlx::query_scalar(
        "SELECT attname::text FROM pg_attribute \
         WHERE attrelid = format('%I.%I', $1, $2)::regclass AND attnum > 0 AND NOT attisdropped",
    )
    .bind(schema)
    .bind(table.name)
    .fetch_all(&mut *tx)
    .await?;
    for column in table
        .columns
        .iter()
        .filter(|c| !present.iter().any(|name| name == c.name))
    {
        for sql in ddl::add_column(schema, table, column) {
            run(tx, &sql).await?;
        }
    }
    if partitioned && !has_default(tx, schema, table).await? {
        run(tx, &ddl::create_default(schema, table)).await?;
    }
    if !keys::has_key(tx, schema, table).await? {
        let name = table.name;
        warned.once(&format!(
            "table {name} has no unique key within {:?}: each write looks for its rows first, and \
             reads all of the table if it has no index on them; what two hosts write at the same \
             moment may show twice",
            table.key
        ));
    }
    Ok(())
}

/// `None` when there is no such table.
async fn is_partitioned(
    connection: &mut PgConnection,
    schema: &str,
    table: &Table,
) -> Result<Option<bool>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT c.relkind = 'p' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = $2",
    )
    .bind(schema)
    .bind(table.name)
    .fetch_optional(connection)
    .await
}

async fn has_default(
    connection: &mut PgConnection,
    schema: &str,
    table: &Table,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT partdefid <> 0 FROM pg_partitioned_table WHERE partrelid = format('%I.%I', $1, $2)::regclass",
    )
    .bind(schema)
    .bind(table.name)
    .fetch_one(connection)
    .await
}

/// Days from yesterday on that have no partition of theirs.
async fn missing_days(
    pool: &PgPool,
    schema: &str,
    table: &Table,
) -> Result<Vec<NaiveDate>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    if is_partitioned(&mut connection, schema, table).await? != Some(true) {
        return Ok(Vec::new());
    }
    let present: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = format('%I.%I', $1, $2)::regclass",
    )
    .bind(schema)
    .bind(table.name)
    .fetch_all(&mut *connection)
    .await?;
    let mut days = ddl::days(Utc::now().date_naive());
    days.retain(|day| !present.contains(&ddl::day_name(table, *day)));
    Ok(days)
}

/// Makes one day's partition, in a transaction of its own: one day that cannot be
/// made does not undo the others.
async fn make_day(
    pool: &PgPool,
    schema: &str,
    table: &Table,
    day: NaiveDate,
    warned: &Warned,
) -> Result<(), sqlx::Error> {
    let attempt = async {
        let mut tx = begin(pool).await?;
        for sql in ddl::create_day(schema, table, day) {
            run(&mut tx, &sql).await?;
        }
        tx.commit().await
    };
    let error = match attempt.await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let name = ddl::day_name(table, day);
    match error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .as_deref()
    {
        // check_violation: the default partition has rows of that day.
        Some("23514") => {
            warned.once(&format!(
                "rows of {day} are in {}_default already and stay there",
                table.name
            ));
        }
        // invalid_object_definition: someone's wider partition covers the day.
        Some("42P17") => tracing::debug!(%day, table = table.name, "covered by another partition"),
        // duplicate_table: made by another host a moment ago, or detached on purpose.
        Some("42P07") => {
            let connection = &mut *pool.acquire().await?;
            if !is_attached(connection, schema, table, &name).await? {
                warned.once(&format!(
                    "{name} exists but is no partition; rows of {day} go to the default"
                ));
            }
        }
        _ => return Err(error),
    }
    Ok(())
}

async fn is_attached(
    connection: &mut PgConnection,
    schema: &str,
    table: &Table,
    partition: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = format('%I.%I', $1, $2)::regclass AND c.relname = $3)",
    )
    .bind(schema)
    .bind(table.name)
    .bind(partition)
    .fetch_one(connection)
    .await
}

fn failed(what: &str, error: &sqlx::Error) -> SchemaError {
    SchemaError {
        reason: format!("postgres, {what}: {}", brief(&verdict::text(error))),
    }
}
