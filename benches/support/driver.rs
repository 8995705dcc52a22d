//! `holdfast load` in a process of its own, and the collector that it drives. Used by `door`,
//! `scale` and `end_to_end`.

use crate::support::collector::binary;
use serde_json::Value as Json;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Ten events of 300 bytes: 3 KB, as in all benches.
pub const REQUESTS: &str = "--batch-events 10 --event-bytes 300";

/// Before anything counts.
const WARM_UP: &str = "--warm-up 1s";

/// In which the kernel tells processor time: its USER_HZ, on every architecture that we build
/// for.
const TICKS_PER_S: f64 = 100.0;

/// What a load measured.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// All that were answered, those of the warm-up, too.
    pub calls: f64,
    pub calls_per_s: f64,
    pub events_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// The log has room. A disk that stalls is a latency, and no refusal, which is no figure.
pub const JOURNAL: &str =
    "[journal]\nmax_bytes = \"60GiB\"\nmin_free_bytes = \"1GiB\"\nack_deadline = \"30s\"\n";

/// The configuration of a collector that takes and keeps: its broker is away.
pub fn door_only() -> String {
    format!("{JOURNAL}[rabbitmq]\nurls = [\"amqp://127.0.0.1:1\"]\n")
}

/// Drives a door for so long. A refused call is no figure: panics on one.
pub fn load(address: &str, shape: &str, measured: Duration) -> Loaded {
    let duration = format!("--duration {}ms", measured.as_millis());
    let said = run_load(&format!(
        "--to {address} {WARM_UP} {duration} {REQUESTS} {shape}"
    ));
    let number = |name: &str| said[name].as_f64().unwrap();
    Loaded {
        calls: number("acked_calls") + number("warm_up_calls"),
        calls_per_s: number("calls_per_s"),
        events_per_s: number("events_per_s"),
        p50_us: number("latency_p50_us"),
        p99_us: number("latency_p99_us"),
    }
}

/// Runs `holdfast load` with these words to its end, which must be a clean one.
pub fn run_load(words: &str) -> Json {
    let output = Command::new(binary())
        .arg("load")
        .args(["--seed", "1", "--json"])
        .args(words.split_whitespace())
        .env_remove("HOLDFAST_CONFIG")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "load {words}: {said}");
    let said: Json = serde_json::from_str(&said).unwrap();
    let refused = said["refused"].as_object().unwrap();
    assert!(refused.is_empty(), "load {words}: {refused:?}");
    said
}

/// Processor time that a process has used so far.
pub fn cpu_us(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may be anything: the 12th and the 13th are its own and the kernel's.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks = rest.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks as f64 * 1e6 / TICKS_PER_S
}
