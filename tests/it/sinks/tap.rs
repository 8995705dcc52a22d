//! A way to a server that notes what its clients say: the beginning of each of their turns.
//! A turn ends with the server's answer, so that turns are round trips.

use crate::support::servers::Server;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub struct Tap {
    pub port: u16,
    turns: Arc<Mutex<Vec<String>>>,
    answered: Arc<AtomicUsize>,
}

impl Tap {
    pub async fn new(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let turns: Arc<Mutex<Vec<String>>> = Arc::default();
        let (to, notes) = (server.port, Arc::clone(&turns));
        let answered = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&answered);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let notes = (Arc::clone(&notes), Arc::clone(&counted));
                tokio::spawn(pass(client, server, notes));
            }
        });
        Self {
            port,
            turns,
            answered,
        }
    }

    /// Bytes that the server has sent.
    pub fn answered_bytes(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// How the turns since the last call began.
    pub fn turns(&self) -> Vec<String> {
        std::mem::take(&mut *self.turns.lock().unwrap())
    }
}

type Notes = (Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>);

async fn pass(mut client: TcpStream, mut server: TcpStream, (turns, counted): Notes) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut is_answered = true;
    loop {
        let passed = tokio::select! {
            count = client.read(&mut asked) => {
                let bytes = &asked[..count.unwrap_or(0)];
                if is_answered && !bytes.is_empty() {
                    let text = String::from_utf8_lossy(bytes).into_owned();
                    turns.lock().unwrap().push(text);
                    is_answered = false;
                }
                (!bytes.is_empty()).then_some(server.write_all(bytes).await)
            }
            count = server.read(&mut answered) => {
                let bytes = &answered[..count.unwrap_or(0)];
                is_answered = true;
                counted.fetch_add(bytes.len(), Ordering::Relaxed);
                (!bytes.is_empty()).then_some(client.write_all(bytes).await)
            }
        };
        if !matches!(passed, Some(Ok(()))) {
            return;
        }
    }
}
