//! What the files of `[tls]` hold, read and checked as a whole. Called by `tls`, and by
//! `cli check-config` through it.
//!
//! # Invariants
//! - A certificate without its key, or an issuer that is none, is an error with the file's
//!   name and never with a byte of the key (test `each_broken_file_is_named`).

use super::peer::ClientCertificate;
use crate::pem::{self, PemError};
use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Where a port's identity is, and who issues its clients'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those between it and its issuer, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
    /// The issuers of client certificates, as PEM.
    pub client_ca: Option<PathBuf>,
}

/// Why the files cannot be used; retrying helps once they are others.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// They do not hold what they should.
    #[error(transparent)]
    Files(#[from] PemError),
    /// What they hold cannot be used here.
    #[error("{0}: {1}")]
    Unusable(PathBuf, String),
    /// The issuers cannot verify clients.
    #[error("{0}: {1}")]
    Issuers(PathBuf, String),
}

/// What the files hold.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) issuers: Option<Arc<RootCertStore>>,
    /// When the certificate ends, epoch seconds.
    pub(super) expires_at_s: u64,
}

impl Identity {
    /// Reads all files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(super) fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let certified = pem::certified(&files.certificate, &files.key, provider)?;
        let parsed = certified.end_entity_cert().ok();
        let parsed = parsed.and_then(|own| X509Certificate::from_der(own).ok());
        let (_, parsed) = parsed.ok_or_else(|| {
            TlsError::Unusable(files.certificate.clone(), "not a certificate".to_owned())
        })?;
        let expires_at_s = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let issuers = files.client_ca.as_deref().map(issuers).transpose()?;
        Ok(Self {
            certified: Arc::new(certified),
            issuers: issuers.map(Arc::new),
            expires_at_s,
        })
    }
}

fn issuers(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in pem::certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| TlsError::Issuers(path.to_owned(), error.to_string()))?;
    }
    Ok(store)
}

/// What a verified client certificate says of its holder.
pub(super) fn client(certificate: &CertificateDer<'_>) -> ClientCertificate {
    let mut sha256_fingerprint = [0; 32];
    sha256_fingerprint.copy_from_slice(digest(&SHA256, certificate).as_ref());
    let names = match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => names(&parsed),
        Err(error) => {
            // The handshake read the same bytes, with another parser.
            tracing::warn!(%error, "a client certificate has no names that can be read");
            Vec::new()
        }
    };
    ClientCertificate {
        names,
        sha256_fingerprint,
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let general = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names);
    let general = general.filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            Some((*name).to_owned())
        }
        _ => None,
    });
    let common = certificate.subject().iter_common_name();
    let common = common.filter_map(|name| name.as_str().ok().map(str::to_owned));
    general.chain(common).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use std::fs;
    use tempfile::TempDir;

    fn provider() -> CryptoProvider {
        rustls::crypto::ring::default_provider()
    }

    /// A certificate for these names, signed by itself, and its key.
    pub(in super::super) fn made(names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert, made.signing_key)
    }

    /// Its files.
    pub(in super::super) fn written(dir: &TempDir, names: &[&str]) -> TlsFiles {
        let (certificate, key) = made(names);
        let files = TlsFiles {
            certificate: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
            client_ca: None,
        };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn each_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let good = written(&dir, &["edge.example"]);
        let read = |files: &TlsFiles| {
            let read = Identity::read(files, &provider());
            read.map(|_| ()).map_err(|error| error.to_string())
        };
        read(&good).unwrap();
        let other = dir.path().join("other.pem");
        fs::write(&other, made(&["b"]).1.serialize_pem()).unwrap();
        let empty = dir.path().join("empty.pem");
        fs::write(&empty, "-----BEGIN SECRET hunter2").unwrap();
        let missing = dir.path().join("missing.pem");
        let with = |change: &dyn Fn(&mut TlsFiles)| {
            let mut files = good.clone();
            change(&mut files);
            let error = read(&files).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
            error
        };
        assert!(with(&|f| f.key = other.clone()).contains("does not belong"));
        assert!(with(&|f| f.key = empty.clone()).contains("empty.pem: no private key"));
        assert!(with(&|f| f.key = missing.clone()).contains("missing.pem: No such file"));
        assert!(with(&|f| f.certificate = empty.clone()).contains("empty.pem: "));
        assert!(with(&|f| f.certificate = other.clone()).contains("no certificate"));
        assert!(with(&|f| f.client_ca = Some(empty.clone())).contains("empty.pem: "));
    }

    #[test]
    fn a_client_s_names_and_fingerprint_are_those_of_its_certificate() {
        let mut params = CertificateParams::new(vec!["edge.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Edge 1");
        for name in [
            SanType::URI("spiffe://example/edge".try_into().unwrap()),
            SanType::Rfc822Name("edge@example.org".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
        ] {
            params.subject_alt_names.push(name);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let client = client(certificate.der());
        let names = [
            "edge.example",
            "spiffe://example/edge",
            "edge@example.org",
            "Edge 1",
        ];
        assert_eq!(client.names, names);
        let digest = digest(&SHA256, certificate.der());
        assert_eq!(client.sha256_fingerprint, digest.as_ref());
    }
}
