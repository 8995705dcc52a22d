//! The collector itself, and the ceiling above it: a gRPC server that answers at once.
//! Both are called in the same way, over four connections.
//!
//! The collector has its production defaults, and a broker at an address where nothing
//! listens: what it takes stays in its log, as what the others take stays with them. With a
//! sink it would do more than is asked here, deliver, and that on the same cores.

use crate::guarded::Guarded;
use crate::process;
use crate::raw::Raw;
use crate::served::Served;
use crate::system::{Promise, Sender, Server, System, Traced};
use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast::admin::{State, Status};
use holdfast::event::proto::Response;
use http::uri::PathAndQuery;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status as CallStatus};

/// Connections that calls in flight share: as an HTTP/2 client behind a balancer has them.
const CONNECTIONS: usize = 4;

const SERVICE: &str = "event.EventService";
const DISPATCH: &str = "/event.EventService/dispatch";

/// The binary that cargo built with this benchmark.
const HOLDFAST: &str = env!("CARGO_BIN_EXE_holdfast");

/// The way out without which there is none.
const WAY_OUT: &str = "rabbitmq";

/// The collector.
pub(crate) struct Holdfast;

struct Collector {
    process: Guarded,
    port: u16,
    config: PathBuf,
}

#[async_trait]
impl System for Holdfast {
    fn name(&self) -> &'static str {
        "holdfast"
    }

    fn about(&self) -> String {
        "Holdfast, gRPC dispatch".to_owned()
    }

    fn promise(&self) -> Promise {
        Promise::Synced
    }

    fn ack_text(&self) -> &'static str {
        "SUCCESS"
    }

    async fn start(&self, dir: &Path) -> anyhow::Result<Box<dyn Server>> {
        collector(dir, "").await
    }

    /// The process forbids to be looked into, but for this key; and a traced one is slow
    /// to acknowledge.
    async fn start_traceable(&self, dir: &Path) -> anyhow::Result<Box<dyn Server>> {
        let more = "[debug]\ncore_dumps = true\n[journal]\nack_deadline = \"20s\"\n";
        collector(dir, more).await
    }
}

async fn collector(dir: &Path, more: &str) -> anyhow::Result<Box<dyn Server>> {
    let (port, http, nobody) = (
        process::free_port()?,
        process::free_port()?,
        process::free_port()?,
    );
    let text = format!(
        "[data]\ndir = \"{}\"\n[grpc]\nlisten = \"127.0.0.1:{port}\"\n\
         [http]\nlisten = \"127.0.0.1:{http}\"\n[admin]\nlisten = \"off\"\n\
         [{WAY_OUT}]\nurls = [\"amqp://guest:guest@127.0.0.1:{nobody}/%2f\"]\n{more}",
        dir.join("data").display()
    );
    let config = dir.join("holdfast.toml");
    std::fs::write(&config, text)?;
    let file = config.display().to_string();
    let command = [HOLDFAST, "run", "--config", &file];
    let mut process = process::start(&command, &[], dir)?;
    process::ready("holdfast", &mut process, || async {
        let status = status(&config).await?;
        ensure!(status.state == State::Serving, "it is {:?}", status.state);
        Ok(())
    })
    .await?;
    Ok(Box::new(Collector {
        process,
        port,
        config,
    }))
}

/// What `holdfast status --json` says. Its exit code is of no interest: the broker is away.
async fn status(config: &Path) -> anyhow::Result<Status> {
    let mut command = std::process::Command::new(HOLDFAST);
    command.args(["status", "--json", "--config"]).arg(config);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        format!("holdfast status: {said}")
    })
}

#[async_trait]
impl Server for Collector {
    fn traced(&self) -> Option<Traced> {
        Some(Traced {
            pid: self.process.pid(),
            port: self.port,
        })
    }

    async fn senders(&self, count: usize) -> anyhow::Result<Vec<Box<dyn Sender>>> {
        senders(self.port, count).await
    }

    /// What waits in its log, if its accounts add up.
    async fn stored(&self) -> anyhow::Result<Option<u64>> {
        let ways = status(&self.config).await?.ledger.ways;
        let way = ways.into_iter().find(|way| way.way == WAY_OUT);
        let way = way.context("holdfast has no way out")?;
        ensure!(
            way.adds_up == Some(true),
            "holdfast's accounts do not add up"
        );
        let events = crate::payload::EVENTS as u64;
        ensure!(
            way.pending_events == way.pending_requests * events,
            "holdfast has {} events in {} requests",
            way.pending_events,
            way.pending_requests
        );
        Ok(Some(way.pending_requests))
    }
}

/// A gRPC server that takes the same calls, and does nothing with them.
pub(crate) struct NoOp;

struct NoOpProcess {
    _process: Guarded,
    port: u16,
}

#[async_trait]
impl System for NoOp {
    fn name(&self) -> &'static str {
        "no-op"
    }

    fn about(&self) -> String {
        "ceiling: no-op gRPC server (tonic, raw bytes)".to_owned()
    }

    fn promise(&self) -> Promise {
        Promise::StoresNothing
    }

    fn ack_text(&self) -> &'static str {
        "SUCCESS"
    }

    async fn start(&self, dir: &Path) -> anyhow::Result<Box<dyn Server>> {
        let port = process::free_port()?;
        let mut process = crate::serve::start("no-op", port, dir)?;
        process::ready("the no-op server", &mut process, || senders(port, 1)).await?;
        Ok(Box::new(NoOpProcess {
            _process: process,
            port,
        }))
    }
}

#[async_trait]
impl Server for NoOpProcess {
    fn traced(&self) -> Option<Traced> {
        None
    }

    async fn senders(&self, count: usize) -> anyhow::Result<Vec<Box<dyn Sender>>> {
        senders(self.port, count).await
    }

    async fn stored(&self) -> anyhow::Result<Option<u64>> {
        Ok(None)
    }
}

/// The no-op server, in its own process: `serve` calls it.
pub(crate) async fn serve_no_op(port: u16) -> anyhow::Result<()> {
    let server = tonic::transport::Server::builder().add_service(AtOnce);
    Ok(server.serve(([127, 0, 0, 1], port).into()).await?)
}

#[derive(Clone)]
struct AtOnce;

impl NamedService for AtOnce {
    const NAME: &'static str = SERVICE;
}

impl tower::Service<http::Request<Body>> for AtOnce {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Served);
            Ok(grpc.unary(Self, request).await)
        })
    }
}

impl UnaryService<Bytes> for AtOnce {
    type Response = Response;
    type Future = std::future::Ready<Result<tonic::Response<Response>, CallStatus>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(Response {
            status: "SUCCESS".to_owned(),
            message: String::new(),
        })))
    }
}

struct Caller(Channel);

async fn senders(port: u16, count: usize) -> anyhow::Result<Vec<Box<dyn Sender>>> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    let mut channels = Vec::new();
    for _ in 0..count.min(CONNECTIONS) {
        channels.push(endpoint.connect().await?);
    }
    let channels = channels.iter().cycle().take(count);
    Ok(channels
        .map(|channel| Box::new(Caller(channel.clone())) as Box<dyn Sender>)
        .collect())
}

#[async_trait]
impl Sender for Caller {
    async fn send(&mut self, payloads: &[Bytes]) -> anyhow::Result<()> {
        let [payload] = payloads else {
            bail!("a dispatch is one payload");
        };
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await?;
        let path = PathAndQuery::from_static(DISPATCH);
        let request = Request::new(payload.clone());
        let answer = grpc.unary(request, path, Raw).await?.into_inner();
        ensure!(answer.status == "SUCCESS", "{}", answer.message);
        Ok(())
    }
}
