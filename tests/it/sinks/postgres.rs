//! The Postgres sink's writes: every value arrives once, only content is refused, all
//! else is waited for, and a commit is durable on any server.

use super::rows::{
    KINDS, VERSIONS, VERSIONS_LEFT, assert_rows, batch, events, extremes, good_and_bad, kinds, one,
    versions, with,
};
use super::tap::Tap;
use super::{refused, unavailable};
use crate::support::servers::{Kind, Server};
use crate::support::shared::Shared;
use crate::support::{eventually, judge};
use holdfast::sink::postgres::{Options, Postgres};
use holdfast::sink::schema::ERROR_EVENTS;
use holdfast::sink::{Sink, Value};
use holdfast::trust::TrustFiles;
use serde_json::Value as Json;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;
use std::time::{Duration, Instant};

/// A sink with a schema of its own, and a second way to look into that.
pub struct PostgresTest {
    pub sink: Postgres,
    pub pool: PgPool,
    server: &'static Server,
    schema: &'static str,
}

impl PostgresTest {
    pub async fn start(schema: &'static str) -> Self {
        static SERVER: Shared = Shared::new(Kind::Postgres, "sinks_postgres");
        let server = SERVER.get().await;
        Self {
            sink: sink(&server.postgres_url(), schema),
            pool: judge::postgres(server).await,
            server,
            schema,
        }
    }

    /// Another sink for the same schema.
    pub fn another_sink(&self) -> Postgres {
        sink(&self.server.postgres_url(), self.schema)
    }

    /// `{s}` is the schema.
    pub fn sql(&self, sql: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(sql.replace("{s}", &format!("\"{}\"", self.schema)))
    }

    pub async fn execute(&self, sql: &str) {
        let sql = sqlx::raw_sql(self.sql(sql));
        sql.execute(&self.pool).await.unwrap();
    }

    pub async fn count(&self, from: &str) -> i64 {
        let sql = sqlx::query_scalar(self.sql(&format!("SELECT count(*) FROM {from}")));
        sql.fetch_one(&self.pool).await.unwrap()
    }

    async fn rows(&self) -> Vec<Json> {
        let AssertSqlSafe(sql) = self.sql(
            "SELECT row_to_json(x)::text FROM (SELECT id, (extract(epoch FROM at) * 1000)::bigint AS at, text, i, u, \
             small, f, (extract(epoch FROM maybe_at) * 1000)::bigint AS maybe_at, maybe_text, j::text AS j \
             FROM {s}.kinds ORDER BY id) x",
        );
        judge::query_postgres(&self.pool, &sql).await.unwrap()
    }
}

pub fn sink(url: &str, schema: &str) -> Postgres {
    sink_with(url, schema, 2)
}

fn sink_with(url: &str, schema: &str, pool_max: u32) -> Postgres {
    Postgres::new(Options {
        url: url.into(),
        schema: schema.into(),
        pool_max,
        trust: TrustFiles::default(),
    })
    .unwrap()
}

/// Statements are prepared once for a connection, and all rows of a batch go behind one.
#[tokio::test]
async fn postgres_takes_a_batch_in_one_round_trip() {
    let pg = PostgresTest::start("turns").await;
    pg.sink.create_missing(&[&ERROR_EVENTS]).await.unwrap();
    let tap = Tap::new(pg.server).await;
    let url = pg.server.postgres_url();
    let url = url.replace(&format!(":{}/", pg.server.port), &format!(":{}/", tap.port));
    // One connection: with room for two, a second is opened where the first is not back yet.
    let sink = sink_with(&url, "turns", 1);
    for count in [1, 3000, 2] {
        let batch = events(count, &ERROR_EVENTS);
        let is_first = count == 1;
        sink.write(&batch).await.unwrap();
        // Before anything is awaited: the pool tries a connection that it gets back.
        let turns = tap.turns();
        assert!(turns.len() > 1 || !is_first, "{turns:?}");
        assert!(turns.len() == 1 || is_first, "{turns:?}");
        let limit = Duration::from_secs(5);
        eventually("the connection is back", limit, || {
            std::future::ready(!tap.turns().is_empty())
        })
        .await;
    }
    assert_eq!(pg.count("{s}.error_events").await, 3000);
}

