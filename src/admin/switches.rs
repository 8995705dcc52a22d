//! The admin socket's routes that change the service, and nothing in its journal. Called by
//! `serve`.
//!
//! # Invariants
//! - Each change has its line in the audit before it is made; one that cannot be written
//!   there is not made.
//! - A drill's answer is the service as it was before the outage: it may be felt at once, and
//!   who asked waits for that state to come back (test
//!   `a_drill_s_answer_is_the_state_before_it`).

use super::app::App;
use super::audit::{Intent, Who};
use super::request::{
    DrainRequest, DrillRequest, PaceAnswer, PaceRequest, ReloadError, ReloadRequest,
};
use super::serve::{Peer, blocking, error};
use crate::drill::StartError;
use crate::pace::Settings;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Who did not ask well hears why.
pub(super) struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        error(self.0, &self.1)
    }
}

/// What was asked.
fn read<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, Refused> {
    body.map(|Json(request)| request)
        .map_err(|rejection| Refused(rejection.status(), rejection.body_text()))
}

/// Begins or ends a drain: the status after it.
pub(super) async fn drain(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<DrainRequest>, JsonRejection>,
) -> Result<Response, Refused> {
    let request = read(body)?;
    let args = serde_json::json!({ "on": request.on });
    let apply = move |app: &App| {
        (app.options.drain)(request.on);
        Ok(app.status())
    };
    Ok(switch(app, peer, request.sudo_user, ("drain", args), apply).await)
}

/// Shows the pace, and changes what the body has of it.
pub(super) async fn pace(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<PaceRequest>, JsonRejection>,
) -> Result<Response, Refused> {
    let request = read(body)?;
    let pace = &app.options.pace;
    let now = pace.settings();
    let wanted = Settings {
        max_rate: match request.max_rate {
            Some(rate) => (rate > 0).then_some(rate),
            None => now.max_rate,
        },
        backlog_share: request.backlog_share.unwrap_or(now.backlog_share),
    };
    if !(wanted.backlog_share > 0.0 && wanted.backlog_share <= 1.0) {
        let text = "the backlog's share must be more than 0, and at most 1";
        return Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, text.to_owned()));
    }
    let answer = |app: &App| PaceAnswer {
        settings: app.options.pace.settings(),
        ways: app.options.pace.ways(),
    };
    if wanted == now {
        return Ok(Json(answer(&app)).into_response());
    }
    let args = serde_json::json!(wanted);
    let apply = move |app: &App| {
        app.options.pace.set(wanted);
        Ok(answer(app))
    };
    Ok(switch(app, peer, request.sudo_user, ("pace", args), apply).await)
}

/// Begins a drill: the status before it.
pub(super) async fn drill(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<DrillRequest>, JsonRejection>,
) -> Result<Response, Refused> {
    let request = read(body)?;
    let duration = Duration::from_secs(request.seconds);
    if let Err(refused) = app.options.drill.may_start(duration) {
        let status = match refused {
            StartError::NotAllowed => StatusCode::FORBIDDEN,
            StartError::Busy => StatusCode::CONFLICT,
            StartError::Duration => StatusCode::UNPROCESSABLE_ENTITY,
        };
        return Err(Refused(status, refused.to_string()));
    }
    let args = serde_json::json!({ "outage": request.outage, "seconds": request.seconds });
    let apply = move |app: &App| {
        let before = app.status();
        // Another may have been faster since the look.
        let begun = app.options.drill.start(request.outage, duration);
        begun
            .map(|()| before)
            .map_err(|refused| Refused(StatusCode::CONFLICT, refused.to_string()))
    };
    Ok(switch(app, peer, request.sudo_user, ("drill", args), apply).await)
}

/// Loads the configuration anew: which keys are in force by it, and which wait.
pub(super) async fn reload(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<ReloadRequest>, JsonRejection>,
) -> Result<Response, Refused> {
    let request = read(body)?;
    let apply = |app: &App| {
        (app.options.reload)().map_err(|refused| {
            let status = match refused {
                ReloadError::Wrong(_) => StatusCode::UNPROCESSABLE_ENTITY,
                ReloadError::Stopping => StatusCode::CONFLICT,
            };
            Refused(status, refused.to_string())
        })
    };
    let args = serde_json::json!({});
    Ok(switch(app, peer, request.sudo_user, ("reload", args), apply).await)
}

/// Changes something that is no journal, with a line in the audit before and after it.
async fn switch<T: Serialize + Send + 'static>(
    app: Arc<App>,
    peer: Peer,
    sudo_user: Option<String>,
    (verb, args): (&'static str, serde_json::Value),
    apply: impl FnOnce(&App) -> Result<T, Refused> + Send + 'static,
) -> Response {
    let Peer(Some((uid, pid))) = peer else {
        return error(StatusCode::FORBIDDEN, "who calls is not known");
    };
    let work = move || {
        let who = Who::new(uid, pid, sudo_user);
        let text = args.to_string();
        let intent = Intent {
            verb,
            args,
            by: &who,
            planned: serde_json::Value::Null,
        };
        let line = app.audit.begin(&intent)?;
        let answer = apply(&app);
        tracing::warn!(verb, args = text, uid, "an operator changes the service");
        let result = if answer.is_ok() { "applied" } else { "refused" };
        if let Err(error) = line.end(result, &serde_json::Value::Null) {
            tracing::error!(%error, "the audit's line could not be ended");
        }
        Ok::<_, std::io::Error>(answer)
    };
    match blocking(work).await {
        Ok(Ok(Ok(answer))) => Json(answer).into_response(),
        Ok(Ok(Err(refused))) => refused.into_response(),
        Ok(Err(failed)) => error(
            StatusCode::INSUFFICIENT_STORAGE,
            &format!("not done: the audit cannot be written: {failed}"),
        ),
        Err(response) => response,
    }
}

#[cfg(test)]
#[path = "switches_tests.rs"]
mod tests;
