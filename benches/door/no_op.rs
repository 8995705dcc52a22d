//! The ceiling: a tonic server that takes a request's raw bytes, as the collector's door
//! does, and answers at once.

use crate::served::Served;
use crate::support::guarded::Guarded;
use crate::support::{Scratch, eventually, free_port};
use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast::event::proto::Response as Answer;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// The collector's service, by name.
#[derive(Clone)]
struct NoOp;

impl NamedService for NoOp {
    const NAME: &'static str = "event.EventService";
}

impl tower::Service<http::Request<tonic::body::Body>> for NoOp {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(Served).unary(Dispatch, request).await) })
    }
}

struct Dispatch;

impl UnaryService<Bytes> for Dispatch {
    type Response = Answer;
    type Future = Ready<Result<Response<Answer>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(Answer {
            status: "SUCCESS".to_owned(),
            message: String::new(),
        })))
    }
}

/// Serves until the process is killed.
pub async fn serve(port: u16) {
    let server = Server::builder().add_service(NoOp);
    server.serve(([127, 0, 0, 1], port).into()).await.unwrap();
}

/// This program once more, as the server; and its address.
pub async fn start(scratch: &Scratch) -> (Guarded, String) {
    let port = free_port();
    let program = std::env::current_exe().unwrap();
    let command = [
        program.display().to_string(),
        "--serve".to_owned(),
        port.to_string(),
    ];
    let server = Guarded::start(&command, &[], &scratch.0.join("no_op.log"));
    eventually("the server answers", Duration::from_secs(10), || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
    })
    .await;
    (server, format!("http://127.0.0.1:{port}"))
}
