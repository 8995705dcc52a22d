//! NATS JetStream: a stream in files. From 2.10 on `sync_interval: always` has it sync
//! before each acknowledgement; an older server does not know it, and says so to a check of
//! its configuration, which decides what the row says.
//!
//! Its protocol is text, as Redis's is, and the client here a hundred lines: the library
//! would bring thirty crates into the lock file.

use crate::guarded::Guarded;
use crate::process;
use crate::system::{Promise, Sender, Server, System, Traced};
use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};

const SUBJECT: &str = "league";
const CREATE: &str = "$JS.API.STREAM.CREATE.LEAGUE";
const INFO: &str = "$JS.API.STREAM.INFO.LEAGUE";
const STREAM: &str = r#"{"name":"LEAGUE","subjects":["league"],"storage":"file","retention":"limits","discard":"new","num_replicas":1,"max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0}"#;

/// Where answers go.
const INBOX: &str = "_INBOX.league";

/// Requests that wait to be written.
const QUEUE: usize = 1024;

/// Bytes that are written at once at most.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// NATS JetStream, as synced as this version can be.
pub(crate) struct Nats {
    version: String,
    is_always: bool,
}

impl Nats {
    /// Asks the installed server what it knows.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let run = |arguments: &[&str]| {
            let output = Command::new("nats-server").args(arguments).output();
            output.context("nats-server")
        };
        let said = run(&["--version"])?.stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let version = said.split_whitespace().last().unwrap_or("?");
        let file = dir.join("always.conf");
        std::fs::write(&file, config(0, dir, true))?;
        let check = run(&["-t", "-c", &file.display().to_string()])?;
        let complaint = String::from_utf8_lossy(&check.stderr).into_owned();
        let is_unknown = complaint.contains("sync_interval");
        ensure!(
            check.status.success() || is_unknown,
            "nats-server: {complaint}"
        );
        Ok(Self {
            version: version.trim_start_matches('v').to_owned(),
            is_always: check.status.success(),
        })
    }
}

fn config(port: u16, dir: &Path, is_always: bool) -> String {
    let sync = match is_always {
        true => "  sync_interval: always\n",
        false => "",
    };
    format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{\n  store_dir: \"{}\"\n{sync}}}\n",
        dir.join("store").display()
    )
}

struct NatsProcess {
    process: Guarded,
    port: u16,
}

#[async_trait]
impl System for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn about(&self) -> String {
        let version = &self.version;
        match self.is_always {
            true => format!("NATS JetStream {version}, sync always"),
            false => format!("NATS JetStream {version} (has no sync before the ack)"),
        }
    }

    fn promise(&self) -> Promise {
        match self.is_always {
            true => Promise::Synced,
            false => Promise::Unsynced,
        }
    }

    fn ack_text(&self) -> &'static str {
        "\\\"seq\\\":"
    }

    async fn start(&self, dir: &Path) -> anyhow::Result<Box<dyn Server>> {
        let port = process::free_port()?;
        let file = dir.join("nats.conf");
        std::fs::write(&file, config(port, dir, self.is_always))?;
        let command = ["nats-server", "-c", &file.display().to_string()];
        let mut process = process::start(&command, &[], dir)?;
        process::ready("nats-server", &mut process, || async {
            let answer = Connection::open(port)
                .await?
                .ask(CREATE, STREAM.into())
                .await?;
            ensure!(!answer.contains("\"error\""), "{answer}");
            Ok(())
        })
        .await?;
        Ok(Box::new(NatsProcess { process, port }))
    }
}

#[async_trait]
impl Server for NatsProcess {
    fn traced(&self) -> Option<Traced> {
        Some(Traced {
            pid: self.process.pid(),
            port: self.port,
        })
    }

    async fn senders(&self, count: usize) -> anyhow::Result<Vec<Box<dyn Sender>>> {
        let connection = Connection::open(self.port).await?;
        let sender = || Box::new(connection.clone()) as Box<dyn Sender>;
        Ok((0..count).map(|_| sender()).collect())
    }

