//! Who syncs before the acknowledgement, read from a trace of system calls of single
//! requests. Called by `trace`; a test of the suite holds it against traces that lie.
//!
//! # Invariants
//! - A request counts as synced only if, after its last byte was read and before its
//!   acknowledgement was written, the server wrote about its bytes to files of its data
//!   directory, and then began and ended, without an error, a sync of the same files. Writes
//!   to a file that is open with `O_SYNC` or `O_DSYNC` are both at once; a synchronous `msync`
//!   is, too. `sync_file_range` is none: it leaves out the disk's cache.
//! - Order is that of the lines: strace writes them as the calls begin and end, and none goes
//!   on before its line is written.
//! - A request or an acknowledgement that is not found is an error, and no verdict.

use std::collections::{HashMap, HashSet};

/// A server that compresses writes less than it read; one that syncs only what it notes
/// about a request writes far less.
const COMPRESSED: usize = 2;

/// Where and what to look for.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// The server's port.
    pub port: u16,
    /// How its data's files begin.
    pub data_dir: &'a str,
    /// Files that were open with `O_SYNC` or `O_DSYNC` before the trace.
    pub synced_files: &'a HashSet<String>,
    /// What the write of an acknowledgement shows.
    pub ack_text: &'a str,
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Whether a sync of its data came before its acknowledgement.
    pub is_synced: bool,
    /// The lines that tell, from its arrival to its acknowledgement.
    pub lines: Vec<String>,
}

/// A call that has ended.
#[derive(Debug)]
struct Call<'a> {
    name: &'a str,
    /// What its first argument is: a path, or a socket's addresses.
    of: &'a str,
    /// Its lines: where it began and where it ended.
    begun: usize,
    ended: usize,
    /// Bytes, or 0; none for an error.
    result: Option<u64>,
    /// Its arguments.
    text: &'a str,
}

/// Judges requests that came one after the other, each of so many bytes.
///
/// # Errors
///
/// Names what was not found in the trace.
pub fn judge(
    trace: &str,
    look: &Look<'_>,
    request_bytes: &[usize],
) -> Result<Vec<Answered>, String> {
    let calls = calls(trace);
    let lines: Vec<_> = trace.lines().collect();
    let socket = format!("127.0.0.1:{}->", look.port);
    let is_ours = |call: &&Call<'_>| call.of.starts_with("TCP") && call.of.contains(&socket);
    let mut judged = Vec::new();
    let mut from = 0;
    for (number, bytes) in request_bytes.iter().enumerate() {
        let mut read = 0;
        let arrived = calls
            .iter()
            .filter(|call| call.begun >= from && is_read(call.name) && is_ours(call))
            .find(|call| {
                read += call.result.unwrap_or(0);
                read >= *bytes as u64
            })
            .ok_or_else(|| format!("request {number} was read only in {read} of {bytes} bytes"))?;
        let ack = calls
            .iter()
            .filter(|call| call.begun > arrived.ended && is_write(call.name) && is_ours(call))
            .find(|call| call.text.contains(look.ack_text) && call.result.is_some())
            .ok_or_else(|| format!("request {number} was not acknowledged"))?;
        let within: Vec<_> = calls
            .iter()
            .filter(|call| call.begun > arrived.ended && call.ended < ack.begun)
            .filter(|call| call.result.is_some())
            .collect();
        judged.push(Answered {
            is_synced: is_synced(&within, look, *bytes),
            lines: told(&lines, arrived, &within, ack, look),
        });
        from = ack.ended + 1;
    }
    Ok(judged)
}

fn is_synced(within: &[&Call<'_>], look: &Look<'_>, request_bytes: usize) -> bool {
    let is_mapped = |call: &&Call<'_>| call.name == "msync" && call.text.contains("MS_SYNC");
    if within.iter().any(is_mapped) {
        return true;
    }
    // The last sync of each file covers what was written to it before.
    let mut syncs: HashMap<&str, usize> = HashMap::new();
    for call in within {
        if is_sync(call.name) && call.of.starts_with(look.data_dir) {
            let last = syncs.entry(call.of).or_default();
            *last = call.begun.max(*last);
        }
    }
    let is_covered = |call: &&&Call<'_>| {
        let is_synced = syncs.get(call.of).is_some_and(|sync| call.ended < *sync);
        is_write(call.name) && (is_synced || look.synced_files.contains(call.of))
    };
    let covered = within.iter().filter(is_covered);
    let covered_bytes: u64 = covered.filter_map(|call| call.result).sum();
    covered_bytes >= (request_bytes / COMPRESSED) as u64
}

/// The lines of an excerpt: what touches the socket or the data.
fn told(
    lines: &[&str],
    arrived: &Call<'_>,
    within: &[&Call<'_>],
    ack: &Call<'_>,
    look: &Look<'_>,
) -> Vec<String> {
    let touches = |call: &&&Call<'_>| {
        call.of.starts_with(look.data_dir) && !is_read(call.name) || call.name == "msync"
    };
    let mut shown: Vec<usize> = [arrived.begun, arrived.ended].to_vec();
    for call in within.iter().filter(touches) {
        shown.extend([call.begun, call.ended]);
    }
    shown.extend([ack.begun, ack.ended]);
    shown.sort_unstable();
    shown.dedup();
    let line = |at: usize| lines.get(at).map(|line| (*line).to_owned());
    shown.into_iter().filter_map(line).collect()
}

fn is_sync(name: &str) -> bool {
    ["fsync", "fdatasync"].contains(&name)
}

fn is_read(name: &str) -> bool {
    ["read", "readv", "recvfrom", "recvmsg"].contains(&name)
}

fn is_write(name: &str) -> bool {
    let names = [
        "write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg",
    ];
    names.contains(&name)
}

/// The calls of a trace made with `-f -yy`, in the order of their ends.
fn calls(trace: &str) -> Vec<Call<'_>> {
    let mut calls = Vec::new();
    // Calls that have begun, by process: their line, and what it says.
    let mut begun: HashMap<&str, (usize, &str)> = HashMap::new();
    for (at, line) in trace.lines().enumerate() {
        // PID TIME CALL
        let mut words = line.splitn(2, ' ');
        let (Some(pid), Some(rest)) = (words.next(), words.next()) else {
            continue;
        };
        let Some((_, said)) = rest.trim_start().split_once(' ') else {
            continue;
        };
        if let Some(start) = said.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, (at, start));
        } else if said.starts_with("<... ") {
            if let Some((from, start)) = begun.remove(pid) {
                calls.extend(call(start, from, at, said));
            }
        } else {
            calls.extend(call(said, at, at, said));
        }
    }
    calls
}

/// A call from how it begins, and the line that has its result.
fn call<'a>(start: &'a str, begun: usize, ended: usize, end: &'a str) -> Option<Call<'a>> {
    let (name, text) = start.split_once('(')?;
    let of = text.split_once('<').map_or("", |(number, of)| {
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return "";
        }
        let ends = [">,", ">)"].iter().filter_map(|mark| of.find(mark)).min();
        // Nothing follows where the call was interrupted right after it.
        ends.map_or(of.trim_end_matches('>'), |at| &of[..at])
    });
    let result = end.rsplit_once(" = ")?.1;
    let result = result.split(' ').next()?.parse().ok();
    Some(Call {
        name,
        of,
        begun,
        ended,
        result,
        text,
    })
}
