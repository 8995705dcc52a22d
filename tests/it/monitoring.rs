//! What people on call see: metrics as the catalogue says, alerts that fire when they
//! must and name what to do, a dashboard whose every expression means something.

use crate::support::cli::holdfast;
use crate::support::collector::{Collector, get, send};
use crate::support::prometheus::{Prometheus, promtool};
use crate::support::promql::{self, entry_of};
use crate::support::raw::dispatch;
use crate::support::servers::Stack;
use crate::support::shop::Visitor;
use crate::support::{Scratch, eventually, root, seed};
use holdfast::telemetry::catalogue::ALL;
use prost::Message as _;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Panels that are empty while all is well.
const EMPTY_PANELS: [&str; 10] = [
    "Connections ended for their behaviour",
    "Certificate ends in",
    "Certificate kept",
    "Full in",
    "Consumers without a connection",
    "Refused, unreadable, retried",
    "Pending by type",
    "Neither delivered nor pending, by type",
    "Waiting",
    "Set aside",
];

/// What an operator can do on the host.
const COMMANDS: [&str; 5] = ["status", "drain", "journal ", "dlq ", "check-config"];

/// Absent where nothing is encrypted.
const OF_TLS: [&str; 2] = [
    "holdfast_tls_certificate_expiry_timestamp_seconds",
    "holdfast_tls_certificate_reload_failed",
];

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// Metrics without any series here.
fn check_scrape(collector: &Collector) -> BTreeSet<&'static str> {
    let (status, text) = get(collector.http, "/metrics").unwrap();
    assert_eq!(status, 200);
    let (content, said) = promtool(&["check", "metrics"], &text);
    assert!(content && said.is_empty(), "{said}");
    let mut missing: BTreeSet<&str> = ALL.iter().map(|entry| entry.name).collect();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let (entry, has_le) = entry_of(name).unwrap_or_else(|| panic!("not in catalogue: {line}"));
        missing.remove(entry.name);
        let labels = labels.strip_suffix('}').unwrap();
        let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
        let mut labels: BTreeMap<_, _> = pairs
            .map(|pair| {
                let (label, value) = pair.split_once("=\"").unwrap();
                (label, value.trim_end_matches('"'))
            })
            .collect();
        assert_eq!(labels.remove("le").is_some(), has_le, "{line}");
        let values: Vec<&str> = entry
            .labels
            .iter()
            .map(|label| {
                labels
                    .remove(label.name)
                    .unwrap_or_else(|| panic!("{line}"))
            })
            .collect();
        assert!(labels.is_empty() && entry.takes(&values), "{line}");
        let kind = format!("{:?}", entry.kind).to_lowercase();
        for head in [
            format!("# HELP {} {}\n", entry.name, entry.meaning),
            format!("# TYPE {} {kind}\n", entry.name),
        ] {
            assert!(text.contains(&head), "{head}");
        }
    }
    missing
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_series_served_is_in_the_catalogue() {
    let scratch = Scratch::new("catalogue");
    let mut collector = Collector::new(&scratch, "");
    collector.start().await;
    let sample = read("examples/events.ndjson");
    let (status, _) = send(collector.http, "POST", "/events", sample.as_bytes()).unwrap();
    assert_eq!(status, 200);
    let (status, _) = send(collector.http, "POST", "/events", b"{}").unwrap();
    assert_eq!(status, 400);
    // Without a broker nothing takes these.
    let body = br#"{"name": "signup"}"#;
    let (status, _) = send(collector.http, "POST", "/vidooly/event/", body).unwrap();
    assert_eq!(status, 200);
    let waiting = "holdfast_dead_letters_waiting{way_out=\"sqlite\"}";
    eventually("its letter waits", LIMIT, || async {
        collector.metric(waiting) == 1.0
    })
    .await;
    collector.delivered("sqlite", LIMIT).await;
    let brokered = ["holdfast_connected", "holdfast_consumer_rows_total"];
    let absent: BTreeSet<_> = brokered.into_iter().chain(OF_TLS).collect();
    assert_eq!(check_scrape(&collector), absent);
    // Another process purges it.
    let config = collector.dir.join("holdfast.toml").display().to_string();
    let said = holdfast(&format!("dlq purge --all --apply --config {config}"));
    assert_eq!(said.code, 0, "{said:?}");
    eventually("its letter is gone", LIMIT, || async {
        let text = get(collector.http, "/metrics").unwrap().1;
        text.contains(&format!("{waiting} 0\n"))
    })
    .await;
    assert!(collector.terminate().success());
}

/// An alerting rule of the shipped file, by its keys.
type Rule = BTreeMap<String, String>;

