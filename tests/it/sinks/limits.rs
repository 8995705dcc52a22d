//! A front before ClickHouse with a limit on bodies: what is larger is refused, so that it comes
//! in smaller batches.

use super::clickhouse::{self, ClickHouseTest};
use super::refused;
use super::rows::{KINDS, batch, with};
use holdfast::sink::clickhouse::{ClickHouse, Options};
use holdfast::sink::{Sink, Value};
use rand::Rng as _;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Bytes of an insert that it takes.
const LIMIT: usize = 1_500_000;

/// Rows of a MiB: more of them than a connection holds.
const ROWS: u64 = 12;

const ANSWER: &str = "HTTP/1.1 413 Request Entity Too Large\r\nConnection: close\r\nContent-Length: 73\r\n\r\n<html><head><title>413 Request Entity Too Large</title></head></html>\r\n\r\n";

/// A way to the server that answers before it has read what is too large.
async fn front(target: String) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    // So that what it does not read waits at the other end.
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(16).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(serve(near, target.clone()));
        }
    });
    port
}

async fn serve(near: TcpStream, target: String) {
    let far = TcpStream::connect(target).await.unwrap();
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let mut sent = None;
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = from_near.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                if up.starts_with(b"POST ") {
                    let line = up.split(|byte| *byte == b'\r').next().unwrap();
                    let is_insert = String::from_utf8_lossy(line).contains("INSERT");
                    sent = is_insert.then_some(0);
                }
                if let Some(sent) = &mut sent {
                    *sent += read;
                    if *sent > LIMIT {
                        break;
                    }
                }
                if to_far.write_all(&up[..read]).await.is_err() {
                    return;
                }
            }
            read = from_far.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if to_near.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
    // By then the other end has sent what the connection holds, and waits for room for more.
    tokio::time::sleep(Duration::from_secs(1)).await;
    to_near.write_all(ANSWER.as_bytes()).await.unwrap();
    to_near.shutdown().await.unwrap();
    // It reads no more; gone at once, it would have the answer thrown away.
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn clickhouse_behind_a_front_with_a_limit_gets_smaller_batches() {
    let ch: ClickHouseTest<'_> = clickhouse::start("limited").await;
    ch.sink.create_missing(&[&KINDS]).await.unwrap();
    let direct = ch.options();
    let port = front(direct.url.replace("http://", "")).await;
    let sink = ClickHouse::new(Options {
        url: format!("http://127.0.0.1:{port}"),
        ..direct
    })
    .unwrap();
    // What compresses would be small again.
    let text = || -> String {
        let letters = rand::rng().sample_iter(rand::distr::Alphanumeric);
        letters.take(1 << 20).map(char::from).collect()
    };
    let rows: Vec<_> = (0..ROWS)
        .map(|at| with(&format!("r{at}"), &[(2, Value::Text(text()))]))
        .collect();
    for _ in 0..3 {
        let whole = batch(&KINDS, "whole", rows.clone());
        let reason = refused(sink.write(&whole).await);
        assert!(reason.contains("413"), "{reason}");
    }
    for (at, row) in rows.into_iter().enumerate() {
        let single = batch(&KINDS, &format!("single {at}"), vec![row]);
        sink.write(&single).await.unwrap();
    }
    assert_eq!(ch.count("kinds FINAL").await, ROWS);
}
