//! A real Prometheus that scrapes collectors and evaluates rules every second, and
//! promtool.

use super::collector::get;
use super::guarded::Guarded;
use super::{Scratch, eventually, free_port};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How soon the state of alerts follows what is scraped.
const LIMIT: Duration = Duration::from_secs(90);

/// Evaluations after which alerts that have not changed are taken to stay.
const STEADY_EVALUATIONS: usize = 4;

/// Runs promtool; what it said, and whether it was content.
pub fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed by tests/run");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    (output.status.success(), said)
}

pub struct Prometheus {
    port: u16,
    _process: Guarded,
}

impl Prometheus {
    /// Starts one that scrapes a collector's HTTP port with these rules, and waits until
    /// it is ready.
    pub async fn start(scratch: &Scratch, http: u16, rules: &str) -> Self {
        let dir = scratch.0.join("prometheus");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("alerts.yml"), rules).unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs:\n  - job_name: holdfast\n    static_configs: [{{ targets: [\"127.0.0.1:{http}\"] }}]\n"
        );
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        let port = free_port();
        let path = |name: &str| dir.join(name).display().to_string();
        let command = [
            "prometheus".to_owned(),
            format!("--config.file={}", path("prometheus.yml")),
            format!("--storage.tsdb.path={}", path("data")),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let prometheus = Self {
            port,
            _process: Guarded::start(&command, &[], &dir.join("prometheus.log")),
        };
        eventually("Prometheus is ready", LIMIT, || async {
            get(port, "/-/ready").is_some_and(|(status, _)| status == 200)
        })
        .await;
        prometheus
    }

    /// The data of one call of its HTTP API.
    pub fn ask(&self, path: &str) -> Result<Json, String> {
        let (status, text) = get(self.port, path).ok_or("it does not answer")?;
        let answer: Json = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if status == 200 && answer["status"] == "success" {
            Ok(answer["data"].clone())
        } else {
            Err(text)
        }
    }

    /// What an expression gives now.
    pub fn query(&self, expression: &str) -> Result<Vec<Json>, String> {
        let encoded: String = expression
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        let data = self.ask(&format!("/api/v1/query?query={encoded}"))?;
        let result = data["result"].as_array();
        result.cloned().ok_or_else(|| data.to_string())
    }

    /// All alerting rules, after at least one evaluation of each.
    pub async fn rules(&self) -> Vec<Json> {
        let rules = || -> Vec<Json> {
            let data = self.ask("/api/v1/rules").unwrap();
            let groups = data["groups"].as_array().unwrap().iter();
            groups
                .flat_map(|group| group["rules"].as_array().unwrap().clone())
                .collect()
        };
        eventually("all rules were evaluated", LIMIT, || async {
            rules().iter().all(|rule| rule["health"] != "unknown")
        })
        .await;
        rules()
    }

    /// Names of the alerts that fire.
    pub fn firing(&self) -> BTreeSet<String> {
        let data = self.ask("/api/v1/alerts").unwrap();
        let alerts = data["alerts"].as_array().unwrap().iter();
        alerts
            .filter(|alert| alert["state"] == "firing")
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }

    /// When each group of rules was last evaluated.
    fn evaluated(&self) -> String {
        let data = self.ask("/api/v1/rules").unwrap();
        let groups = data["groups"].as_array().unwrap().iter();
        groups
            .map(|group| group["lastEvaluation"].to_string())
            .collect()
    }

    /// Waits until these alerts fire and no others, and stay so over some evaluations.
    pub async fn fires(&self, alerts: &[&str]) {
        let wanted: BTreeSet<String> = alerts.iter().map(|&name| name.to_owned()).collect();
        let (mut seen, mut evaluations) = (String::new(), 0);
        let said = std::cell::RefCell::new(BTreeSet::new());
        let what = format!("{wanted:?} fire and no others");
        let limit = tokio::time::timeout(LIMIT, async {
            loop {
                let (firing, now) = (self.firing(), self.evaluated());
                if firing != wanted {
                    evaluations = 0;
                } else if now != seen {
                    evaluations += 1;
                    seen = now;
                }
                *said.borrow_mut() = firing;
                if evaluations > STEADY_EVALUATIONS {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let ended = limit.await;
        assert!(ended.is_ok(), "not within {LIMIT:?}: {what}, but {said:?}");
    }
}
