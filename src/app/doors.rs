//! Binds and serves the gRPC and HTTP ports. Called by `app::run`.

use super::ports::{Encryptions, bounds};
use crate::config::{Config, Secret, Verify};
use crate::dead_letters::DeadLetters;
use crate::event::webhook::Source;
use crate::ingest::webhooks::{Bounds, Lane, Proofs, Verifier};
use crate::ingest::{Bodies, Callers, Door, DoorLimits, Figures, GrpcRoutes, Health, http_routes};
use crate::journal::Journal;
use crate::port::{self, Encryption, Port};
use crate::telemetry::{FOLLOWS_PANIC, Metrics};
use anyhow::Context as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long answers that are ready may take to leave once no request is in work.
/// Streams that never end by themselves (health Watch) are cut after it.
const FLUSH: Duration = Duration::from_millis(300);

/// Listening sockets that nobody serves yet.
pub(super) struct Bound {
    grpc: TcpListener,
    http: TcpListener,
}

/// Binds both ports.
pub(super) async fn bind(config: &Config) -> anyhow::Result<Bound> {
    let listen = async |key: &str, address: SocketAddr| {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("bind {key} = {address}"))
    };
    Ok(Bound {
        grpc: listen("grpc.listen", config.grpc.listen).await?,
        http: listen("http.listen", config.http.listen).await?,
    })
}

/// What the webhooks of each source must show.
#[derive(Debug, Clone, Default)]
pub(super) struct Partners(Vec<(Source, Proofs)>);

impl Partners {
    /// From now on they must show what this configuration says.
    pub(super) fn replace(&self, config: &Config) {
        for (source, proofs) in &self.0 {
            proofs.replace(verifier(config, *source));
        }
    }
}

fn verifier(config: &Config, source: Source) -> Verifier {
    let partner = super::setup::partner(source);
    let section = config.webhooks.of(partner);
    let expose = |secrets: &[Secret]| -> Vec<String> {
        secrets
            .iter()
            .map(|secret| secret.expose().to_owned())
            .collect()
    };
    let verifier = match section.verify {
        Verify::None => Verifier::none(),
        Verify::Secret => Verifier::secret(section.header(), expose(&section.secrets)),
        Verify::Hmac => Verifier::hmac(section.header(), &config.webhooks.hmac_keys(partner)),
    };
    verifier.with_native(&expose(&section.client_secrets))
}

/// The lane of a source's webhooks.
fn lane(config: &Config, source: Source, proofs: Proofs, door: Door) -> Lane {
    let partner = super::setup::partner(source);
    let (body, waiting) = config.webhook_bytes(partner);
    let bounds = Bounds {
        in_flight_max: config.webhooks.of(partner).max_in_flight,
        body_bytes_max: body.in_memory(),
        waiting_bytes_max: waiting.in_memory(),
    };
    Lane::new(source, door, proofs, bounds)
}

/// The open doors.
pub(super) struct Doors {
    pub(super) grpc_address: SocketAddr,
    pub(super) http_address: SocketAddr,
    /// `ingest.keep_rejected` of all of them.
    pub(super) keep_rejected: Arc<AtomicBool>,
    /// Who may send.
    pub(super) callers: Callers,
    /// What partners' webhooks must show.
    pub(super) partners: Partners,
    doors: Vec<Door>,
    servers: JoinSet<()>,
    stop: CancellationToken,
}

impl Doors {
    /// Starts to serve.
    pub(super) fn open(
        config: &Config,
        (bound, encryptions): (Bound, &Encryptions),
        journal: &Journal,
        health: &Health,
        metrics: &Metrics,
        dead_letters: &DeadLetters,
    ) -> anyhow::Result<Self> {
        let keep_rejected = Arc::new(AtomicBool::new(config.ingest.keep_rejected));
        let door = |name| {
            let keep = Arc::clone(&keep_rejected);
            let (journal, metrics, health) = (journal.clone(), metrics.clone(), health.clone());
            let limits = DoorLimits {
                in_flight_max: config.ingest.max_in_flight,
                request_events_max: config.ingest.max_request_events,
            };
            Door::new(name, journal, metrics, keep, health, limits)
        };
        let mut doors = vec![door("grpc"), door("http")];
        let mut lanes = Vec::new();
        let mut partners = Partners::default();
        for source in Source::ALL {
            let door = door(source.name());
            doors.push(door.clone());
            let proofs = Proofs::new(verifier(config, source));
            partners.0.push((source, proofs.clone()));
            lanes.push(lane(config, source, proofs, door));
        }
        let request_bytes_max = config.ingest.max_request_bytes.in_memory();
        let stop = CancellationToken::new();
        let mut servers = JoinSet::new();

        let (reporter, health_service) = tonic_health::server::health_reporter();
        let report = health.clone();
        servers.spawn(report.report(reporter, metrics.clone(), stop.clone()));
        let callers = Callers::new(&config.client);
        let bodies = Bodies::new(
            config.ingest.max_body_bytes.in_memory(),
            config.ingest.body_timeout.get(),
            callers.clone(),
        );
        let port = |name, encryption: &Option<Encryption>| Port {
            name,
            bounds: bounds(config),
            metrics: metrics.clone(),
            encryption: encryption.clone(),
        };
        let grpc_address = bound.grpc.local_addr()?;
        let routes = GrpcRoutes::new(
            doors[0].clone(),
            health_service,
            request_bytes_max,
            bodies.clone(),
        )?;
        let port_of = port("grpc", &encryptions.grpc);
        servers.spawn(port::serve(bound.grpc, routes, port_of, stop.clone()));
        let http_address = bound.http.local_addr()?;
        let routes = http_routes(
            doors[1].clone(),
            (health.clone(), config.ingest.heartbeat_from),
            Figures::new(
                journal.clone(),
                dead_letters.clone(),
                bodies.clone(),
                metrics.clone(),
            ),
            request_bytes_max,
            bodies,
            lanes,
        );
        let port_of = port("http", &encryptions.http);
        servers.spawn(port::serve(bound.http, routes, port_of, stop.clone()));
        Ok(Self {
            grpc_address,
            http_address,
            keep_rejected: Arc::clone(&keep_rejected),
            callers,
            partners,
            doors,
            servers,
            stop,
        })
    }

    /// How many requests are in work, to be asked later.
    pub(super) fn counter(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let doors = self.doors.clone();
        move || doors.iter().map(Door::in_work).sum()
    }

    /// Takes no more requests and waits for those in work.
    pub(super) async fn close(mut self) {
        self.stop.cancel();
        let in_work = async {
            while self.doors.iter().any(|door| door.in_work() > 0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(FLUSH).await;
        };
        tokio::pin!(in_work);
        loop {
            tokio::select! {
                () = &mut in_work => break,
                ended = self.servers.join_next() => match ended {
                    None => break,
                    Some(Ok(())) => {}
                    Some(Err(error)) => tracing::error!(target: FOLLOWS_PANIC, %error, "a server ended"),
                },
            }
        }
        self.servers.shutdown().await;
    }
}
