//! Changing: only with `--apply`, only by the holder of the lock, and never without
//! a line in the audit.

use super::{Site, way};
use serde_json::json;
use std::os::fd::AsRawFd as _;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_made_by_apply_alone_and_leaves_its_line() {
    let mut site = Site::start("operator_changes").await;
    site.send_requests("a", 30).await;

    // By the running service.
    let dry = site.ask("journal skip --way clickhouse --count 4 --json");
    assert_eq!(dry.code, 0, "{dry:?}");
    assert_eq!(dry.json()["applied"], false);
    let moves = json!([{"way": "clickhouse", "from": 1, "to": 5,
                        "passed_over": [{"first": 1, "end": 5}],
                        "events": {"LaunchEvent": 4, "TestEvent": 8}}]);
    assert_eq!(dry.json()["moves"], moves);
    assert!(site.audit().is_empty());
    let done = site.ask("journal skip --way clickhouse --count 4 --apply --json");
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.json()["applied"], true);
    assert_eq!(done.json()["moves"], moves);
    let status = site.ask("status --json").json();
    let clickhouse = way(&status, "clickhouse");
    assert_eq!(clickhouse["next_seq"], 5);
    assert_eq!(clickhouse["adds_up"], true);
    assert_eq!(clickhouse["events"]["TestEvent"]["purged"], 8);
    assert_eq!(clickhouse["events"]["TestEvent"]["pending"], 52);
    assert_eq!(way(&status, "sqlite")["events"]["TestEvent"]["purged"], 0);
    let lines = site.audit();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["verb"], "skip");
    assert_eq!(lines[0]["args"]["way"], "clickhouse");
    assert_eq!(lines[0]["by"]["uid"], json!(uid()));
    assert!(lines[0]["by"]["pid"].is_u64());
    assert_eq!(lines[0]["done"], moves);
    assert_eq!(lines[0]["result"], "applied");

    for words in [
        "journal skip --way nobody --count 1 --apply",
        "journal skip --way clickhouse --to 99 --apply",
        "journal purge --to 99 --apply",
        "journal purge --quarantine 1 --apply",
    ] {
        let said = site.ask(words);
        assert_eq!(said.code, 1, "{words}: {said:?}");
        assert!(said.err.starts_with("holdfast: "), "{said:?}");
    }
    assert_eq!(site.audit().len(), 1);

    // Without a service, by the command itself.
    assert!(site.collector.terminate().success());
    let said = site.look("journal purge --to 11 --apply");
    assert_eq!(said.code, 0, "{said:?}");
    let text = said.fits();
    assert!(text.contains("passed over sequences 5 to 10"), "{text}");
    assert!(!text.contains("sqlite"), "{text}");
    let lines = site.audit();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["verb"], "purge");
    assert_eq!(
        lines[1]["done"][0]["events"],
        json!({"LaunchEvent": 6, "TestEvent": 12})
    );
    let said = site.look("journal purge --to 11 --apply");
    assert!(said.err.contains("nothing to do"), "{said:?}");

    // It holds over the next start, in the accounts as well.
    site.collector.start().await;
    let status = site.ask("status --json").json();
    let clickhouse = way(&status, "clickhouse");
    assert_eq!(clickhouse["next_seq"], 11);
    assert_eq!(clickhouse["events"]["TestEvent"]["pending"], 40);
    assert_eq!(clickhouse["adds_up"], true);
    assert_eq!(clickhouse["events"]["TestEvent"]["purged"], 20);
    assert!(site.collector.terminate().success());

    // With nothing left on the disk, the numbers still go on.
    let said = site.look("journal purge --to 31 --apply");
    assert_eq!(said.code, 0, "{said:?}");
    let list = site.look("journal ls --json").json();
    for generation in list["generations"].as_array().unwrap() {
        assert_eq!(
            generation["records"], 0,
            "passed generations are deleted: {list:#}"
        );
    }
    let status = site.look("status --json").json();
    assert_eq!(status["next_seq"], 31);
    assert_eq!(status["oldest_seq"], 31);
    site.collector.start().await;
    site.send_requests("b", 1).await;
    let status = site.ask("status --json").json();
    assert_eq!(status["next_seq"], 32);
    let clickhouse = way(&status, "clickhouse");
    assert_eq!(clickhouse["adds_up"], true);
    assert_eq!(clickhouse["events"]["TestEvent"]["accepted"], 62);
    assert_eq!(clickhouse["events"]["TestEvent"]["purged"], 60);

    // A caller that never ends its request does not hold up a stop for long.
    let mut caller = caller(&site).await;
    caller.write_all(b"GET /sta").await.unwrap();
    let started = std::time::Instant::now();
    assert!(site.collector.terminate().success());
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    let mut answer = Vec::new();
    // Closed or reset, but at an end.
    drop(caller.read_to_end(&mut answer).await);
    assert!(answer.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_changes_the_journal_behind_a_running_service() {
    let mut site = Site::start("operator_behind").await;
    site.send_requests("a", 5).await;
    // Without its socket a service cannot be asked, but it still has the lock.
    std::fs::remove_file(site.data_dir().join("admin.sock")).unwrap();
    for words in [
        "journal skip --way clickhouse --count 1 --apply",
        "journal purge --to 3 --apply",
        "journal purge --quarantine 1 --apply",
    ] {
        let said = site.look(words);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("lock"), "{said:?}");
    }
    assert!(site.audit().is_empty());
    let said = site.ask("status --json");
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(said.json()["state"], "no_answer");
    assert_eq!(way(&said.json(), "clickhouse")["next_seq"], 1);
    assert!(site.collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_audit_nothing_is_applied() {
    let mut site = Site::start("operator_audit").await;
    site.send_requests("a", 5).await;
    let file = site.data_dir().join("audit.ndjson");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let refused = |site: &Site| {
        let said = site.look("journal skip --way clickhouse --count 1 --apply");
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("the audit cannot be written"), "{said:?}");
        let list = site.look("journal ls --json").json();
        let ways = list["ways"].as_array().unwrap();
        assert!(
            ways.contains(&json!({"way": "clickhouse", "next_seq": 1})),
            "{list}"
        );
    };
    refused(&site);
    assert!(site.collector.terminate().success());
    refused(&site);
}

async fn caller(site: &Site) -> tokio::net::UnixStream {
    let dir = std::fs::File::open(site.data_dir()).unwrap();
    let path = format!("/proc/self/fd/{}/admin.sock", dir.as_raw_fd());
    tokio::net::UnixStream::connect(path).await.unwrap()
}

fn uid() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid()
}