    async fn stored(&self) -> anyhow::Result<Option<u64>> {
        let connection = Connection::open(self.port).await?;
        let answer = connection.ask(INFO, Bytes::new()).await?;
        let info: serde_json::Value = serde_json::from_str(&answer)?;
        let messages = info["state"]["messages"].as_u64();
        Ok(Some(messages.with_context(|| answer.clone())?))
    }
}

/// What waits for answers, by the number in their subject; nothing once the connection is
/// lost, so that nobody waits for ever.
type Asked = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<String>>>>>;

/// One connection, shared by all who send.
#[derive(Clone)]
struct Connection {
    queue: mpsc::Sender<Vec<u8>>,
    asked: Asked,
    next: Arc<AtomicU64>,
}

impl Connection {
    async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.into_split();
        let (queue, mut waiting) = mpsc::channel::<Vec<u8>>(QUEUE);
        let asked: Asked = Arc::new(Mutex::new(Some(HashMap::new())));
        let hello =
            format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {INBOX}.* 1\r\n");
        queue.send(hello.into_bytes()).await?;
        tokio::spawn(async move {
            while let Some(mut bytes) = waiting.recv().await {
                while bytes.len() < WRITE_BYTES_MAX
                    && let Ok(more) = waiting.try_recv()
                {
                    bytes.extend_from_slice(&more);
                }
                if write.write_all(&bytes).await.is_err() {
                    // The reader notices, too, and tells those who wait.
                    return;
                }
            }
        });
        let (answers, pongs) = (Arc::clone(&asked), queue.downgrade());
        tokio::spawn(async move {
            let ended = receive(BufReader::new(read), &answers, &pongs).await;
            if let Err(error) = ended {
                eprintln!("league: nats: {error:#}");
            }
            answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
        });
        Ok(Self {
            queue,
            asked,
            next: Arc::default(),
        })
    }

    /// Publishes with a place for the answer, and awaits it.
    async fn ask(&self, subject: &str, payload: Bytes) -> anyhow::Result<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = asked.as_mut().context("the connection is lost")?;
            asked.insert(number, answer);
        }
        let head = format!("PUB {subject} {INBOX}.{number} {}\r\n", payload.len());
        let mut bytes = Vec::with_capacity(head.len() + payload.len() + 2);
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(b"\r\n");
        self.queue.send(bytes).await?;
        answered.await.context("the connection was lost")
    }
}

/// Hands answers on until the connection ends.
async fn receive(
    mut from: BufReader<OwnedReadHalf>,
    asked: &Asked,
    pongs: &mpsc::WeakSender<Vec<u8>>,
) -> anyhow::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        if from.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            // MSG subject subscription bytes
            ["MSG", subject, _, length] => {
                let length: usize = length.parse()?;
                let mut payload = vec![0; length + 2];
                from.read_exact(&mut payload).await?;
                payload.truncate(length);
                let number = subject.rsplit('.').next().unwrap_or_default().parse()?;
                let waits = {
                    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                    asked.as_mut().and_then(|asked| asked.remove(&number))
                };
                if let Some(waits) = waits {
                    // Who does not wait any more need not be told.
                    waits.send(String::from_utf8(payload)?).ok();
                }
            }
            ["PING"] => {
                if let Some(queue) = pongs.upgrade() {
                    queue.send(b"PONG\r\n".to_vec()).await?;
                }
            }
            ["PONG"] | ["INFO", ..] | ["+OK"] => {}
            _ => bail!("{}", line.trim_end()),
        }
    }
}

#[async_trait]
impl Sender for Connection {
    async fn send(&mut self, payloads: &[Bytes]) -> anyhow::Result<()> {
        let [payload] = payloads else {
            bail!("a publish is one payload");
        };
        let answer = self.ask(SUBJECT, payload.clone()).await?;
        let is_acked = answer.contains("\"seq\":") && !answer.contains("\"error\"");
        ensure!(is_acked, "{answer}");
        Ok(())
    }
}
