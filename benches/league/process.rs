//! Processes of servers: their ports, and the wait until they answer. Called by the systems.

use crate::guarded::Guarded;
use anyhow::{Context as _, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a server may take to start; RabbitMQ takes seconds, and on a busy machine minutes.
const READY: Duration = Duration::from_secs(240);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Ports are taken from here: outgoing connections, of which there are hundreds, get
/// others from the kernel.
const PORTS: std::ops::Range<u16> = 28_000..32_000;

/// A port that was free a moment ago; each call gives another.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    free_ports(1)
}

/// The first of several free ports in a row.
pub(crate) fn free_ports(count: u16) -> anyhow::Result<u16> {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let is_free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in PORTS {
        let offset = NEXT.fetch_add(count, std::sync::atomic::Ordering::SeqCst);
        let first = PORTS.start + offset % (PORTS.end - PORTS.start - count);
        if (first..first + count).all(is_free) {
            return Ok(first);
        }
    }
    bail!("no free port on 127.0.0.1")
}

/// A script of the tests' equipment.
pub(crate) fn equipment(script: &str) -> String {
    let path = crate::root().join("tests/equipment").join(script);
    path.display().to_string()
}

/// Starts a command; what it says goes to the file `log` in its directory.
pub(crate) fn start(
    command: &[&str],
    environment: &[(String, String)],
    dir: &Path,
) -> anyhow::Result<Guarded> {
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let command: Vec<_> = command.iter().map(|&word| word.to_owned()).collect();
    Ok(Guarded::start(&command, environment, &dir.join("log")))
}

/// Awaits what a server can only do once it is up.
pub(crate) async fn ready<T, F>(
    what: &str,
    process: &mut Guarded,
    mut attempt: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let until = Instant::now() + READY;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if process.has_ended() {
            bail!("{what} ended at its start: see the file log beside its data");
        }
        if Instant::now() > until {
            return Err(error.context(format!("{what} is not ready within {READY:?}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}
