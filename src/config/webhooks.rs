//! `[webhooks]`: exchanges, verification and the bounds of each lane. Called by `app` and
//! `check`.

use super::Config;
use super::secret::Secret;
use super::units::Size;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Bytes of one body where nothing is said.
const BODY_BYTES: Size = Size::mib(2);

/// Lanes that would fill the journal's queue: more than twice as many as there are.
const LANES_PER_QUEUE: u64 = 16;

/// `[webhooks]`
#[derive(Debug, Clone, Deserialize, Serialize, Default)]
#[serde(default)]
pub struct Webhooks {
    /// Base64 of the secret of sources with `verify = "hmac"` that have none of their own.
    pub hmac_secret: Secret,
    /// `/vidooly/event/`
    pub vidooly: Webhook,
    /// `/branch/event/`
    pub branch: Webhook,
    /// `/graphy/event/`
    pub graphy: Webhook,
    /// `/webengage/event/` and `/webengage/event/users`: a lane each.
    pub webengage: Webhook,
    /// `/shopify/event/`
    pub shopify: Webhook,
}

/// A partner that sends webhooks: a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partner {
    /// `[webhooks.vidooly]`
    Vidooly,
    /// `[webhooks.branch]`
    Branch,
    /// `[webhooks.graphy]`
    Graphy,
    /// `[webhooks.webengage]`
    WebEngage,
    /// `[webhooks.shopify]`
    Shopify,
}

impl Partner {
    const ALL: [Self; 5] = [
        Self::Vidooly,
        Self::Branch,
        Self::Graphy,
        Self::WebEngage,
        Self::Shopify,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Vidooly => "vidooly",
            Self::Branch => "branch",
            Self::Graphy => "graphy",
            Self::WebEngage => "webengage",
            Self::Shopify => "shopify",
        }
    }

    /// Lanes that its section bounds, each by itself.
    fn lanes(self) -> u64 {
        if self == Self::WebEngage { 2 } else { 1 }
    }
}

/// How the sender of a webhook proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Not at all.
    None,
    /// A header holds one of the secrets.
    Secret,
    /// A header holds the HMAC-SHA256 of the body by one of the secrets, in hex or
    /// base64, with or without `sha256=` before it.
    Hmac,
}

/// `[webhooks.NAME]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Webhook {
    /// The exchange that its messages go to. Default: the contract's.
    pub exchange: Option<String>,
    /// How its sender proves who it is. Default `none`, as it always was.
    pub verify: Verify,
    /// The header with the proof. Default `x-webhook-secret`, or `x-webhook-signature`
    /// for `hmac`.
    pub header: Option<String>,
    /// Secrets that are taken, so that one can be replaced by the next.
    pub secrets: Vec<Secret>,
    /// Shopify alone: the apps' client secrets, which sign native webhooks. Without one,
    /// native webhooks are refused: they can be anyone's.
    pub client_secrets: Vec<Secret>,
    /// Requests of the lane that may be in work. Default 64: a commit takes them all, and
    /// more would only wait. One address has half of them. Others get 429.
    pub max_in_flight: usize,
    /// Bytes of one body. Default 2 MiB, far above what the partners send, or what the
    /// bounds around it leave.
    pub max_body_bytes: Option<Size>,
    /// Bytes of bodies of the lane that may be in work. Default a 16th of
    /// `journal.queue_bytes`, so that all six lanes together leave room for dispatches. One
    /// address has half of them, and at least one body. Others get 429.
    pub max_waiting_bytes: Option<Size>,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            exchange: None,
            verify: Verify::None,
            header: None,
            secrets: Vec::new(),
            client_secrets: Vec::new(),
            max_in_flight: 64,
            max_body_bytes: None,
            max_waiting_bytes: None,
        }
    }
}

impl Webhook {
    /// The name of the header with the proof, in lower case.
    #[must_use]
    pub fn header(&self) -> String {
        let usual = match self.verify {
            Verify::Hmac => "x-webhook-signature",
            Verify::None | Verify::Secret => "x-webhook-secret",
        };
        self.header.as_deref().unwrap_or(usual).to_ascii_lowercase()
    }
}

impl Webhooks {
    /// The section of a partner.
    #[must_use]
    pub fn of(&self, partner: Partner) -> &Webhook {
        match partner {
            Partner::Vidooly => &self.vidooly,
            Partner::Branch => &self.branch,
            Partner::Graphy => &self.graphy,
            Partner::WebEngage => &self.webengage,
            Partner::Shopify => &self.shopify,
        }
    }

