//! What is done to every parser that meets foreign bytes, one function for each: it feeds
//! the bytes in and asserts what must hold whatever they are. Called by the fuzzers in
//! `fuzz/` (feature `fuzzing`), and by the tests beside this file, which replay the corpus
//! and change it a little. Not compiled into the service.
//!
//! # Invariants
//! - A target is pure: the same bytes give the same result, and nothing but memory is
//!   touched (the journal's files are decoded from memory, too).
//! - Each asserts more than that nothing panics: two decoders agree, what is decoded
//!   survives a round trip, and bounds hold.
//! - Every target has a binary and a corpus in `fuzz/` (test `every_target_is_fuzzed`).

mod envelope;
mod messages;
mod rows;
mod webhooks;

#[cfg(test)]
mod mutate;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod seeds_amqp;
#[cfg(test)]
mod tests;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// A parser, and what must hold of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which its fuzzer and its corpus have, too.
    pub name: &'static str,
    /// Feeds it; a panic is a finding.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// All targets.
pub const TARGETS: [Target; 15] = [
    target("admin_api", crate::admin::fuzzing::api),
    target("amqp_message", messages::message),
    target("amqp_shallow", crate::broker::fuzzing::shallow),
    target("answers", answers),
    target("config", crate::config::fuzzing::config),
    target("dotenv", crate::config::fuzzing::dotenv),
    target("envelope", envelope::envelope),
    target("indexes", envelope::indexes),
    target("journal_block", crate::journal::fuzzing::block),
    target("journal_files", crate::journal::fuzzing::files),
    target("journal_record", crate::journal::fuzzing::record),
    target("json_events", envelope::json_events),
    target("proofs", proofs),
    target("webhook_signatures", webhooks::signatures),
    target("webhooks", webhooks::webhooks),
];

/// Feeds the target of this name.
///
/// # Panics
/// When there is no such target, and on a finding.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target has the name of its binary").run)(data);
}

/// What servers say: brokers that refuse, databases, partners' APIs.
fn answers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    crate::broker::fuzzing::refusal(&text);
    crate::sink::clickhouse::fuzzing::answer(&text);
    crate::sink::clickhouse::fuzzing::rows(&text);
    crate::sink::api::fuzzing::answer(&text);
}

/// What a sender shows of itself: in the head of a request, and as a certificate, the body here.
fn proofs(data: &[u8]) {
    let request = Request::read(data);
    crate::ingest::fuzzing::headers(&request.headers);
    crate::port::fuzzing::client_certificate(request.body);
}

/// A time at which requests are received: epoch milliseconds.
const NOW_MS: i64 = 1_700_000_000_999;

/// Headers of one request, as many as a sender may well send.
const HEADERS_MAX: usize = 64;

/// A request in a form that is easily written and changed: a line of words, lines of
/// `name: value`, an empty line, and the body.
struct Request<'a> {
    words: Vec<&'a [u8]>,
    headers: HeaderMap,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn read(data: &'a [u8]) -> Self {
        let (head, mut rest) = line(data);
        let mut headers = HeaderMap::new();
        while !rest.is_empty() && headers.len() < HEADERS_MAX {
            let (header, next) = line(rest);
            rest = next;
            if header.is_empty() {
                break;
            }
            let colon = header.iter().position(|byte| *byte == b':');
            let (name, value) = header.split_at(colon.unwrap_or(header.len()));
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            // What the HTTP library does not take does not come as far.
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                headers.append(name, value);
            }
        }
        Self {
            words: head.split(|byte| *byte == b' ').collect(),
            headers,
            body: rest,
        }
    }

    fn word(&self, at: usize) -> &'a [u8] {
        self.words.get(at).copied().unwrap_or_default()
    }
}

/// The first line, and what is after it.
fn line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}
