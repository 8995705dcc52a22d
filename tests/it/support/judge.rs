//! The independent judge: holds what was acknowledged and compares it with the
//! rows, field by field. Reads the databases with plain queries of its own.

use super::eventually;
use super::servers::{CLICKHOUSE_PASSWORD, CLICKHOUSE_USER, Server};
use super::shop::Expected;
use super::traffic::Book;
use serde_json::Value as Json;
use sqlx::postgres::PgPool;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Rows are fetched in so many slices.
const SLICES: u32 = 16;

/// What a judgement found; `assert_complete` is the verdict.
#[derive(Debug, Default)]
pub struct Verdict {
    pub missing: Vec<String>,
    pub twice: Vec<String>,
    pub unknown: Vec<String>,
    pub different: Vec<String>,
    pub same_origin: usize,
    pub rows: usize,
}

impl Verdict {
    pub fn assert_complete(&self, where_: &str) {
        let head = |list: &[String]| list.iter().take(3).cloned().collect::<Vec<_>>();
        assert!(
            self.missing.is_empty()
                && self.twice.is_empty()
                && self.unknown.is_empty()
                && self.different.is_empty()
                && self.same_origin == 0,
            "{where_}: {} rows; {} missing {:?}; {} twice {:?}; {} unknown {:?}; {} different {:#?}; {} share an origin",
            self.rows,
            self.missing.len(),
            head(&self.missing),
            self.twice.len(),
            head(&self.twice),
            self.unknown.len(),
            head(&self.unknown),
            self.different.len(),
            head(&self.different),
            self.same_origin,
        );
    }
}

pub fn clickhouse(server: &Server) -> clickhouse::Client {
    clickhouse::Client::default()
        .with_url(server.clickhouse_url())
        .with_user(CLICKHOUSE_USER)
        .with_password(CLICKHOUSE_PASSWORD)
        .with_database("holdfast")
        .with_setting("json_type_escape_dots_in_keys", "1")
        .with_setting("output_format_json_quote_64bit_integers", "0")
}

/// Lines of a query's answer.
pub async fn query_clickhouse(server: &Server, sql: &str) -> Result<Vec<Json>, String> {
    let mut lines = clickhouse(server)
        .query(sql)
        .fetch_bytes("JSONEachRow")
        .map_err(|error| error.to_string())?;
    let bytes = lines.collect().await.map_err(|error| error.to_string())?;
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(|error| error.to_string()))
        .collect()
}

pub async fn postgres(server: &Server) -> PgPool {
    sqlx::postgres::PgPoolOptions::new()
        .max_connections(2)
        .connect(&server.postgres_url())
        .await
        .unwrap()
}

pub async fn query_postgres(pool: &PgPool, sql: &str) -> Result<Vec<Json>, String> {
    let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .fetch_all(pool)
        .await
        .map_err(|error| error.to_string())?;
    Ok(rows
        .iter()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect())
}

/// Waits until ClickHouse shows so many events (under FINAL), then compares all.
pub async fn judge_clickhouse(
    server: &Server,
    acked: &HashMap<String, Expected>,
    limit: Duration,
) -> Verdict {
    clickhouse_rows(server, acked, acked.len(), limit).await
}

/// The same where not all that was sent was acknowledged: every acknowledged event must
/// be there; one that was sent and not acknowledged may be.
pub async fn judge_clickhouse_book(server: &Server, book: &Book, limit: Duration) -> Verdict {
    let mut verdict = clickhouse_rows(server, &book.sent, book.acked.len(), limit).await;
    verdict.missing.retain(|id| book.acked.contains(id));
    verdict
}

async fn clickhouse_rows(
    server: &Server,
    sent: &HashMap<String, Expected>,
    rows_min: usize,
    limit: Duration,
) -> Verdict {
    let count = "SELECT toUInt64(count()) AS n FROM events FINAL";
    eventually(
        &format!("{rows_min} events in ClickHouse"),
        limit,
        || async {
            let answer = query_clickhouse(server, count).await.unwrap_or_default();
            answer.first().and_then(|row| row["n"].as_u64()) >= Some(rows_min as u64)
        },
    )
    .await;
    let mut judge = Judge::new(sent);
    for slice in 0..SLICES {
        let sql =
            format!("SELECT * FROM events FINAL WHERE cityHash64(event_id) % {SLICES} = {slice}");
        for row in query_clickhouse(server, &sql).await.unwrap() {
            judge.row(&row);
        }
    }
    judge.verdict()
}

/// The same for Postgres.
pub async fn judge_postgres(
    server: &Server,
    acked: &HashMap<String, Expected>,
    limit: Duration,
) -> Verdict {
    postgres_rows(server, acked, acked.len(), limit).await
}

/// The same where not all that was sent was acknowledged.
pub async fn judge_postgres_book(server: &Server, book: &Book, limit: Duration) -> Verdict {
    let mut verdict = postgres_rows(server, &book.sent, book.acked.len(), limit).await;
    verdict.missing.retain(|id| book.acked.contains(id));
    verdict
}

