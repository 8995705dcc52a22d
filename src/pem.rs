//! Certificates and keys in files. A leaf, used by `trust` for the connections that we open
//! and by `port` for those that others open.
//!
//! # Invariants
//! - No error has a byte of a file, which may be a key by mistake (test
//!   `a_file_is_named_and_never_quoted`).
//! - A file is read up to a bound.

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Bytes of one file: the authorities of a whole system have 250 KiB.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why files cannot be used; retrying helps once they are others.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, io::Error),
    /// A file does not hold what it should.
    #[error("{0}: {1}")]
    Content(PathBuf, String),
    /// The certificate belongs to another key.
    #[error("the key {key} does not belong to the certificate {certificate}")]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
}

/// The certificates of a file, at least one.
///
/// # Errors
/// See [`PemError`].
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let wrong = |text: &str| PemError::Content(path.to_owned(), text.to_owned());
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    // The parser's words quote the line that it does not understand.
    let found = found.map_err(|_| wrong("not PEM"))?;
    if found.is_empty() {
        return Err(wrong("no certificate in it"));
    }
    Ok(found)
}

/// A certificate, with those between it and its issuer, and its key.
///
/// # Errors
/// See [`PemError`].
pub fn certified(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, PemError> {
    let chain = certificates(certificate)?;
    let found = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| PemError::Content(key.to_owned(), "no private key in it as PEM".to_owned()))?;
    CertifiedKey::from_der(chain, found, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => PemError::Mismatch {
            key: key.to_owned(),
            certificate: certificate.to_owned(),
        },
        error => PemError::Content(
            certificate.to_owned(),
            format!("cannot be used with its key: {error}"),
        ),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    let failed = |error| PemError::Read(path.to_owned(), error);
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(PemError::Content(path.to_owned(), text));
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// A certificate that is signed by itself, and its key: NAME.pem and NAME.key.
    pub(crate) fn pair(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec!["edge.example".to_owned()]).unwrap();
        let [certificate, key] = ["pem", "key"].map(|end| dir.join(format!("{name}.{end}")));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    #[test]
    fn a_file_is_named_and_never_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (certificate, key) = pair(dir.path(), "own");
        let (_, foreign) = pair(dir.path(), "foreign");
        let secret = "hunter2";
        // Of a key whose line ends were lost on the way.
        let joined = file("joined.pem", &format!("-----BEGIN PRIVATE KEY {secret}"));
        let no_base64 = file(
            "no_base64.pem",
            &format!("-----BEGIN CERTIFICATE-----\n!{secret}!\n-----END CERTIFICATE-----\n"),
        );
        let endless = file("endless.pem", &format!("-----BEGIN {secret}-----\n"));
        let huge = file("huge.pem", &"#".repeat(FILE_BYTES_MAX as usize + 1));
        let missing = dir.path().join("missing.pem");
        let provider = rustls::crypto::ring::default_provider();
        let of = |certificate: &Path, key: &Path| {
            certified(certificate, key, &provider).map_err(|error| error.to_string())
        };
        of(&certificate, &key).unwrap();
        let quoted = format!("{:?}", secret.as_bytes());
        let quoted = quoted.trim_matches(['[', ']']);
        for (bad, reason) in [
            (&joined, "joined.pem: not PEM"),
            (&no_base64, "no_base64.pem: not PEM"),
            (&endless, "endless.pem: not PEM"),
            (&foreign, "foreign.key: no certificate in it"),
            (&huge, "huge.pem: larger than"),
            (&missing, "missing.pem: No such file"),
        ] {
            let error = of(bad, &key).unwrap_err();
            assert!(error.contains(reason), "{error}");
            assert!(
                !error.contains(secret) && !error.contains(quoted),
                "{error}"
            );
            let error = of(&certificate, bad).unwrap_err();
            assert!(error.contains(".pem") || error.contains(".key"), "{error}");
            assert!(
                !error.contains(secret) && !error.contains(quoted),
                "{error}"
            );
        }
        let error = of(&certificate, &foreign).unwrap_err();
        assert!(
            error.contains("does not belong to the certificate"),
            "{error}"
        );
        let error = of(&certificate, &joined).unwrap_err();
        assert!(error.contains("joined.pem: no private key"), "{error}");
    }
}
