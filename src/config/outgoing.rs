//! The sections of outgoing calls: WebEngage, Identity, Social stream, Sentry.
//! Called by `app`.

use serde::Deserialize;

/// `[webengage]`
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct WebEngage {}

/// `[identity]`
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct Identity {}

/// `[social_stream]`
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct SocialStream {}

/// `[graphy]`
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct Graphy {}

/// `[sentry]`
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(default)]
pub struct Sentry {}
