//! Looking: what is shown is so, it fits the terminal, and it changes nothing.

use super::{ARRIVAL, Site, content, holdfast, way};
use crate::support::collector::send;
use crate::support::{Scratch, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_what_waits_and_whether_it_adds_up() {
    let mut site = Site::start("operator_status").await;
    site.send_requests("a", 20).await;
    site.send_unknown().await;

    let said = site.ask("status --json");
    assert_eq!(said.code, 0, "{said:?}");
    let status = said.json();
    assert_eq!(status["state"], "serving");
    assert_eq!(status["pid"], site.collector.pid());
    assert_eq!(status["next_seq"], 22);
    assert_eq!(status["losses"], json!([]));
    let accepted = json!({"LaunchEvent": 21, "TestEvent": 40, "Unknown": 1});
    assert_eq!(status["ledger"]["accepted"], accepted);
    let (done, waits) = (way(&status, "sqlite"), way(&status, "clickhouse"));
    assert_eq!(
        (&done["next_seq"], &waits["next_seq"]),
        (&json!(22), &json!(1))
    );
    assert_eq!(
        (&done["adds_up"], &waits["adds_up"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(done["pending_events"], 0);
    assert_eq!(waits["pending_events"], 62);
    assert_eq!(waits["pending_requests"], 21);
    assert!(done["oldest_pending_age_seconds"].is_null());
    assert!(waits["oldest_pending_age_seconds"].is_u64());
    let account = |way: &serde_json::Value| way["events"]["TestEvent"].clone();
    let expected = |delivered: u64, pending: u64| {
        json!({"accepted": 40, "delivered": delivered, "pending": pending,
               "dead_lettered": 0, "purged": 0, "lost": 0})
    };
    assert_eq!(account(done), expected(40, 0));
    assert_eq!(account(waits), expected(0, 40));
    let text = site.ask("status").fits();
    assert!(
        text.contains("serving") && text.contains("adds up"),
        "{text}"
    );

    // The same in the metrics, the unknown type under one bounded name.
    for (series, value) in [
        ("holdfast_ledger_accepted_events{event=\"TestEvent\"}", 40.0),
        ("holdfast_ledger_accepted_events{event=\"Unknown\"}", 1.0),
        (
            "holdfast_ledger_events{event=\"TestEvent\",state=\"pending\",way=\"clickhouse\"}",
            40.0,
        ),
        (
            "holdfast_ledger_events{event=\"TestEvent\",state=\"delivered\",way=\"sqlite\"}",
            40.0,
        ),
        ("holdfast_oldest_pending_age_seconds{way=\"sqlite\"}", 0.0),
    ] {
        assert_eq!(site.collector.metric(series), value, "{series}");
    }

    // Out of service, by an operator.
    let http = site.collector.http;
    assert_eq!(
        send(http, "PUT", "/heartbeat/?beat=false", b"").unwrap().0,
        200
    );
    let said = site.ask("status");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.fits().contains("NOT SERVING"), "{said:?}");
    send(http, "PUT", "/heartbeat/?beat=true", b"").unwrap();

    // Killed: the directory tells the rest.
    site.shows(22).await;
    site.collector.kill();
    let said = site.ask("status --json");
    assert_eq!(said.code, 3, "{said:?}");
    let status = said.json();
    assert_eq!(status["state"], "not_running");
    assert_eq!(way(&status, "clickhouse")["pending_events"], 62);
    assert_eq!(way(&status, "sqlite")["pending_events"], 0);
    let said = site.look("status");
    assert_eq!(said.code, 3);
    assert!(said.fits().contains("NOT RUNNING"), "{said:?}");

    // The socket of the killed process is no obstacle.
    site.collector.start().await;
    let said = site.ask("status --json");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(way(&said.json(), "clickhouse")["adds_up"], true);
    assert!(site.collector.terminate().success());
    assert!(!site.data_dir().join("admin.sock").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_changes_nothing_and_needs_no_service() {
    let mut site = Site::start("operator_look").await;
    site.send_requests("a", 30).await;
    site.send_unknown().await;
    let looks = |site: &Site| {
        let said = site.look("journal ls");
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.fits().contains("1-31"), "{said:?}");
        let list = site.look("journal ls --json").json();
        let generations = list["generations"].as_array().unwrap();
        let of = |key: &str| -> u64 { generations.iter().map(|g| g[key].as_u64().unwrap()).sum() };
        assert_eq!((of("records"), of("events")), (31, 92));
        assert_eq!(generations[0]["needed_by"], json!(["clickhouse"]));

        let said = site.look("journal verify");
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.fits().contains("nothing"), "{said:?}");
        let report = site.look("journal verify --json").json();
        assert_eq!(report["records"], 31);
        assert_eq!(report["losses"], json!([]));

        let peeked = site.look("journal peek --count 5").lines();
        let seqs: Vec<_> = peeked.iter().map(|record| &record["seq"]).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5]);
        assert_eq!(peeked[0]["header"]["deviceId"], "d");
        assert_eq!(peeked[0]["kind"], "accepted");
        let events = peeked[0]["events"].as_array().unwrap();
        assert_eq!(events.len(), 3);
        assert_eq!(events[1]["name"], "TestEvent");
        assert_eq!(events[1]["index"], 1);
        assert_eq!(
            events[1]["event"]["testEvent"]["testParam2"],
            "9007199254740993"
        );
        assert_eq!(site.look("journal peek --way sqlite").lines().len(), 0);
        assert_eq!(
            site.look("journal peek --way clickhouse").lines()[0]["seq"],
            1
        );
        let unknown = site.look("journal peek --type Unknown").lines();
        assert_eq!(unknown.len(), 1);
        assert_eq!(unknown[0]["seq"], 31);
        assert_eq!(unknown[0]["events"][0]["name"], "Unknown.200");
        assert!(unknown[0]["events"][0]["protobuf"].is_string());
        assert_eq!(site.look("journal peek --from 30").lines().len(), 2);

        // Dry runs.
        for words in [
            "skip --way clickhouse --to 9",
            "purge --to 9",
            "purge --to 9 --way all",
        ] {
            let said = site.look(&format!("journal {words}"));
            assert_eq!(said.code, 0, "{said:?}");
            assert!(said.fits().contains("would pass over"), "{said:?}");
            assert!(said.err.contains("nothing was changed"), "{said:?}");
        }
        assert_eq!(site.look("journal export --to 31").lines().len(), 30);
    };
    site.shows(32).await;
    looks(&site);
    let status = site.ask("status --json").json();
    assert_eq!(way(&status, "clickhouse")["next_seq"], 1);
    assert!(site.audit().is_empty());

    assert!(site.collector.terminate().success());
    let before = content(&site.data_dir());
    looks(&site);
    assert_eq!(site.look("status").code, 3);
    assert!(
        content(&site.data_dir()) == before,
        "looking has changed the directory"
    );

    // A copy of the directory is as good, also under a name that is longer than a
    // socket's address.
    let copy = site.scratch.0.join("c".repeat(120));
    std::fs::rename(site.data_dir(), &copy).unwrap();
    let said = holdfast(&format!("journal ls --json --data-dir {}", copy.display()));
    assert_eq!(said.json()["generations"][0]["first_seq"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_socket_works_below_a_long_path() {
    let mut site = Site::start(&format!("operator_{}", "long".repeat(40))).await;
    let said = site.ask("status --json");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.json()["state"], "serving");
    site.ask("status").fits();
    assert!(site.collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_refuses_events_says_why() {
    let more = "[journal]\nmin_free_bytes = \"1000TiB\"\n";
    let mut site = Site::with("operator_refuses", more).await;
    let body = br#"{"header":{"deviceId":"d"},"events":[{"id":"a","testEvent":{}}]}"#;
    let (status, text) = send(site.collector.http, "POST", "/events", body).unwrap();
    assert_eq!(status, 429, "{text}");
    let said = site.ask("status");
    assert_eq!(said.code, 1, "{said:?}");
    let text = said.fits();
    assert!(
        text.contains("NOT SERVING") && text.contains("the disk is low"),
        "{text}"
    );
    assert!(site.collector.terminate().success());
}

#[test]
fn wrong_words_and_wrong_places_have_their_exit_codes() {
    let scratch = Scratch::new("operator_words");
    let dir = scratch.0.display();
    for words in [
        "journal skip --way a",
        "journal skip --way a --to 1 --count 1",
        "journal purge",
        "journal purge --to 1 --quarantine 1",
        "journal purge --quarantine 1 --way a",
        "journal peek --from 1 --way a",
        "journal peek --type Nonsense",
        "journal export --since yesterday",
    ] {
        assert_eq!(
            holdfast(&format!("{words} --data-dir {dir}")).code,
            2,
            "{words}"
        );
    }
    for words in [
        "status",
        "journal ls",
        "journal verify",
        "journal skip --way a --to 1",
    ] {
        let said = holdfast(&format!("{words} --data-dir {dir}"));
        assert_eq!(said.code, 1, "{words}: {said:?}");
        assert!(said.out.is_empty() && !said.err.is_empty(), "{said:?}");
    }
    let config = scratch.0.join("bad.toml");
    std::fs::write(&config, "[data]\ncolour = 1").unwrap();
    let said = holdfast(&format!("status --config {}", config.display()));
    assert_eq!(said.code, 78, "{said:?}");
    // A look makes no directory of what is none.
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_found_by_its_id_wherever_it_waits() {
    let site = Site::start("find").await;
    site.send_requests("d", 5).await;
    // What the disk of a running service shows is up to a second old.
    site.shows(6).await;
    let found = site.ask("journal find d-3-1 --json");
    assert_eq!(found.code, 0, "{found:?}");
    let document = found.json();
    let trace = &document["log"][0];
    assert_eq!(trace["indexes"], json!([1]));
    assert_eq!(trace["pending"], json!(["clickhouse"]));
    assert_eq!(trace["passed"], json!(["sqlite"]));
    assert_eq!(trace["record"]["events"][0]["event"]["id"], "d-3-1");
    let text = site.look("journal find d-3-1").fits();
    assert!(text.contains("pending for clickhouse"), "{text}");
    // A part of an id is another id; what is nowhere is said to be.
    for id in ["d-3", "nobody"] {
        let none = site.ask(&format!("journal find {id}"));
        assert!(
            none.code == 1 && none.err.contains("not in this host's log"),
            "{none:?}"
        );
    }
    // A webhook by the id in its body.
    let webhook = br#"{"id":"w-7","name":"n","timestamp":1700000000}"#;
    let answer = send(site.collector.http, "POST", "/branch/event/", webhook);
    assert_eq!(answer.unwrap().0, 200);
    eventually("the webhook is on the disk", ARRIVAL, || async {
        site.ask("journal find w-7").code == 0
    })
    .await;
    let webhook = site.ask("journal find w-7 --json").json();
    assert_eq!(webhook["log"][0]["kind"], "webhook", "{webhook:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_names_what_is_in_trouble_and_how_fast_things_go() {
    let site = Site::start("operator_parts").await;
    // A look before the requests, so that they are of the last minute.
    eventually("a first look", ARRIVAL, || async {
        !site.ask("status --json").json()["rates"].is_null()
    })
    .await;
    site.send_requests("d", 20).await;
    let part = |status: &serde_json::Value, kind: &str, name: &str| {
        let parts = status["parts"].as_array().unwrap().iter();
        let mut found = parts.filter(|part| part["kind"] == kind && part["name"] == name);
        found.next().unwrap().clone()
    };
    eventually("rates are known, and the trouble", ARRIVAL, || async {
        let status = site.ask("status --json").json();
        let clickhouse = part(&status, "sink", "clickhouse");
        !status["acks"]["latency"].is_null() && !clickhouse["trouble"].is_null()
    })
    .await;
    let status = site.ask("status --json").json();
    let latency = &status["acks"]["latency"];
    let [p50_ms, p99_ms] = ["p50_ms", "p99_ms"].map(|key| latency[key].as_f64().unwrap());
    assert!(0.0 < p50_ms && p50_ms <= p99_ms, "{latency}");
    assert_eq!(status["acks"]["expired_requests"], 0);
    let sqlite = part(&status, "sink", "sqlite");
    assert!(sqlite["trouble"].is_null() && sqlite["done_at_ms"].as_i64() > Some(0));
    assert_eq!(way(&status, "sqlite")["rate"]["empty_in_seconds"], 0);
    assert_eq!(
        way(&status, "clickhouse")["rate"]["empty_in_seconds"],
        json!(null),
        "what does not move is never empty"
    );
    let text = site.ask("status").fits();
    for part in [
        "clickhouse: TROUBLE for",
        "sqlite: well",
        "never",
        "99 of 100 within",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let top = site.ask("top --count 2 --interval 50ms").fits();
    assert_eq!(top.matches("way out").count(), 4, "two looks: {top}");
    assert_eq!(site.look("top --count 1").code, 0);
}

/// So that systemd does not start it again and again.
#[test]
fn a_start_says_what_is_wrong_with_the_values() {
    let scratch = Scratch::new("wrong_values");
    let config = scratch.0.join("wrong.toml");
    for (text, part) in [
        ("[log]\nlevel = \"warning\"", "log.level"),
        ("[postgres]\nurl = \"postgres://h:x/d\"", "postgres"),
        (
            "[rabbitmq]\nurls = [\"amqp://h:x\"]\n[clickhouse]\nurl = \"http://c\"",
            "rabbitmq",
        ),
    ] {
        let data = scratch.0.join("data");
        let text = format!("{text}\n[data]\ndir = \"{}\"", data.display());
        std::fs::write(&config, &text).unwrap();
        for verb in ["run", "check-config"] {
            let said = holdfast(&format!("{verb} --config {}", config.display()));
            assert_eq!(said.code, 78, "{verb} {text}: {said:?}");
            assert!(said.err.contains(part), "{verb} {text}: {said:?}");
        }
        assert!(!data.exists());
    }
    // Nothing is wrong, and nothing takes the events.
    let text = "[rabbitmq]\nurls = [\"amqp://h\"]\nexchange = \"lonely.tx\"\n[clickhouse]\nurl = \"http://c\"";
    std::fs::write(&config, text).unwrap();
    let said = holdfast(&format!("check-config --config {}", config.display()));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("warning: rabbitmq.exchange"), "{said:?}");
    std::fs::write(&config, text.replace("lonely", "grpc_event")).unwrap();
    let said = holdfast(&format!("check-config --config {}", config.display()));
    assert!(!said.err.contains("warning"), "{said:?}");
}
