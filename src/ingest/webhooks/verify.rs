//! Whether a webhook comes from whom it says: a shared secret, an HMAC of the body, or
//! Shopify's signature. Called by `mod` with the body as it came; a reload replaces what it must
//! show.
//!
//! # Invariants
//! - Comparisons take the same time wherever texts differ.
//! - Any of several secrets will do, so that they can be replaced without a gap: after a
//!   rotation Shopify may sign with the old one for an hour (shopify.dev,
//!   verify-deliveries).

use crate::event::webhook::{Source, Stored};
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use subtle::ConstantTimeEq as _;

/// Shopify's signature.
const SHOPIFY_HEADER: &str = "x-shopify-hmac-sha256";

enum Proof {
    None,
    Secret(Vec<String>),
    Hmac(Vec<hmac::Key>),
}

/// What a source's requests must show from now on; clones share it.
#[derive(Debug, Clone)]
pub struct Proofs(Arc<RwLock<Arc<Verifier>>>);

impl Proofs {
    /// This, until it is replaced.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(verifier))))
    }

    /// Requests that come from now on must show this.
    pub fn replace(&self, verifier: Verifier) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(verifier);
    }

    /// What one request must show, from its head to its end.
    pub(super) fn now(&self) -> Arc<Verifier> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a source's requests must show.
pub struct Verifier {
    proof: Proof,
    header: String,
    /// Keys of native Shopify webhooks.
    native: Vec<hmac::Key>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proof = match self.proof {
            Proof::None => "none",
            Proof::Secret(_) => "secret",
            Proof::Hmac(_) => "hmac",
        };
        write!(f, "Verifier({proof}, {})", self.header)
    }
}

impl Verifier {
    /// Takes every request.
    #[must_use]
    pub fn none() -> Self {
        Self {
            proof: Proof::None,
            header: String::new(),
            native: Vec::new(),
        }
    }

    /// Takes requests whose `header` (in lower case) holds one of the secrets.
    #[must_use]
    pub fn secret(header: String, secrets: Vec<String>) -> Self {
        Self {
            proof: Proof::Secret(secrets),
            header,
            native: Vec::new(),
        }
    }

    /// Takes requests whose `header` (in lower case) holds the HMAC-SHA256 of the body by
    /// one of the keys.
    #[must_use]
    pub fn hmac(header: String, keys: &[Vec<u8>]) -> Self {
        Self {
            proof: Proof::Hmac(keys.iter().map(|key| sha256(key)).collect()),
            header,
            native: Vec::new(),
        }
    }

    /// Takes native Shopify webhooks, too, that one of the apps' client secrets signed.
    #[must_use]
    pub fn with_native(mut self, client_secrets: &[String]) -> Self {
        let keys = client_secrets
            .iter()
            .map(|secret| sha256(secret.as_bytes()));
        self.native = keys.collect();
        self
    }

    /// The header that must not be kept.
    #[must_use]
    pub fn header(&self) -> Option<&str> {
        (!self.header.is_empty()).then_some(self.header.as_str())
    }

    /// Whether a request may show what it must, as far as its head tells.
    #[must_use]
    pub fn may_be_genuine(&self, source: Source, headers: &HeaderMap) -> bool {
        let names = headers.keys().map(http::HeaderName::as_str);
        if source == Source::Shopify && Stored::is_native_shopify(names) {
            return !self.native.is_empty() && headers.contains_key(SHOPIFY_HEADER);
        }
        match self.proof {
            Proof::None => true,
            Proof::Secret(_) => self.is_genuine(source, headers, b""),
            Proof::Hmac(_) => headers.contains_key(&self.header),
        }
    }

