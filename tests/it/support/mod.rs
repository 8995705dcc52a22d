//! What the tests stand on: servers, the collector under test, a load with known
//! content, and a judge that compares what was acked with what was stored.

pub mod browser;
pub mod cli;
pub mod collector;
pub mod faults;
pub mod guarded;
pub mod judge;
pub mod load;
pub mod prometheus;
pub mod promql;
pub mod raw;
pub mod scripts;
pub mod servers;
pub mod shared;
pub mod shop;
pub mod small_disk;
pub mod traffic;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Awaits a condition, for at most `limit`; panics with what was awaited.
pub async fn eventually<F, T>(what: &str, limit: Duration, mut check: F)
where
    F: FnMut() -> T,
    T: Future<Output = bool>,
{
    let until = Instant::now() + limit;
    while !check().await {
        assert!(Instant::now() < until, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A client of the HTTP door.
pub fn http_client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::new()
}

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A scratch directory below target/, kept when the test fails.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let dir = root().join("target/test-scratch").join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).unwrap();
        }
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // A server that is still ending may write once more; it is only scratch.
            drop(std::fs::remove_dir_all(&self.0));
        }
    }
}

/// A port that was free a moment ago, from a range that outgoing connections do
/// not use; each call gives another.
pub fn free_port() -> u16 {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let port = 18_000 + (std::process::id() as u16 % 20) * 500 + offset % 500;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The seed of this run, printed so that a failure can be replayed.
pub fn seed() -> u64 {
    let seed = match std::env::var("HOLDFAST_TEST_SEED") {
        Ok(text) => text.parse().expect("HOLDFAST_TEST_SEED is a number"),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64,
    };
    eprintln!("HOLDFAST_TEST_SEED={seed}");
    seed
}

/// How many events a load has.
pub fn load_events() -> usize {
    std::env::var("HOLDFAST_TEST_EVENTS").map_or(50_000, |text| {
        text.parse().expect("HOLDFAST_TEST_EVENTS is a number")
    })
}