#[tokio::test]
async fn postgres_keeps_every_value() {
    let pg = PostgresTest::start("kept").await;
    pg.sink.create_missing(&[&KINDS]).await.unwrap();
    let written = extremes();
    pg.sink.write(&written).await.unwrap();
    pg.sink.write(&written).await.unwrap();
    assert_rows(&pg.rows().await, &written);
    let elsewhere = pg.count("ONLY {s}.kinds_default").await;
    assert_eq!(elsewhere, 3, "a day without a partition");
    // The same key twice in one batch.
    let rows = vec![kinds("twice"), kinds("twice")];
    pg.sink.write(&batch(&KINDS, "x", rows)).await.unwrap();
    assert_eq!(pg.count("{s}.kinds WHERE id = 'twice'").await, 1);
}

#[tokio::test]
async fn postgres_refuses_only_content() {
    let pg = PostgresTest::start("content").await;
    let tables = [&KINDS, &ERROR_EVENTS];
    pg.sink.create_missing(&tables).await.unwrap();
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    let text = |column, text: &str| (column, Value::Text(text.into()));
    let json = |text: &str| (9, Value::Json(text.into()));
    let bad = [
        ("22001", text(0, &"x".repeat(21))),
        ("22021", text(2, "a\0b")),
        ("22P05", json(r#"{"k":"a\u0000b"}"#)),
        ("22P02", json(r#"{"k":"\ud800"}"#)),
        ("22P02", json("{")),
        ("22003", json(r#"{"k":1e400000}"#)),
        ("54001", json(&deep)),
        ("23502", (1, Value::Null)),
        ("beyond 64 signed bits", (4, Value::UInt(u64::MAX))),
        ("outside of the years", (7, Value::TimeMs(i64::MAX))),
        (
            "outside of the years",
            (7, Value::TimeMs(-300_000_000_000_000)),
        ),
    ];
    for (what, (column, value)) in bad {
        let reason = refused(pg.sink.write(&good_and_bad(column, value)).await);
        assert!(reason.contains(what), "{what}: {reason}");
    }
    let count = pg.count("{s}.kinds").await;
    assert_eq!(count, 0, "nothing of a refused batch is there");
    // Unlike a row that has no partition, one that breaks a rule of the table.
    pg.execute("ALTER TABLE {s}.kinds ADD CHECK (small <> 7)")
        .await;
    let reason = refused(pg.sink.write(&good_and_bad(5, Value::UInt(7))).await);
    assert!(reason.contains("23514"), "{reason}");
    // A key too large for an index.
    let mut values = events(1, &ERROR_EVENTS).rows[0].values.clone();
    let noise: String = (0..20_000_u32)
        .map(|n| char::from_u32(0x4e00 + n.wrapping_mul(2_654_435_761) % 20_000).unwrap())
        .collect();
    values[0] = Value::Text(noise);
    let large = batch(&ERROR_EVENTS, "x", vec![values]);
    let reason = refused(pg.sink.write(&large).await);
    assert!(reason.contains("54000"), "{reason}");
}

#[tokio::test]
async fn postgres_takes_years_far_away() {
    let pg = PostgresTest::start("far").await;
    pg.sink.create_missing(&[&KINDS]).await.unwrap();
    let far = [
        253_402_300_800_000,
        -62_135_596_800_001,
        8_000_000_000_000_000,
    ];
    let row = |at: &i64| with(&at.to_string(), &[(1, Value::TimeMs(*at))]);
    let rows = far.iter().map(row).collect();
    pg.sink.write(&batch(&KINDS, "far", rows)).await.unwrap();
    assert_eq!(pg.count("{s}.kinds_default").await, 3);
}

#[tokio::test]
async fn postgres_waits_for_what_is_not_the_rows_fault() {
    let pg = PostgresTest::start("waits").await;
    let rows = one("a");
    let reason = unavailable(pg.sink.write(&rows).await);
    assert!(reason.contains("42P01"), "{reason}");
    pg.sink.create_missing(&[&KINDS]).await.unwrap();
    pg.execute("DROP TABLE {s}.kinds_default").await;
    let reason = unavailable(pg.sink.write(&rows).await);
    assert!(reason.contains("23514"), "{reason}");
    // What tells it from a broken rule, in any language.
    let insert = pg.sql("INSERT INTO {s}.kinds (id, at) VALUES ('a', '2024-01-02')");
    let error = sqlx::query(insert).execute(&pg.pool).await.unwrap_err();
    let error = error.as_database_error().unwrap();
    assert_eq!(error.code().as_deref(), Some("23514"), "{error:?}");
    assert_eq!(error.constraint(), None, "{error:?}");
    pg.sink.create_missing(&[&KINDS]).await.unwrap();
    pg.sink.write(&rows).await.unwrap();
    // A column that is not ours, for which no row has anything.
    pg.execute("ALTER TABLE {s}.kinds ADD more text NOT NULL DEFAULT 'x'")
        .await;
    pg.execute("ALTER TABLE {s}.kinds ALTER more DROP DEFAULT")
        .await;
    let reason = unavailable(pg.sink.write(&one("b")).await);
    assert!(reason.contains("23502"), "{reason}");
    pg.execute("ALTER TABLE {s}.kinds DROP more").await;
    // A column of another type: the table's fault.
    pg.execute("ALTER TABLE {s}.kinds ALTER i TYPE date USING NULL")
        .await;
    let reason = unavailable(pg.sink.write(&rows).await);
    assert!(reason.contains("42804"), "{reason}");

    let down = sink("postgres://u:hunter2@127.0.0.1:1/x", "x");
    let url = pg.server.postgres_url();
    let (server, _) = url.rsplit_once('/').unwrap();
    let nowhere = sink(&format!("{server}/no_such_database"), "x");
    let start = Instant::now();
    let (reason, upkeep, lost) =
        tokio::join!(down.write(&rows), down.maintain(), nowhere.write(&rows));
    let reason = unavailable(reason);
    assert!(!reason.contains("hunter2"), "{reason}");
    assert!(start.elapsed() < Duration::from_secs(15));
    assert!(upkeep.is_err());
    unavailable(lost);
}

#[tokio::test]
async fn postgres_comes_back_after_its_connections_were_killed() {
    let pg = PostgresTest::start("killed").await;
    pg.sink.create_missing(&[&KINDS]).await.unwrap();
    pg.sink.write(&one("a")).await.unwrap();
    let own = "pg_stat_activity WHERE application_name = 'holdfast' AND query LIKE '%{s}%'";
    assert!(pg.count(own).await > 0);
    pg.execute(&format!("SELECT pg_terminate_backend(pid) FROM {own}"))
        .await;
    let limit = Duration::from_secs(5);
    eventually("they are gone", limit, || async {
        pg.count(own).await == 0
    })
    .await;
    let mut tries = 0;
    while pg.sink.write(&one("b")).await.is_err() {
        tries += 1;
        assert!(tries < 5);
    }
    assert_eq!(pg.rows().await.len(), 2);
}

#[tokio::test]
async fn postgres_commits_durably_on_a_server_that_is_set_to_forget() {
    let pg = PostgresTest::start("durable").await;
    pg.sink.create_missing(&[&KINDS]).await.unwrap();
    pg.execute(
        "CREATE FUNCTION {s}.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         NEW.text = current_setting('synchronous_commit'); RETURN NEW; END $$",
    )
    .await;
    pg.execute("CREATE TRIGGER t BEFORE INSERT ON {s}.kinds FOR EACH ROW EXECUTE FUNCTION {s}.f()")
        .await;
    let url = pg.server.postgres_url();
    let forgetful = format!("{url}?options=-c%20synchronous_commit%3Doff");
    sink(&forgetful, "durable").write(&one("a")).await.unwrap();
    assert_eq!(pg.rows().await[0]["text"], "on");
}

#[tokio::test]
async fn postgres_keeps_the_last_version_of_a_row() {
    let pg = PostgresTest::start("versions").await;
    pg.sink.create_missing(&[&VERSIONS]).await.unwrap();
    for batch in versions() {
        pg.sink.write(&batch).await.unwrap();
    }
    let sql = pg.sql("SELECT id, state FROM {s}.versions ORDER BY id");
    let left: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&pg.pool).await.unwrap();
    assert_eq!(
        left,
        VERSIONS_LEFT.map(|(id, state)| (id.into(), state.into()))
    );
}