/// The rules, as far as this file goes: one key a line, or a text of several lines
/// that are indented more.
fn rules() -> Vec<Rule> {
    let text = read("monitoring/alerts.yml");
    let mut rules: Vec<Rule> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let trimmed = line.trim();
        if let Some((above, key)) = &open {
            if indent > *above {
                let value = rules.last_mut().unwrap().get_mut(key).unwrap();
                value.push_str(trimmed);
                value.push(' ');
                continue;
            }
            open = None;
        }
        if trimmed.starts_with("- alert: ") {
            rules.push(Rule::new());
        }
        let Some((key, value)) = trimmed.trim_start_matches("- ").split_once(": ") else {
            continue;
        };
        let Some(rule) = rules.last_mut() else {
            continue;
        };
        let value = value.trim_matches('"').to_owned();
        if value == ">-" {
            rule.insert(key.to_owned(), String::new());
            open = Some((indent, key.to_owned()));
        } else if key != "name" {
            rule.insert(key.to_owned(), value);
        }
    }
    rules
}

#[test]
fn every_alert_says_what_is_wrong_and_what_to_do() {
    let path = root().join("monitoring/alerts.yml").display().to_string();
    let (content, said) = promtool(&["check", "rules", &path], "");
    assert!(content, "{said}");
    let rules = rules();
    assert!(
        said.contains(&format!("{} rules found", rules.len())),
        "{said}"
    );
    let readme = read("README.md");
    let (_, alerts) = readme.split_once("\n### Alerts\n").unwrap();
    let alerts = alerts.split("\n## ").next().unwrap();
    for rule in &rules {
        let name = &rule["alert"];
        for key in ["expr", "for", "summary", "description"] {
            assert!(!rule[key].is_empty(), "{name} has no {key}");
        }
        let severity = rule["severity"].as_str();
        assert!(["critical", "warning"].contains(&severity), "{name}");
        let anchor = format!("README.md#{}", name.to_lowercase());
        assert_eq!(rule["runbook"], anchor);
        let heading = format!("\n#### {name}\n\n");
        let (_, paragraph) = alerts.split_once(&heading).expect(&heading);
        let paragraph = paragraph.split("\n#").next().unwrap();
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        let paragraph = words.join(" ");
        let names = |command: &&str| paragraph.contains(&format!("`holdfast {command}"));
        assert!(COMMANDS.iter().any(names), "{name}: which command?");
        promql::metrics(&rule["expr"]).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let headings = alerts.lines().filter(|line| line.starts_with("#### "));
    assert_eq!(
        headings.count(),
        rules.len(),
        "a paragraph without an alert"
    );
}

#[test]
fn every_alert_fires_in_a_case_of_its_own_and_is_silent_in_another() {
    let path = root().join("monitoring/alerts_test.yml");
    let (content, said) = promtool(&["test", "rules", &path.display().to_string()], "");
    assert!(content, "{said}");
    let text = read("monitoring/alerts_test.yml");
    for rule in rules() {
        let name = format!("alertname: {}\n", rule["alert"]);
        let cases: Vec<&str> = text.split(&name).skip(1).collect();
        let silent = |case: &&str| case.trim_start().starts_with("exp_alerts: []");
        let silent_cases = cases.iter().filter(|case| silent(case)).count();
        assert!(silent_cases > 0, "{name} is never silent");
        assert!(cases.len() > silent_cases, "{name} never fires");
    }
}

/// Title and expression of each query of the dashboard.
fn queries(dashboard: &Json) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap().to_owned();
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            targets.into_iter().map(move |target| {
                let expression = target["expr"].as_str().unwrap().to_owned();
                (title.clone(), expression)
            })
        })
        .collect()
}

/// As Grafana asks Prometheus for all hosts.
fn with_variables(expression: &str) -> String {
    let expression = expression.replace("$__rate_interval", "15m");
    let expression = expression.replace("$host", ".*");
    assert!(!expression.contains('$'), "{expression}");
    expression
}

