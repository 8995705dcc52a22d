//! HTTP/2 past its bounds, at ports whose idle connections may stay: what ends a flood is its own
//! bound, and no time.

use super::slow;
use super::wire::Site;
use crate::support::Scratch;
use crate::support::collector::Collector;
use std::process::Command;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// SETTINGS (RFC 9113, 6.5.2).
const MAX_CONCURRENT_STREAMS: u16 = 3;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// The settings that a port tells first.
async fn settings(port: u16) -> Vec<(u16, u32)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&slow::opening()).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.unwrap();
    let pairs = payload.chunks_exact(6).map(|pair| {
        let (name, value) = pair.split_at(2);
        (
            u16::from_be_bytes(name.try_into().unwrap()),
            u32::from_be_bytes(value.try_into().unwrap()),
        )
    });
    pairs.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_over_http2_end_by_their_own_bounds() {
    let scratch = Scratch::new("hostile_http2");
    let mut collector = Collector::new(&scratch, "[sqlite]\n");
    collector.start().await;
    let site = Site {
        grpc: collector.grpc,
        http: collector.http,
        token: String::new(),
    };
    let floods = slow::cases().into_iter().filter(|case| {
        let name = &case.name;
        name.starts_with("rapid resets") || name.starts_with("continuations")
    });
    let floods: Vec<_> = floods.collect();
    assert_eq!(floods.len(), 4);
    // Left alone they would stay for minutes, which no case waits for.
    let wrong = tokio::task::spawn_blocking(move || {
        let wrong = floods.iter().filter_map(|case| case.play(&site));
        wrong.collect::<Vec<_>>()
    });
    assert_eq!(wrong.await.unwrap(), Vec::<String>::new());
    for port in [collector.grpc, collector.http] {
        let told = settings(port).await;
        assert!(told.contains(&(MAX_CONCURRENT_STREAMS, 1024)), "{told:?}");
        assert!(told.contains(&(MAX_HEADER_LIST_SIZE, 32 << 10)), "{told:?}");
        // A head beyond it, by a client that heeds nothing.
        for (bytes, is_taken) in [(20 << 10, true), (40 << 10, false)] {
            let asked = Command::new("curl")
                .args(["-s", "--http2-prior-knowledge", "-o", "/dev/null"])
                .args(["-w", "%{http_version} %{http_code}", "-H"])
                .arg(format!("x-long: {}", "l".repeat(bytes)))
                .arg(format!("http://127.0.0.1:{port}/heartbeat/"))
                .output()
                .unwrap();
            let said = String::from_utf8(asked.stdout).unwrap();
            assert_eq!(said == "2 431", !is_taken, "{bytes}: {said}");
        }
    }
    assert!(collector.terminate().success());
}
