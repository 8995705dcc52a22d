//! What must hold of the bytes in a data directory, whoever has written them. Called by
//! `crate::fuzzing` alone, and compiled for it alone.
//!
//! Checksums keep out what a disk has changed; here they are made to be right, so that what
//! is behind them is met.

use super::block::{self, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BLOCKS_MAX, Block, Builder, Salt};
use super::codec;
use super::contents::Contents;
use super::high_water::HighWater;
use super::manifest::{self, Header, Manifest};
use super::position::{Passed, Position, Span};
use super::receipts::{self, ReceiptFile};
use super::record::{NewRecord, Record};
use super::slots::{self, SLOT_BYTES};
use super::store::{Blocks, StoreError};
use crate::event::identity::Seq;
use crate::event::tally::Tally;
use bytes::Bytes;
use serde::Serialize;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A receipt of more bytes is not tried: what bounds it is the same for any bound.
const RECEIPT_BYTES_MAX: usize = 1 << 20;

const SALT: Salt = *b"0123456789abcdef";

/// The bytes of a record, whose parts are put together.
pub(crate) fn record(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(record) = Record::decode(Seq(7), &bytes) {
        assert!(record.content.len() <= data.len());
        survives(&record);
    }
}

fn survives(record: &Record) {
    let again = NewRecord {
        kind: record.kind,
        received_at_ms: record.received_at_ms,
        reason: record.reason.clone(),
        events: record.events.clone(),
        content: record.content.clone(),
    };
    let again = Record::decode(record.seq, &again.encode().concat().into());
    assert_eq!(again.as_ref().ok(), Some(record));
}

/// Blocks by number.
struct Made(Vec<Bytes>);

impl Blocks for Made {
    fn get(&self, block: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(block as usize).cloned())
    }
}

