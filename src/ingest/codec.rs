//! The gRPC codec of a call: the request stays the bytes that the client sent, and is the only
//! one. Made by `calls`, for each call.
//!
//! # Invariants
//! - The journal holds these bytes verbatim, so fields and types that this build
//!   does not know survive.
//! - A message counts as soon as it is decompressed, whether the call's end ever comes or not,
//!   and a second one ends the call (tests/it/ports/messages.rs).

use super::bodies::Charge;
use super::refusal::Refusal;
use bytes::{Buf, Bytes};
use prost::Message as _;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Requests as bytes, answers as protobuf.
#[derive(Debug, Clone)]
pub(super) struct RawCodec {
    charge: Charge,
}

impl RawCodec {
    /// Of a call that takes room for its message.
    pub(super) fn new(charge: Charge) -> Self {
        Self { charge }
    }
}

impl Codec for RawCodec {
    type Encode = crate::event::proto::Response;
    type Decode = Bytes;
    type Encoder = Answers;
    type Decoder = Requests;

    fn encoder(&mut self) -> Self::Encoder {
        Answers
    }

    fn decoder(&mut self) -> Self::Decoder {
        Requests {
            charge: self.charge.clone(),
            has_come: false,
        }
    }
}

/// Takes the one message of a call.
#[derive(Debug)]
pub(super) struct Requests {
    charge: Charge,
    has_come: bool,
}

impl Decoder for Requests {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        if std::mem::replace(&mut self.has_come, true) {
            // tonic would read on to the end, and throw away what comes.
            let second = Refusal::Malformed("a call has one message".to_owned());
            return Err(self.charge.cut_off(second).to_status());
        }
        let bytes = from.remaining();
        self.charge
            .at_least(bytes)
            .map_err(|refusal| refusal.to_status())?;
        Ok(Some(from.copy_to_bytes(bytes)))
    }
}

/// Writes the answer.
#[derive(Debug)]
pub(super) struct Answers;

impl Encoder for Answers {
    type Item = crate::event::proto::Response;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(to)
            .map_err(|error| Status::internal(format!("encode the response: {error}")))
    }
}
