//! Encryption of the ports: one identity for all, read anew when its files change. Made by
//! `app`, used by `serve` for each handshake.
//!
//! # Invariants
//! - New files are taken over as a whole and for new handshakes alone: a connection that is
//!   open stays as it is (tests/it/ports).
//! - Files that cannot be used change nothing: the certificate before them goes on, one line
//!   and a metric say so (test `broken_files_keep_the_certificate_before_them`).
//! - A client that says who it is says so in each handshake, and its certificate is looked at
//!   each time (test `a_client_s_certificate_is_looked_at_in_each_handshake`).
//! - TLS 1.2 and 1.3 by ring, nothing else.

use super::certificate::{Identity, TlsError, TlsFiles};
use crate::clock::now_ms;
use crate::telemetry::{FOLLOWS_PANIC, Metrics};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at: certificates are renewed weeks before they end, and
/// three `stat` cost nothing.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// What clients may speak: HTTP/2 first, which gRPC needs.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked.
    NotAsked,
    /// They may; one that is not from our issuers ends the handshake.
    Optional,
    /// They must.
    Required,
}

/// The identity of this host, shared by clones.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    metrics: Metrics,
    configs: RwLock<Configs>,
    /// One reading at a time; what the files were at the last.
    reading: Mutex<Reading>,
}

/// One for each way to treat clients.
#[derive(Debug, Clone)]
struct Configs {
    not_asked: Arc<ServerConfig>,
    /// Optional and required, where there are issuers.
    asked: Option<[Arc<ServerConfig>; 2]>,
}

#[derive(Debug, Default)]
struct Reading {
    stamps: Option<Stamps>,
    /// When the certificate that is shown ends, epoch seconds.
    expires_at_s: u64,
    /// How many looks in a row found files that cannot be used.
    failed: u32,
}

/// What tells that a file is another one: device and inode, length, and time of change; or
/// that it is not there.
type Stamps = Vec<Result<(u64, u64, u64, Option<SystemTime>), io::ErrorKind>>;

impl TlsFiles {
    fn stamps(&self) -> Stamps {
        let stamp = |path: &Path| {
            let meta = fs::metadata(path).map_err(|error| error.kind())?;
            Ok((meta.dev(), meta.ino(), meta.len(), meta.modified().ok()))
        };
        let files = [
            Some(&self.certificate),
            Some(&self.key),
            self.client_ca.as_ref(),
        ];
        files
            .into_iter()
            .flatten()
            .map(|path| stamp(path))
            .collect()
    }
}

