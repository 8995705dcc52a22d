//! Damage: it is found, shown in exact ranges, accounted for, and put away by an
//! operator once nobody needs the rest.

use super::{Site, way};
use crate::support::eventually;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_found_shown_and_put_away() {
    let mut site = Site::start("operator_damage").await;
    // Each call is answered before the next: three syncs, so three blocks or more.
    for prefix in ["first", "second", "third"] {
        site.send_requests(prefix, 10).await;
    }
    assert!(site.collector.terminate().success());
    let store = "generations/gen-000000000001/store/db";
    let mut bytes = std::fs::read(site.data_dir().join(store)).unwrap();
    let mut hit = 0;
    let needle = b"second-4-1";
    for at in 0..bytes.len() - needle.len() {
        if bytes[at..].starts_with(needle) {
            bytes[at] ^= 1;
            hit += 1;
        }
    }
    assert!(hit > 0, "the damage hits nothing");
    std::fs::write(site.data_dir().join(store), bytes).unwrap();

    // Without a service.
    let said = site.look("journal verify --json");
    assert_eq!(said.code, 1, "{said:?}");
    let report = said.json();
    let losses = report["losses"].as_array().unwrap();
    assert_eq!(losses.len(), 1, "{report:#}");
    let seq = |key: &str| losses[0][key].as_u64().unwrap();
    let (first, end) = (seq("first"), seq("end"));
    assert!(
        10 < first && first <= 15 && 15 < end && end <= 21,
        "{report:#}"
    );
    assert_eq!(report["records"], 30 - (end - first));
    let said = site.look("journal verify");
    assert_eq!(said.code, 1);
    let line = format!("sequences {first} to {} of generation 1", end - 1);
    assert!(said.fits().contains(&line), "{said:?}");
    let said = site.look("journal export");
    assert_eq!(said.code, 1);
    assert!(said.err.contains(&line), "{said:?}");
    assert_eq!(said.lines().len() as u64, 30 - (end - first));
    let said = site.look("journal peek --count 30");
    assert_eq!(said.code, 1);
    assert!(said.err.contains(&line), "{said:?}");

    // The service sets the generation aside, serves the rest of it, and says so.
    site.collector.start().await;
    let state = |site: &Site| site.look("journal ls --json").json()["generations"][0].clone();
    eventually("it is in quarantine", Duration::from_secs(20), || async {
        state(&site)["state"] == "quarantined"
    })
    .await;
    assert_eq!(state(&site)["needed_by"], json!(["clickhouse"]));
    let said = site.ask("status --json");
    assert_eq!(said.code, 1, "a loss is not all is well: {said:?}");
    let status = said.json();
    assert_eq!(status["state"], "serving");
    assert_eq!(
        status["losses"],
        json!([{"generation": 1, "first": first, "end": end}])
    );
    assert_eq!(way(&status, "clickhouse")["adds_up"], true);
    assert!(site.ask("status").fits().contains(&line));

    // It is not deleted while some way out needs its rest.
    for words in [
        "journal purge --quarantine 1",
        "journal purge --quarantine 1 --apply",
    ] {
        let said = site.ask(words);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(
            said.err.contains("still has records to deliver"),
            "{said:?}"
        );
    }
    let said = site.ask("journal skip --way clickhouse --to 31 --apply --json");
    assert_eq!(said.code, 0, "{said:?}");
    let skipped = &said.json()["moves"][0]["events"]["LaunchEvent"];
    assert_eq!(*skipped, json!(30 - (end - first)));
    let dir = site.data_dir().join("quarantine/gen-000000000001");
    let gone = || async {
        let said = site.ask("journal purge --quarantine 1");
        said.code == 0 && said.fits().contains("would delete generation 1")
    };
    eventually("nobody needs it", Duration::from_secs(20), gone).await;
    assert!(dir.exists(), "a dry run has deleted it");
    let said = site.ask("journal purge --quarantine 1 --apply");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!dir.exists());
    assert_eq!(site.audit().last().unwrap()["args"]["quarantine"], 1);

    // In the accounts the loss stays.
    let lost = |status: &serde_json::Value| {
        let clickhouse = way(status, "clickhouse");
        assert_eq!(clickhouse["adds_up"], true, "{clickhouse:#}");
        assert_eq!(clickhouse["pending_events"], 0, "{clickhouse:#}");
        clickhouse["events"]["LaunchEvent"]["lost"].clone()
    };
    let accounted = || async { lost(&site.ask("status --json").json()) == json!(end - first) };
    eventually(
        "the loss is in the accounts",
        Duration::from_secs(20),
        accounted,
    )
    .await;
    site.collector.kill();
    site.collector.start().await;
    assert_eq!(lost(&site.ask("status --json").json()), json!(end - first));
    assert!(site.collector.terminate().success());
}
