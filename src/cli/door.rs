//! Where a collector's gRPC door is, and who a client is there. Called by `dispatch` and
//! `load`.
//!
//! # Invariants
//! - Neither the token nor the key is in any message.

use anyhow::Context as _;
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// How long a connection may take to be made: a host that is away drops packets silently.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// The door, and what is shown there.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Door {
    /// The collector's gRPC address.
    #[arg(long, default_value = "http://127.0.0.1:8017")]
    to: String,
    /// Issuer of the collector's certificate (PEM), for https; default: those that the host
    /// trusts.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate to show (PEM), where the collector wants one.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// File with the bearer token to show, where the collector wants one.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
}

impl Door {
    /// Its address, as it was given.
    pub(super) fn address(&self) -> &str {
        &self.to
    }

    /// What makes connections to it; reads the files.
    pub(super) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let endpoint = Endpoint::from_shared(self.to.clone())
            .with_context(|| format!("--to {}", self.to))?
            .connect_timeout(CONNECT_WAIT);
        if endpoint.uri().scheme_str() == Some("https") {
            return Ok(endpoint.tls_config(self.encryption()?)?);
        }
        Ok(endpoint)
    }

    fn encryption(&self) -> anyhow::Result<ClientTlsConfig> {
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        let tls = match &self.ca {
            None => ClientTlsConfig::new().with_native_roots(),
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?)),
        };
        Ok(match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                tls.identity(Identity::from_pem(read(certificate)?, read(key)?))
            }
            _ => tls,
        })
    }

    /// What shows the token, where one is named.
    pub(super) fn authorization(&self) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
        let Some(path) = &self.token else {
            return Ok(None);
        };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        // Its error would quote it.
        let value = format!("Bearer {}", text.trim()).parse();
        let mut value: MetadataValue<Ascii> =
            value.map_err(|_| anyhow::anyhow!("{}: no token", path.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
