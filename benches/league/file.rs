//! The ceiling of the disk: a plain file with group commit, and no server before it. A
//! thread appends what waits in one write, syncs it, and tells all who waited.
//!
//! For a trace alone it gets a server, since an acknowledgement must leave the process to be
//! seen: the same log behind a TCP port.

use crate::guarded::Guarded;
use crate::process;
use crate::system::{Promise, Sender, Server, System, Traced};
use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Bytes of a payload's length, before it.
const LENGTH: usize = 4;

/// Bytes of one write at most: more waits for the next one.
const WRITE_BYTES_MAX: usize = 4 << 20;

const ACK: &[u8; 6] = b"synced";

type Waiting = (Bytes, oneshot::Sender<std::io::Result<()>>);

/// The file.
pub(crate) struct PlainFile;

/// The log of one file; its thread ends when the last handle is dropped.
#[derive(Clone)]
struct Log {
    queue: mpsc::Sender<Waiting>,
    path: PathBuf,
}

impl Log {
    fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("plain");
        let file = File::options().create(true).append(true).open(&path)?;
        // The name is durable, too.
        File::open(dir)?.sync_all()?;
        let (queue, waiting) = mpsc::channel();
        std::thread::spawn(move || append(file, &waiting));
        Ok(Self { queue, path })
    }

    async fn append(&self, payload: Bytes) -> anyhow::Result<()> {
        let (done, is_done) = oneshot::channel();
        self.queue.send((payload, done))?;
        Ok(is_done.await??)
    }

    /// Counts what the file holds.
    fn count(&self) -> anyhow::Result<u64> {
        let mut file = BufReader::new(File::open(&self.path)?);
        let mut left = file.get_ref().metadata()?.len();
        let mut count = 0;
        while left > 0 {
            let mut length = [0; LENGTH];
            file.read_exact(&mut length)?;
            let length = u32::from_le_bytes(length);
            let whole = LENGTH as u64 + u64::from(length);
            left = left
                .checked_sub(whole)
                .context("the file ends in a payload")?;
            file.seek_relative(length.into())?;
            count += 1;
        }
        Ok(count)
    }
}

fn append(mut file: File, waiting: &mpsc::Receiver<Waiting>) {
    let mut bytes = Vec::with_capacity(WRITE_BYTES_MAX);
    let mut group = Vec::new();
    while let Ok(first) = waiting.recv() {
        let mut next = Some(first);
        while let Some((payload, done)) = next {
            let length = payload.len() as u32;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&payload);
            group.push(done);
            let is_full = bytes.len() >= WRITE_BYTES_MAX;
            next = if is_full {
                None
            } else {
                waiting.try_recv().ok()
            };
        }
        let synced = file.write_all(&bytes).and_then(|()| file.sync_data());
        bytes.clear();
        for done in group.drain(..) {
            let said = match &synced {
                Ok(()) => Ok(()),
                Err(error) => Err(std::io::Error::other(error.to_string())),
            };
            // Who does not wait any more need not be told.
            done.send(said).ok();
        }
    }
}

#[async_trait]
impl System for PlainFile {
    fn name(&self) -> &'static str {
        "file"
    }

    fn about(&self) -> String {
        "ceiling: plain file, group commit, no RPC".to_owned()
    }

    fn promise(&self) -> Promise {
        Promise::Synced
    }

    fn ack_text(&self) -> &'static str {
        "synced"
    }

    async fn start(&self, dir: &Path) -> anyhow::Result<Box<dyn Server>> {
        Ok(Box::new(Log::open(dir)?))
    }

    async fn start_traceable(&self, dir: &Path) -> anyhow::Result<Box<dyn Server>> {
        let port = process::free_port()?;
        let mut process = crate::serve::start("file", port, dir)?;
        process::ready("the file's server", &mut process, || connect(port)).await?;
        Ok(Box::new(Behind { process, port }))
    }
}

#[async_trait]
impl Server for Log {
    fn traced(&self) -> Option<Traced> {
        None
    }

    async fn senders(&self, count: usize) -> anyhow::Result<Vec<Box<dyn Sender>>> {
        let sender = || Box::new(self.clone()) as Box<dyn Sender>;
        Ok((0..count).map(|_| sender()).collect())
    }

    async fn stored(&self) -> anyhow::Result<Option<u64>> {
        Ok(Some(self.count()?))
    }
}

#[async_trait]
impl Sender for Log {
    async fn send(&mut self, payloads: &[Bytes]) -> anyhow::Result<()> {
        for payload in payloads {
            self.append(payload.clone()).await?;
        }
        Ok(())
    }
}

/// The log behind a port.
struct Behind {
    process: Guarded,
    port: u16,
}

#[async_trait]
impl Server for Behind {
    fn traced(&self) -> Option<Traced> {
        Some(Traced {
            pid: self.process.pid(),
            port: self.port,
        })
    }

    async fn senders(&self, count: usize) -> anyhow::Result<Vec<Box<dyn Sender>>> {
        let mut senders: Vec<Box<dyn Sender>> = Vec::new();
        for _ in 0..count {
            senders.push(Box::new(connect(self.port).await?));
        }
        Ok(senders)
    }

    async fn stored(&self) -> anyhow::Result<Option<u64>> {
        Ok(None)
    }
}

struct Far(TcpStream);

async fn connect(port: u16) -> anyhow::Result<Far> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(Far(stream))
}

#[async_trait]
impl Sender for Far {
    async fn send(&mut self, payloads: &[Bytes]) -> anyhow::Result<()> {
        for payload in payloads {
            let mut bytes = u32::try_from(payload.len())?.to_le_bytes().to_vec();
            bytes.extend_from_slice(payload);
            self.0.write_all(&bytes).await?;
            let mut answer = [0; ACK.len()];
            self.0.read_exact(&mut answer).await?;
            ensure!(&answer == ACK, "no acknowledgement: {answer:?}");
        }
        Ok(())
    }
}

/// Serves the log, to one client after the other: `serve` calls it.
pub(crate) async fn serve(port: u16, dir: &Path) -> anyhow::Result<()> {
    let log = Log::open(dir)?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        // A client that goes away is no error of the server's.
        while let Ok(length) = stream.read_u32_le().await {
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await?;
            log.append(Bytes::from(payload)).await?;
            stream.write_all(ACK).await?;
        }
    }
}