#[test]
fn every_expression_of_the_dashboard_parses_and_names_metrics_of_the_catalogue() {
    let dashboard: Json = serde_json::from_str(&read("monitoring/grafana.json")).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    let queries = queries(&dashboard);
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    let mut shown = BTreeSet::new();
    for (title, expression) in &queries {
        assert!(
            expression.contains("instance=~\"$host\""),
            "{title}: all hosts"
        );
        let expression = with_variables(expression);
        let metrics = promql::metrics(&expression);
        shown.extend(metrics.unwrap_or_else(|error| panic!("{title}: {error}")));
        let quoted = expression.replace('\'', "''");
        rules.push_str(&format!("      - record: r\n        expr: '{quoted}'\n"));
    }
    let scratch = Scratch::new("dashboard");
    let file = scratch.0.join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    let arguments = ["check", "rules", "--lint=none", &file.display().to_string()];
    let (content, said) = promtool(&arguments, "");
    assert!(
        content && said.contains(&format!("{} rules found", queries.len())),
        "{said}"
    );
    // What no panel shows is in another, by way out or by sum.
    let missing: Vec<&str> = ALL
        .iter()
        .map(|entry| entry.name)
        .filter(|name| !shown.contains(name))
        .collect();
    assert_eq!(
        missing,
        ["holdfast_build_info", "holdfast_ledger_way_accepted_events"]
    );
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<&str> = panels
        .iter()
        .filter(|panel| panel["type"] == "row")
        .map(|panel| panel["title"].as_str().unwrap())
        .collect();
    let path = [
        "Door",
        "Ports",
        "Journal",
        "Ways out",
        "Consumers and sinks",
        "Ledger",
        "Dead letters",
    ];
    assert_eq!(rows, path);
    let ids: BTreeSet<u64> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}");
    }
}

/// The shipped rules, in a hurry.
fn quick_rules() -> String {
    let mut text = read("monitoring/alerts.yml");
    // What waits is too old at once; a disk that other tests share is not slow.
    for (old, new) in [(" > 900\n", " > 2\n"), (" > 0.25\n", " > 1\n")] {
        assert_eq!(text.matches(old).count(), 1);
        text = text.replace(old, new);
    }
    let lines = text.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 2s\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_alerts_fire_while_servers_are_away_and_end_with_that() {
    let scratch = Scratch::new("alerts");
    let mut stack = Stack::new(&scratch);
    // Bounds that do not depend on this machine's disk.
    let config = format!(
        "[journal]\nmin_free_bytes = \"64MiB\"\n\
         [rabbitmq]\nurls = [\"{}\"]\n\
         {}",
        stack.rabbitmq.amqp_url(),
        stack.clickhouse.clickhouse_section(),
    );
    let mut collector = Collector::new(&scratch, &config);
    collector.start().await;
    let prometheus = Prometheus::start(&scratch, collector.http, &quick_rules()).await;
    let mut visitor = Visitor::new(seed(), 0, holdfast::clock::now_ms());
    // So many that one long stall of the disk is less than one in a hundred.
    for _ in 0..300 {
        let request = visitor.batch(2).request.encode_to_vec();
        dispatch(&collector.address(), request).await.unwrap();
    }
    prometheus
        .fires(&[
            "HoldfastPendingTooOld",
            "HoldfastRabbitmqAway",
            "HoldfastSinkAway",
        ])
        .await;

    let evaluated = prometheus.rules().await;
    assert_eq!(evaluated.len(), rules().len());
    for rule in &evaluated {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert!(rule.get("lastError").is_none(), "{rule}");
    }

    stack.rabbitmq.start().await;
    prometheus.fires(&["HoldfastSinkAway"]).await;
    stack.clickhouse.start().await;
    prometheus.fires(&[]).await;
    collector.delivered("rabbitmq", LIMIT).await;
    let letters = [
        "holdfast_dead_letters_total",
        "holdfast_dead_letters_waiting",
    ];
    let absent: BTreeSet<_> = letters.into_iter().chain(OF_TLS).collect();
    assert_eq!(check_scrape(&collector), absent);

    // Under Prometheus' eyes: what it saw the first time is no rate.
    for _ in 0..100 {
        let request = visitor.batch(2).request.encode_to_vec();
        dispatch(&collector.address(), request).await.unwrap();
    }
    let dashboard: Json = serde_json::from_str(&read("monitoring/grafana.json")).unwrap();
    for (title, expression) in queries(&dashboard) {
        let result = || {
            let result = prometheus.query(&with_variables(&expression));
            result.unwrap_or_else(|error| panic!("{title}: {error}"))
        };
        let may_be_empty = EMPTY_PANELS.contains(&title.as_str());
        eventually(&format!("{title}: {expression}"), LIMIT, || async {
            !result().is_empty() || may_be_empty
        })
        .await;
    }

    send(collector.http, "PUT", "/heartbeat/?beat=false", b"").unwrap();
    prometheus.fires(&["HoldfastNotServing"]).await;
    send(collector.http, "PUT", "/heartbeat/?beat=true", b"").unwrap();
    prometheus.fires(&[]).await;
    collector.kill();
    prometheus.fires(&["HoldfastHostDown"]).await;
    collector.start().await;
    prometheus.fires(&[]).await;
    assert!(collector.terminate().success());
}
