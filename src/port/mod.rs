//! The server of the service's ports: accepts connections, encrypts them, bounds them, and
//! hands their requests to a router. Called by `app` (gRPC and HTTP) and `admin` (the page);
//! what answers the requests is theirs.
//!
//! # Invariants
//! - Nothing that one peer does or leaves undone ends the port or takes all of its places:
//!   `places` bounds how many connections there are, `activity` how long each may be without
//!   a request, `io` and `answer` how long it may refuse to read (tests/it/ports).
//! - Each connection that is ended for its behaviour is counted by its reason.
//! - Every request tells who sent it: [`Peer`] is among its extensions.

mod activity;
mod answer;
mod bounds;
mod certificate;
mod descriptors;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod io;
mod peer;
mod places;
mod serve;
mod tls;

pub use bounds::Bounds;
pub use certificate::{TlsError, TlsFiles};
pub use descriptors::make_room;
pub use peer::{ClientCertificate, Peer};
pub use places::{Place, Places, Short, Whose};
pub use serve::{Encryption, Port, serve};
pub use tls::{Clients, Tls, Validity};
