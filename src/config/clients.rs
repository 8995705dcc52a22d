//! `[[client]]`: who may send events, how each proves who it is, and what it may send. Used by
//! `app` for the doors, and by `check`.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Clients of one host: each is an application, not a device.
const CLIENTS_MAX: usize = 1000;

/// Tokens or certificates of one client: the present ones, and those that replace them.
const PROOFS_MAX: usize = 32;

/// What stands before a token's hash and a certificate's fingerprint.
pub const SHA256_PREFIX: &str = "sha256:";

/// `[[client]]`
#[derive(Debug, Clone, Deserialize, Serialize, Default)]
#[serde(default)]
pub struct Client {
    /// Its name in logs.
    pub name: String,
    /// Hashes of the bearer tokens that it may show (`sha256:…`, from `holdfast token`).
    pub tokens: Vec<String>,
    /// Certificates that it may show: a name in one that `tls.client_ca` issued, or the
    /// fingerprint of one (`sha256:…`).
    pub certificates: Vec<String>,
    /// Whether this is who shows neither.
    pub anonymous: bool,
    /// The event types that it may send; absent: all.
    pub events: Option<Vec<String>>,
    /// Events a second that are taken of it on this host, over the seconds; 0: as many as
    /// come. Of an anonymous one, one address has half of them.
    pub max_rate: u64,
}

/// The 32 bytes of a hash or fingerprint as it stands in the configuration: hex digits after
/// `sha256:`, with or without colons between them.
#[must_use]
pub fn digest_of(text: &str) -> Option<[u8; 32]> {
    let digits: String = text
        .strip_prefix(SHA256_PREFIX)?
        .chars()
        .filter(|c| *c != ':')
        .collect();
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(digest)
}

/// Whether this names a certificate, by a name in it or by its fingerprint.
pub(super) fn is_certificate(text: &str) -> bool {
    let is_digest = text.starts_with(SHA256_PREFIX);
    !text.is_empty() && (!is_digest || digest_of(text).is_some())
}

/// Adds what is wrong with the clients; event types are `ingest`'s to know. `asks_certificates`: whether any port does.
pub(super) fn check(clients: &[Client], asks_certificates: bool, errors: &mut Vec<String>) {
    if clients.len() > CLIENTS_MAX {
        errors.push(format!("client: at most {CLIENTS_MAX}"));
    }
    let mut names = BTreeSet::new();
    let mut proofs: BTreeMap<String, &str> = BTreeMap::new();
    let mut anonymous: Option<&str> = None;
    for client in clients {
        let name = client.name.as_str();
        let mut wrong = |text: String| errors.push(format!("client[{name}].{text}"));
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            wrong("name: must have from 1 to 64 characters".to_owned());
        }
        if !names.insert(name) {
            wrong("name: there are two of it".to_owned());
        }
        if client.tokens.len() + client.certificates.len() > PROOFS_MAX {
            wrong(format!("tokens and certificates: at most {PROOFS_MAX}"));
        }
        if client.tokens.is_empty() && client.certificates.is_empty() && !client.anonymous {
            wrong(
                "tokens: it can prove nothing; name tokens, certificates or anonymous".to_owned(),
            );
        }
        // Never quoted: somebody may have put the token itself there.
        if client.tokens.iter().any(|token| digest_of(token).is_none()) {
            wrong("tokens: must be hashes (sha256:…), which `holdfast token` prints".to_owned());
        }
        for certificate in &client.certificates {
            if !is_certificate(certificate) {
                wrong(format!(
                    "certificates: {certificate:?} is no name and no fingerprint"
                ));
            }
        }
        if !client.certificates.is_empty() && !asks_certificates {
            wrong(
                "certificates: no port asks for them (tls.client_ca, tls.grpc, tls.http)"
                    .to_owned(),
            );
        }
        if client.anonymous
            && let Some(other) = anonymous.replace(name)
        {
            wrong(format!("anonymous: {other} is that already"));
        }
        for proof in client.tokens.iter().chain(&client.certificates) {
            // A hash is one however it is written.
            let proof =
                digest_of(proof).map_or_else(|| proof.clone(), |digest| format!("{digest:?}"));
            if let Some(other) = proofs.insert(proof, name)
                && other != name
            {
                wrong(format!(
                    "tokens or certificates: one of them is {other}'s, too"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_from;

    const HASH: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn errors(text: &str) -> Vec<String> {
        match load_from(text, std::iter::empty()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn hashes_have_one_form_or_another() {
        let plain = digest_of(HASH).unwrap();
        assert_eq!(plain[..2], [0x2c, 0xf2]);
        let colons: Vec<_> = plain.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(
            digest_of(&format!("sha256:{}", colons.join(":"))),
            Some(plain)
        );
        for bad in [
            "",
            "sha256:",
            &HASH[7..],
            &HASH[..70],
            &format!("{HASH}0"),
            &HASH.replace('f', "é"),
        ] {
            assert_eq!(digest_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_mistake_is_named_and_no_token_is() {
        let good = format!(
            "[[client]]\nname = \"app\"\ntokens = [\"{HASH}\"]\nevents = [\"LaunchEvent\"]\nmax_rate = 5\n[[client]]\nname = \"web\"\nanonymous = true\n"
        );
        assert_eq!(errors(&good), [""; 0]);
        for (text, part) in [
            ("name = \"\"\nanonymous = true", "client[].name: must have"),
            ("name = \"app\"\nanonymous = true", "there are two of it"),
            ("name = \"b\"", "it can prove nothing"),
            ("name = \"b\"\ntokens = [\"hf_hunter2\"]", "must be hashes"),
            (
                "name = \"b\"\ntokens = [\"HASH\"]",
                "one of them is app's, too",
            ),
            (
                "name = \"b\"\ncertificates = [\"a.example\"]",
                "no port asks for them",
            ),
            (
                "name = \"b\"\ncertificates = [\"sha256:12\"]",
                "no name and no fingerprint",
            ),
            ("name = \"b\"\nanonymous = true", "web is that already"),
        ] {
            let text = format!("{good}[[client]]\n{}\n", text.replace("HASH", HASH));
            let errors = errors(&text).join("\n");
            assert!(errors.contains(part), "{part}: {errors}");
            assert!(!errors.contains("hunter2"), "{errors}");
        }
    }
}
