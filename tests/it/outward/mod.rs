//! Connections to others, as the real process opens them: encrypted, to servers that prove who
//! they are, with secrets from files; and its memory, which it keeps from others.

mod encryption;
mod memory;
mod secrets;

use crate::ports::identities::{Identity, Issuer};
use crate::support::servers::{Server, ServerTls};
use crate::support::{Scratch, free_port};
use std::path::PathBuf;
use std::time::Duration;

/// How long what has to happen may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Events of a load: enough for some batches.
const EVENTS: usize = 60;

/// Files of certificates in a scratch directory.
struct Files<'a>(&'a Scratch);

impl Files<'_> {
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn identity(&self, name: &str, identity: &Identity) -> (PathBuf, PathBuf) {
        let certificate = self.write(&format!("{name}.pem"), &identity.certificate);
        (
            certificate,
            self.write(&format!("{name}.key"), &identity.key),
        )
    }

    /// Encrypts a server as `localhost`; where its TLS port is.
    fn encrypt(&self, server: &mut Server, issuer: &Issuer, client_ca: Option<PathBuf>) -> u16 {
        let port = free_port();
        let name = format!("server{port}");
        let (certificate, key) = self.identity(&name, &issuer.issue("localhost"));
        server.encrypt(ServerTls {
            port,
            certificate,
            key,
            client_ca,
        });
        port
    }
}
