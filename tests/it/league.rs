//! The league's judge of traces: it must see who acknowledges before the sync, whatever the
//! trace looks like. The traces here are cut from real ones, or bent from them.

use std::collections::HashSet;

#[path = "../../benches/league/verdict.rs"]
mod verdict;

use verdict::{Answered, Look, judge};

const SOCKET: &str = "TCP:[127.0.0.1:7000->127.0.0.1:40000]";

fn look(synced_files: &HashSet<String>) -> Look<'_> {
    Look {
        port: 7000,
        data_dir: "/d/redis",
        synced_files,
        ack_text: "\"$",
    }
}

/// Judges lines without their process and time, each of process 1 unless it begins with
/// another.
fn judged(lines: &[&str], requests: &[usize]) -> Result<Vec<Answered>, String> {
    let line = |line: &&str| match line.split_once('|') {
        Some((pid, said)) => format!("{pid}  1764000000.000001 {said}\n"),
        None => format!("1     1764000000.000001 {line}\n"),
    };
    let trace: String = lines.iter().map(line).collect();
    let trace = trace.replace("SOCKET", SOCKET);
    judge(&trace, &look(&HashSet::new()), requests)
}

fn synced(lines: &[&str]) -> bool {
    let [request] = &judged(lines, &[3000]).unwrap()[..] else {
        panic!("one request");
    };
    request.is_synced
}

const READ: &str = r#"read(8<SOCKET>, "*5\r\n$4\r\nXADD\r\n"..., 16384) = 3050 <0.000008>"#;
const WRITTEN: &str = r#"write(10</d/redis/aof.1>, "*5\r\n"..., 3050) = 3050 <0.000020>"#;
const SYNCED: &str = "fdatasync(10</d/redis/aof.1>) = 0 <0.000321>";
const ACKED: &str = r#"write(8<SOCKET>, "$15\r\n1764000000000-0\r\n", 22) = 22 <0.000030>"#;

#[test]
fn a_sync_between_a_request_and_its_acknowledgement_counts() {
    assert!(synced(&[READ, WRITTEN, SYNCED, ACKED]));
    let lines = [READ, WRITTEN, SYNCED, ACKED].repeat(3);
    let all = judged(&lines, &[3000; 3]).unwrap();
    assert!(all.iter().all(|request| request.is_synced));
    assert_eq!(all.len(), 3);
    assert_eq!(all[2].lines.len(), 4);
}

#[test]
fn a_sync_elsewhere_or_at_another_time_is_none() {
    assert!(!synced(&[READ, WRITTEN, ACKED]));
    assert!(!synced(&[READ, WRITTEN, ACKED, SYNCED]));
    assert!(!synced(&[WRITTEN, SYNCED, READ, ACKED]));
    // Nothing was written since the request, or only after the sync.
    assert!(!synced(&[READ, SYNCED, ACKED]));
    assert!(!synced(&[READ, SYNCED, WRITTEN, ACKED]));
    assert!(!synced(&[WRITTEN, READ, SYNCED, ACKED]));
    // Only a note of the request.
    let note = r#"write(10</d/redis/aof.1>, "term 1"..., 300) = 300 <0.000020>"#;
    assert!(!synced(&[READ, note, SYNCED, ACKED]));
    // Another file, and another server's.
    let other = "fdatasync(11</d/redis/aof.2>) = 0 <0.000321>";
    assert!(!synced(&[READ, WRITTEN, other, ACKED]));
    let [written, elsewhere] = [WRITTEN, SYNCED].map(|line| line.replace("/d/redis", "/d/nats"));
    assert!(!synced(&[READ, &written, &elsewhere, ACKED]));
}

