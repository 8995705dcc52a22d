//! Asks the running service to change something, and says what it answers. Called by the
//! verbs that need a service: `pace`, `reload`, `drill`.
//!
//! # Invariants
//! - Without a service these verbs say so, and end with [`NOT_RUNNING`].

use super::site::Site;
use crate::admin::{self, CallError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// Exit code: no service runs on the directory.
pub(super) const NOT_RUNNING: u8 = 3;

/// The service's answer; `None`, and said, where no service runs.
pub(super) async fn change<T: DeserializeOwned>(
    site: &Site,
    path: &str,
    request: &impl Serialize,
    wait: Duration,
) -> anyhow::Result<Option<T>> {
    match admin::post(&site.data_dir, path, request, wait).await {
        Ok(answer) => Ok(Some(answer)),
        Err(CallError::NotRunning) => {
            eprintln!("no service runs on {}", site.data_dir.display());
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Says the answer, as one JSON document or as text; the exit code.
pub(super) fn say<T: Serialize>(
    answer: Option<&T>,
    json: bool,
    render: impl FnOnce(&T) -> String,
) -> anyhow::Result<ExitCode> {
    let Some(answer) = answer else {
        return Ok(ExitCode::from(NOT_RUNNING));
    };
    let text = if json {
        format!("{}\n", serde_json::to_string(answer)?)
    } else {
        render(answer)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
