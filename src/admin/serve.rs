//! The admin socket's routes, and its life in the service. Called by `app::run`.
//!
//! # Invariants
//! - The service runs without it: a socket that cannot be made is an error in the
//!   log, and no reason to refuse events.
//! - It answers while the service stops, and ends before the journal closes.
//! - A change that has begun is finished, also when its caller goes away.

use super::audit::{Audit, Who};
use super::change::{ChangeError, Ground, change};
use super::connection::Bounded;
use super::forecast::{Forecast, Sample};
use super::listener;
use super::request::{Change, Outcome, PurgeRequest, SkipRequest};
use super::status::{Disk, Ledger, Part, Rates, State as ServiceState, Status};
use super::switches;
use crate::drill::Drill;
use crate::journal::{Journal, Pressure};
use crate::pace::Pace;
use crate::telemetry::Metrics;
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Bytes of a request: a few short fields.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// How long a connection may last: a change has to read what it passes over, at
/// some hundred MB a second, and says nothing until it is done.
const CONNECTION_LIFE: Duration = Duration::from_secs(900);

/// How often the log's positions are looked at, for rates.
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

/// How long a stop waits for calls in work. A change goes on without its caller.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// What the routes need to know of the service.
#[derive(Clone)]
pub struct Options {
    /// The journal.
    pub journal: Journal,
    /// Its directory.
    pub data_dir: PathBuf,
    /// `journal.max_bytes`.
    pub max_bytes: u64,
    /// `journal.min_free_bytes`.
    pub min_free_bytes: u64,
    /// Whether the doors take requests, asked for each answer.
    pub serving: Arc<dyn Fn() -> Serving + Send + Sync>,
    /// Begins or ends a drain.
    pub drain: Arc<dyn Fn(bool) + Send + Sync>,
    /// How the parts do.
    pub metrics: Metrics,
    /// How fast the ways out go.
    pub pace: Pace,
    /// Plays outages, where that is allowed.
    pub drill: Drill,
    /// The parts of this host that status names: kind and name.
    pub parts: Vec<(&'static str, String)>,
}

/// The doors' part of the state.
#[derive(Debug, Clone, Copy)]
pub struct Serving {
    /// The doors are open; false while the service stops.
    pub open: bool,
    /// The operator's heartbeat switch is on.
    pub beat: bool,
    /// An operator drains the host.
    pub draining: bool,
    /// Requests that are neither durable nor refused yet.
    pub in_work: usize,
}

pub(super) struct App {
    pub(super) options: Options,
    pub(super) audit: Audit,
    started: Instant,
    forecast: Mutex<Forecast>,
}

/// The running admin socket.
#[derive(Debug)]
pub struct Admin {
    server: Option<JoinHandle<()>>,
    stop: CancellationToken,
    data_dir: PathBuf,
}

impl Admin {
    /// Makes the socket and serves it. The caller holds the directory's lock.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let (stop, data_dir) = (CancellationToken::new(), options.data_dir.clone());
        let listener = listener::bind(&data_dir);
        if let Err(error) = &listener {
            tracing::error!(%error, "no admin socket: `holdfast status` cannot reach this service");
        }
        let server = listener.ok().map(|listener| {
            let audit = Audit::new(&data_dir);
            audit.reserve();
            let app = Arc::new(App {
                options,
                audit,
                started: Instant::now(),
                forecast: Mutex::default(),
            });
            tokio::spawn(
                stop.clone()
                    .run_until_cancelled_owned(sample(Arc::clone(&app))),
            );
            let routes = routes(app).into_make_service_with_connect_info::<Peer>();
            let listener = Bounded::new(listener, CONNECTION_LIFE);
            let stopped = stop.clone().cancelled_owned();
            tokio::spawn(async move {
                let serve = axum::serve(listener, routes).with_graceful_shutdown(stopped);
                if let Err(error) = serve.await {
                    tracing::error!(%error, "the admin socket ended");
                }
            })
        });
        Self {
            server,
            stop,
            data_dir,
        }
    }

