//! The encryption of connections to the broker and the sinks, from the configuration. Called by
//! `setup`, and by `check`, which looks at the files.

use crate::config::Config;
use crate::trust::{ClientIdentity, TrustFiles};
use std::path::PathBuf;

/// Whom to trust, and who we are, by the keys of a section.
pub(super) fn trust(
    ca: &Option<PathBuf>,
    certificate: &Option<PathBuf>,
    key: &Option<PathBuf>,
) -> TrustFiles {
    let identity = certificate.clone().zip(key.clone());
    TrustFiles {
        ca: ca.clone(),
        identity: identity.map(|(certificate, key)| ClientIdentity { certificate, key }),
    }
}

/// Looks whether the files for the encryption can be used. What is wrong, by section.
pub(super) fn wrong_files(config: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut files = |section: &str, needed: bool, trust: TrustFiles| {
        if !needed && trust.is_empty() {
            return;
        }
        if let Err(error) = trust.check() {
            wrong.push(format!("{section}: {error}"));
        }
    };
    if let Some(own) = &config.rabbitmq {
        let mut urls = own.urls.iter();
        let needed = urls.any(|url| url.expose().starts_with("amqps://"));
        let trust = trust(&own.tls_ca, &own.tls_certificate, &own.tls_key);
        files("rabbitmq", needed, trust);
    }
    if let Some(own) = &config.clickhouse {
        let trust = trust(&own.tls_ca, &own.tls_certificate, &own.tls_key);
        files("clickhouse", own.url.starts_with("https://"), trust);
    }
    if let Some(own) = &config.postgres {
        let trust = trust(&own.tls_ca, &own.tls_certificate, &own.tls_key);
        files("postgres", false, trust);
    }
    wrong
}
