//! The ports' bounds and encryption, from the configuration. Called by `app::run` and `doors`,
//! and by `cli` to check the files.

use crate::config::{self, Config, PortTls};
use crate::port::{self, Clients, Encryption, TlsError, TlsFiles, Validity};
use crate::telemetry::Metrics;

/// The bounds of the connections of a port for events.
pub(super) fn bounds(config: &Config) -> port::Bounds {
    let section = &config.connections;
    port::Bounds {
        connections_max: section.max,
        per_address_max: section.per_address(),
        header_time: section.header_timeout.get(),
        idle_time: section.idle_timeout.get(),
        write_time: section.write_timeout.get(),
        life: None,
    }
}

fn files(section: &config::Tls) -> TlsFiles {
    TlsFiles {
        certificate: section.certificate.clone(),
        key: section.key.clone(),
        client_ca: section.client_ca.clone(),
    }
}

/// Looks whether the files of `[tls]` can be used; until when the certificate is valid, where
/// there is one.
///
/// # Errors
/// See [`TlsError`].
pub(super) fn check_tls(config: &Config) -> Result<Option<Validity>, TlsError> {
    let section = config.tls.as_ref();
    section
        .map(|section| port::Tls::check(&files(section)))
        .transpose()
}

/// How each port is encrypted.
pub(super) struct Encryptions {
    pub(super) grpc: Option<Encryption>,
    pub(super) http: Option<Encryption>,
    pub(super) admin: Option<Encryption>,
}

/// Reads the files of `[tls]`, now and whenever they change.
pub(super) fn encrypt(config: &Config, metrics: &Metrics) -> Result<Encryptions, TlsError> {
    let Some(section) = &config.tls else {
        return Ok(Encryptions {
            grpc: None,
            http: None,
            admin: None,
        });
    };
    let tls = port::Tls::new(files(section), metrics.clone())?;
    tokio::spawn(tls.clone().keep());
    let of = |port: PortTls| {
        let clients = match port {
            PortTls::Off => return None,
            PortTls::On => Clients::NotAsked,
            PortTls::Optional => Clients::Optional,
            PortTls::Required => Clients::Required,
        };
        let tls = tls.clone();
        Some(Encryption { tls, clients })
    };
    Ok(Encryptions {
        grpc: of(section.grpc),
        http: of(section.http),
        admin: of(section.admin),
    })
}
