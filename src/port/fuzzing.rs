//! What must hold of clients' certificates. Called by `crate::fuzzing` alone, and compiled for it
//! alone.

use super::certificate;
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;

/// Names that are looked for in the certificate, which has room for thousands.
const NAMES_MAX: usize = 16;

/// What a certificate says of its holder.
pub(crate) fn client_certificate(der: &[u8]) {
    let client = certificate::client(&CertificateDer::from(der));
    assert_eq!(client.sha256_fingerprint, digest(&SHA256, der).as_ref());
    for name in client.names.iter().take(NAMES_MAX) {
        let stands = |piece: &[u8]| piece == name.as_bytes();
        let is_there = name.is_empty() || der.windows(name.len()).any(stands);
        assert!(is_there, "{name:?} does not stand there");
    }
}
