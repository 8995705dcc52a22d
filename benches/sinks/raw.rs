//! The ceiling: rows that were encoded before, and nothing but their insert. Written without
//! the collector's own encoders, and for the columns of `events` alone.

use crate::support::servers::{CLICKHOUSE_PASSWORD, CLICKHOUSE_USER, Server};
use chrono::{DateTime, NaiveDateTime};
use holdfast::sink::schema::{ColumnType, EVENTS};
use holdfast::sink::{Row, Value};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions};

/// The ClickHouse database, and the schema in Postgres.
pub const DATABASE: &str = "bench";

#[derive(Clone)]
pub enum Raw {
    ClickHouse {
        client: reqwest::Client,
        url: String,
    },
    Postgres {
        pool: PgPool,
        insert: String,
    },
}

/// Rows as the server takes them.
pub enum Encoded {
    RowBinary(Vec<u8>),
    Arrays(Vec<Array>),
}

pub enum Array {
    Text(Vec<String>),
    Int(Vec<i64>),
    Time(Vec<NaiveDateTime>),
}

impl Raw {
    pub fn clickhouse(server: &Server) -> Self {
        Self::ClickHouse {
            client: reqwest::Client::new(),
            url: server.clickhouse_url(),
        }
    }

    pub async fn postgres(server: &Server, connections: usize) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(connections as u32)
            .connect(&server.postgres_url())
            .await
            .unwrap();
        let names: Vec<_> = EVENTS
            .columns
            .iter()
            .map(|c| format!("\"{}\"", c.name))
            .collect();
        let (mut picks, mut arrays) = (Vec::new(), Vec::new());
        for (at, column) in EVENTS.columns.iter().enumerate() {
            let is_json = column.kind == ColumnType::Json;
            picks.push(format!("u.c{at}{}", if is_json { "::jsonb" } else { "" }));
            let kind = match column.kind {
                ColumnType::Text | ColumnType::Json => "text",
                ColumnType::TimeMs => "timestamp",
                _ => "int8",
            };
            arrays.push(format!("${}::{kind}[]", at + 1));
        }
        let columns: Vec<_> = (0..EVENTS.columns.len())
            .map(|at| format!("c{at}"))
            .collect();
        let insert = format!(
            "INSERT INTO \"{DATABASE}\".events ({}) SELECT {} FROM UNNEST({}) AS u({}) ON CONFLICT DO NOTHING",
            names.join(", "),
            picks.join(", "),
            arrays.join(", "),
            columns.join(", ")
        );
        Self::Postgres { pool, insert }
    }

    pub fn encode(&self, rows: &[Row]) -> Encoded {
        match self {
            Self::ClickHouse { .. } => Encoded::RowBinary(row_binary(rows)),
            Self::Postgres { .. } => Encoded::Arrays(
                (0..EVENTS.columns.len())
                    .map(|at| array(rows, at))
                    .collect(),
            ),
        }
    }

    pub async fn insert(&self, rows: Encoded) {
        match (self, rows) {
            (Self::ClickHouse { .. }, Encoded::RowBinary(bytes)) => {
                let names: Vec<_> = EVENTS.columns.iter().map(|c| c.name).collect();
                let sql = format!("INSERT INTO events ({}) FORMAT RowBinary", names.join(", "));
                self.ask(&sql, bytes).await;
            }
            (Self::Postgres { pool, insert }, Encoded::Arrays(arrays)) => {
                let query = arrays.into_iter().fold(
                    sqlx::query(AssertSqlSafe(insert.clone())),
                    |query, array| match array {
                        Array::Text(values) => query.bind(values),
                        Array::Int(values) => query.bind(values),
                        Array::Time(values) => query.bind(values),
                    },
                );
                query.execute(pool).await.unwrap();
            }
            _ => panic!("encoded for the other server"),
        }
    }

    /// Asks ClickHouse, with rows behind the question if it is an insert.
    async fn ask(&self, sql: &str, rows: Vec<u8>) -> String {
        let Self::ClickHouse { client, url } = self else {
            panic!("this is ClickHouse");
        };
        let parameters = [
            ("query", sql),
            ("database", DATABASE),
            ("async_insert", "0"),
            ("input_format_binary_read_json_as_string", "1"),
            ("json_type_escape_dots_in_keys", "1"),
        ];
        let url = reqwest::Url::parse_with_params(url, parameters).unwrap();
        let answer = client
            .post(url)
            .header("X-ClickHouse-User", CLICKHOUSE_USER)
            .header("X-ClickHouse-Key", CLICKHOUSE_PASSWORD)
            .body(rows)
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{sql}: {text}");
        text
    }

    /// Empties the table.
    pub async fn empty(&self) {
        match self {
            Self::ClickHouse { .. } => {
                self.ask("TRUNCATE TABLE events SYNC", Vec::new()).await;
            }
            Self::Postgres { pool, .. } => {
                let sql = format!("TRUNCATE \"{DATABASE}\".events");
                sqlx::query(AssertSqlSafe(sql)).execute(pool).await.unwrap();
            }
        }
    }

    pub async fn count(&self) -> usize {
        match self {
            Self::ClickHouse { .. } => {
                let count = self
                    .ask("SELECT count() FROM events FINAL", Vec::new())
                    .await;
                count.trim().parse().unwrap()
            }
            Self::Postgres { pool, .. } => {
                let sql = format!("SELECT count(*) FROM \"{DATABASE}\".events");
                let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
                    .fetch_one(pool)
                    .await
                    .unwrap();
                count as usize
            }
        }
    }
}

fn row_binary(rows: &[Row]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        for (column, value) in EVENTS.columns.iter().zip(&row.values) {
            match value {
                Value::Text(text) | Value::Json(text) => {
                    prost::encoding::encode_varint(text.len() as u64, &mut bytes);
                    bytes.extend(text.as_bytes());
                }
                Value::Int(number) | Value::TimeMs(number) => bytes.extend(number.to_le_bytes()),
                Value::UInt(number) if column.kind == ColumnType::UInt32 => {
                    bytes.extend((*number as u32).to_le_bytes());
                }
                Value::UInt(number) => bytes.extend(number.to_le_bytes()),
                other => panic!("{other:?} in {}", column.name),
            }
        }
    }
    bytes
}

fn array(rows: &[Row], at: usize) -> Array {
    let values = rows.iter().map(|row| &row.values[at]);
    match EVENTS.columns[at].kind {
        ColumnType::Text | ColumnType::Json => Array::Text(
            values
                .map(|value| match value {
                    Value::Text(text) | Value::Json(text) => text.clone(),
                    other => panic!("{other:?}"),
                })
                .collect(),
        ),
        ColumnType::TimeMs => Array::Time(
            values
                .map(|value| match value {
                    Value::TimeMs(ms) => DateTime::from_timestamp_millis(*ms).unwrap().naive_utc(),
                    other => panic!("{other:?}"),
                })
                .collect(),
        ),
        _ => Array::Int(
            values
                .map(|value| match value {
                    Value::Int(number) => *number,
                    Value::UInt(number) => *number as i64,
                    other => panic!("{other:?}"),
                })
                .collect(),
        ),
    }
}
