//! The codec of servers that do nothing: a request is the bytes that came, an answer is
//! protobuf. Used by the ceilings of `door` and `league`.

use bytes::{Buf, Bytes};
use holdfast::event::proto::Response;
use prost::Message as _;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

#[derive(Clone, Copy)]
pub(crate) struct Served;

impl Codec for Served {
    type Encode = Response;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for Served {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

impl Encoder for Served {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, item: Response, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(to)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
