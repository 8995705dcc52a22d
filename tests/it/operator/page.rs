//! The page for operators, as its readers have it: in a real browser, on a phone and on a
//! screen, through a real outage; and as a stranger would try it.

use super::Site;
use super::logs::all_connected;
use crate::support::browser::{Browser, PHONE, SCREEN, Told, until, value};
use crate::support::cli::holdfast;
use crate::support::collector::Collector;
use crate::support::load::{self, Progress};
use crate::support::servers::Stack;
use crate::support::{Scratch, eventually, seed};
use serde_json::{Value as Json, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// What a page must not do on any width: run over its edge, or offer what a thumb misses.
const FITS: &str = "(() => {
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    const small = [...document.querySelectorAll('button, summary')]
        .filter((node) => node.offsetParent !== null && node.getBoundingClientRect().height < 44);
    return wide <= 0 && small.length === 0 ? 'fits' : `${wide} px too wide, ${small.length} too small`;
})()";

fn text_of(id: &str) -> Json {
    value(&format!("document.getElementById('{id}').innerText"))
}

fn has(id: &str, text: &str) -> Json {
    until(&format!(
        "document.getElementById('{id}')?.innerText.includes({})",
        json!(text)
    ))
}

/// Nothing was complained of, and nothing came from elsewhere.
fn assert_clean(told: &Told, origin: &str) {
    assert!(told.complaints.is_empty(), "{:?}", told.complaints);
    let foreign = told.requests.iter().find(|url| !url.starts_with(origin));
    assert_eq!(foreign, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_an_outage_as_it_is() {
    let scratch = Scratch::new("page");
    let mut stack = Stack::start(&scratch).await;
    let mut collector = Collector::new(&scratch, &stack.config());
    collector.start().await;
    all_connected(&collector).await;
    // From here on it finds its queues there: making them all may take so long that it is an
    // outage.
    assert!(collector.terminate().success());
    collector.start().await;
    all_connected(&collector).await;
    let browser = Browser::start(&scratch).await;
    let origin = format!("http://127.0.0.1:{}/", collector.admin);
    let visit = async |size, dark, name: &str, steps: &[Json]| {
        let picture = browser.pictures.join(format!("{name}.png"));
        let mut all = steps.to_vec();
        all.extend([value(FITS), json!({ "picture": picture })]);
        let told = browser.visit(&origin, size, dark, &all).await;
        assert_clean(&told, &origin);
        assert_eq!(told.values.last().unwrap(), "fits", "{name}");
        told
    };
    let ask = |collector: &Collector, verb: &str| {
        let config = collector.dir.join("holdfast.toml");
        holdfast(&format!("{verb} --config {}", config.display()))
    };

    let events = 3000;
    load::run(&collector, seed(), events, 4, Progress::default()).await;
    collector.delivered("rabbitmq", LIMIT).await;
    let is_well = [
        has("state", "✓ serving"),
        has("flow", "26 of 26 at work"),
        has("facts", "Set aside"),
        has("ledger", "✓ every event adds up"),
        has("outages", "none"),
    ];
    visit(SCREEN, false, "well-screen-light", &is_well).await;
    visit(PHONE, true, "well-phone-dark", &is_well).await;

    stack.rabbitmq.settle_queues();
    stack.rabbitmq.kill();
    load::run(&collector, seed(), events, 4, Progress::default()).await;
    let status = ask(&collector, "status --json").json();
    let pending = status["ledger"]["ways"][0]["pending_events"]
        .as_u64()
        .unwrap();
    assert!(pending > 0);
    let grouped = |n: u64| {
        let text = n.to_string();
        if n < 1000 {
            text
        } else {
            format!("{},{}", &text[..text.len() - 3], &text[text.len() - 3..])
        }
    };
    let is_ill = [
        has("facts", &grouped(pending)),
        has("flow", "rabbitmq ✕ in trouble for"),
        has("flow", "0 of 26 at work"),
        has("flow", "26 consumers: "),
        has("outages", "✕ rabbitmq, for"),
        has("outages", "✕ consumers, for"),
        until("document.title.startsWith('✕') && document.title.includes('waiting')"),
        until("document.querySelectorAll('#outages svg .mark').length === 2"),
        until("document.querySelectorAll('#flow svg .band').length > 0"),
    ];
    visit(SCREEN, true, "outage-screen-dark", &is_ill).await;
    let told = visit(PHONE, false, "outage-phone-light", &is_ill).await;
    assert_eq!(told.values.len(), 1);

    // What the reader has unfolded stays so, while the figures change under it.
    stack.rabbitmq.start().await;
    let comes_back = [
        until("document.querySelector('#flow details summary')"),
        json!({"press": "#flow details summary"}),
        has("flow", "26 of 26 at work"),
        has("ledger", "✓ every event adds up"),
        until("document.querySelector('#facts dd').innerText.startsWith('0')"),
        until("document.querySelectorAll('#outages li .ill').length === 0"),
        until("document.querySelector('#flow details').open"),
        json!({"press": "#coarse"}),
        until("document.getElementById('coarse').getAttribute('aria-pressed') === 'true'"),
        until("document.querySelector('#outages svg').getAttribute('aria-label').includes('24 h')"),
        until("document.querySelector('#flow .curve').getAttribute('points').includes(' ')"),
        text_of("outages"),
    ];
    let told = visit(SCREEN, false, "back-screen-light", &comes_back).await;
    let said = told.values[0].as_str().unwrap();
    assert!(
        said.contains("rabbitmq, ") && said.contains("consumers, "),
        "{said}"
    );

    // The service goes while someone looks.
    let seen = browser.pictures.join("before-the-stop.png");
    let goes = [
        has("state", "serving"),
        json!({ "picture": seen }),
        until("!document.getElementById('banner').hidden"),
        has("banner", "What is shown is from"),
        has("state", "✕ no answer"),
        value(FITS),
        json!({ "picture": browser.pictures.join("stopped-phone-dark.png") }),
    ];
    drop(std::fs::remove_file(&seen));
    let leaving = browser.visit(&origin, PHONE, true, &goes);
    let (told, ()) = tokio::join!(leaving, async {
        eventually("somebody looks", LIMIT, || async { seen.exists() }).await;
        assert!(collector.terminate().success());
    });
    let is_refusal = |text: &String| text.contains("ERR_CONNECTION");
    assert!(told.complaints.iter().all(is_refusal), "{told:?}");
    assert_eq!(told.values, ["fits"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_words_stay_words() {
    // A server whose errors are markup, as proxies' are, and worse.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let words =
        "<img src=x onerror='document.title=\"hacked\"'><script>document.title=\"hacked\"</script>";
    let answer = move || async move { (axum::http::StatusCode::INTERNAL_SERVER_ERROR, words) };
    let router = axum::Router::new().fallback(answer);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let ways = format!("[clickhouse]\nurl = \"http://{address}\"\n");
    let site = Site::with_ways("page_hostile", &ways).await;
    site.send_requests("a", 5).await;
    let browser = Browser::start(&site.scratch).await;
    let origin = format!("http://127.0.0.1:{}/", site.collector.admin);
    let steps = [
        has("flow", "<img src=x onerror="),
        has("outages", "<img src=x onerror="),
        value("document.querySelectorAll('main img, main script').length"),
        value("document.title"),
        json!({ "picture": browser.pictures.join("hostile-phone-light.png") }),
    ];
    let told = browser.visit(&origin, PHONE, false, &steps).await;
    assert_clean(&told, &origin);
    assert_eq!(told.values[0], 0);
    assert!(
        !told.values[1].as_str().unwrap().contains("hacked"),
        "{told:?}"
    );
    server.abort();
}

/// What a port answers to these bytes.
fn answer(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

fn asked(port: u16, method: &str, path: &str, host: &str) -> String {
    answer(port, &format!("{method} {path} HTTP/1.1\r\n{host}\r\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_only_shows() {
    let site = Site::start("page_strangers").await;
    site.send_requests("a", 3).await;
    let port = site.collector.admin;
    let ours = "Host: 127.0.0.1\r\n";
    for path in [
        "/",
        "/page.js",
        "/page.css",
        "/icon.svg",
        "/status",
        "/look",
        "/look?coarse=true&after=5",
    ] {
        let said = asked(port, "GET", path, ours);
        assert!(said.starts_with("HTTP/1.1 200 "), "{path}: {said}");
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        for line in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "connection: close",
        ] {
            assert!(head.contains(line), "{path}: {line} is not in {head}");
        }
        assert!(!head.contains("access-control"), "{head}");
        assert!(!body.is_empty());
        let bare = asked(port, "HEAD", path, ours);
        assert!(
            bare.starts_with("HTTP/1.1 200 ") && bare.ends_with("\r\n\r\n"),
            "{bare}"
        );
    }
    // What the socket changes for its owner, nobody changes here.
    for path in ["/", "/look", "/status"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let said = asked(port, method, path, &format!("{ours}Content-Length: 0\r\n"));
            assert!(said.starts_with("HTTP/1.1 405 "), "{method} {path}: {said}");
        }
    }
    for path in [
        "/drain",
        "/pace",
        "/drill",
        "/journal/skip",
        "/journal/purge",
        "/../status",
        "/%2e%2e/etc/passwd",
    ] {
        for method in ["GET", "POST"] {
            let body = "Content-Type: application/json\r\nContent-Length: 11\r\n";
            let request = format!("{method} {path} HTTP/1.1\r\n{ours}{body}\r\n{{\"on\":true}}");
            let said = answer(port, &request);
            assert!(said.starts_with("HTTP/1.1 404 "), "{method} {path}: {said}");
        }
    }
    assert!(asked(port, "GET", "/look?after=-1", ours).starts_with("HTTP/1.1 400 "));
    assert!(asked(port, "GET", "/look?other=1", ours).starts_with("HTTP/1.1 400 "));
    for host in [
        "",
        "Host: evil.example.org\r\n",
        "Host: localhost\r\nHost: localhost\r\n",
    ] {
        for path in ["/", "/status", "/nothing"] {
            let said = asked(port, "GET", path, host);
            let is_refused = said.starts_with("HTTP/1.1 421 ") || said.starts_with("HTTP/1.1 400 ");
            assert!(is_refused && !said.contains("ledger"), "{host}: {said}");
        }
    }
    // The same as over the socket.
    let said = asked(port, "GET", "/status", ours);
    let page: Json = serde_json::from_str(said.split_once("\r\n\r\n").unwrap().1).unwrap();
    let socket = site.ask("status --json").json();
    assert_eq!(page["ledger"]["accepted"], socket["ledger"]["accepted"]);
    assert_eq!(page["dead_letters"], json!({}));
    assert_eq!(page["state"], "serving");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_there_without_the_socket() {
    let scratch = Scratch::new("page_alone");
    let mut collector = Collector::new(&scratch, "[sqlite]\n");
    // A directory that is not empty is not renamed over.
    std::fs::create_dir_all(collector.data_dir().join("admin.sock/x")).unwrap();
    // And the port is somebody else's for a while.
    let other = std::net::TcpListener::bind(("127.0.0.1", collector.admin)).unwrap();
    collector.start().await;
    eventually("it says so", LIMIT, || async {
        let log = collector.log();
        log.contains("no admin socket") && log.contains("no page for operators")
    })
    .await;
    drop(other);
    eventually("the page comes when the port is free", LIMIT, || async {
        TcpStream::connect(("127.0.0.1", collector.admin)).is_ok()
    })
    .await;
    eventually("looks are taken", LIMIT, || async {
        let said = asked(collector.admin, "GET", "/look", "Host: localhost\r\n");
        let look: Json = serde_json::from_str(said.split_once("\r\n\r\n").unwrap().1).unwrap();
        look["past"]["points"].as_array().unwrap().len() > 3 && look["status"]["rates"].is_object()
    })
    .await;
    assert!(collector.terminate().success());
    assert_eq!(collector.log().matches("no page for operators").count(), 1);
}
