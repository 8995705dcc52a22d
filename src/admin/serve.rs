//! The admin socket's routes, and the life of the socket and the page in the service. Called
//! by `app::run`.
//!
//! # Invariants
//! - The service runs without it: a socket that cannot be made is an error in the
//!   log, and no reason to refuse events.
//! - It answers while the service stops, and ends before the journal closes.
//! - A change that has begun is finished, also when its caller goes away.

use super::app::{self, App, Options};
use super::audit::Who;
use super::change::{ChangeError, Ground, change};
use super::connection::Bounded;
use super::listener;
use super::page::{self, PageOptions};
use super::request::{Change, Outcome, PurgeRequest, SkipRequest};
use super::switches;
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Bytes of a request: a few short fields.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// How long a connection may last: a change has to read what it passes over, at
/// some hundred MB a second, and says nothing until it is done.
const CONNECTION_LIFE: Duration = Duration::from_secs(900);

/// Operators and scripts of one host; more is a mistake.
const CONNECTIONS_MAX: usize = 16;

/// How long a stop waits for calls in work. A change goes on without its caller.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// The running admin socket and page.
#[derive(Debug)]
pub struct Admin {
    /// The socket, where it could be made.
    socket: Option<JoinHandle<()>>,
    page: JoinHandle<()>,
    stop: CancellationToken,
    data_dir: PathBuf,
}

impl Admin {
    /// Makes the socket and the page and serves them. The caller holds the directory's lock.
    #[must_use]
    pub fn start(options: Options, page: PageOptions) -> Self {
        let (stop, data_dir) = (CancellationToken::new(), options.data_dir.clone());
        let app = Arc::new(App::new(options));
        let looks = app::sample(Arc::clone(&app));
        tokio::spawn(stop.clone().run_until_cancelled_owned(looks));
        let page = page::serve(Arc::clone(&app), page, stop.clone());
        let page = tokio::spawn(page);
        let listener = listener::bind(&data_dir);
        if let Err(error) = &listener {
            tracing::error!(%error, "no admin socket: `holdfast status` cannot reach this service");
        }
        let socket = listener.ok().map(|listener| {
            app.audit.reserve();
            let routes = routes(app).into_make_service_with_connect_info::<Peer>();
            let listener = Bounded::new(listener, CONNECTIONS_MAX, CONNECTION_LIFE);
            let stopped = stop.clone().cancelled_owned();
            tokio::spawn(async move {
                let serve = axum::serve(listener, routes).with_graceful_shutdown(stopped);
                if let Err(error) = serve.await {
                    tracing::error!(%error, "the admin socket ended");
                }
            })
        });
        Self {
            socket,
            page,
            stop,
            data_dir,
        }
    }

    /// Ends them and takes the socket away.
    pub async fn close(self) {
        self.stop.cancel();
        let is_made = self.socket.is_some();
        let end = tokio::time::Instant::now() + STOP_WAIT;
        for mut server in self.socket.into_iter().chain([self.page]) {
            if tokio::time::timeout_at(end, &mut server).await.is_err() {
                server.abort();
            }
        }
        if is_made && let Err(error) = listener::remove(&self.data_dir) {
            tracing::warn!(%error, "the admin socket's file stays");
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) Option<(u32, Option<i32>)>);

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        match stream.io().peer() {
            Ok(peer) => Self(Some((peer.uid(), peer.pid()))),
            Err(error) => {
                tracing::error!(%error, "who called is not known");
                Self(None)
            }
        }
    }
}

fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/ledger", get(ledger))
        .route("/drain", post(switches::drain))
        .route("/pace", post(switches::pace))
        .route("/reload", post(switches::reload))
        .route("/drill", post(switches::drill))
        .route("/journal/skip", post(skip))
        .route("/journal/purge", post(purge))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(app)
}

pub(super) fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(serde_json::json!({ "error": text }))).into_response()
}

/// The journal may read its disk for an answer, and must not hold up others.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Response> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|failed| broken(&failed))
}

/// The answer to a call that panicked.
pub(super) fn broken(failed: &tokio::task::JoinError) -> Response {
    tracing::error!(error = %failed, "an admin call failed");
    error(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the call failed; the log says why",
    )
}

async fn status(State(app): State<Arc<App>>) -> Response {
    match app.whole_status().await {
        Ok(status) => Json(status).into_response(),
        Err(failed) => broken(&failed),
    }
}

async fn ledger(State(app): State<Arc<App>>) -> Response {
    match blocking(move || app.status().ledger).await {
        Ok(ledger) => Json(ledger).into_response(),
        Err(response) => response,
    }
}

async fn skip(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<SkipRequest>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(request)) => {
            let sudo_user = request.sudo_user.clone();
            make(app, peer, sudo_user, Change::Skip(request)).await
        }
        Err(rejection) => error(rejection.status(), &rejection.body_text()),
    }
}

async fn purge(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<PurgeRequest>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(request)) => {
            let sudo_user = request.sudo_user.clone();
            make(app, peer, sudo_user, Change::Purge(request)).await
        }
        Err(rejection) => error(rejection.status(), &rejection.body_text()),
    }
}

async fn make(app: Arc<App>, peer: Peer, sudo_user: Option<String>, wanted: Change) -> Response {
    let Peer(Some((uid, pid))) = peer else {
        return error(StatusCode::FORBIDDEN, "who calls is not known");
    };
    let work = move || -> Result<Outcome, ChangeError> {
        let ground = Ground::Running {
            journal: &app.options.journal,
            data_dir: &app.options.data_dir,
        };
        change(&ground, &app.audit, &wanted, &Who::new(uid, pid, sudo_user))
    };
    match blocking(work).await {
        Ok(Ok(outcome)) => Json(outcome).into_response(),
        Ok(Err(failed)) => {
            let status = match &failed {
                ChangeError::Request(_) => StatusCode::UNPROCESSABLE_ENTITY,
                ChangeError::Refused(_) => StatusCode::CONFLICT,
                ChangeError::Audit(_) => StatusCode::INSUFFICIENT_STORAGE,
                ChangeError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            error(status, &failed.to_string())
        }
        Err(response) => response,
    }
}