async fn postgres_rows(
    server: &Server,
    sent: &HashMap<String, Expected>,
    rows_min: usize,
    limit: Duration,
) -> Verdict {
    let pool = postgres(server).await;
    eventually(&format!("{rows_min} events in Postgres"), limit, || async {
        let count: Result<i64, _> = sqlx::query_scalar("SELECT count(*) FROM events")
            .fetch_one(&pool)
            .await;
        count.is_ok_and(|n| n >= rows_min as i64)
    })
    .await;
    let mut judge = Judge::new(sent);
    for slice in 0..SLICES {
        let sql = format!(
            "SELECT row_to_json(e)::text FROM events e WHERE abs(hashtext(event_id) % {SLICES}) = {slice}"
        );
        for row in query_postgres(&pool, &sql).await.unwrap() {
            judge.row(&row);
        }
    }
    pool.close().await;
    judge.verdict()
}

/// Compares the rows of an SQLite file, once no more come, with what was sent: every
/// acknowledged event must be there; one that was sent and not acknowledged may be.
pub fn judge_sqlite(database: &std::path::Path, book: &Book) -> Verdict {
    let output = std::process::Command::new("sqlite3")
        .args(["-readonly", "-json"])
        .arg(database)
        .arg("SELECT * FROM events")
        .output()
        .expect("sqlite3 is installed by tests/run");
    assert!(output.status.success(), "{output:?}");
    let mut judge = Judge::new(&book.sent);
    // Nothing at all for no row.
    if !output.stdout.is_empty() {
        let rows: Vec<Json> = serde_json::from_slice(&output.stdout).unwrap();
        for mut row in rows {
            let params = row["event_params"].as_str().unwrap();
            row["event_params"] = serde_json::from_str(params).unwrap();
            judge.row(&row);
        }
    }
    let mut verdict = judge.verdict();
    verdict.missing.retain(|id| book.acked.contains(id));
    verdict
}

struct Judge<'a> {
    acked: &'a HashMap<String, Expected>,
    seen: HashSet<String>,
    origins: HashSet<(String, u64, u64)>,
    verdict: Verdict,
}

impl<'a> Judge<'a> {
    fn new(acked: &'a HashMap<String, Expected>) -> Self {
        Self {
            acked,
            seen: HashSet::with_capacity(acked.len()),
            origins: HashSet::with_capacity(acked.len()),
            verdict: Verdict::default(),
        }
    }

    fn row(&mut self, row: &Json) {
        self.verdict.rows += 1;
        let id = row["event_id"].as_str().unwrap().to_owned();
        if !self.seen.insert(id.clone()) {
            self.verdict.twice.push(id);
            return;
        }
        let Some(expected) = self.acked.get(&id) else {
            self.verdict.unknown.push(id);
            return;
        };
        if let Some(difference) = difference(row, expected) {
            self.verdict.different.push(format!("{id}: {difference}"));
        }
        let origin = (
            row["ingest_host"].as_str().unwrap().to_owned(),
            row["ingest_seq"].as_u64().unwrap(),
            row["ingest_index"].as_u64().unwrap(),
        );
        let is_real = origin.0.len() == 32 && origin.1 > 0;
        if !is_real || !self.origins.insert(origin) {
            self.verdict.same_origin += 1;
        }
    }

    fn verdict(mut self) -> Verdict {
        let missing = self.acked.keys().filter(|id| !self.seen.contains(*id));
        self.verdict.missing = missing.cloned().collect();
        self.verdict
    }
}

fn difference(row: &Json, expected: &Expected) -> Option<String> {
    let differs = |column: &str, found: &Json, wanted: &Json| {
        (!same(found, wanted)).then(|| format!("{column} is {found}, sent was {wanted}"))
    };
    for (column, wanted) in expected.header.iter() {
        if let Some(found) = differs(column, &row[column], wanted) {
            return Some(found);
        }
    }
    let time = row["event_timestamp"].as_str().unwrap_or_default();
    let time = time.replace('T', " ");
    let found_ms = chrono::NaiveDateTime::parse_from_str(&time, "%Y-%m-%d %H:%M:%S%.f")
        .map(|time| time.and_utc().timestamp_millis());
    if found_ms != Ok(expected.timestamp_ms) {
        return Some(format!(
            "event_timestamp is {time}, sent was {}",
            expected.timestamp_ms
        ));
    }
    differs(
        "event_name",
        &row["event_name"],
        &Json::from(expected.name.clone()),
    )
    .or_else(|| {
        differs(
            "current_url",
            &row["current_url"],
            &Json::from(expected.current_url.clone()),
        )
    })
    .or_else(|| differs("event_params", &row["event_params"], &expected.params))
}

/// Equal as values: integers by every digit, other numbers as doubles.
fn same(found: &Json, wanted: &Json) -> bool {
    match (found, wanted) {
        (Json::Number(a), Json::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            _ => a.as_f64() == b.as_f64(),
        },
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => found == wanted,
    }
}
