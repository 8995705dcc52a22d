//! The sections of outgoing calls: WebEngage, Identity, Social stream, what Graphy's
//! events become; and where errors are reported. Called by `app` and `check`.

use super::secret::Secret;
use super::units::Span;
use super::{Config, Handler};
use serde::{Deserialize, Serialize};

/// How long a call may take: what the services behind it were always given.
const TIMEOUT: Span = Span::secs(5);

/// Calls in a second: far more than the partners' webhooks bring, and few enough that a
/// backlog after an outage is no attack.
const RATE_MAX: u32 = 100;

/// `[webengage]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct WebEngage {
    /// Key of the account for users.
    pub api_key: Secret,
    /// Where its events are posted.
    pub url: String,
    /// Where its users are posted.
    pub user_url: String,
    /// Key of the account for brands.
    pub brand_api_key: Secret,
    /// Where its events are posted.
    pub brand_url: String,
    /// Where its users are posted.
    pub brand_user_url: String,
    /// How long a call may take. Default 5 s.
    pub timeout: Span,
    /// Calls in a second, at most. Default 100.
    pub rate_max: u32,
}

impl Default for WebEngage {
    fn default() -> Self {
        Self {
            api_key: Secret::default(),
            url: String::new(),
            user_url: String::new(),
            brand_api_key: Secret::default(),
            brand_url: String::new(),
            brand_user_url: String::new(),
            timeout: TIMEOUT,
            rate_max: RATE_MAX,
        }
    }
}

/// `[identity]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Identity {
    /// The service's address; `/userclientaccount/search` is added.
    pub url: String,
    /// Client id of the customers' app.
    pub customer_app_client_id: String,
    /// Client id of the hosts' app.
    pub host_app_client_id: String,
    /// Client id of the hosts' app of the creator club.
    pub gcc_host_app_client_id: String,
    /// Client id of the brands of the creator club.
    pub gcc_brand_client_id: String,
    /// How long a call may take. Default 5 s.
    pub timeout: Span,
    /// Calls in a second, at most. Default 100.
    pub rate_max: u32,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            url: String::new(),
            customer_app_client_id: String::new(),
            host_app_client_id: String::new(),
            gcc_host_app_client_id: String::new(),
            gcc_brand_client_id: String::new(),
            timeout: TIMEOUT,
            rate_max: RATE_MAX,
        }
    }
}

/// `[social_stream]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct SocialStream {
    /// The service's address; `/influencerprogramcampaign/searchV2` is added.
    pub url: String,
    /// How long a call may take. Default 5 s.
    pub timeout: Span,
    /// Calls in a second, at most. Default 100.
    pub rate_max: u32,
}

impl Default for SocialStream {
    fn default() -> Self {
        Self {
            url: String::new(),
            timeout: TIMEOUT,
            rate_max: RATE_MAX,
        }
    }
}

/// The two accounts at WebEngage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum AppType {
    /// Users.
    #[serde(rename = "USER")]
    User,
    /// Brands.
    #[serde(rename = "BRAND")]
    Brand,
}

/// `[graphy]`: Graphy's events as WebEngage events of the learner.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Graphy {
    /// The client id whose accounts are searched for the learner. Default: that of the
    /// customers' app.
    pub client_id: Option<String>,
    /// The WebEngage account that gets the events. Default `USER`.
    pub app_type: AppType,
}

impl Default for Graphy {
    fn default() -> Self {
        Self {
            client_id: None,
            app_type: AppType::User,
        }
    }
}

/// `[sentry]`
#[derive(Debug, Clone, Deserialize, Serialize, Default)]
#[serde(default)]
pub struct Sentry {
    /// Where errors and panics are reported.
    pub dsn: Secret,
    /// What they are filed under.
    pub environment: Option<String>,
}

impl Config {
    /// The client id whose accounts Graphy's learners are searched among.
    #[must_use]
    pub fn graphy_client_id(&self) -> Option<&str> {
        let identity = self.identity.as_ref()?;
        let id = self.graphy.client_id.as_deref();
        let id = id.unwrap_or(&identity.customer_app_client_id);
        Some(id).filter(|id| !id.is_empty())
    }
}

/// What is wrong with the sections.
pub(super) fn check(config: &Config, errors: &mut Vec<String>) {
    let mut expect = |holds: bool, text: &str| {
        if !holds {
            errors.push(text.to_owned());
        }
    };
    if let Some(webengage) = &config.webengage {
        expect(
            config.rabbitmq.is_some(),
            "webengage: calls are made from queues: needs [rabbitmq]",
        );
        let parts = [
            (
                &webengage.url,
                "webengage.url",
                &webengage.api_key,
                "webengage.api_key",
            ),
            (
                &webengage.user_url,
                "webengage.user_url",
                &webengage.api_key,
                "webengage.api_key",
            ),
            (
                &webengage.brand_url,
                "webengage.brand_url",
                &webengage.brand_api_key,
                "webengage.brand_api_key",
            ),
            (
                &webengage.brand_user_url,
                "webengage.brand_user_url",
                &webengage.brand_api_key,
                "webengage.brand_api_key",
            ),
        ];
        for (url, name, key, key_name) in parts {
            expect(
                is_http(url),
                &format!("{name}: must start with http:// or https://"),
            );
            expect(
                !key.expose().is_empty(),
                &format!("{key_name}: is required"),
            );
        }
        expect(
            webengage.rate_max > 0,
            "webengage.rate_max: must be more than 0",
        );
        expect(
            !webengage.timeout.get().is_zero(),
            "webengage.timeout: must be more than 0",
        );
    }
    if let Some(identity) = &config.identity {
        expect(
            is_http(&identity.url),
            "identity.url: must start with http:// or https://",
        );
        expect(
            identity.rate_max > 0,
            "identity.rate_max: must be more than 0",
        );
        expect(
            !identity.timeout.get().is_zero(),
            "identity.timeout: must be more than 0",
        );
    }
    if let Some(social) = &config.social_stream {
        expect(
            is_http(&social.url),
            "social_stream.url: must start with http:// or https://",
        );
        expect(
            social.rate_max > 0,
            "social_stream.rate_max: must be more than 0",
        );
        expect(
            !social.timeout.get().is_zero(),
            "social_stream.timeout: must be more than 0",
        );
    }
    if let Some(sentry) = &config.sentry {
        let is_dsn = sentry.dsn.expose().parse::<sentry::types::Dsn>().is_ok();
        expect(is_dsn, "sentry.dsn: is none");
    }
    for consumer in config.consumers() {
        let needs = consumer.handler == Handler::GraphyCall && consumer.enabled == Some(true);
        expect(
            !needs || config.graphy_client_id().is_some(),
            "consumer graphy_webengage_event_q: needs [identity] and a client id",
        );
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}
