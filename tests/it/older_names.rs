//! A deployment of the older system: its `.env`, and nothing else, starts the collector on
//! its servers.

use crate::support::collector::{Collector, binary, send};
use crate::support::judge::{judge_postgres, query_clickhouse};
use crate::support::load::{self, Progress};
use crate::support::servers::{CLICKHOUSE_PASSWORD, CLICKHOUSE_USER, Stack};
use crate::support::{Scratch, eventually, root, seed};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const ARRIVAL: Duration = Duration::from_secs(120);

/// Passwords and names as they are in the field, with every mark that means something in
/// a URL.
const RABBIT_USER: &str = "field@edge";
const RABBIT_PASSWORD: &str = "p@:/?#[]%&= +x";
const RABBIT_VHOST: &str = "/field";
const POSTGRES_PASSWORD: &str = "s3cr:t/@pg";

fn env_file(stack: &Stack, grpc: u16, http: u16) -> String {
    let (mq, ch, pg) = (
        stack.rabbitmq.port,
        stack.clickhouse.port,
        stack.postgres.port,
    );
    let mut text = format!(
        "# event collector\nPORT={grpc}\nGIN_PORT={http}\nDEBUG=false\nLOG_LEVEL=1\nGOGC=250\n\
         \nRABBIT_USER={RABBIT_USER}\nRABBIT_PASSWORD='{RABBIT_PASSWORD}'\nRABBIT_HOST=127.0.0.1\n\
         RABBIT_PORT={mq}\nRABBIT_HEARTBEAT=10500\nRABBIT_VHOST={RABBIT_VHOST}\n\
         \nCLICKHOUSE_HOST=127.0.0.1\nCLICKHOUSE_PORT={ch}\nCLICKHOUSE_USER={CLICKHOUSE_USER}\n\
         CLICKHOUSE_PASSWORD=\"{CLICKHOUSE_PASSWORD}\"\nCLICKHOUSE_DB_NAMES=holdfast,field\n\
         CLICKHOUSE_DBNAME=field # the default\n\
         \nPOSTGRES_HOST=localhost\nPOSTGRES_PORT={pg}\nPOSTGRES_USER=holdfast\n\
         POSTGRES_PASSWORD='{POSTGRES_PASSWORD}'\nPOSTGRES_DBNAME=holdfast\n\
         POSTGRES_EVENT_SCHEMA=field_events\n\
         \nREDIS_CLUSTER_ADDRESSES=10.0.0.1:6379,10.0.0.2:6379\nREDIS_CLUSTER_PASSWORD=redis-pw\n\
         \nWEBENGAGE_API_KEY=we-key\nWEBENGAGE_URL=http://127.0.0.1:9/v1/accounts/x/events\n\
         WEBENGAGE_USER_URL=http://127.0.0.1:9/v1/accounts/x/users\nWEBENGAGE_BRAND_API_KEY=we-brand\n\
         WEBENGAGE_BRAND_URL=http://127.0.0.1:9/v1/accounts/y/events\n\
         WEBENGAGE_BRAND_USER_URL=http://127.0.0.1:9/v1/accounts/y/users\n\
         IDENTITY_URL=http://127.0.0.1:9/identity\nSOCIAL_STREAM_URL=http://127.0.0.1:9/social\n\
         CUSTOMER_APP_CLIENT_ID=c1\nHOST_APP_CLIENT_ID=c2\nGCC_HOST_APP_CLIENT_ID=c3\nGCC_BRAND_CLIENT_ID=c4\n\
         HMAC_SECRET=c2VjcmV0LW9mLWhtYWM=\nSCRAPE_LOG_BUFFER_LIMIT=500\n"
    );
    for (kind, exchange) in [
        ("", "grpc_event_v1.tx"),
        ("BRANCH_", "branch_event_v1.tx"),
        ("VIDOOLY_", "vidooly_event.tx"),
        ("WEBENGAGE_", "webengage_event.dx"),
        ("SHOPIFY_", "shopify_event.dx"),
        ("GRAPHY_", "graphy_event.tx"),
    ] {
        writeln!(
            text,
            "{kind}EVENT_WORKER_POOL_SIZE=5\n{kind}EVENT_BUFFERED_CHANNEL_SIZE=1000\n{kind}EVENT_EXCHANGE={exchange}"
        )
        .unwrap();
    }
    text
}

/// The names that the file sets, but for `ENV`, which picks the file.
fn names_of(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let mut names: BTreeSet<_> = lines.map(|(name, _)| name.to_owned()).collect();
    names.insert("ENV".to_owned());
    names
}

fn names_in_the_readme() -> BTreeSet<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Older environment names\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.flat_map(|row| row.split(" | ").next().unwrap().split(", "))
        .map(|name| name.trim_matches('`').to_owned())
        .collect()
}

