//! Traces a server's system calls while it takes single requests, and has `verdict` decide
//! whether it syncs before it acknowledges. Called by `main`.
//!
//! # Invariants
//! - The trace is of the server's whole tree of processes, with the threads that they have
//!   and get.
//! - It costs only time: what is measured runs without it.

use crate::payload::Payloads;
use crate::process;
use crate::system::{Server, System, Traced};
use crate::verdict::{self, Look};
use anyhow::{Context as _, bail, ensure};
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Requests before the trace: connections and statements are prepared by them.
const REQUESTS_BEFORE: usize = 3;

/// Requests that are judged.
const REQUESTS: usize = 5;

/// Between requests, so that what a server does after an answer is not taken for its part
/// of the next one.
const PAUSE: Duration = Duration::from_millis(100);

/// How long strace may take to attach to all threads, or to go.
const STRACE_WAIT: Duration = Duration::from_secs(60);

/// Bytes of a buffer that strace shows: an acknowledgement and what comes before it.
const SHOWN_BYTES: &str = "512";

const CALLS: &str = "read,readv,recvfrom,recvmsg,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fsync,fdatasync,sync_file_range,msync";

/// What was found.
pub(crate) struct Finding {
    /// How many of the requests were synced before their acknowledgement.
    pub(crate) synced: usize,
    pub(crate) requests: usize,
    /// The lines of the last one.
    pub(crate) excerpt: Vec<String>,
}

impl Finding {
    /// Whether all were.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced == self.requests
    }
}

/// Starts the system, traces it, and keeps the trace in `file`.
pub(crate) async fn trace(
    system: &dyn System,
    payloads: &Payloads,
    dir: &Path,
    file: &Path,
) -> anyhow::Result<Finding> {
    let server = system.start_traceable(dir).await?;
    let traced = server.traced().context("it has no process to trace")?;
    let mut senders = server.senders(1).await?;
    let sender = senders.first_mut().context("no client")?;
    let batch = || -> Vec<_> {
        let batch = 0..system.payloads_per_ack();
        batch.map(|_| payloads.next()).collect()
    };
    for _ in 0..REQUESTS_BEFORE {
        sender.send(&batch()).await?;
        tokio::time::sleep(PAUSE).await;
    }
    let pids = tree(traced.pid)?;
    let synced_files = synced_files(&pids)?;
    let said = dir.join("strace");
    let mut strace = attach(&pids, &said, file)?;
    wait("strace attaches", || {
        if strace.has_ended() {
            let log = std::fs::read_to_string(said.join("log"))?;
            bail!("strace: {log}");
        }
        is_attached(&said.join("log"), &pids)
    })
    .await?;
    let mut request_bytes = Vec::new();
    for _ in 0..REQUESTS {
        let batch = batch();
        request_bytes.push(batch.iter().map(|payload| payload.len()).sum());
        sender.send(&batch).await?;
        tokio::time::sleep(PAUSE).await;
    }
    strace.interrupt(STRACE_WAIT);
    drop(senders);
    let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
    judge(system, &*server, &text, dir, &synced_files, &request_bytes)
        .with_context(|| format!("the trace {}", file.display()))
}

fn judge(
    system: &dyn System,
    server: &dyn Server,
    text: &str,
    dir: &Path,
    synced_files: &HashSet<String>,
    request_bytes: &[usize],
) -> anyhow::Result<Finding> {
    let Traced { port, .. } = server.traced().context("it has no process to trace")?;
    let data_dir = dir.canonicalize()?.display().to_string();
    let look = Look {
        port,
        data_dir: &data_dir,
        synced_files,
        ack_text: system.ack_text(),
    };
    let judged = verdict::judge(text, &look, request_bytes).map_err(anyhow::Error::msg)?;
    let last = judged.last().context("nothing was judged")?;
    Ok(Finding {
        synced: judged.iter().filter(|request| request.is_synced).count(),
        requests: judged.len(),
        excerpt: last.lines.clone(),
    })
}

fn attach(pids: &[u32], dir: &Path, file: &Path) -> anyhow::Result<crate::guarded::Guarded> {
    let file = file.display().to_string();
    let calls = format!("trace={CALLS}");
    let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
    let mut command = vec![
        "strace",
        "-f",
        "-yy",
        "-ttt",
        "-T",
        "-s",
        SHOWN_BYTES,
        "-e",
        &calls,
        "-e",
        "signal=none",
        "-o",
        &file,
    ];
    for pid in &pids {
        command.extend(["-p", pid]);
    }
    process::start(&command, &[], dir)
}

/// strace says so for each process.
fn is_attached(log: &Path, pids: &[u32]) -> anyhow::Result<bool> {
    let said = std::fs::read_to_string(log)?;
    let is_said = |pid: &u32| said.contains(&format!("Process {pid} attached"));
    Ok(pids.iter().all(is_said))
}

async fn wait(what: &str, mut check: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let until = Instant::now() + STRACE_WAIT;
    while !check()? {
        ensure!(Instant::now() < until, "not within {STRACE_WAIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A process and its descendants.
fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that has just ended has no children.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // PID (NAME) STATE PARENT
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.push((pid, parent.context("a process without a parent")?));
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(pid, _)| *pid));
        at += 1;
    }
    Ok(found)
}

/// Files that these processes have open so that each write is synced.
fn synced_files(pids: &[u32]) -> anyhow::Result<HashSet<String>> {
    let flags = rustix::fs::OFlags::DSYNC.bits();
    let mut files = HashSet::new();
    for pid in pids {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            // It may be closed by now, like its target below.
            let Ok(info) = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{name}")) else {
                continue;
            };
            let octal = info.lines().find_map(|line| line.strip_prefix("flags:"));
            let octal = octal.context("a descriptor without flags")?;
            // O_SYNC has the bit of O_DSYNC, too.
            if u32::from_str_radix(octal.trim(), 8)? & flags != 0
                && let Ok(target) = std::fs::read_link(format!("/proc/{pid}/fd/{name}"))
            {
                files.insert(target.display().to_string());
            }
        }
    }
    Ok(files)
}
