//! Redis: a stream in an append-only file, synced before each answer or once a second.
//!
//! Its protocol is text, and three commands of it are needed: a client of twenty lines
//! brings no library into the lock file that the service never uses.

use crate::guarded::Guarded;
use crate::process;
use crate::system::{Promise, Sender, Server, System, Traced};
use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use std::path::Path;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

const STREAM: &[u8] = b"league";

/// Redis with a value of `appendfsync`.
pub(crate) struct Redis {
    pub(crate) is_always: bool,
}

struct RedisProcess {
    process: Guarded,
    port: u16,
}

#[async_trait]
impl System for Redis {
    fn name(&self) -> &'static str {
        match self.is_always {
            true => "redis-always",
            false => "redis-everysec",
        }
    }

    fn about(&self) -> String {
        format!("Redis stream, appendfsync {}", self.policy())
    }

    fn promise(&self) -> Promise {
        match self.is_always {
            true => Promise::Synced,
            false => Promise::Unsynced,
        }
    }

    /// The head of the answer to XADD, a text of so many bytes.
    fn ack_text(&self) -> &'static str {
        "\"$"
    }

    async fn start(&self, dir: &Path) -> anyhow::Result<Box<dyn Server>> {
        let port = process::free_port()?;
        let (port_text, dir_text) = (port.to_string(), dir.display().to_string());
        let command = [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            &port_text,
            "--dir",
            &dir_text,
            "--appendonly",
            "yes",
            "--appendfsync",
            self.policy(),
            // The append-only file is what makes it durable; snapshots would be on top.
            "--save",
            "",
        ];
        let mut process = process::start(&command, &[], dir)?;
        process::ready("redis-server", &mut process, || async {
            let answer = connect(port).await?.ask(&[b"PING"]).await?;
            ensure!(answer == "+PONG", "{answer}");
            Ok(())
        })
        .await?;
        Ok(Box::new(RedisProcess { process, port }))
    }
}

impl Redis {
    fn policy(&self) -> &'static str {
        match self.is_always {
            true => "always",
            false => "everysec",
        }
    }
}

#[async_trait]
impl Server for RedisProcess {
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
        let answer = connect(self.port).await?.ask(&[b"XLEN", STREAM]).await?;
        let length = answer.strip_prefix(':');
        Ok(Some(length.with_context(|| answer.clone())?.parse()?))
    }
}

struct Client {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
}

async fn connect(port: u16) -> anyhow::Result<Client> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(Client {
        stream: BufReader::new(stream),
        request: Vec::new(),
    })
}

impl Client {
    /// One command; its answer is one line, or a text, which is returned.
    async fn ask(&mut self, words: &[&[u8]]) -> anyhow::Result<String> {
        let request = &mut self.request;
        request.clear();
        request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(request).await?;
        let line = self.line().await?;
        match line.strip_prefix('$') {
            Some(length) => {
                let length: usize = length.parse()?;
                let mut text = vec![0; length + 2];
                self.stream.read_exact(&mut text).await?;
                text.truncate(length);
                Ok(String::from_utf8(text)?)
            }
            None if line.starts_with('-') => bail!("redis: {line}"),
            None => Ok(line),
        }
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await?;
        ensure!(read > 0, "redis closed the connection");
        Ok(line.trim_end().to_owned())
    }
}

#[async_trait]
impl Sender for Client {
    async fn send(&mut self, payloads: &[Bytes]) -> anyhow::Result<()> {
        let [payload] = payloads else {
            bail!("an XADD is one payload");
        };
        let id = self.ask(&[b"XADD", STREAM, b"*", b"p", payload]).await?;
        // Such as 1764000000000-0.
        let is_id = id.split_once('-').is_some_and(|(ms, number)| {
            [ms, number].iter().all(|part| part.parse::<u64>().is_ok())
        });
        ensure!(is_id, "no id of an entry: {id}");
        Ok(())
    }
}
