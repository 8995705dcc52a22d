//! The two forms of ClickHouse's rows: binary where the table allows it, and JSON. Whatever
//! form a batch takes, the table holds the same afterwards; a table that was changed under
//! us, or a server that does not take binary rows, costs no row.

use super::clickhouse::options;
use super::refused;
use super::rows::batch;
use super::tap::Tap;
use crate::support::http_client;
use crate::support::judge::query_clickhouse;
use crate::support::servers::{Kind, Server};
use crate::support::shared::Shared;
use holdfast::sink::clickhouse::{ClickHouse, Options};
use holdfast::sink::schema::{Column, ColumnType, Partition, Table};
use holdfast::sink::{Batch, Sink, Value};
use serde_json::Value as Json;
use tokio::sync::{Mutex, MutexGuard};

const fn column(name: &'static str, kind: ColumnType) -> Column {
    Column {
        name,
        kind,
        nullable: true,
        max_chars: None,
        comment: "",
    }
}

/// Its columns have the types of `TYPES`.
static FORMS: Table = Table {
    name: "forms",
    columns: &[
        column("id", ColumnType::Text),
        column("way", ColumnType::Text),
        column("low", ColumnType::Text),
        column("maybe", ColumnType::Text),
        column("tiny", ColumnType::Int64),
        column("int", ColumnType::Int64),
        column("big", ColumnType::Int64),
        column("unsigned", ColumnType::UInt64),
        column("small", ColumnType::UInt32),
        column("flag", ColumnType::Flag),
        column("is", ColumnType::Flag),
        column("f", ColumnType::Float64),
        column("maybe_f", ColumnType::Float64),
        column("seconds", ColumnType::TimeMs),
        column("ms", ColumnType::TimeMs),
        column("us", ColumnType::TimeMs),
        column("ns", ColumnType::TimeMs),
        column("maybe_at", ColumnType::TimeMs),
        column("j", ColumnType::Json),
        column("maybe_j", ColumnType::Json),
        column("typed_j", ColumnType::Json),
        column("text_j", ColumnType::Json),
        column("list", ColumnType::AnyJson),
    ],
    key: &["id"],
    order_by: &["id"],
    version: None,
    partition: Partition::None,
    comment: "",
};

const TYPES: &str = "id String, way String, low LowCardinality(String), maybe LowCardinality(Nullable(String)), \
    tiny Int8, int Nullable(Int32), big Int64, unsigned UInt64, small UInt32, flag UInt8, is Bool, \
    f Float64, maybe_f Nullable(Float64), \
    seconds DateTime('Asia/Kolkata'), ms DateTime64(3, 'UTC'), us DateTime64(6, 'America/New_York'), \
    ns DateTime64(9), maybe_at Nullable(DateTime64(3)), \
    j JSON, maybe_j Nullable(JSON), typed_j JSON(n String, at DateTime64(3, 'UTC'), d Date), text_j String, \
    list String DEFAULT concat('[', id, ']'), \
    seven UInt8 DEFAULT 7, shout String DEFAULT concat(id, '!'), made UInt32 MATERIALIZED small + 1";

/// 2024-01-02 03:04:05.678
const AT: i64 = 1_704_164_645_678;
const OBJECT: &str = r#"{"a.b":1,"a":{"b":2,"c.d":{"e":[1,2.5,"x",null,{"f.g":true}]}},"big":9223372036854775807,"ubig":18446744073709551615,"huge":123456789012345678901234567890,"f":0.30000000000000004,"tiny":5e-324,"date":"2024-01-02","at":"2024-01-02T03:04:05.678Z","s":"q\" \\ \n é \u0000 🦀","empty":"","":"no name","on":true,"null":null,"none":{},"list":[]}"#;

