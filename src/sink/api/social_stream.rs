//! The Social stream service: campaigns of the influencer programme. A client for
//! programs that use this crate; the collector itself does not search campaigns.

use super::identity::Filter;
use super::{Api, Call, Options, checked};
use crate::sink::{OptionsError, WriteError};
use serde_json::Value as Json;

/// The client of its search.
#[derive(Debug)]
pub struct SocialStream {
    api: Api,
    url: String,
}

/// What is searched for, and which part of the result is wanted.
#[derive(Debug, Clone)]
pub struct Search<'a> {
    /// The conditions.
    pub filters: &'a [Filter<'a>],
    /// The page, from 1.
    pub page: u32,
    /// Campaigns on a page.
    pub size: u32,
    /// Whether each campaign comes with its details.
    pub fetch_details: bool,
}

impl SocialStream {
    /// Makes the client; connects to nothing.
    ///
    /// # Errors
    /// When the URL is none or holds credentials.
    pub fn new(options: &Options, url: &str) -> Result<Self, OptionsError> {
        let url = checked("social_stream.url", url)?;
        Ok(Self {
            api: Api::new(options)?,
            url: format!("{url}/influencerprogramcampaign/searchV2"),
        })
    }

    /// Searches campaigns; gives them as they came. `headers` go along (a JSON object of
    /// texts).
    ///
    /// # Errors
    /// As [`crate::sink::Sink::write`]; an answer that is none is refused.
    pub async fn search(
        &self,
        search: &Search<'_>,
        headers: &str,
        idempotency_key: &str,
    ) -> Result<Vec<Json>, WriteError> {
        let url = format!(
            "{}?page={}&size={}&fetchDetails={}",
            self.url, search.page, search.size, search.fetch_details
        );
        let call = Call {
            url: &url,
            authorization: None,
            headers,
            idempotency_key,
            body: serde_json::json!({ "filters": search.filters }).to_string(),
        };
        let answer = self.api.post(call).await?;
        let mut answer: Json = serde_json::from_slice(&answer).unwrap_or_default();
        match answer["list"].take() {
            Json::Array(list) => Ok(list),
            _ => Err(WriteError::Refused {
                reason: "social stream answered with something that is no list".to_owned(),
            }),
        }
    }
}
