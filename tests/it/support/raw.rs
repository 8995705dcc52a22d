//! A client that sends any bytes as a request: what a broken or newer client does.

use bytes::{Buf, BufMut, Bytes};
use holdfast::event::proto::Response;
use prost::Message as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Request, Status};

/// Requests are bytes, answers are read.
#[derive(Clone, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
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

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Response;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Response>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Response::decode(bytes)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// One connection, for many calls one after the other.
#[derive(Clone)]
pub struct Caller(tonic::transport::Channel);

impl Caller {
    pub async fn connect(address: &str) -> Self {
        let endpoint = Endpoint::from_shared(address.to_owned()).unwrap();
        Self(endpoint.connect().await.unwrap())
    }

    /// Dispatches these bytes; the sequence on success.
    pub async fn dispatch(&self, bytes: impl Into<Bytes>) -> Result<Option<u64>, Status> {
        call(self.0.clone(), Request::new(bytes.into())).await
    }
}

/// Dispatches these bytes; the sequence on success.
pub async fn dispatch(address: &str, bytes: impl Into<Bytes>) -> Result<Option<u64>, Status> {
    dispatch_as(address, None, bytes).await
}

/// Dispatches with an `authorization` header.
pub async fn dispatch_as(
    address: &str,
    authorization: Option<&str>,
    bytes: impl Into<Bytes>,
) -> Result<Option<u64>, Status> {
    let mut request = Request::new(bytes.into());
    if let Some(value) = authorization {
        request
            .metadata_mut()
            .insert("authorization", value.parse().unwrap());
    }
    call(Caller::connect(address).await.0, request).await
}

async fn call(
    channel: tonic::transport::Channel,
    request: Request<Bytes>,
) -> Result<Option<u64>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unknown(error.to_string()))?;
    let path = PathAndQuery::from_static("/event.EventService/dispatch");
    let answer = client.unary(request, path, Raw).await?;
    assert_eq!(answer.get_ref().status, "SUCCESS");
    let seq = answer.metadata().get("x-holdfast-seq");
    Ok(seq.map(|seq| seq.to_str().unwrap().parse().unwrap()))
}
