//! Secrets from files and from systemd's credentials: they reach their servers, and no text.

use super::{EVENTS, LIMIT};
use crate::support::Scratch;
use crate::support::cli::holdfast;
use crate::support::collector::Collector;
use crate::support::judge::judge_clickhouse;
use crate::support::load::{self, Progress};
use crate::support::seed;
use crate::support::servers::{CLICKHOUSE_PASSWORD, Kind, Server};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_come_from_files_and_credentials_and_go_nowhere_else() {
    let scratch = Scratch::new("outward_secrets");
    let mut clickhouse = Server::new(Kind::ClickHouse, &scratch);
    clickhouse.start().await;
    let credentials = scratch.0.join("credentials");
    fs::create_dir(&credentials).unwrap();
    let password = credentials.join("clickhouse");
    fs::write(&password, format!("{CLICKHOUSE_PASSWORD}\n")).unwrap();
    let hook = scratch.0.join("hook");
    fs::write(&hook, "hunter2\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o644)).unwrap();
    let config = format!(
        "[clickhouse]\nurl = \"{}\"\ndatabase = \"holdfast\"\nuser = \"holdfast\"\npassword = {{ credential = \"clickhouse\" }}\n\
         [webhooks.branch]\nverify = \"secret\"\nsecrets = [{{ file = {hook:?} }}]\n",
        clickhouse.clickhouse_url()
    );
    let mut collector = Collector::new(&scratch, &config);
    let dir = credentials.display().to_string();
    collector.environment = vec![("CREDENTIALS_DIRECTORY".to_owned(), dir)];
    collector.start().await;
    let acked = load::run(&collector, seed(), EVENTS, 2, Progress::default()).await;
    judge_clickhouse(&clickhouse, &acked.rows, LIMIT)
        .await
        .assert_complete("ClickHouse");
    let config = collector.dir.join("holdfast.toml");
    let command = |verb: &str| holdfast(&format!("{verb} --config {}", config.display()));
    // Not in this process's environment: only the service has credentials.
    let checked = command("check-config");
    assert_eq!(checked.code, 78, "{checked:?}");
    let why = "clickhouse.password: credential \"clickhouse\": CREDENTIALS_DIRECTORY is not set";
    assert!(checked.err.contains(why), "{checked:?}");
    let status = command("status");
    assert_eq!(status.code, 0, "{status:?}");
    let text = fs::read_to_string(&config).unwrap();
    let in_file = text.replace(
        "credential = \"clickhouse\"",
        &format!("file = {password:?}"),
    );
    fs::write(&config, in_file).unwrap();
    let checked = command("check-config");
    assert_eq!(checked.code, 0, "{checked:?}");
    let warned = format!(
        "warning: webhooks.branch: {} may be read by everybody",
        hook.display()
    );
    assert!(checked.err.contains(&warned), "{checked:?}");
    // The same secrets, from elsewhere, are no change; others are, and are not told.
    let reload = || command("reload");
    let same = reload();
    assert!(!same.text().contains("password"), "{same:?}");
    fs::write(&password, "hunter3").unwrap();
    let changed = reload();
    assert!(
        changed.text().contains("clickhouse.password"),
        "{changed:?}"
    );
    fs::remove_file(&hook).unwrap();
    let missing = reload();
    assert_ne!(missing.code, 0, "{missing:?}");
    let all = format!("{missing:?}");
    assert!(
        all.contains("webhooks.branch.secrets[0]") && all.contains("hook: No such file"),
        "{all}"
    );
    assert!(collector.terminate().success());
    let said = [same, changed, missing, checked]
        .map(|said| format!("{said:?}"))
        .concat();
    let said = said + &collector.log();
    for secret in [CLICKHOUSE_PASSWORD, "hunter2", "hunter3"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}