    /// Takes over how partners prove who they are.
    pub fn take_proofs(&mut self, new: &Self) {
        self.hmac_secret.clone_from(&new.hmac_secret);
        for partner in Partner::ALL {
            let new = new.of(partner);
            let own = match partner {
                Partner::Vidooly => &mut self.vidooly,
                Partner::Branch => &mut self.branch,
                Partner::Graphy => &mut self.graphy,
                Partner::WebEngage => &mut self.webengage,
                Partner::Shopify => &mut self.shopify,
            };
            own.verify = new.verify;
            own.header.clone_from(&new.header);
            own.secrets.clone_from(&new.secrets);
            own.client_secrets.clone_from(&new.client_secrets);
        }
    }

    /// The exchange of a partner.
    #[must_use]
    pub fn exchange(&self, partner: Partner) -> &str {
        let usual = match partner {
            Partner::Vidooly => "vidooly_event.tx",
            Partner::Branch => "branch_event.tx",
            Partner::Graphy => "graphy_event.tx",
            Partner::WebEngage => "webengage_event.dx",
            Partner::Shopify => "shopify_event.dx",
        };
        self.of(partner).exchange.as_deref().unwrap_or(usual)
    }

    /// The keys that sign a partner's bodies.
    #[must_use]
    pub fn hmac_keys(&self, partner: Partner) -> Vec<Vec<u8>> {
        let own = self.of(partner).secrets.iter();
        let own: Vec<_> = own
            .map(|secret| secret.expose().as_bytes().to_vec())
            .collect();
        if !own.is_empty() {
            return own;
        }
        let shared = STANDARD
            .decode(self.hmac_secret.expose())
            .unwrap_or_default();
        Some(shared)
            .filter(|key| !key.is_empty())
            .into_iter()
            .collect()
    }
}

pub(super) fn check(config: &Config, errors: &mut Vec<String>) {
    let webhooks = &config.webhooks;
    if STANDARD.decode(webhooks.hmac_secret.expose()).is_err() {
        errors.push("webhooks.hmac_secret: must be base64".to_owned());
    }
    let mut waiting = 0u64;
    for partner in Partner::ALL {
        let section = webhooks.of(partner);
        let (body, lane) = config.webhook_bytes(partner);
        // Sizes are of any 64 bits here: what is too much must not wrap around to fit.
        waiting = waiting.saturating_add(lane.bytes().saturating_mul(partner.lanes()));
        let name = partner.name();
        let mut expect = |holds: bool, text: &str| {
            if !holds {
                errors.push(format!("webhooks.{name}.{text}"));
            }
        };
        let exchange = webhooks.exchange(partner);
        expect(
            !exchange.is_empty() && exchange.len() <= 127,
            "exchange: must be a name of up to 127 bytes",
        );
        expect(
            http::HeaderName::from_bytes(section.header().as_bytes()).is_ok(),
            "header: must be the name of a header",
        );
        let secrets = section.secrets.iter().chain(&section.client_secrets);
        expect(
            secrets
                .into_iter()
                .all(|secret| !secret.expose().is_empty()),
            "secrets: must not be empty texts",
        );
        let has_secret = match section.verify {
            Verify::None => true,
            Verify::Secret => !section.secrets.is_empty(),
            Verify::Hmac => !webhooks.hmac_keys(partner).is_empty(),
        };
        expect(has_secret, "secrets: verify needs a secret");
        expect(
            section.client_secrets.is_empty() || partner == Partner::Shopify,
            "client_secrets: only Shopify has them",
        );
        expect(
            (1..=10_000).contains(&section.max_in_flight),
            "max_in_flight: must be from 1 to 10000",
        );
        expect(
            body.bytes() > 0,
            "max_body_bytes: must be more than 0, as must max_waiting_bytes",
        );
        let is_less = |wanted: Option<Size>| wanted.is_none_or(|wanted| wanted <= body);
        expect(
            is_less(section.max_body_bytes),
            "max_body_bytes: must be at most max_waiting_bytes and ingest.max_request_bytes",
        );
    }
    // What webhooks hold must not keep a dispatch out of the journal's queue.
    let dispatch = config.ingest.max_request_bytes.bytes();
    if waiting.saturating_add(dispatch) > config.journal.queue_bytes.bytes() {
        errors.push(
            "webhooks: max_waiting_bytes of all lanes (webengage has two) and \
             ingest.max_request_bytes must fit into journal.queue_bytes"
                .to_owned(),
        );
    }
}

impl Config {
    /// Bytes of one body, and of all bodies in work, of a lane of this partner.
    #[must_use]
    pub fn webhook_bytes(&self, partner: Partner) -> (Size, Size) {
        let section = self.webhooks.of(partner);
        let share = Size::of_bytes(self.journal.queue_bytes.bytes() / LANES_PER_QUEUE);
        let waiting = section.max_waiting_bytes.unwrap_or(share);
        let body = section.max_body_bytes.unwrap_or(BODY_BYTES);
        let body = body.min(waiting).min(self.ingest.max_request_bytes);
        (body, waiting)
    }
}