/// A store's blocks: as they are, and pieces of them with a right head. The bytes of a
/// piece: its length (2, big endian), how many frames it claims (1), its frames.
pub(crate) fn block(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(block) = block::parse(&bytes, &SALT) {
        built_again(&block);
    }
    let mut blocks = Vec::new();
    let mut rest = data;
    while let Some(([high, low, frames], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (piece, after) = after.split_at(length.min(after.len()));
        rest = after;
        let bytes = with_head(piece, u32::from(*frames), blocks.len() as u64);
        if let Ok(block) = block::parse(&bytes, &SALT) {
            assert_eq!(block.number, blocks.len() as u64);
            built_again(&block);
        }
        blocks.push(bytes);
    }
    let count = blocks.len() as u64;
    let blocks_bytes: usize = blocks.iter().map(Bytes::len).sum();
    let mut contents = Contents::new(Arc::new(Made(blocks)), SALT);
    let mut held = 0;
    while contents.block() < count {
        for record in contents.next().expect("memory can be read") {
            assert!(record.seq <= Seq::MAX);
            held += record.content.len();
            survives(&record);
        }
    }
    assert!(held <= blocks_bytes, "records of {held} bytes");
}

/// A whole block with these frames.
fn with_head(frames: &[u8], count: u32, number: u64) -> Bytes {
    let mut bytes = SALT.to_vec();
    bytes.extend([1, 0, 0, 0, 0]);
    let crc_from = bytes.len();
    let head_bytes = crc_from + 4 + 8 + 8 + 4;
    let length = (head_bytes + frames.len()).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
    bytes.extend((length as u32).to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(frames);
    bytes.resize(length, 0);
    let crc = crc32c::crc32c(&bytes[crc_from..]);
    bytes[crc_from - 4..crc_from].copy_from_slice(&crc.to_le_bytes());
    bytes.into()
}

fn built_again(block: &Block) {
    assert!((BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block.bytes));
    assert!(block.number <= BLOCKS_MAX && block.durable_blocks <= BLOCKS_MAX);
    let mut builder = Builder::new();
    for frame in &block.frames {
        assert!(frame.part < frame.parts && frame.seq <= Seq::MAX);
        assert!(builder.fits(frame.bytes.len()), "more than a block has");
        builder.push(frame.seq, frame.part, frame.parts, [&frame.bytes, b""]);
    }
    let bytes = builder.finish(&SALT, block.number, block.durable_blocks);
    let again = block::parse(&bytes.into(), &SALT);
    assert_eq!(again.map(|again| again.frames).as_ref(), Ok(&block.frames));
}

/// The small files. The first byte says which, the others are its content.
pub(crate) fn files(data: &[u8]) {
    let Some((which, content)) = data.split_first() else {
        return;
    };
    match which % 8 {
        0 => {
            if let Ok(header) = manifest::decode::<Header>("header", content) {
                let again = versioned(manifest::VERSION, &header);
                let again = manifest::decode::<Header>("header", &again);
                assert_eq!(again.ok().as_ref(), Some(&header));
            }
        }
        1 => {
            if let Ok(manifest) = manifest::decode::<Manifest>("manifest", content) {
                a_manifest(&manifest);
            }
        }
        2 => {
            if let Ok(position) = Position::decode(content) {
                a_position(&position);
            }
        }
        3 => {
            // As a cursor's file has them: slots, of which the newest whole one counts.
            if let Some((number, kept)) = slots::newest(content) {
                assert!(number > 0 && kept.len() < SLOT_BYTES);
            }
        }
        4 => {
            let slot = slot(content);
            let newest = slots::newest(&slot);
            let fits = content.len() + 16 <= SLOT_BYTES;
            assert_eq!(
                newest.map(|(_, kept)| kept.len()),
                fits.then_some(content.len())
            );
        }
        5 => {
            let compressed = zstd::encode_all(content, 1).expect("memory can be written");
            a_receipt(receipts::decode(&compressed, RECEIPT_BYTES_MAX));
            a_receipt(receipts::decode(content, RECEIPT_BYTES_MAX));
        }
        6 => {
            let name = String::from_utf8_lossy(content).into_owned();
            if let Some(file) = ReceiptFile::parse(PathBuf::from(&name)) {
                assert!(file.last_received_at_ms >= 0, "{name}");
                assert_eq!(file.place(), (file.generation, file.span.first));
            }
        }
        _ => {
            if let Ok(high_water) = HighWater::decode(content) {
                let again = high_water.encode().expect("it was decoded");
                let again = HighWater::decode(&again);
                assert_eq!(again.ok().as_ref(), Some(&high_water));
                assert!(high_water.end <= Seq::MAX);
            }
        }
    }
}

fn versioned<T: Serialize>(version: u32, value: &T) -> Vec<u8> {
    codec::encode(&(version, value)).expect("it was decoded")
}

/// A slot with this content, in the place of the first.
fn slot(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(2u64.to_le_bytes());
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend(content);
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(SLOT_BYTES.max(bytes.len()), 0);
    bytes
}

fn a_manifest(manifest: &Manifest) {
    let again = versioned(manifest::VERSION, manifest);
    let again = manifest::decode::<Manifest>("manifest", &again);
    assert_eq!(again.ok().as_ref(), Some(manifest));
    assert!(manifest.blocks <= BLOCKS_MAX && manifest.end <= Seq::MAX);
    assert!(manifest.header.base <= manifest.end);
    let mut times = manifest.times.clone();
    for (seq, at_ms) in [(manifest.end, i64::MAX), (Seq::MAX, i64::MIN)] {
        times.note(seq, at_ms);
        let _at_ms = times.of(seq);
    }
    assert!(times.last().is_some());
}

fn a_position(position: &Position) {
    let again = position.encode().expect("it was decoded");
    assert_eq!(Position::decode(&again).ok().as_ref(), Some(position));
    assert!(position.next <= position.reach() && position.reach() <= Seq::MAX);
    let (accounted, all) = (position.accounted(), position.all());
    assert!(all.total().total() >= position.ledger.total().total());
    assert!(accounted.total() >= position.since.total());
    // Whatever it holds, a way out goes on from it.
    let mut moved = position.clone();
    let first = position.reach();
    let span = Span {
        first,
        end: first.next(),
    };
    let passed = Passed {
        seq: first,
        events: Tally::rejected(),
        dead_lettered: Tally::rejected(),
    };
    if moved.deliver(span, &[passed]) {
        assert!(moved.has_passed(first));
    }
    for gap in position.gaps(span.end) {
        assert!(position.next <= gap.first && gap.first < gap.end && gap.end <= span.end);
        assert!(!position.has_passed(gap.first));
    }
    moved.skip(span.end, &Tally::default());
    assert_eq!((moved.next, moved.ahead().len()), (span.end, 0));
}

fn a_receipt(receipt: io::Result<receipts::Receipt>) {
    let Ok(receipt) = receipt else {
        return;
    };
    let bytes = codec::encode(&receipt).expect("it was decoded");
    let bytes = zstd::encode_all(&bytes[..], 1).expect("memory can be written");
    let again = receipts::decode(&bytes, 2 * RECEIPT_BYTES_MAX);
    assert_eq!(again.ok(), Some(receipt));
}

/// Files and blocks as this folder writes them.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    use super::manifest::Times;
    use super::receipts::Draft;
    use super::record::Kind;
    use crate::event::tally::TypeKey;
    use crate::event::webhook::Source;

    let mut events = Tally::default();
    events.add(TypeKey::of_name("LaunchEvent"), 3);
    events.add(TypeKey::UNKNOWN, 1);
    // A header with a device, and an event with an id and a time.
    let content: &[u8] = b"\x22\x03\x42\x01d\x2a\x06\x22\x01e\x2a\x01\x37";
    let new = |kind, reason: Option<&str>, content: &'static [u8]| NewRecord {
        kind,
        received_at_ms: 1_700_000_000_000,
        reason: reason.map(str::to_owned),
        events: events.clone(),
        content: Bytes::from_static(content),
    };
    let records = [
        ("dispatch", new(Kind::Dispatch, None, content)),
        (
            "rejected",
            new(Kind::Rejected, Some("Incomplete event"), b""),
        ),
        (
            "webhook",
            new(Kind::Webhook(Source::Shopify), None, b"\x02\0\0\0{}{}"),
        ),
    ];
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, bytes| seeds.push((target, name.to_owned(), bytes));
    let mut builder = Builder::new();
    let (mut frames, mut draft) = (Vec::new(), Draft::new(9, 999).unwrap());
    for (seq, (name, record)) in records.iter().enumerate() {
        let bytes = record.encode().concat();
        builder.push(Seq(5 + seq as u64), 0, 1, [&bytes, b""]);
        frames.extend((5 + seq as u64).to_le_bytes());
        frames.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        frames.extend((bytes.len() as u32).to_le_bytes());
        frames.extend(&bytes);
        let record = Record::decode(Seq(5 + seq as u64), &bytes.clone().into());
        draft.add(&record.unwrap()).unwrap();
        add("journal_record", name, bytes);
    }
    add("journal_block", "whole", builder.finish(&SALT, 0, 0));
    let piece = |frames: &[u8], count: u8| {
        let length = (frames.len() as u16).to_be_bytes();
        [&length, &[count][..], frames].concat()
    };
    add("journal_block", "frames", piece(&frames, 3));
    // One record in three parts, with a block of another between.
    let bytes = records[0].1.encode().concat();
    let part = |at: u32, bytes: &[u8]| {
        let numbers = [
            &9u64.to_le_bytes()[..],
            &at.to_le_bytes(),
            &3u32.to_le_bytes(),
        ]
        .concat();
        piece(
            &[&numbers[..], &(bytes.len() as u32).to_le_bytes(), bytes].concat(),
            1,
        )
    };
    let parts = [
        part(0, &bytes[..9]),
        part(1, &bytes[9..15]),
        part(2, &bytes[15..]),
    ];
    add("journal_block", "parts", parts.concat());
    let torn = [&parts[0][..], &piece(&frames, 3), &parts[1], &parts[2]].concat();
    add("journal_block", "torn_parts", torn);

    let header = Header {
        generation: 3,
        base: Seq(5),
        previous_end: Seq(4),
        salt: SALT,
        created_at_ms: 1_700_000_000_000,
        accepted_before: events.clone(),
    };
    let mut times = Times::default();
    times.note(Seq(5), 1_700_000_000_000);
    times.note(Seq(7), 1_700_000_009_000);
    let manifest = Manifest {
        blocks: 9,
        end: Seq(20),
        events: events.clone(),
        times,
        sealed: true,
        lost: vec![(Seq(6), Seq(7)), (Seq(9), Seq(12))],
        lost_events: events.clone(),
        ..Manifest::new(header.clone())
    };
    let mut position = Position::new(Seq(5), &events);
    let delivered = Passed {
        seq: Seq(9),
        events: events.clone(),
        dead_lettered: Tally::default(),
    };
    let span = Span {
        first: Seq(8),
        end: Seq(12),
    };
    assert!(position.deliver(span, &[delivered]));
    let position = position.encode().unwrap();
    let high_water = HighWater {
        end: Seq(5),
        accepted: events.clone(),
    };
    let receipt = draft.finish(span).unwrap();
    let plain = receipts::decompress(&receipt, RECEIPT_BYTES_MAX).unwrap();
    for (which, name, content) in [
        (0, "header", versioned(manifest::VERSION, &header)),
        (1, "manifest", versioned(manifest::VERSION, &manifest)),
        (2, "position", position.clone()),
        (3, "slots", slot(&position)[..200].to_vec()),
        (4, "slot", position),
        (5, "receipt", plain),
        (5, "receipt_file", receipt),
        (7, "high_water", high_water.encode().unwrap()),
        (
            6,
            "receipt_name",
            b"gen-000000000003.5.5.20.1700000000000".to_vec(),
        ),
    ] {
        add("journal_files", name, [&[which][..], &content].concat());
    }
    seeds
}
