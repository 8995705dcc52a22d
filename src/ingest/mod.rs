//! The doors: gRPC, HTTP and webhooks. Called by `app`, which serves their routes by `port`;
//! calls `journal`.
//!
//! What happens when a client hangs up: its handler is dropped. A request that
//! was already handed to the journal becomes durable all the same, unanswered;
//! the client's retry carries the same event ids, which the tables recognise.
//!
//! # Invariants
//! - `SUCCESS` and 200 leave only with a sequence that the journal gave, that is
//!   after its sync (test `an_append_is_answered_only_after_its_sync` there).
//! - One table maps refusals to status codes: `refusal`.

mod bodies;
mod callers;
mod calls;
mod codec;
mod door;
mod encoded;
mod figures;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod grpc;
mod health;
mod http;
mod rate;
mod readers;
mod refusal;
mod turns;
pub mod webhooks;

pub use bodies::Bodies;
pub use callers::{Caller, Callers, unknown_events};
pub use door::{Accepted, Door, DoorLimits};
pub use figures::Figures;
pub use grpc::GrpcRoutes;
pub use health::Health;
pub use http::routes as http_routes;
pub use refusal::Refusal;