    /// Ends it and takes the socket away.
    pub async fn close(self) {
        let Some(mut server) = self.server else {
            return;
        };
        self.stop.cancel();
        if tokio::time::timeout(STOP_WAIT, &mut server).await.is_err() {
            server.abort();
        }
        if let Err(error) = listener::remove(&self.data_dir) {
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
        .route("/drill", post(switches::drill))
        .route("/journal/skip", post(skip))
        .route("/journal/purge", post(purge))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(app)
}

/// Looks at the log's positions, once a second for as long as the service runs.
async fn sample(app: Arc<App>) {
    let mut looks = tokio::time::interval(SAMPLE_PERIOD);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let stats = app.options.journal.stats();
        let passed = stats.cursors.into_iter();
        let passed = passed.map(|at| (at.name, at.next_seq.0 + at.ahead_requests));
        app.forecast().add(Sample {
            at_s: app.started.elapsed().as_secs_f64(),
            end_seq: stats.durable_end_seq.0,
            used_bytes: stats.used_bytes,
            passed_requests: passed.collect(),
        });
    }
}

pub(super) fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(serde_json::json!({ "error": text }))).into_response()
}

/// The journal may read its disk for an answer, and must not hold up others.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Response> {
    tokio::task::spawn_blocking(work).await.map_err(|failed| {
        tracing::error!(error = %failed, "an admin call failed");
        error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the call failed; the log says why",
        )
    })
}

async fn status(State(app): State<Arc<App>>) -> Response {
    match blocking(move || app.status()).await {
        Ok(status) => Json(status).into_response(),
        Err(response) => response,
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

impl App {
    fn forecast(&self) -> MutexGuard<'_, Forecast> {
        // A panic elsewhere leaves a list of looks, no less.
        self.forecast.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts(&self) -> Vec<Part> {
        let vitals = self.options.metrics.vitals();
        let parts = self.options.parts.iter();
        parts
            .map(|(kind, name)| Part::new(kind, name, vitals.get(name)))
            .collect()
    }

    fn rates(&self, room_bytes: u64) -> Option<Rates> {
        let forecast = self.forecast();
        Some(Rates {
            accepted_requests_per_second: forecast.accepted_per_second()?,
            growth_bytes_per_second: forecast.growth_bytes_per_second()?,
            full_in_seconds: forecast.full_in_seconds(room_bytes),
        })
    }

    pub(super) fn status(&self) -> Status {
        let journal = &self.options.journal;
        let stats = journal.stats();
        let serving = (self.options.serving)();
        let (max_bytes, min_free_bytes) = (self.options.max_bytes, self.options.min_free_bytes);
        let mut reasons = Vec::new();
        if let Some(fence) = &stats.fence {
            reasons.push(format!("the log is fenced until a restart: {fence}"));
        }
        if stats.used_bytes >= max_bytes {
            reasons.push("the log holds as much as it may (journal.max_bytes)".to_owned());
        }
        if stats.free_bytes < min_free_bytes {
            reasons.push("the disk is low (journal.min_free_bytes)".to_owned());
        }
        if reasons.is_empty() && stats.pressure == Pressure::Refuse {
            reasons.push("a write found the disk full, whatever its free bytes say".to_owned());
        }
        if !serving.beat {
            reasons.push("the heartbeat was switched off (PUT /heartbeat/)".to_owned());
        }
        let state = match (serving.open, serving.draining, reasons.is_empty()) {
            (false, _, _) => ServiceState::Stopping,
            (true, true, _) => ServiceState::Draining,
            (true, false, true) => ServiceState::Serving,
            (true, false, false) => ServiceState::NotServing,
        };
        let mut ledger = Ledger::new(&journal.ledger(), stats.durable_end_seq.0);
        let mut paces = self.options.pace.ways();
        for way in &mut ledger.ways {
            way.rate = self.forecast().way(&way.way);
            way.pace = paces.remove(&way.way);
        }
        // Whichever bound comes first.
        let room_bytes = max_bytes
            .saturating_sub(stats.used_bytes)
            .min(stats.free_bytes.saturating_sub(min_free_bytes));
        Status {
            rates: self.rates(room_bytes),
            parts: self.parts(),
            state,
            reasons,
            in_work: Some(serving.in_work as u64),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            pid: Some(std::process::id()),
            up_seconds: Some(self.started.elapsed().as_secs()),
            host: Some(journal.host().as_str().to_owned()),
            data_dir: self.options.data_dir.display().to_string(),
            disk: Disk {
                used_bytes: stats.used_bytes,
                max_bytes: Some(max_bytes),
                free_bytes: Some(stats.free_bytes),
                min_free_bytes: Some(min_free_bytes),
            },
            generations: stats.generations as u64,
            oldest_seq: stats.oldest_seq.0,
            next_seq: stats.durable_end_seq.0,
            losses: Some(journal.losses()),
            ledger,
        }
    }
}
