//! The ceiling: a plain file with the journal's group commit and nothing else. Waiting
//! requests are packed into blocks of 64 KiB, written one after the other, and answered after
//! one fdatasync. No checksum, no number, no index, no ledger.

use bytes::Bytes;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// The journal's bounds: payload of a block, and of what is written between two syncs.
const BLOCK_BYTES: usize = 64 << 10;
const SYNC_BYTES: usize = 1 << 20;

/// The journal's, too: a file ends and the next begins.
const FILE_BYTES: usize = 64 << 20;

/// Bytes of one read.
const WINDOW_BYTES: usize = 2 << 20;

type Append = (Bytes, oneshot::Sender<()>);

/// A log that is written.
#[derive(Clone)]
pub struct Plain {
    commands: mpsc::Sender<Append>,
}

impl Plain {
    /// Begins one in this directory; the thread ends with the last handle.
    pub fn open(dir: &Path) -> (Self, JoinHandle<()>) {
        std::fs::create_dir_all(dir).unwrap();
        let (commands, queue) = mpsc::channel(16_384);
        let dir = dir.to_owned();
        let writer = std::thread::spawn(move || run(&dir, queue));
        (Self { commands }, writer)
    }

    /// Returns once it is durable.
    pub async fn append(&self, record: Bytes) {
        let (sender, answer) = oneshot::channel();
        self.commands.send((record, sender)).await.unwrap();
        answer.await.unwrap();
    }
}

fn run(dir: &Path, mut queue: mpsc::Receiver<Append>) {
    let mut next_file = (0..).map(|number| File::create(file(dir, number)).unwrap());
    let mut to = next_file.next().unwrap();
    let mut in_file = 0;
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut waiting = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some((record, answer)) = next {
            if block.len() + record.len() > BLOCK_BYTES {
                to.write_all(&block).unwrap();
                block.clear();
            }
            block.extend_from_slice(&record);
            taken += record.len();
            waiting.push(answer);
            next = (taken < SYNC_BYTES)
                .then(|| queue.try_recv().ok())
                .flatten();
        }
        to.write_all(&block).unwrap();
        block.clear();
        to.sync_data().unwrap();
        for answer in waiting.drain(..) {
            answer.send(()).ok();
        }
        in_file += taken;
        if in_file >= FILE_BYTES {
            to = next_file.next().unwrap();
            in_file = 0;
        }
    }
}

fn file(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("log-{number:06}"))
}

/// Reads all of it, with a checksum of each block; its bytes.
pub fn read(dir: &Path) -> usize {
    let mut window = vec![0; WINDOW_BYTES];
    let (mut bytes, mut sums) = (0, 0u32);
    for number in 0.. {
        let Ok(mut from) = File::open(file(dir, number)) else {
            break;
        };
        loop {
            let count = from.read(&mut window).unwrap();
            if count == 0 {
                break;
            }
            for block in window[..count].chunks(BLOCK_BYTES) {
                sums ^= crc32c::crc32c(block);
            }
            bytes += count;
        }
    }
    std::hint::black_box(sums);
    bytes
}
