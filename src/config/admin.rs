//! `[admin]`: where the page for operators is served. Used by `app`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::net::SocketAddr;

/// `[admin]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Admin {
    /// Address of the page, or `off`. Default `127.0.0.1:8020`: it asks nobody who they are,
    /// so it is for this host alone, and for who reaches it by a tunnel.
    pub listen: Listen,
    /// Names by which browsers reach the page, beside `localhost` and addresses: what asks
    /// by another name is refused, or a foreign site could read it by a name of its own
    /// (DNS rebinding). Default: none.
    pub names: Vec<String>,
    /// Certificates that may read the page: a name in one that `tls.client_ca` issued, or the
    /// fingerprint of one (`sha256:…`). Default none: whoever reaches it reads it.
    pub certificates: Vec<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], 8020))),
            names: Vec::new(),
            certificates: Vec::new(),
        }
    }
}

/// An address, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nothing is served.
    Off,
    /// It is served here.
    At(SocketAddr),
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from).map_err(|_| {
            de::Error::custom("expected an address such as \"127.0.0.1:8020\", or \"off\"")
        })?;
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            de::Error::custom(format!(
                "{text:?} is not an address such as \"127.0.0.1:8020\", nor \"off\""
            ))
        })
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => to.serialize_str("off"),
            Self::At(address) => to.collect_str(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_from;

    #[test]
    fn the_page_can_be_off_and_nonsense_is_named() {
        let listen = |text: &str| load_from(text, std::iter::empty()).map(|c| c.admin.listen);
        let shown = listen("").unwrap();
        assert_eq!(shown, Listen::At(SocketAddr::from(([127, 0, 0, 1], 8020))));
        assert_eq!(listen("[admin]\nlisten = \"off\"").unwrap(), Listen::Off);
        let errors = listen("[admin]\nlisten = \"here\"")
            .unwrap_err()
            .to_string();
        assert!(
            errors.contains("admin.listen: \"here\" is not an address"),
            "{errors}"
        );
        let errors = listen("[admin]\nnames = [\"a b\"]")
            .unwrap_err()
            .to_string();
        assert!(errors.contains("admin.names"), "{errors}");
        let tls =
            "[tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"i\"\nadmin = \"required\"\n";
        for (certificates, tls, is_right) in [
            ("[\"operator.example\"]", tls, true),
            ("[\"operator.example\"]", "", false),
            ("[\"\"]", tls, false),
            ("[\"sha256:12\"]", tls, false),
        ] {
            let text = format!("{tls}[admin]\ncertificates = {certificates}\n");
            let errors = listen(&text).map_err(|errors| errors.to_string());
            let is_named = errors.is_err_and(|errors| errors.contains("admin.certificates"));
            assert_eq!(is_named, !is_right, "{text}");
        }
    }
}
