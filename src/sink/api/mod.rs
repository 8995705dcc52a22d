//! Calls of partners' HTTP APIs: one client for each API, with a bound on time, rate and
//! answers. Used by the sink `webengage` and by the clients beside it.
//!
//! # Invariants
//! - The status decides (`outcome`): 2xx is done, 408, 425, 429, 5xx and every failure of
//!   the network hold, all else refuses.
//! - Each call has an idempotency key, the same at each attempt.
//! - Redirects are not followed: they would carry credentials elsewhere.
//! - Credentials are in no error, log or `Debug` text.
//!
//! Tests: `outcome`, `rate`, tests/it/calls.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod identity;
mod outcome;
mod rate;
mod social_stream;

pub use identity::{Account, Filter, Identity};
pub use social_stream::{Search, SocialStream};

use self::rate::Rate;
use super::{OptionsError, WriteError};
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

/// Idle connections are kept for the next call for as long as servers commonly do.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of an answer that are read; what we need of one is far less.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The header with which a receiver can tell that it has seen a call before
/// (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How an API is called.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name in errors.
    pub name: &'static str,
    /// How long a call may take.
    pub timeout: Duration,
    /// Calls in a second, at most.
    pub rate_max: u32,
}

/// An API.
#[derive(Debug)]
pub(super) struct Api {
    name: &'static str,
    client: reqwest::Client,
    rate: Rate,
}

/// One call.
pub(super) struct Call<'a> {
    pub(super) url: &'a str,
    /// The value of the header `Authorization`.
    pub(super) authorization: Option<HeaderValue>,
    /// Further headers: a JSON object of texts.
    pub(super) headers: &'a str,
    pub(super) idempotency_key: &'a str,
    /// A JSON document.
    pub(super) body: String,
}

impl Api {
    pub(super) fn new(options: &Options) -> Result<Self, OptionsError> {
        let client = reqwest::Client::builder()
            .timeout(options.timeout)
            .connect_timeout(options.timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| OptionsError {
                reason: format!("{}: {error}", options.name),
            })?;
        Ok(Self {
            name: options.name,
            client,
            rate: Rate::new(options.rate_max),
        })
    }

    /// Posts a JSON document; gives the answer's body.
    ///
    /// # Errors
    /// By the rules of `outcome`.
    pub(super) async fn post(&self, call: Call<'_>) -> Result<Bytes, WriteError> {
        self.rate.turn().await;
        let mut headers = forwarded(call.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let key = HeaderValue::from_str(call.idempotency_key);
        headers.insert(
            IDEMPOTENCY_KEY,
            key.map_err(|_| refused("its id is no header"))?,
        );
        if let Some(authorization) = call.authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        let request = self.client.post(call.url).headers(headers).body(call.body);
        let response = request.send().await.map_err(|error| self.away(&error))?;
        let (status, retry_after) = (response.status(), outcome::retry_after(response.headers()));
        let body = self.read(response).await?;
        if let Some(wait) = retry_after
            && outcome::holds(status)
        {
            // One worker was told; it goes for all.
            self.rate.pause(wait);
        }
        outcome::of(self.name, status, retry_after, &body).map(|()| body)
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Bytes, WriteError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.away(&error))? {
            let room = ANSWER_BYTES_MAX - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == ANSWER_BYTES_MAX {
                break;
            }
        }
        Ok(body.into())
    }

    /// A failure of the network. The URL is left out: partners put accounts into it.
    fn away(&self, error: &reqwest::Error) -> WriteError {
        let kind = if error.is_timeout() {
            "no answer in time"
        } else if error.is_connect() {
            "no connection"
        } else {
            "the answer broke off"
        };
        WriteError::Unavailable {
            reason: format!("{}: {kind}", self.name),
            retry_after: None,
            overloaded: false,
        }
    }
}

/// Headers of the message that go along.
fn forwarded(headers: &str) -> HeaderMap {
    let texts: std::collections::BTreeMap<String, String> =
        serde_json::from_str(headers).unwrap_or_default();
    let mut map = HeaderMap::new();
    for (name, text) in texts {
        // A text that no header can hold is no reason to refuse the call.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&text)) {
            map.insert(name, value);
        }
    }
    map
}

/// A header value that is not shown.
pub(super) fn secret(text: &str) -> Result<HeaderValue, OptionsError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| OptionsError {
        reason: "a key has characters that no header can hold".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A URL that calls can be made to.
pub(super) fn checked(name: &str, url: &str) -> Result<String, OptionsError> {
    let wrong = |what: &str| OptionsError {
        reason: format!("{name}: {what}"),
    };
    let parsed = reqwest::Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(wrong("begins with neither http:// nor https://"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(wrong("holds a user or a password"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn refused(reason: &str) -> WriteError {
    WriteError::Refused {
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_credentials_are_refused_unseen() {
        for bad in [
            "",
            "x",
            "ftp://x",
            "http://u:hunter2@x",
            "https://hunter2@x",
        ] {
            let error = checked("webengage.url", bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(checked("n", "http://x/a/").unwrap(), "http://x/a");
    }

    #[test]
    fn only_headers_that_can_be_sent_go_along() {
        let map = forwarded(r#"{"x-bb-os":"android","x-bb-version-name":"a\nb","bad name":"x"}"#);
        assert_eq!(map.len(), 1);
        assert_eq!(map["x-bb-os"], "android");
        assert!(forwarded("no json").is_empty());
    }
}
