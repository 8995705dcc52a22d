//! Who is at the other end of a connection: among the extensions of each of its requests.
//! Made by `serve`, read by whoever decides by it.

use std::net::SocketAddr;
use std::sync::Arc;

/// Who sent a request, as far as the connection tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where the connection comes from: the client, or what stands before us.
    pub address: SocketAddr,
    /// The certificate that it proved to hold, issued by `tls.client_ca`; `None` where it
    /// showed none, or was not asked.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A certificate that a trusted issuer gave the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its DNS names, URIs and mail addresses, and then its common names, each as it stands
    /// there.
    pub names: Vec<String>,
    /// SHA-256 of its DER form.
    pub sha256_fingerprint: [u8; 32],
}
