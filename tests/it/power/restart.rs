//! The collector itself started on an image: everything acknowledged before the cut
//! must become rows, by itself. Called by `campaign`, for a share of the images.

use super::check::rows;
use super::load::Token;
use super::verdict::{Fault, Finding};
use crate::support::collector::get;
use crate::support::free_port;
use crate::support::guarded::Guarded;
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a start, and then the delivery of the backlog, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the binary on a copy of the image, waits until nothing is pending, stops it,
/// and looks for the rows.
pub fn deliver(binary: &Path, image: &Path, acked: &HashSet<Token>) -> Vec<Finding> {
    let name = image.file_name().unwrap().to_str().unwrap();
    let copy = image.with_file_name(format!("{name}-restart"));
    let mut command = Command::new("cp");
    let status = command.arg("-a").arg(image).arg(&copy).status().unwrap();
    assert!(status.success());
    let data = copy.join("data");
    let (grpc, http) = (free_port(), free_port());
    let settings = [
        ("GRPC__LISTEN", format!("127.0.0.1:{grpc}")),
        ("HTTP__LISTEN", format!("127.0.0.1:{http}")),
        ("ADMIN__LISTEN", "off".to_owned()),
        ("DATA__DIR", data.display().to_string()),
    ]
    .map(|(name, value)| (format!("HOLDFAST__{name}"), value));
    let command = [binary.display().to_string(), "run".to_owned()];
    let process = Guarded::start(&command, &settings, &copy.join("log"));
    let mut findings = Vec::new();
    let done = "holdfast_journal_backlog_requests{cursor=\"sqlite\"} 0\n";
    let until = Instant::now() + PATIENCE;
    while !get(http, "/metrics").is_some_and(|(_, text)| text.contains(done)) {
        if Instant::now() >= until {
            let text = format!("not delivered within {PATIENCE:?} of a start");
            findings.push(Finding::new(Fault::NotServed, text));
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = process.terminate(PATIENCE);
    if !status.success() {
        let text = format!("the collector ended with {status}");
        findings.push(Finding::new(Fault::NotServed, text));
    }
    let rows = rows(&data.join("events.sqlite"), &mut findings);
    let missing = acked.difference(&rows).count();
    if missing > 0 {
        let text = format!("{missing} acknowledged requests have no row after a start");
        findings.push(Finding::new(Fault::NeverDelivered, text));
    }
    std::fs::remove_dir_all(&copy).unwrap();
    findings
}