    /// Whether a request shows what it must.
    #[must_use]
    pub fn is_genuine(&self, source: Source, headers: &HeaderMap, body: &[u8]) -> bool {
        let names = headers.keys().map(http::HeaderName::as_str);
        if source == Source::Shopify && Stored::is_native_shopify(names) {
            let signature = headers.get(SHOPIFY_HEADER).map(http::HeaderValue::as_bytes);
            return signature.is_some_and(|signature| {
                STANDARD
                    .decode(signature)
                    .is_ok_and(|signature| signed(&self.native, body, &signature))
            });
        }
        let shown = headers.get(&self.header).map(http::HeaderValue::as_bytes);
        match (&self.proof, shown) {
            (Proof::None, _) => true,
            (_, None) => false,
            (Proof::Secret(secrets), Some(shown)) => {
                let same = |secret: &String| bool::from(secret.as_bytes().ct_eq(shown));
                // All are compared: which one fits is nobody's business either.
                secrets
                    .iter()
                    .fold(false, |found, secret| found | same(secret))
            }
            (Proof::Hmac(keys), Some(shown)) => {
                let shown = shown.strip_prefix(b"sha256=").unwrap_or(shown);
                let readings = [unhex(shown), STANDARD.decode(shown).ok()];
                readings
                    .into_iter()
                    .flatten()
                    .any(|signature| signed(keys, body, &signature))
            }
        }
    }
}

fn sha256(key: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key)
}

fn signed(keys: &[hmac::Key], body: &[u8], signature: &[u8]) -> bool {
    keys.iter()
        .any(|key| hmac::verify(key, body, signature).is_ok())
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = text.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs
        .map(|pair| u8::try_from(digit(&pair[0])? * 16 + digit(&pair[1])?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(name: &str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let name: HeaderName = name.parse().unwrap();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn one_of_the_secrets_opens() {
        let verifier = Verifier::secret("x-s".into(), vec!["old".into(), "new".into()]);
        let takes = |headers: &HeaderMap| verifier.is_genuine(Source::Branch, headers, b"{}");
        assert!(takes(&headers("x-s", "old")) && takes(&headers("X-S", "new")));
        assert!(!takes(&headers("x-s", "ne")) && !takes(&headers("x-s", "")));
        assert!(!takes(&headers("x-t", "new")) && !takes(&HeaderMap::new()));
        assert!(Verifier::none().is_genuine(Source::Branch, &HeaderMap::new(), b""));
        assert!(!format!("{verifier:?}").contains("new"));
    }

    #[test]
    fn signatures_cover_the_body() {
        // RFC 4231, test case 2.
        let (key, body) = (b"Jefe".to_vec(), b"what do ya want for nothing?");
        let tag = hmac::sign(&sha256(&key), body);
        assert!(hex(tag.as_ref()).starts_with("5bdcc146bf60754e"));
        let verifier = Verifier::hmac("x-s".into(), &[b"old".to_vec(), key]);
        let base64 = STANDARD.encode(tag.as_ref());
        for shown in [
            hex(tag.as_ref()),
            base64.clone(),
            format!("sha256={base64}"),
        ] {
            let headers = headers("x-s", &shown);
            assert!(verifier.is_genuine(Source::Graphy, &headers, body));
            assert!(!verifier.is_genuine(Source::Graphy, &headers, b"something else"));
        }
        for bad in ["", "zz", "5bdcc146", "sha256="] {
            assert!(
                !verifier.is_genuine(Source::Graphy, &headers("x-s", bad), body),
                "{bad}"
            );
        }
    }

    #[test]
    fn native_shopify_needs_shopifys_signature() {
        let tag = STANDARD.encode(hmac::sign(&sha256(b"app"), b"{}").as_ref());
        let signed = headers(SHOPIFY_HEADER, &tag);
        let verifier = Verifier::none().with_native(&["older".into(), "app".into()]);
        assert!(verifier.is_genuine(Source::Shopify, &signed, b"{}"));
        assert!(!verifier.is_genuine(Source::Shopify, &signed, b"{ }"));
        let unsigned = headers("x-shopify-topic", "orders/create");
        assert!(!verifier.is_genuine(Source::Shopify, &unsigned, b"{}"));
        assert!(!Verifier::none().is_genuine(Source::Shopify, &signed, b"{}"));
        // The envelope has the rule of the others.
        assert!(verifier.is_genuine(Source::Shopify, &HeaderMap::new(), b"{}"));
    }
}