fn row(id: &str) -> Vec<Value> {
    let text = |text: &str| Value::Text(text.into());
    let json = |text: &str| Value::Json(text.into());
    vec![
        text(id),
        text("x"),
        text("low"),
        text("maybe"),
        Value::Int(-128),
        Value::Int(i32::MIN.into()),
        Value::Int(i64::MIN),
        Value::UInt(u64::MAX),
        Value::UInt(u32::MAX.into()),
        Value::Int(1),
        Value::Int(1),
        Value::Float(0.300_000_000_000_000_04),
        Value::Null,
        Value::TimeMs(AT),
        Value::TimeMs(AT),
        Value::TimeMs(AT),
        Value::TimeMs(AT),
        Value::Null,
        json(OBJECT),
        Value::Null,
        json(r#"{"n":12,"at":"2024-01-02T03:04:05.678Z","d":"2024-01-02","x":1}"#),
        json(OBJECT),
        json(" [1, {\"a\":null}] "),
    ]
}

fn with(id: &str, changes: &[(&str, Value)]) -> Vec<Value> {
    let mut values = row(id);
    for (name, value) in changes {
        let at = FORMS.columns.iter().position(|c| c.name == *name);
        values[at.unwrap()] = value.clone();
    }
    values
}

/// Rows of which all values have a binary form.
fn plain() -> Vec<Vec<Value>> {
    let mut rows = vec![row("plain")];
    for (n, text) in ["", "NULL", "\\N", "a\0b", "\u{feff}é漢🦀\"'\\\r\n\t", "1"]
        .into_iter()
        .enumerate()
    {
        let text = || Value::Text(text.into());
        let changes = [("low", text()), ("maybe", text())];
        rows.push(with(&format!("text {n}"), &changes));
    }
    rows.push(with("long", &[("low", Value::Text("é".repeat(100_000)))]));
    for (n, float) in [
        0.0,
        -0.0,
        1e300,
        -1.797_693_134_862_315_7e308,
        5e-324,
        9_007_199_254_740_993.0,
        1.0 / 3.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ]
    .into_iter()
    .enumerate()
    {
        let float = || Value::Float(float);
        rows.push(with(
            &format!("f {n}"),
            &[("f", float()), ("maybe_f", float())],
        ));
    }
    // The first and last milliseconds that we write, of other types' ranges, and around 0.
    for (n, ms) in [
        -2_208_988_800_000,
        -2_208_988_799_999,
        -1_001,
        -1_000,
        -999,
        -1,
        0,
        1,
        999,
        2_147_483_648_000,
        4_294_967_295_999,
        4_294_967_296_000,
        9_223_372_036_854,
        10_413_791_999_999,
    ]
    .into_iter()
    .enumerate()
    {
        let at = || Value::TimeMs(ms);
        let mut changes = vec![("ms", at()), ("us", at()), ("maybe_at", at())];
        if ms <= 9_223_372_036_854 {
            changes.push(("ns", at()));
        }
        if (0..4_294_967_296_000).contains(&ms) {
            changes.push(("seconds", at()));
        }
        rows.push(with(&format!("at {n}"), &changes));
    }
    for (n, json) in ["{}", "\n {\"a\" : 1 }\t", r#"{"a":{"a":{"a":[[],[{}]]}}}"#]
        .into_iter()
        .enumerate()
    {
        let json = || Value::Json(json.into());
        let changes = [
            ("j", json()),
            ("maybe_j", json()),
            ("text_j", json()),
            ("list", json()),
        ];
        rows.push(with(&format!("json {n}"), &changes));
    }
    let ends = [
        ("tiny", Value::Int(127)),
        ("int", Value::Null),
        ("big", Value::UInt(i64::MAX as u64)),
        ("unsigned", Value::Int(0)),
        ("flag", Value::UInt(255)),
        ("is", Value::Int(0)),
        ("maybe", Value::Null),
    ];
    rows.push(with("ends", &ends));
    rows
}

/// Values of which only JSON says what they become, or that it refuses.
fn odd() -> Vec<(&'static str, Value)> {
    let json = |text: &str| Value::Json(text.into());
    vec![
        ("low", Value::Null),
        ("list", Value::Null),
        ("f", Value::Null),
        ("j", Value::Null),
        ("ms", Value::Null),
        ("seconds", Value::Null),
        ("tiny", Value::Int(128)),
        ("int", Value::Int(1 << 31)),
        ("big", Value::UInt(1 << 63)),
        ("unsigned", Value::Int(-1)),
        ("small", Value::Int(-1)),
        ("small", Value::Int(1 << 32)),
        ("flag", Value::UInt(256)),
        ("is", Value::UInt(2)),
        ("seconds", Value::TimeMs(-1)),
        ("seconds", Value::TimeMs(-1_000)),
        ("seconds", Value::TimeMs(4_294_967_296_000)),
        ("ns", Value::TimeMs(9_223_372_036_855)),
        ("ns", Value::TimeMs(10_413_791_999_999)),
        ("ms", Value::TimeMs(10_413_792_000_000)),
        ("ms", Value::TimeMs(i64::MIN)),
        ("j", json("null")),
        ("maybe_j", json("null")),
        ("j", json("[1]")),
        ("j", json("1")),
        ("j", json("\"{}\"")),
        ("j", json("{")),
        ("j", json(r#"{"a":1,"a":2}"#)),
        ("j", json(r#"{"a":"\ud800"}"#)),
        ("text_j", json("{} {}")),
        ("list", json("null")),
        ("typed_j", json(r#"{"at":"never"}"#)),
        ("typed_j", json(r#"{"n":{"x":1}}"#)),
    ]
}

/// A way to the server that tells the form of each insert.
struct Tapped(Tap);

impl Tapped {
    async fn new(server: &Server) -> Self {
        Self(Tap::new(server).await)
    }

    fn sink(&self, server: &Server, database: &str) -> ClickHouse {
        ClickHouse::new(Options {
            url: format!("http://127.0.0.1:{}", self.0.port),
            ..options(server, database)
        })
        .unwrap()
    }

    /// The forms of the inserts since the last call.
    fn forms(&self) -> Vec<&'static str> {
        let turns = self.0.turns().into_iter();
        let inserts = |turn: &String| turn.contains("insert_deduplication_token");
        let turns = turns.inspect(move |turn| {
            // Rows are where they belong when the server answers.
            let mut settings = ["async_insert=0", "distributed_foreground_insert=1"].iter();
            assert!(
                !inserts(turn) || settings.all(|s| turn.contains(s)),
                "{turn}"
            );
        });
        let form = |turn: String| [BINARY, JSON].into_iter().find(|form| turn.contains(form));
        turns.filter_map(form).collect()
    }
}

const BINARY: &str = "RowBinaryWithNamesAndTypes";
const JSON: &str = "JSONEachRow";

/// For one test at a time: a fault that one asks for is for its own inserts.
async fn server() -> (&'static Server, MutexGuard<'static, ()>) {
    static SERVER: Shared = Shared::new(Kind::ClickHouse, "sinks_clickhouse_forms");
    static ONE: Mutex<()> = Mutex::const_new(());
    let one = ONE.lock().await;
    (SERVER.get().await, one)
}

async fn query(server: &Server, sql: &str) -> Vec<Json> {
    query_clickhouse(server, sql).await.unwrap()
}

/// Makes `forms` in a database; `way` is the type of that column.
async fn make(server: &Server, database: &str, way: &str) {
    query(server, &format!("CREATE DATABASE `{database}`")).await;
    let types = TYPES.replace("way String", &format!("way {way}"));
    let sql = format!("CREATE TABLE `{database}`.forms ({types}) ENGINE = MergeTree ORDER BY id");
    query(server, &sql).await;
}

/// All that the table holds, to the letter.
async fn held(server: &Server, database: &str) -> Vec<Json> {
    let columns = FORMS.columns.iter().map(|column| match column.name {
        "j" | "maybe_j" | "typed_j" => format!(
            "toString({0}), JSONAllPathsWithTypes({1})",
            column.name,
            if column.name == "maybe_j" {
                "assumeNotNull(maybe_j)"
            } else {
                column.name
            }
        ),
        "f" | "maybe_f" => format!(
            "reinterpretAsUInt64(assumeNotNull({0})), isNull({0})",
            column.name
        ),
        "seconds" | "ms" | "us" | "ns" => {
            format!("reinterpretAsInt64({0}), toString({0})", column.name)
        }
        name => format!("toString({name}), isNull({name})"),
    });
    let columns: Vec<_> = columns.collect();
    query(
        server,
        &format!(
            "SELECT {}, seven, shout, made FROM `{database}`.forms ORDER BY id",
            columns.join(", ")
        ),
    )
    .await
}

fn at(database: &str, rows: Vec<Vec<Value>>) -> Batch {
    Batch {
        namespace: Some(database.to_owned()),
        ..batch(&FORMS, database, rows)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_takes_both_forms_for_the_same() {
    let (server, _one) = server().await;
    let tapped = Tapped::new(server).await;
    let sink = tapped.sink(server, "same_binary");
    make(server, "same_binary", "String").await;
    make(server, "same_json", "FixedString(1)").await;
    for (database, form) in [("same_binary", BINARY), ("same_json", JSON)] {
        sink.write(&at(database, plain())).await.unwrap();
        assert_eq!(tapped.forms(), [form]);
    }
    let [binary, json] = [
        held(server, "same_binary").await,
        held(server, "same_json").await,
    ];
    assert_eq!(binary.len(), plain().len());
    for (binary, json) in binary.iter().zip(&json) {
        assert_eq!(binary, json);
    }
    for (n, (column, value)) in odd().into_iter().enumerate() {
        let odd = |database: &str| {
            let id = format!("odd {n}");
            at(
                database,
                vec![row("good"), with(&id, &[(column, value.clone())])],
            )
        };
        let [binary, json] = [
            sink.write(&odd("same_binary")).await,
            sink.write(&odd("same_json")).await,
        ];
        let [binary, json] = [binary, json].map(|result| match result {
            Ok(()) => None,
            refusal => Some(refused(refusal)),
        });
        assert_eq!(binary, json, "{column}: {value:?}");
        // The server alone would store another number.
        let is_beyond = matches!(value, Value::Int(_) | Value::UInt(_));
        assert!(!is_beyond || binary.is_some(), "{column}: {value:?}");
    }
    let [binary, json] = [
        held(server, "same_binary").await,
        held(server, "same_json").await,
    ];
    assert!(binary.len() > plain().len(), "some are taken");
    assert_eq!(binary.len(), json.len());
    for (binary, json) in binary.iter().zip(&json) {
        assert_eq!(binary, json);
    }
    // The odd ones changed nothing for those after them.
    tapped.forms();
    sink.write(&at("same_binary", vec![row("last")]))
        .await
        .unwrap();
    assert_eq!(tapped.forms(), [BINARY]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_tables_that_change_under_us_take_rows_for_what_they_are() {
    let (server, _one) = server().await;
    let tapped = Tapped::new(server).await;
    let sink = tapped.sink(server, "changing");
    make(server, "changing", "String").await;
    let change = async |what: &str| {
        query(server, &format!("ALTER TABLE `changing`.forms {what}")).await;
    };
    sink.write(&at("changing", vec![row("a")])).await.unwrap();
    assert_eq!(tapped.forms(), [BINARY]);
    // The same number of bytes, and other meanings.
    change("MODIFY COLUMN ms DateTime64(6, 'UTC'), MODIFY COLUMN us DateTime64(3, 'UTC')").await;
    change("MODIFY COLUMN big UInt64, MODIFY COLUMN unsigned Int64").await;
    let values = [("big", Value::Int(1)), ("unsigned", Value::UInt(2))];
    let changed = with("b", &values);
    sink.write(&at("changing", vec![changed.clone()]))
        .await
        .unwrap();
    assert_eq!(tapped.forms(), [BINARY, JSON], "the server compares types");
    sink.write(&at("changing", vec![changed])).await.unwrap();
    assert_eq!(tapped.forms(), [BINARY], "the table was looked at anew");
    let rows = query(
        server,
        "SELECT DISTINCT toUnixTimestamp64Milli(toDateTime64(ms, 3)) AS ms, \
         toUnixTimestamp64Milli(toDateTime64(us, 3)) AS us, big, unsigned FROM `changing`.forms WHERE id = 'b'",
    )
    .await;
    let wanted = serde_json::json!([{"ms": AT, "us": AT, "big": 1, "unsigned": 2}]);
    assert_eq!(Json::from(rows), wanted);
    // To a type that only JSON fits.
    change("MODIFY COLUMN tiny Float32").await;
    for id in ["c", "d"] {
        let batch = at("changing", vec![with(id, &values)]);
        sink.write(&batch).await.unwrap();
    }
    assert_eq!(tapped.forms(), [BINARY, JSON, JSON]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_that_takes_no_binary_rows_gets_json() {
    let (server, _one) = server().await;
    let tapped = Tapped::new(server).await;
    let sink = tapped.sink(server, "json_alone");
    make(server, "json_alone", "String").await;
    let client = http_client();
    let fault = async |mode: &str| {
        let url = format!(
            "{}/__fault?mode={mode}&only=insert&count=1",
            server.clickhouse_url()
        );
        assert!(client.post(url).send().await.unwrap().status().is_success());
    };
    let write = async |id: &str| sink.write(&at("json_alone", vec![row(id)])).await;
    // The row's fault, the format's, not there: of a server that knows better each time.
    fault("error:33").await;
    write("a").await.unwrap();
    assert_eq!(tapped.forms(), [BINARY, JSON]);
    write("b").await.unwrap();
    assert_eq!(tapped.forms(), [JSON], "it is not asked twice");
    let table = "`json_alone`.forms";
    query(
        server,
        &format!("ALTER TABLE {table} ADD COLUMN more UInt8"),
    )
    .await;
    fault("error:999").await;
    assert!(write("c").await.unwrap_err().is_retryable());
    write("c").await.unwrap();
    assert_eq!(tapped.forms(), [JSON, BINARY], "the table is another one");
    // What says nothing of the rows is waited for, and not sent twice.
    fault("error:241").await;
    assert!(write("d").await.unwrap_err().is_retryable());
    assert_eq!(tapped.forms(), [BINARY]);
    write("d").await.unwrap();
    let rows = query(server, &format!("SELECT count() AS n FROM {table}")).await;
    assert_eq!(rows[0]["n"], 4);
}
