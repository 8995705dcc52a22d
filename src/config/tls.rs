//! `[tls]`: how the ports are encrypted. Used by `app`, and by `cli check-config`, which also
//! reads the files.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[tls]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Tls {
    /// The certificate of this host and those between it and its issuer, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
    /// The issuers of client certificates, as PEM; absent: clients are not asked.
    pub client_ca: Option<PathBuf>,
    /// The gRPC port. Default `on`.
    pub grpc: PortTls,
    /// The HTTP port. Default `on`.
    pub http: PortTls,
    /// The page for operators. Default `off`: it listens on this host alone, by names that no
    /// certificate has.
    pub admin: PortTls,
}

/// What a port asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortTls {
    /// It is not encrypted.
    Off,
    /// It is encrypted, and asks for no certificate.
    On,
    /// It takes a certificate of a client who has one.
    Optional,
    /// It lets nobody in without a certificate of our issuers.
    Required,
}

impl PortTls {
    /// Whether clients may show a certificate, or must.
    #[must_use]
    pub fn asks(self) -> bool {
        matches!(self, Self::Optional | Self::Required)
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            client_ca: None,
            grpc: PortTls::On,
            http: PortTls::On,
            admin: PortTls::Off,
        }
    }
}

impl Tls {
    /// Whether a door asks its clients for certificates.
    #[must_use]
    pub fn asks_certificates(&self) -> bool {
        self.grpc.asks() || self.http.asks()
    }
}

/// Adds what is wrong with the section.
pub(super) fn check(section: &Tls, errors: &mut Vec<String>) {
    let mut expect = |holds: bool, text: &str| {
        if !holds {
            errors.push(format!("tls.{text}"));
        }
    };
    let is_named = |path: &PathBuf| !path.as_os_str().is_empty();
    expect(is_named(&section.certificate), "certificate: is required");
    expect(is_named(&section.key), "key: is required");
    let ports = [section.grpc, section.http, section.admin];
    let asks = |port: &PortTls| matches!(port, PortTls::Optional | PortTls::Required);
    let is_asked = ports.iter().any(asks);
    expect(
        section.client_ca.is_some() || !is_asked,
        "client_ca: is required where a port asks for client certificates",
    );
    expect(
        section.client_ca.is_none() || is_asked,
        "client_ca: no port asks for client certificates (tls.grpc, tls.http, tls.admin)",
    );
    expect(
        ports.iter().any(|port| *port != PortTls::Off),
        "grpc, tls.http, tls.admin: no port is encrypted",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_from;

    #[test]
    fn what_contradicts_itself_is_named() {
        let load = |text: &str| {
            let loaded = load_from(&format!("[tls]\n{text}"), std::iter::empty());
            loaded.map_err(|errors| errors.to_string())
        };
        let files = "certificate = \"c\"\nkey = \"k\"\n";
        let tls = load(files).unwrap().tls.unwrap();
        let ports = [tls.grpc, tls.http, tls.admin];
        assert_eq!(ports, [PortTls::On, PortTls::On, PortTls::Off]);
        let with = |more: &str| load(&format!("{files}{more}"));
        with("client_ca = \"a\"\ngrpc = \"required\"").unwrap();
        for (wrong, named) in [
            (load(""), "tls.certificate: is required"),
            (load("certificate = \"c\""), "tls.key: is required"),
            (with("grpc = \"required\""), "tls.client_ca: is required"),
            (with("client_ca = \"a\""), "tls.client_ca: no port asks"),
            (
                with("grpc = \"off\"\nhttp = \"off\""),
                "no port is encrypted",
            ),
            (with("grpc = \"yes\""), "tls.grpc: "),
        ] {
            let errors = wrong.unwrap_err();
            assert!(errors.contains(named), "{errors}");
        }
    }
}
