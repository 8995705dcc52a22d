//! Webhooks of partners: who signed them, what is kept of them, and the rows of them.

use super::{NOW_MS, Request, rows};
use crate::config::Handler;
use crate::consume::handlers::{Input, KEPT_HEADERS, table};
use crate::event::envelope::{JSON, Origins};
use crate::event::identity::{HostId, Seq};
use crate::event::webhook::{HEADER_BYTES_MAX, Ready, Receipt, Source, Stored, is_credential};
use crate::ingest::webhooks::Verifier;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::hmac;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// The header that holds a configured proof.
const PROOF: &str = "x-proof";

/// The source that a word names; the first bytes of others choose one, too.
fn source(word: &[u8]) -> Source {
    let named = Source::ALL
        .into_iter()
        .find(|source| source.name().as_bytes() == word);
    let first = usize::from(word.first().copied().unwrap_or_default());
    named.unwrap_or(Source::ALL[first % Source::ALL.len()])
}

fn stored(request: &Request<'_>, source: Source) -> Result<Stored, String> {
    let headers = request.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
    let body = Bytes::copy_from_slice(request.body);
    Stored::of(source, headers, Some(PROOF), body)
}

/// What is kept of a request, its journaled form, and the message that it becomes.
pub(super) fn webhooks(data: &[u8]) {
    // What a journal gives back may be anything, too.
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(stored) = Stored::decode(&bytes) {
        assert_eq!(Stored::decode(&stored.encode()), Ok(stored));
    }
    let request = Request::read(data);
    let source = source(request.word(0));
    let Ok(stored) = stored(&request, source) else {
        return;
    };
    assert_eq!(Stored::decode(&stored.encode()).as_ref(), Ok(&stored));
    let mut header_bytes = 0;
    for (name, values) in &stored.headers {
        assert!(!is_credential(name) && name != PROOF, "{name} is kept");
        header_bytes += values.iter().map(|_| name.len()).sum::<usize>();
    }
    assert!(header_bytes <= HEADER_BYTES_MAX);
    let host = HostId::parse("edge-1").expect("it is one");
    let receipt = Receipt {
        host: &host,
        seq: Seq(7),
        received_at_ms: NOW_MS,
    };
    let ready = stored.ready(source, receipt);
    assert_eq!(stored.ready(source, receipt), ready, "another each time");
    match ready {
        Err(reason) => assert!(!reason.is_empty()),
        Ok(ready) => {
            assert!((1..=255).contains(&ready.key.len()), "no key of AMQP");
            let is_json = serde_json::from_slice::<IgnoredAny>(&ready.body).is_ok();
            assert!(is_json, "the message is no JSON");
            into_rows(source, &ready);
        }
    }
}

/// The handlers that a source's webhooks have without a broker, and behind one.
fn into_rows(source: Source, ready: &Ready) {
    let handlers: &[Handler] = match source {
        Source::Vidooly => &[],
        Source::Branch => &[Handler::Branch],
        Source::Graphy => &[Handler::Graphy, Handler::GraphyCall],
        Source::WebEngageEvent => &[Handler::WebEngageEvent, Handler::WebEngageCall],
        Source::WebEngageUser => &[Handler::WebEngageUserCall],
        Source::Shopify => &[Handler::Shopify],
    };
    let headers: BTreeMap<_, _> = KEPT_HEADERS
        .into_iter()
        .filter_map(|name| Some((name, ready.headers.get(name)?.clone())))
        .collect();
    for handler in handlers {
        let input = Input {
            content_type: Some(JSON),
            body: &ready.body,
            origins: Origins {
                host: "edge-1".to_owned(),
                seq: 7,
                indexes: vec![0],
            },
            reason: None,
            headers: headers.clone(),
            message_id: Some("edge-1-7-0"),
            sent_at_ms: Some(NOW_MS),
            received_at_ms: Some(NOW_MS),
        };
        let table = table(*handler).expect("shipped handlers have one");
        let rows = rows::run(*handler, table, &input).unwrap_or(0);
        assert!(rows <= 1, "a webhook is one row of {}", table.name);
    }
}

/// What a request shows, judged by other means than the door's.
pub(super) fn signatures(data: &[u8]) {
    const SECRETS: [&str; 2] = ["old secret", "new"];
    const KEYS: [&[u8]; 2] = [b"Jefe", b"another key"];
    const APP: &str = "app";
    let request = Request::read(data);
    let source = source(request.word(1));
    let shown = request.headers.get(PROOF).map(|value| value.as_bytes());
    let tag = |key: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, request.body)
    };
    let (verifier, is_shown) = match request.word(0) {
        b"secret" => {
            let secrets = SECRETS.map(str::to_owned).to_vec();
            let is_one = |shown: &[u8]| SECRETS.iter().any(|secret| secret.as_bytes() == shown);
            let verifier = Verifier::secret(PROOF.to_owned(), secrets);
            (verifier, shown.is_some_and(is_one))
        }
        b"hmac" => {
            let is_one = |shown: &[u8]| {
                let shown = shown.strip_prefix(b"sha256=").unwrap_or(shown);
                KEYS.iter().any(|key| {
                    let tag = tag(key);
                    let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
                    shown.eq_ignore_ascii_case(hex.as_bytes())
                        || shown == STANDARD.encode(tag).as_bytes()
                })
            };
            let keys = KEYS.map(<[u8]>::to_vec);
            let verifier = Verifier::hmac(PROOF.to_owned(), &keys);
            (verifier, shown.is_some_and(is_one))
        }
        _ => (Verifier::none(), true),
    };
    let verifier = verifier.with_native(&[APP.to_owned()]);
    let is_native = |name: &str| matches!(name, "x-shopify-topic" | "x-shopify-hmac-sha256");
    let is_genuine =
        if source == Source::Shopify && request.headers.keys().any(|n| is_native(n.as_str())) {
            let shown = request.headers.get("x-shopify-hmac-sha256");
            let wanted = STANDARD.encode(tag(APP.as_bytes()));
            shown.is_some_and(|shown| shown.as_bytes() == wanted.as_bytes())
        } else {
            is_shown
        };
    assert_eq!(
        verifier.is_genuine(source, &request.headers, request.body),
        is_genuine
    );
}
