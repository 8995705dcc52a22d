//! Encryption of the connections that we open: whom we trust, and who we are. A leaf, used by
//! `broker` and `sink` for each of their servers, filled by `app` from the configuration.
//!
//! # Invariants
//! - A server proves its name by an authority that we trust; there is no way around it
//!   (tests/it/outward: `a_wrong_authority_delivers_nothing`, `another_name_is_refused`).
//! - With authorities of our own, those of the system do not count, but for Postgres, whose
//!   client always adds them.
//! - A host without authorities starts all the same (test
//!   `no_authorities_are_no_error_until_one_is_needed`).
//! - Each file that cannot be used is named (test `each_broken_file_is_named`).

use crate::pem::{self, PemError};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use std::path::PathBuf;
use std::sync::Arc;

/// Where the files are of one server's section; none: the system's authorities, and nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustFiles {
    /// The authorities to trust, as PEM, in place of the system's.
    pub ca: Option<PathBuf>,
    /// Who we are.
    pub identity: Option<ClientIdentity>,
}

/// A certificate that we show to servers that ask for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate and those between it and its issuer, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
}

/// Why the files cannot be used; retrying helps once they are others.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// They do not hold what they should.
    #[error(transparent)]
    Files(#[from] PemError),
    /// An authority that is none.
    #[error("{0}: not an authority: {1}")]
    Authority(PathBuf, String),
    /// There is nobody to trust.
    #[error(
        "tls_ca is not set, and the system has no certificate authorities (package ca-certificates)"
    )]
    NoAuthority,
    /// TLS itself cannot be set up.
    #[error("{0}")]
    Setup(#[from] rustls::Error),
}

impl TrustFiles {
    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads the files, for connections to come. Without any authority no server is trusted,
    /// and each handshake says so.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn read(&self) -> Result<Arc<ClientConfig>, TrustError> {
        let authorities = self.authorities()?;
        if authorities.is_empty() {
            tracing::warn!("{}", TrustError::NoAuthority);
        }
        self.config(authorities)
    }

    /// Looks whether the files could be used.
    ///
    /// # Errors
    /// See [`TrustError`]; that there is no authority is one.
    pub fn check(&self) -> Result<(), TrustError> {
        let authorities = self.authorities()?;
        if authorities.is_empty() {
            return Err(TrustError::NoAuthority);
        }
        self.config(authorities).map(|_| ())
    }

    fn authorities(&self) -> Result<RootCertStore, TrustError> {
        let mut store = RootCertStore::empty();
        let Some(path) = &self.ca else {
            let found = rustls_native_certs::load_native_certs();
            for error in found.errors {
                tracing::debug!(%error, "an authority of the system cannot be read");
            }
            // Old ones may have forms that nobody takes any more.
            let (_, unread) = store.add_parsable_certificates(found.certs);
            tracing::debug!(unread, "authorities of the system were left out");
            return Ok(store);
        };
        for certificate in pem::certificates(path)? {
            store
                .add(certificate)
                .map_err(|error| TrustError::Authority(path.clone(), error.to_string()))?;
        }
        Ok(store)
    }

    fn config(&self, authorities: RootCertStore) -> Result<Arc<ClientConfig>, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let identity = self.identity.as_ref();
        let identity = identity
            .map(|files| pem::certified(&files.certificate, &files.key, &provider))
            .transpose()?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authorities);
        Ok(Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pem::tests::pair;
    use std::fs;
    use std::path::Path;

    #[test]
    fn each_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = pair(dir.path(), "own");
        let (_, foreign) = pair(dir.path(), "foreign");
        let good = TrustFiles {
            ca: Some(certificate.clone()),
            identity: Some(ClientIdentity { certificate, key }),
        };
        good.check().unwrap();
        good.read().unwrap();
        let [broken, no_ca, missing] =
            ["broken.pem", "no_ca.pem", "missing.pem"].map(|name| dir.path().join(name));
        fs::write(&broken, "-----BEGIN SECRET hunter2").unwrap();
        let no_certificate =
            "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";
        fs::write(&no_ca, no_certificate).unwrap();
        let of = |ca: &Path, certificate: Option<&Path>, key: Option<&Path>| {
            let own = good.identity.clone().unwrap();
            let files = TrustFiles {
                ca: Some(ca.to_owned()),
                identity: Some(ClientIdentity {
                    certificate: certificate.map_or(own.certificate, Path::to_owned),
                    key: key.map_or(own.key, Path::to_owned),
                }),
            };
            let error = files.check().unwrap_err().to_string();
            assert_eq!(files.read().unwrap_err().to_string(), error);
            assert!(!error.contains("hunter2"), "{error}");
            error
        };
        let ca = good.ca.as_deref().unwrap();
        assert!(of(&missing, None, None).contains("missing.pem: No such file"));
        assert!(of(&broken, None, None).contains("broken.pem: "));
        assert!(of(&foreign, None, None).contains("foreign.key: no certificate in it"));
        assert!(of(&no_ca, None, None).contains("no_ca.pem: not an authority"));
        assert!(of(ca, Some(&missing), None).contains("missing.pem: No such file"));
        assert!(of(ca, None, Some(&broken)).contains("broken.pem: no private key"));
        assert!(of(ca, None, Some(&foreign)).contains("does not belong to the certificate"));
    }

    #[test]
    fn no_authorities_are_no_error_until_one_is_needed() {
        let nobody = TrustFiles::default();
        let config = nobody.config(RootCertStore::empty()).unwrap();
        assert!(!config.client_auth_cert_resolver.has_certs());
    }
}
