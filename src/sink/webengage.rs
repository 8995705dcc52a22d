//! The WebEngage sink: each row is a call (`schema::calls`). Made by `app`, called
//! through [`Sink`] by the consumers.
//!
//! # Invariants
//! - A batch of more than one call is refused, so that the caller splits it: of two calls
//!   one may be taken and the other not.
//! - A learner who has no account, or none at WebEngage, needs no call.

use super::api::{self, Api, Call, Identity};
use super::schema::{GRAPHY_CALLS, Table, WEBENGAGE_EVENT_CALLS, WEBENGAGE_USER_CALLS};
use super::{Batch, OptionsError, SchemaError, Sink, Value, WriteError};
use reqwest::header::HeaderValue;

/// The name of the account for brands; every other text is that for users.
pub const BRAND: &str = "BRAND";

/// One of the two accounts.
#[derive(Clone)]
pub struct Account {
    /// The key of its API.
    pub api_key: String,
    /// Where events are posted.
    pub events_url: String,
    /// Where users are posted.
    pub users_url: String,
}

/// How WebEngage is called.
pub struct Options {
    /// Bounds on its calls.
    pub calls: api::Options,
    /// The account for users.
    pub user: Account,
    /// The account for brands.
    pub brand: Account,
    /// Who learners are; absent: Graphy's events are refused.
    pub identity: Option<Identity>,
    /// Whether Graphy's events go to the account for brands.
    pub graphy_to_brand: bool,
}

/// An account whose URLs and key were checked.
struct Door {
    authorization: HeaderValue,
    events_url: String,
    users_url: String,
}

/// The sink named "webengage".
pub struct WebEngage {
    api: Api,
    user: Door,
    brand: Door,
    identity: Option<Identity>,
    graphy_to_brand: bool,
}

impl std::fmt::Debug for WebEngage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebEngage").finish_non_exhaustive()
    }
}

impl WebEngage {
    /// Makes the sink; connects to nothing.
    ///
    /// # Errors
    /// When a URL is none or holds credentials, or a key is none.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        Ok(Self {
            api: Api::new(&options.calls)?,
            user: Door::new("webengage.", &options.user)?,
            brand: Door::new("webengage.brand_", &options.brand)?,
            identity: options.identity,
            graphy_to_brand: options.graphy_to_brand,
        })
    }

    fn door(&self, is_brand: bool) -> &Door {
        if is_brand { &self.brand } else { &self.user }
    }

    /// Makes the call that a row stands for.
    async fn make(&self, table: &Table, cells: &[&str]) -> Result<(), WriteError> {
        match (table.name, cells) {
            (name, [key, headers, account, body]) if name == WEBENGAGE_EVENT_CALLS.name => {
                let door = self.door(*account == BRAND);
                self.post(door, &door.events_url, (key, headers), body)
                    .await
            }
            (name, [key, headers, account, body]) if name == WEBENGAGE_USER_CALLS.name => {
                let door = self.door(*account == BRAND);
                self.post(door, &door.users_url, (key, headers), body).await
            }
            (name, [key, headers, email, event, time, data]) if name == GRAPHY_CALLS.name => {
                self.learner_event((key, headers), email, (event, time, data))
                    .await
            }
            (name, _) => Err(refused(&format!("{name} is no table of calls"))),
        }
    }

    async fn post(
        &self,
        door: &Door,
        url: &str,
        (key, headers): (&str, &str),
        body: &str,
    ) -> Result<(), WriteError> {
        let call = Call {
            url,
            authorization: Some(door.authorization.clone()),
            headers,
            idempotency_key: key,
            body: body.to_owned(),
        };
        self.api.post(call).await.map(drop)
    }

    /// An event of Graphy's, for the learner whom Identity knows.
    async fn learner_event(
        &self,
        (key, headers): (&str, &str),
        email: &str,
        (name, time, data): (&str, &str, &str),
    ) -> Result<(), WriteError> {
        let identity = self.identity.as_ref();
        let identity = identity.ok_or_else(|| refused("[identity] is not configured"))?;
        let accounts = identity.search(email, headers, key).await?;
        let first = accounts.into_iter().next();
        let Some(user) = first.and_then(|account| account.webengage_user_id) else {
            return Ok(());
        };
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let body = format!(
            "{{\"userId\":{},\"eventName\":{},\"eventTime\":{},\"eventData\":{data}}}",
            text(&user),
            text(name),
            text(time)
        );
        let door = self.door(self.graphy_to_brand);
        self.post(door, &door.events_url, (key, headers), &body)
            .await
    }
}

impl Door {
    fn new(prefix: &str, account: &Account) -> Result<Self, OptionsError> {
        Ok(Self {
            authorization: api::secret(&format!("Bearer {}", account.api_key))?,
            events_url: api::checked(&format!("{prefix}url"), &account.events_url)?,
            users_url: api::checked(&format!("{prefix}user_url"), &account.users_url)?,
        })
    }
}

#[async_trait::async_trait]
impl Sink for WebEngage {
    fn name(&self) -> &'static str {
        "webengage"
    }

    async fn write(&self, batch: &Batch) -> Result<(), WriteError> {
        let [row] = &*batch.rows else {
            return Err(refused("calls are made one by one"));
        };
        let mut cells = Vec::with_capacity(row.values.len());
        for value in &row.values {
            match value {
                Value::Text(text) | Value::Json(text) => cells.push(text.as_str()),
                _ => return Err(refused("a call is made of texts")),
            }
        }
        self.make(batch.table, &cells).await
    }

    /// An API has no tables.
    async fn create_missing(&self, _: &[&'static Table]) -> Result<(), SchemaError> {
        Ok(())
    }

    /// An API has no tables.
    fn ddl(&self, _: &[&'static Table]) -> Vec<String> {
        Vec::new()
    }

    /// Nothing to do.
    async fn maintain(&self) -> Result<(), SchemaError> {
        Ok(())
    }
}

fn refused(reason: &str) -> WriteError {
    WriteError::Refused {
        reason: reason.to_owned(),
    }
}
