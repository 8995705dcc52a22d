//! Where the broker is: the options, and the reading of its addresses.
//!
//! Called by `app`, which fills [`Options`] from the configuration, and by `connection`.
//!
//! # Invariants
//! - No part of an address goes into a `Debug` text or an error but host, port and vhost
//!   (`bad_addresses_are_refused_without_being_quoted`).
//! - Heartbeats are never off: they are the only detector of a half-dead connection
//!   (`addresses_are_read_with_their_defaults`).
//! - A connection takes memory as it is used (the outage suite looks at a fresh collector).

use std::fmt;
use std::time::Duration;

use lapin::uri::AMQPUri;

use crate::trust::TrustFiles;

/// The largest frame on our connections, as RabbitMQ's own default. A message's headers come in
/// one frame, so that a smaller one would turn messages of others away. lapin has room for 32
/// frames in each direction: told before it connects, it takes that from the system as pages
/// that are not used yet; told by the broker, it writes all of it, 8 MiB for each connection.
const FRAME_MAX_BYTES: u32 = 128 << 10;

/// Where the broker is and how to talk to it.
#[derive(Clone)]
pub struct Options {
    /// Addresses, tried in turn: `amqp://user:password@host:port/vhost`, or `amqps`. Without a
    /// vhost, or with an empty one, it is `/`.
    pub urls: Vec<String>,
    /// Time between heartbeats where a URL has no `heartbeat` of its own; a peer that is silent
    /// for twice this time is gone. Whole seconds, at least one.
    pub heartbeat: Duration,
    /// How long one address may take, from the look-up of its name to the end of the handshake.
    pub connect_timeout: Duration,
    /// The connection's name in RabbitMQ's lists.
    pub name: String,
    /// Whom to trust for `amqps`, and who we are; read anew for each connection.
    pub trust: TrustFiles,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            heartbeat: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            name: "holdfast".to_owned(),
            trust: TrustFiles::default(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Unparsed URLs may have a password anywhere, so only their number is shown.
        f.debug_struct("Options")
            .field("urls", &self.urls.len())
            .field("heartbeat", &self.heartbeat)
            .field("connect_timeout", &self.connect_timeout)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The options cannot be used; a matter for the operator, no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// There is no address at all.
    #[error("no broker address is given")]
    NoAddress,
    /// An address is not one; `index` counts from 0.
    #[error("broker address {index} is not usable: {reason}")]
    Address {
        /// Which of the addresses, from 0.
        index: usize,
        /// Why, without quoting the address.
        reason: String,
    },
}

/// One address, read.
pub(super) struct Target {
    pub(super) uri: AMQPUri,
    pub(super) label: String,
}

/// Reads one URL. No text of it goes into the error: it may hold a password.
pub(super) fn target(url: &str, heartbeat: Duration) -> Result<Target, String> {
    let mut uri: AMQPUri = url.parse().map_err(|error: String| {
        // Two of the parser's errors quote their input.
        match error.split_once(':') {
            Some(("Invalid URL" | "Invalid AMQP scheme", _)) => {
                "it does not begin with amqp:// or amqps://".to_owned()
            }
            _ => error,
        }
    })?;
    // The parser knows no IPv6 literal: it would take "localhost" instead, without a word.
    let host = url
        .split("://")
        .nth(1)
        .and_then(|rest| rest.split(['/', '?']).next());
    if host.is_some_and(|host| {
        host.rsplit('@')
            .next()
            .is_some_and(|host| host.starts_with('['))
    }) {
        return Err("IPv6 literals are not supported, use a host name".to_owned());
    }
    // "amqp://host/" means the vhost "" by the letter; every client in the field reads it as "/".
    if uri.vhost.is_empty() {
        uri.vhost = "/".to_owned();
    }
    let seconds = u16::try_from(heartbeat.as_secs())
        .unwrap_or(u16::MAX)
        .max(1);
    // Zero would turn the only detector of half-dead connections off.
    uri.query.heartbeat = Some(
        uri.query
            .heartbeat
            .filter(|own| *own > 0)
            .unwrap_or(seconds),
    );
    uri.query.frame_max = Some(FRAME_MAX_BYTES);
    let label = format!(
        "{}:{}/{}",
        uri.authority.host,
        uri.authority.port,
        uri.vhost.trim_start_matches('/')
    );
    Ok(Target { uri, label })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Broker;

    fn broker(url: &str) -> Result<Broker, OptionsError> {
        Broker::new(Options {
            urls: vec![url.to_owned()],
            ..Options::default()
        })
    }

    #[test]
    fn addresses_are_read_with_their_defaults() {
        let read = |url: &str| {
            let Target { uri, label } = target(url, Duration::from_secs(20)).expect(url);
            assert_eq!(uri.query.frame_max, Some(FRAME_MAX_BYTES));
            let debug = format!("{:?}", broker(url).expect(url));
            assert_eq!(
                debug,
                format!("[{label:?}]"),
                "no more than the label is shown"
            );
            (uri.vhost, uri.query.heartbeat, debug)
        };
        assert_eq!(
            read("amqp://u:secret@h"),
            ("/".into(), Some(20), "[\"h:5672/\"]".into())
        );
        assert_eq!(
            read("amqp://u:secret@h:1/"),
            ("/".into(), Some(20), "[\"h:1/\"]".into())
        );
        assert_eq!(
            read("amqps://h/v%2fw?heartbeat=7"),
            ("v/w".into(), Some(7), "[\"h:5671/v/w\"]".into())
        );
        assert_eq!(read("amqp://h?heartbeat=0").1, Some(20));
    }

    #[test]
    fn bad_addresses_are_refused_without_being_quoted() {
        for url in [
            "secret",
            "http://u:secret@h",
            "u:secret@h",
            "amqp://u:secret@h:port",
            "amqp://u:secret@[::1]:5672/",
            "amqp:secret",
        ] {
            let error = broker(url).expect_err(url).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert_eq!(
            Broker::new(Options::default()).err(),
            Some(OptionsError::NoAddress)
        );
    }
}
