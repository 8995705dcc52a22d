//! The Identity service: who an e-mail address is. Called by the sink `webengage`.

use super::{Api, Call, Options, checked, secret};
use crate::sink::{OptionsError, WriteError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};

/// The client of Identity's search.
#[derive(Debug)]
pub struct Identity {
    api: Api,
    url: String,
    client_id: String,
    authorization: HeaderValue,
}

/// An account, as far as it is of use here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// Its user at WebEngage, if it has one.
    #[serde(rename = "webengageUserId")]
    pub webengage_user_id: Option<String>,
}

/// One condition of a search, as Identity and Social stream take it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter<'a> {
    /// How the field is compared, such as `EQ`.
    pub filter_type: &'a str,
    /// The field.
    pub field: &'a str,
    /// What it is compared with.
    pub value: &'a str,
}

/// An answer without a list says something else, such as what went wrong: nothing about accounts.
#[derive(Deserialize)]
struct Found {
    list: Vec<Account>,
}

impl Identity {
    /// Makes the client for the accounts of one client id; connects to nothing.
    ///
    /// # Errors
    /// When the URL is none or holds credentials.
    pub fn new(options: &Options, url: &str, client_id: &str) -> Result<Self, OptionsError> {
        let url = checked("identity.url", url)?;
        // The client authenticates as itself, without a password.
        let basic = STANDARD.encode(format!("{client_id}:"));
        Ok(Self {
            api: Api::new(options)?,
            url: format!("{url}/userclientaccount/search"),
            client_id: client_id.to_owned(),
            authorization: secret(&format!("Basic {basic}"))?,
        })
    }

    /// The accounts with an e-mail address. `headers` go along (a JSON object of texts).
    ///
    /// # Errors
    /// As [`crate::sink::Sink::write`]; an answer that is none is refused.
    pub async fn search(
        &self,
        email: &str,
        headers: &str,
        idempotency_key: &str,
    ) -> Result<Vec<Account>, WriteError> {
        let filter = |field, value| Filter {
            filter_type: "EQ",
            field,
            value,
        };
        let filters = [
            filter("clientId", self.client_id.as_str()),
            filter("email", email),
        ];
        let body = serde_json::json!({ "filters": filters }).to_string();
        let call = Call {
            url: &self.url,
            authorization: Some(self.authorization.clone()),
            headers,
            idempotency_key,
            body,
        };
        let answer = self.api.post(call).await?;
        let found: Found = serde_json::from_slice(&answer).map_err(|_| WriteError::Refused {
            reason: "identity answered with something that is no list of accounts".to_owned(),
        })?;
        Ok(found.list)
    }
}
