//! Certificates for the tests, and a client that shows what a port shows it.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub struct Issuer(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Issuer {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "an issuer");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn issue(&self, name: &str) -> Identity {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Identity {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    /// Puts it where `[tls]` looks, one file after the other, as `cp` does.
    pub fn install(&self, dir: &Path) {
        std::fs::write(dir.join("cert.pem"), &self.certificate).unwrap();
        std::fs::write(dir.join("key.pem"), &self.key).unwrap();
    }
}

/// `[tls]` for the files in a directory.
pub fn section(dir: &Path, more: &str) -> String {
    let file = |name: &str| PathBuf::from(dir).join(name).display().to_string();
    format!(
        "[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n{more}",
        file("cert.pem"),
        file("key.pem")
    )
}

/// Connects as a client that trusts the issuer and speaks HTTP/1.
pub async fn connect(
    port: u16,
    issuer: &Issuer,
    identity: Option<&Identity>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(issuer.pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            builder
                .with_client_auth_cert(vec![identity.der()], key)
                .unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// The certificate that the port showed.
pub fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

/// Asks on a connection that stays, and reads the head and the body of the answer.
pub async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> io::Result<String> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    exchange(stream, head.as_bytes()).await
}

/// Posts JSON on a connection that stays, and reads the head and the body of the answer.
pub async fn post(stream: &mut TlsStream<TcpStream>, path: &str, json: &str) -> io::Result<String> {
    let length = json.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
    );
    exchange(stream, request.as_bytes()).await
}

async fn exchange(stream: &mut TlsStream<TcpStream>, request: &[u8]) -> io::Result<String> {
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&bytes[..count]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap_or("0");
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if body.len() >= length {
                return Ok(text);
            }
        }
    }
}