#[test]
fn a_sync_that_failed_or_does_not_reach_the_disk_is_none() {
    let failed = "fdatasync(10</d/redis/aof.1>) = -1 EIO (Input/output error) <0.000321>";
    assert!(!synced(&[READ, WRITTEN, failed, ACKED]));
    let range = "sync_file_range(10</d/redis/aof.1>, 0, 4096, SYNC_FILE_RANGE_WRITE) = 0 <0.1>";
    assert!(!synced(&[READ, WRITTEN, range, ACKED]));
    let mapped = |how: &str| format!("msync(0x7f0000000000, 4096, {how}) = 0 <0.000100>");
    assert!(!synced(&[READ, &mapped("MS_ASYNC"), ACKED]));
    assert!(synced(&[READ, &mapped("MS_SYNC"), ACKED]));
}

#[test]
fn threads_that_overlap_are_told_apart() {
    let begun = "2|fdatasync(10</d/redis/aof.1> <unfinished ...>";
    let ended = "2|<... fdatasync resumed>) = 0 <0.004000>";
    assert!(synced(&[READ, WRITTEN, begun, ended, ACKED]));
    // The acknowledgement was written while the sync went on.
    assert!(!synced(&[READ, WRITTEN, begun, ACKED, ended]));
    let ack_begun = r#"write(8<SOCKET>, "$15\r\n1764000000000-0\r\n", 22 <unfinished ...>"#;
    let ack_ended = "<... write resumed>) = 22 <0.000030>";
    assert!(!synced(&[
        READ, WRITTEN, begun, ack_begun, ended, ack_ended
    ]));
    // The sync had begun before the write had ended.
    let write_begun = r#"write(10</d/redis/aof.1>, "*5"..., 3050 <unfinished ...>"#;
    let write_ended = "<... write resumed>) = 3050 <0.000030>";
    assert!(!synced(&[
        READ,
        write_begun,
        begun,
        write_ended,
        ended,
        ACKED
    ]));
    assert!(synced(&[
        READ,
        write_begun,
        write_ended,
        begun,
        ended,
        ACKED
    ]));
}

#[test]
fn a_request_has_arrived_with_its_last_byte() {
    let first = r#"read(8<SOCKET>, "*5\r\n"..., 16384) = 1400 <0.000008>"#;
    let last = r#"read(8<SOCKET>, "abc"..., 16384) = 1650 <0.000008>"#;
    assert!(!synced(&[first, WRITTEN, SYNCED, last, ACKED]));
    assert!(synced(&[first, last, WRITTEN, SYNCED, ACKED]));
    // Other clients' bytes are not this one's, nor are those of other ports.
    let other = READ.replace("SOCKET", "TCP:[127.0.0.1:7001->127.0.0.1:40000]");
    assert!(judged(&[&other, WRITTEN, SYNCED, ACKED], &[3000]).is_err());
}

#[test]
fn writes_to_a_file_open_for_synced_writes_are_syncs() {
    let trace = [READ, WRITTEN, ACKED].map(|line| {
        let line = line.replace("SOCKET", SOCKET);
        format!("1 1764000000.000001 {line}\n")
    });
    let files = HashSet::from(["/d/redis/aof.1".to_owned()]);
    let requests = judge(&trace.concat(), &look(&files), &[3000]).unwrap();
    assert!(requests[0].is_synced);
}

#[test]
fn what_is_not_in_the_trace_is_no_verdict() {
    assert!(judged(&[], &[3000]).is_err());
    assert!(judged(&[READ, WRITTEN, SYNCED], &[3000]).is_err());
    assert!(judged(&[READ, WRITTEN, SYNCED, ACKED], &[3000, 3000]).is_err());
    // Something else was written to the client.
    let ping = r#"write(8<SOCKET>, "+PONG\r\n", 7) = 7 <0.000030>"#;
    assert!(judged(&[READ, WRITTEN, SYNCED, ping], &[3000]).is_err());
    let failed = r#"write(8<SOCKET>, "$15\r\n1-0\r\n", 22) = -1 EPIPE (Broken pipe) <0.1>"#;
    assert!(judged(&[READ, WRITTEN, SYNCED, failed], &[3000]).is_err());
}
