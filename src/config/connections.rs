//! `[connections]`: the bounds of the connections of the gRPC and the HTTP port. Used by `app`.

use super::Span;
use serde::{Deserialize, Serialize};

/// `[connections]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Connections {
    /// Connections of one port; further ones are closed at once. Default 10,000: each takes a
    /// descriptor, some 20 KiB, and up to 1 MiB while a request waits.
    pub max: usize,
    /// Connections of one peer's address (of its /64, for IPv6), of each port. Default: half of
    /// `max`, so that no address takes all. What stands before this host, such as a load
    /// balancer, is one address.
    pub max_per_address: Option<usize>,
    /// From the connection to the whole head of its first request, with the handshakes, and
    /// later from a head's first byte to its last. Default 10 s: one packet, lost thrice.
    pub header_timeout: Span,
    /// How long a connection may stay without a request in work. Default 5 min: longer than
    /// proxies keep theirs, so that it is they who close.
    pub idle_timeout: Span,
    /// How long a peer may take none of the bytes that it is sent. Default 30 s.
    pub write_timeout: Span,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            max: 10_000,
            max_per_address: None,
            header_timeout: Span::secs(10),
            idle_timeout: Span::secs(300),
            write_timeout: Span::secs(30),
        }
    }
}

impl Connections {
    /// `max_per_address`, or its default.
    #[must_use]
    pub fn per_address(&self) -> usize {
        self.max_per_address.unwrap_or(self.max.div_ceil(2))
    }
}

/// Adds what is wrong with the section.
pub(super) fn check(section: &Connections, errors: &mut Vec<String>) {
    let mut expect = |holds: bool, text: &str| {
        if !holds {
            errors.push(format!("connections.{text}"));
        }
    };
    expect(
        (1..=1_000_000).contains(&section.max),
        "max: must be from 1 to 1000000",
    );
    expect(
        section.max_per_address != Some(0),
        "max_per_address: must be more than 0",
    );
    for (key, span) in [
        ("header_timeout", section.header_timeout),
        ("idle_timeout", section.idle_timeout),
        ("write_timeout", section.write_timeout),
    ] {
        let is_more = !span.get().is_zero();
        expect(is_more, &format!("{key}: must be more than 0"));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load_from;

    #[test]
    fn one_address_has_half_and_nonsense_is_named() {
        let load = |text: &str| load_from(text, std::iter::empty());
        assert_eq!(load("").unwrap().connections.per_address(), 5_000);
        let odd = load("[connections]\nmax = 1").unwrap();
        assert_eq!(odd.connections.per_address(), 1);
        let errors = load("[connections]\nmax = 0\nmax_per_address = 0\nidle_timeout = \"0s\"");
        let errors = errors.unwrap_err().to_string();
        for key in ["max:", "max_per_address:", "idle_timeout:"] {
            assert!(errors.contains(&format!("connections.{key}")), "{errors}");
        }
    }
}
