//! The HTTP door as browsers, senders and those who switch the heartbeat see it: cross-origin
//! rules, headers of every answer, and what is not to be found in any log.

use crate::support::collector::Collector;
use crate::support::small_disk::{passed_in_network, run};
use crate::support::{Scratch, eventually, http_client};
use reqwest::{Method, StatusCode};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_origin_may_call_and_every_answer_has_its_id() {
    let scratch = Scratch::new("http_cors");
    let mut collector = Collector::new(&scratch, "");
    collector.start().await;
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", collector.http);
    let origin = "https://shop.example";
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
    let paths = ["/events", "/webengage/event/", "/heartbeat/"];
    for (path, method) in paths
        .iter()
        .flat_map(|path| methods.map(|method| (path, method)))
    {
        let asked = http_client()
            .request(Method::OPTIONS, url(path))
            .header("origin", origin)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "content-type, x-own");
        let answer = asked.send().await.unwrap();
        assert!(answer.status().is_success(), "{path} {}", answer.status());
        let headers = answer.headers();
        let text = |name: &str| headers[name].to_str().unwrap().to_ascii_lowercase();
        assert_eq!(text("access-control-allow-origin"), origin, "{path}");
        assert_eq!(text("access-control-allow-credentials"), "true", "{path}");
        let allowed = text("access-control-allow-methods");
        assert!(allowed.contains(&method.to_lowercase()), "{path} {allowed}");
        assert!(
            text("access-control-allow-headers").contains("x-own"),
            "{path}"
        );
    }
    // Beat is true from the start; each answer has an id of its own, whatever its status.
    let mut ids = Vec::new();
    for (method, path, status) in [
        (Method::GET, "/heartbeat/", StatusCode::OK),
        (Method::GET, "/heartbeat", StatusCode::OK),
        (
            Method::PUT,
            "/heartbeat/?beat=perhaps",
            StatusCode::BAD_REQUEST,
        ),
        (Method::GET, "/metrics", StatusCode::OK),
        (Method::GET, "/nowhere", StatusCode::NOT_FOUND),
        (Method::GET, "/events", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/events", StatusCode::BAD_REQUEST),
        (Method::POST, "/shopify/event/", StatusCode::BAD_REQUEST),
    ] {
        let request = http_client()
            .request(method.clone(), url(path))
            .header("origin", origin)
            .header("x-bb-requestid", "mine");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        let headers = answer.headers();
        assert_eq!(
            headers["access-control-allow-origin"], origin,
            "{method} {path}"
        );
        assert_eq!(headers["x-robots-tag"], "noindex", "{method} {path}");
        let id = headers["x-bb-requestid"].to_str().unwrap().to_owned();
        assert_eq!(id.len(), 36, "{id}");
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_bodies_nor_credentials_are_logged() {
    let scratch = Scratch::new("http_log");
    let mut collector = Collector::new(&scratch, "[log]\nlevel = \"trace\"\n");
    collector.start().await;
    for (path, body) in [
        (
            "/webengage/event/users",
            r#"{"userId":"u","email":"person@mail.example"}"#,
        ),
        ("/branch/event/", r#"{"user":"person@mail.example""#),
        (
            "/events",
            r#"{"header":{"deviceId":"d"},"events":[{"id":"person@mail.example","timestamp":"1"}]}"#,
        ),
        (
            "/events",
            r#"{"header":{"deviceId":"person@mail.example"},"no":1}"#,
        ),
    ] {
        let answer = http_client()
            .post(format!("http://127.0.0.1:{}{path}", collector.http))
            .header("authorization", "Bearer hunter2")
            .header("cookie", "session=hunter2")
            .body(body)
            .send()
            .await
            .unwrap();
        assert!(answer.status().as_u16() < 500, "{path} {}", answer.status());
    }
    collector
        .delivered("sqlite", std::time::Duration::from_secs(60))
        .await;
    assert!(collector.terminate().success());
    let log = collector.log();
    assert!(log.contains("accepting"), "{log}");
    for secret in ["hunter2", "person@mail"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heartbeat_is_switched_by_whom_the_configuration_lets() {
    let name = "http::the_heartbeat_is_switched_by_whom_the_configuration_lets";
    if passed_in_network(name, Duration::from_secs(120)) {
        return;
    }
    // Calls to it come from it, and not from a loopback address.
    let elsewhere = "10.77.0.9";
    run(
        "ip",
        &["addr", "add", &format!("{elsewhere}/32"), "dev", "lo"],
    );
    for (from, status) in [
        ("anyone", StatusCode::OK),
        ("this_host", StatusCode::FORBIDDEN),
    ] {
        let scratch = Scratch::new(&format!("http_heartbeat_{from}"));
        let more = format!("[ingest]\nheartbeat_from = \"{from}\"\n");
        let mut collector = Collector::new(&scratch, &more);
        let listen = format!("0.0.0.0:{}", collector.http);
        let key = "HOLDFAST__HTTP__LISTEN".to_owned();
        collector.environment.push((key, listen));
        collector.start().await;
        let put = async |host: &str, beat: bool| {
            let url = format!("http://{host}:{}/heartbeat/?beat={beat}", collector.http);
            http_client().put(url).send().await.unwrap().status()
        };
        let switched = |beat: bool, from: &str| {
            let log = collector.log();
            let has = |line: &&str| line.contains("switched") && line.contains(from);
            let lines = log.lines().filter(has);
            lines
                .filter(|line| line.contains(&format!("beat={beat}")))
                .count()
        };
        assert_eq!(put(elsewhere, false).await, status);
        assert_eq!(collector.heartbeat() == Some(410), status == StatusCode::OK);
        let limit = Duration::from_secs(20);
        if status == StatusCode::OK {
            eventually("the log has it", limit, || async {
                switched(false, elsewhere) == 1
            })
            .await;
        }
        assert_eq!(put("127.0.0.1", false).await, StatusCode::OK);
        assert_eq!(collector.heartbeat(), Some(410));
        assert_eq!(put("127.0.0.1", true).await, StatusCode::OK);
        assert_eq!(collector.heartbeat(), Some(200));
        // A proxy on this host asks for others, and so does a browser for somebody's page.
        for (name, value) in [
            ("Forwarded", "for=192.0.2.1"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-Host", "edge.example.org"),
            ("X-Real-IP", "192.0.2.1"),
            ("Via", "1.1 proxy"),
            ("Origin", "https://evil.example"),
        ] {
            let url = format!("http://127.0.0.1:{}/heartbeat/?beat=true", collector.http);
            let put = http_client().put(url).header(name, value).send().await;
            assert_eq!(put.unwrap().status(), status, "{name}");
        }
        eventually("the log has it", limit, || async {
            switched(true, "127.0.0.1") == 1
        })
        .await;
        assert_eq!(
            switched(false, elsewhere),
            usize::from(status == StatusCode::OK)
        );
        // The log has the last of a flood, how many they were, and few lines.
        for switch in 0..300 {
            put("127.0.0.1", switch % 2 == 1).await;
        }
        put("127.0.0.1", false).await;
        eventually("the log has the last", limit, || async {
            let log = collector.log();
            let last = log.lines().rfind(|line| line.contains("switched"));
            last.is_some_and(|line| line.contains("beat=false"))
        })
        .await;
        let lines = collector
            .log()
            .matches("the heartbeat was switched")
            .count();
        assert!(lines < 30, "{lines} lines");
    }
}
