//! The collector's door, as a load calls it: one connection after the other, requests as
//! bytes. Made by `run`, called by `drive`.
//!
//! # Invariants
//! - All connections are made before the first call, so that no call waits for its own.

use super::drive::{Answer, Target};
use super::payload::Call;
use crate::event::proto::Response;
use anyhow::Context as _;
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// The call.
const DISPATCH: &str = "/event.EventService/dispatch";

/// Connections to a collector.
pub(super) struct Wire {
    connections: Vec<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Wire {
    /// Connects.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        connections: usize,
        authorization: Option<MetadataValue<Ascii>>,
    ) -> anyhow::Result<Self> {
        let mut made = Vec::with_capacity(connections);
        for _ in 0..connections {
            let connection = endpoint.connect().await;
            made.push(connection.with_context(|| format!("connect to {}", endpoint.uri()))?);
        }
        Ok(Self {
            connections: made,
            authorization,
        })
    }
}

impl Target for Wire {
    async fn call(&self, call: Call) -> Answer {
        let connection = self.connections[call.connection].clone();
        let mut request = Request::new(call);
        if let Some(authorization) = &self.authorization {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", authorization.clone());
        }
        let mut grpc = Grpc::new(connection);
        if let Err(error) = grpc.ready().await {
            return refused(Code::Unavailable, &error.to_string());
        }
        let path = PathAndQuery::from_static(DISPATCH);
        match grpc.unary(request, path, CallCodec).await {
            Ok(answer) if answer.get_ref().status == "SUCCESS" => Answer::Acked,
            Ok(answer) => Answer::Refused {
                code: "NOT SUCCESS",
                message: answer.into_inner().message,
            },
            Err(status) => refused(status.code(), status.message()),
        }
    }
}

fn refused(code: Code, message: &str) -> Answer {
    Answer::Refused {
        code: name(code),
        message: message.to_owned(),
    }
}

/// A code as gRPC writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Calls as bytes, answers as protobuf.
#[derive(Debug, Clone, Copy)]
struct CallCodec;

impl Codec for CallCodec {
    type Encode = Call;
    type Decode = Response;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for CallCodec {
    type Item = Call;
    type Error = Status;

    fn encode(&mut self, call: Call, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(call.bytes());
        call.write(to);
        Ok(())
    }
}

impl Decoder for CallCodec {
    type Item = Response;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Response>, Status> {
        let answer = Response::decode(from);
        answer
            .map(Some)
            .map_err(|error| Status::internal(format!("decode the answer: {error}")))
    }
}
