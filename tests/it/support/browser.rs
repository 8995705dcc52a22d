//! A headless Chromium, as the reader of a page.

use super::guarded::Guarded;
use super::{Scratch, eventually, free_port, root};
use serde_json::{Value as Json, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A phone in a hand, and a screen.
pub const PHONE: (u32, u32) = (360, 740);
pub const SCREEN: (u32, u32) = (1440, 900);

pub struct Browser {
    port: u16,
    /// Where pictures go: they stay, to be looked at.
    pub pictures: PathBuf,
    _process: Guarded,
}

/// What a tab told.
#[derive(Debug)]
pub struct Told {
    pub values: Vec<Json>,
    /// Errors and warnings in the browser's log.
    pub complaints: Vec<String>,
    /// Every address that was asked for.
    pub requests: Vec<String>,
}

impl Browser {
    pub async fn start(scratch: &Scratch) -> Self {
        let port = free_port();
        let command = [
            "chromium".to_owned(),
            "--headless=new".to_owned(),
            // It runs as root here and there, where its sandbox does not work; it opens
            // nothing but our own page.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--no-first-run".to_owned(),
            // A picture is as wide as the page.
            "--hide-scrollbars".to_owned(),
            format!("--remote-debugging-port={port}"),
            format!("--user-data-dir={}", scratch.0.join("chromium").display()),
            "about:blank".to_owned(),
        ];
        let process = Guarded::start(&command, &[], &scratch.0.join("chromium.log"));
        eventually("the browser answers", Duration::from_secs(60), || async {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        let pictures = root().join("target/pictures");
        std::fs::create_dir_all(&pictures).unwrap();
        Self {
            port,
            pictures,
            _process: process,
        }
    }

    /// Opens a page in a tab of its own and takes the steps in it.
    pub async fn visit(
        &self,
        url: &str,
        (width, height): (u32, u32),
        dark: bool,
        steps: &[Json],
    ) -> Told {
        let mut all = vec![json!({"open": url, "width": width, "height": height, "dark": dark})];
        all.extend_from_slice(steps);
        let (port, input) = (self.port, serde_json::to_vec(&all).unwrap());
        let output = tokio::task::spawn_blocking(move || {
            let python = std::env::var("HOLDFAST_TEST_PYTHON")
                .expect("HOLDFAST_TEST_PYTHON is set by tests/run");
            let mut child = Command::new(python)
                .arg(root().join("tests/equipment/browser.py"))
                .arg(port.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(&input).unwrap();
            child.wait_with_output().unwrap()
        });
        let output = output.await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let told: Json = serde_json::from_slice(&output.stdout).unwrap();
        let texts = |name: &str| {
            let list = told[name].as_array().unwrap().iter();
            list.map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        Told {
            values: told["values"].as_array().unwrap().clone(),
            complaints: texts("complaints"),
            requests: texts("requests"),
        }
    }
}

/// Waits until a script is true.
pub fn until(script: &str) -> Json {
    json!({"until": script, "seconds": 30})
}

/// Tells what a script says.
pub fn value(script: &str) -> Json {
    json!({ "value": script })
}