fn check_config(dir: &Path, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = Command::new(binary())
        .arg("check-config")
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(dir)
        .output()
        .unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_env_file_of_the_field_starts_the_collector_on_its_servers() {
    let scratch = Scratch::new("older_names");
    let stack = Stack::start(&scratch).await;
    let mq = &stack.rabbitmq;
    mq.rabbitmqctl(&["add_user", RABBIT_USER, RABBIT_PASSWORD]);
    mq.rabbitmqctl(&["add_vhost", RABBIT_VHOST]);
    mq.rabbitmqctl(&[
        "set_permissions",
        "-p",
        RABBIT_VHOST,
        RABBIT_USER,
        ".*",
        ".*",
        ".*",
    ]);
    // Readers in the field find the tables by the role's path.
    let pool = crate::support::judge::postgres(&stack.postgres).await;
    sqlx::query("ALTER ROLE holdfast SET search_path = field_events")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;

    let mut collector = Collector::bare(&scratch);
    let text = env_file(&stack, collector.grpc, collector.http);
    assert_eq!(names_of(&text), names_in_the_readme(), "every name is set");
    std::fs::write(collector.dir.join(".env.production"), &text).unwrap();
    let env = ("ENV".to_owned(), "PRODUCTION".to_owned());
    collector.environment = vec![env];
    collector.start().await;

    let acked = load::run(&collector, seed(), 2_000, 4, Progress::default()).await;
    let branch = br#"{"id":"b-1","name":"install","timestamp":1732000000000}"#;
    let (status, said) = send(collector.http, "POST", "/branch/event/", branch).unwrap();
    assert_eq!(status, 200, "{said}");
    collector.delivered("rabbitmq", ARRIVAL).await;
    let verdict = judge_postgres(&stack.postgres, &acked.rows, ARRIVAL).await;
    verdict.assert_complete("Postgres");
    let count = |table: &'static str, rows: usize| {
        let (stack, sql) = (
            &stack,
            format!("SELECT count() AS n FROM field.{table} FINAL"),
        );
        async move {
            eventually(&format!("{rows} rows in {table}"), ARRIVAL, || async {
                let answer = query_clickhouse(&stack.clickhouse, &sql).await;
                answer.is_ok_and(|rows_of| rows_of[0]["n"] == rows)
            })
            .await;
        }
    };
    count("events", acked.rows.len()).await;
    count("branch_events", 1).await;
    let queues = mq.rabbitmqctl(&[
        "list_bindings",
        "-p",
        RABBIT_VHOST,
        "source_name",
        "destination_name",
    ]);
    for binding in [
        "grpc_event_v1.tx\tgrpc_clickhouse_event_q",
        "grpc_event_v1.tx\tgrpc_postgres_event_q",
        "branch_event_v1.tx\tbranch_event_q",
        "webengage_event.dx\twebengage_event_q",
    ] {
        assert!(queues.contains(binding), "{binding}: {queues}");
    }
    let data = collector.dir.join("holdfast-data");
    assert!(data.is_dir(), "the default place");
    assert!(collector.terminate().success());
    let log = collector.log();
    assert!(log.contains("variables read from .env.production"), "{log}");
    let line = log.lines().find(|line| line.contains("that took effect"));
    let line = line.expect("names that took effect");
    for name in ["RABBIT_VHOST", "BRANCH_EVENT_EXCHANGE", "POSTGRES_PASSWORD"] {
        assert!(line.contains(name), "{line}");
    }
    assert!(
        !line.contains("REDIS") && !line.contains("POOL_SIZE"),
        "{line}"
    );

    let (code, said) = check_config(&collector.dir, &[("ENV", "PRODUCTION")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("that took effect: PORT, "), "{said}");
    assert!(said.contains("without effect: DEBUG: "), "{said}");
    assert!(said.contains("through RabbitMQ to clickhouse, postgres, webengage"));
    for secret in [RABBIT_PASSWORD, POSTGRES_PASSWORD, CLICKHOUSE_PASSWORD] {
        let is_shown = said.contains(secret) || log.contains(secret);
        assert!(!is_shown, "{said}\n{log}");
    }
}

#[test]
fn variables_may_come_without_a_file_and_a_broken_file_is_no_start() {
    let scratch = Scratch::new("older_names_check");
    let dir = &scratch.0;
    let variables = [("ENV", "STAGE"), ("RABBIT_HOST", "mq"), ("LOG_LEVEL", "2")];
    let (code, said) = check_config(dir, &variables);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ENV names .env.stage, which is not there"));
    assert!(said.contains("that took effect: LOG_LEVEL, RABBIT_HOST\n"));
    assert!(said.contains("through RabbitMQ"), "{said}");
    std::fs::write(dir.join(".env.stage"), "PORT=x\nnot hunter2\n").unwrap();
    let (code, said) = check_config(dir, &variables);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("2 configuration error(s)"), "{said}");
    assert!(said.contains(".env.stage: line 2: ") && said.contains("PORT: is no port"));
    assert!(!said.contains("hunter2"), "{said}");
    // Another value of ENV picks another file, here none.
    let (code, said) = check_config(dir, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("directly to sqlite"), "{said}");
}