fn configs(
    identity: &Identity,
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<Configs, TlsError> {
    let config = |verifier: Option<Arc<dyn ClientCertVerifier>>| {
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions();
        let builder = builder
            .map_err(|error| TlsError::Unusable(files.certificate.clone(), error.to_string()))?;
        let is_asked = verifier.is_some();
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let key = SingleCertAndKey::from((*identity.certified).clone());
        let mut config = builder.with_cert_resolver(Arc::new(key));
        if is_asked {
            // A session that is resumed brings the certificate of its first handshake, which
            // nobody verifies again: it may have ended, or its issuer may be gone.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok::<_, TlsError>(Arc::new(config))
    };
    let asked = match (&identity.issuers, &files.client_ca) {
        (Some(issuers), Some(path)) => {
            let verifier = |is_optional: bool| {
                let builder = WebPkiClientVerifier::builder_with_provider(
                    Arc::clone(issuers),
                    Arc::clone(provider),
                );
                let builder = if is_optional {
                    builder.allow_unauthenticated()
                } else {
                    builder
                };
                builder
                    .build()
                    .map_err(|error| TlsError::Issuers(path.clone(), error.to_string()))
            };
            Some([
                config(Some(verifier(true)?))?,
                config(Some(verifier(false)?))?,
            ])
        }
        _ => None,
    };
    Ok(Configs {
        not_asked: config(None)?,
        asked,
    })
}

/// Until when a certificate is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// As text.
    pub until: String,
    /// Whether that is over.
    pub has_ended: bool,
}

fn now_s() -> u64 {
    u64::try_from(now_ms() / 1000).unwrap_or(0)
}

/// A time as text.
fn written(epoch_s: u64) -> String {
    let since = Duration::from_secs(epoch_s);
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

impl Tls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(files: TlsFiles, metrics: Metrics) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Before the files are read: what changes meanwhile is found at the next look.
        let stamps = Some(files.stamps());
        let identity = Identity::read(&files, &provider)?;
        let configs = configs(&identity, &files, &provider)?;
        metrics.certificate(Some(identity.expires_at_s));
        let reading = Reading {
            stamps,
            expires_at_s: identity.expires_at_s,
            failed: 0,
        };
        Ok(Self(Arc::new(Inner {
            files,
            provider,
            metrics,
            configs: RwLock::new(configs),
            reading: Mutex::new(reading),
        })))
    }

    /// Looks whether the files could be used, and until when the certificate is valid.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn check(files: &TlsFiles) -> Result<Validity, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let identity = Identity::read(files, &provider)?;
        configs(&identity, files, &provider)?;
        Ok(Validity {
            until: written(identity.expires_at_s),
            has_ended: identity.expires_at_s <= now_s(),
        })
    }

    /// For the next handshake; `None` where clients are to be asked, and there is no issuer.
    pub(super) fn acceptor(&self, clients: Clients) -> Option<TlsAcceptor> {
        let configs = self
            .0
            .configs
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let config = match (clients, &configs.asked) {
            (Clients::NotAsked, _) => Some(&configs.not_asked),
            (Clients::Optional, Some([optional, _])) => Some(optional),
            (Clients::Required, Some([_, required])) => Some(required),
            (_, None) => None,
        };
        config.map(|config| TlsAcceptor::from(Arc::clone(config)))
    }

    /// Looks at the files again and again, until it is dropped.
    pub async fn keep(self) {
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            let tls = self.clone();
            // A file may be on a disk that does not answer.
            if let Err(error) = tokio::task::spawn_blocking(move || tls.look()).await {
                tracing::error!(target: FOLLOWS_PANIC, %error, "a look at the certificate ended early");
            }
        }
    }

    /// Takes the files over if they are others than before.
    fn look(&self) {
        let inner = &*self.0;
        let mut reading = inner.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = inner.files.stamps();
        if reading.failed == 0 && reading.stamps.as_ref() == Some(&stamps) {
            return;
        }
        let shown = reading.expires_at_s;
        let read = Identity::read(&inner.files, &inner.provider).and_then(|identity| {
            if identity.expires_at_s <= now_s() && identity.expires_at_s < shown {
                // Such as one that was restored from a copy.
                let ended = format!("it ended {}", written(identity.expires_at_s));
                return Err(TlsError::Unusable(inner.files.certificate.clone(), ended));
            }
            let configs = configs(&identity, &inner.files, &inner.provider)?;
            Ok((identity, configs))
        });
        match read {
            Ok((identity, configs)) => {
                *inner
                    .configs
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = configs;
                inner.metrics.certificate(Some(identity.expires_at_s));
                let expires = written(identity.expires_at_s);
                tracing::info!(expires, "the certificate was read anew");
                *reading = Reading {
                    stamps: Some(stamps),
                    expires_at_s: identity.expires_at_s,
                    failed: 0,
                };
            }
            Err(error) => {
                reading.failed = reading.failed.saturating_add(1);
                // The first may be in the middle of a replacement: certificate, then key.
                if reading.failed == 2 {
                    inner.metrics.certificate(None);
                    tracing::warn!(%error, "the new certificate cannot be used; the one before it goes on");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::{made, written};
    use super::*;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{
        ClientConfig, ClientConnection, ConnectionCommon, HandshakeKind, ServerConnection,
    };

    fn shown(tls: &Tls) -> Arc<ServerConfig> {
        Arc::clone(tls.acceptor(Clients::NotAsked).unwrap().config())
    }

    #[test]
    fn broken_files_keep_the_certificate_before_them() {
        let dir = tempfile::tempdir().unwrap();
        let files = written(&dir, &["one.example"]);
        let metrics = Metrics::new();
        let tls = Tls::new(files.clone(), metrics.clone()).unwrap();
        let failed = || {
            let text = metrics.render();
            text.contains("\nholdfast_tls_certificate_reload_failed 1\n")
        };
        let first = shown(&tls);
        tls.look();
        assert!(Arc::ptr_eq(&first, &shown(&tls)), "nothing has changed");
        // A replacement, half-way.
        let (certificate, key) = made(&["two.example"]);
        fs::write(&files.certificate, certificate.pem()).unwrap();
        tls.look();
        assert!(!failed() && Arc::ptr_eq(&first, &shown(&tls)));
        fs::write(&files.key, key.serialize_pem()).unwrap();
        tls.look();
        let second = shown(&tls);
        assert!(!failed() && !Arc::ptr_eq(&first, &second));
        // Broken, for good.
        fs::remove_file(&files.key).unwrap();
        for _ in 0..3 {
            tls.look();
        }
        assert!(failed() && Arc::ptr_eq(&second, &shown(&tls)));
        fs::write(&files.key, key.serialize_pem()).unwrap();
        tls.look();
        assert!(!failed() && !Arc::ptr_eq(&second, &shown(&tls)));
    }

    #[test]
    fn a_certificate_that_has_ended_takes_no_good_one_s_place() {
        let dir = tempfile::tempdir().unwrap();
        let files = written(&dir, &["one.example"]);
        assert!(!Tls::check(&files).unwrap().has_ended);
        let tls = Tls::new(files.clone(), Metrics::new()).unwrap();
        let first = shown(&tls);
        let mut params = rcgen::CertificateParams::new(vec!["one.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let ended = params.self_signed(&key).unwrap();
        fs::write(&files.certificate, ended.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        tls.look();
        tls.look();
        assert!(Arc::ptr_eq(&first, &shown(&tls)));
        assert!(Tls::check(&files).unwrap().has_ended);
        // Where there is no other, clients are told by it.
        let tls = Tls::new(files, Metrics::new()).unwrap();
        let before = shown(&tls);
        tls.0.reading.lock().unwrap().stamps = None;
        tls.look();
        assert!(!Arc::ptr_eq(&before, &shown(&tls)));
    }

    /// How a client's handshake went.
    fn shaken(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> HandshakeKind {
        fn send<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) {
            let mut bytes = Vec::new();
            while from.wants_write() {
                from.write_tls(&mut bytes).unwrap();
            }
            let mut left = &bytes[..];
            while !left.is_empty() {
                to.read_tls(&mut left).unwrap();
                to.process_new_packets().unwrap();
            }
        }
        let name = "one.example".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        // The last of them brings what sessions are resumed by.
        for _ in 0..4 {
            send(&mut client, &mut server);
            send(&mut server, &mut client);
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        server.handshake_kind().unwrap()
    }

    #[test]
    fn a_client_s_certificate_is_looked_at_in_each_handshake() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = written(&dir, &["one.example"]);
        files.client_ca = Some(files.certificate.clone());
        let tls = Tls::new(files.clone(), Metrics::new()).unwrap();
        let certificate = CertificateDer::from_pem_file(&files.certificate).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let second = |clients| {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let builder = ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_root_certificates(roots.clone());
                let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
                let client = builder.with_client_auth_cert(vec![certificate.clone()], key);
                let client = Arc::new(client.unwrap());
                let server = Arc::clone(tls.acceptor(clients).unwrap().config());
                assert_eq!(shaken(&client, &server), HandshakeKind::Full);
                shaken(&client, &server)
            };
            assert_eq!(second(Clients::NotAsked), HandshakeKind::Resumed);
            for clients in [Clients::Optional, Clients::Required] {
                assert_eq!(second(clients), HandshakeKind::Full, "{clients:?}");
            }
        }
    }

    #[test]
    fn without_issuers_no_client_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = written(&dir, &["one.example"]);
        let tls = Tls::new(files.clone(), Metrics::new()).unwrap();
        assert!(tls.acceptor(Clients::Required).is_none());
        files.client_ca = Some(files.certificate.clone());
        Tls::check(&files).unwrap();
        let tls = Tls::new(files, Metrics::new()).unwrap();
        assert!(tls.acceptor(Clients::Required).is_some());
    }
}
