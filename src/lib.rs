//! Holdfast: an edge event collector that does not lose events.
//!
//! # Architecture
//!
//! ```text
//! client ── gRPC dispatch / POST /events / webhooks ──► ingest ──► journal ──► ack
//!                                                         │ cursors, one for each way out
//!                             ┌───────────────────────────┴──────────────┐
//!                      with RabbitMQ                               without
//!                             ▼                                          ▼
//!                   forward: group, confirm                    consume::direct
//!                             ▼                                          │
//!                 RabbitMQ ──► consume: handler → batch ──► sink: ClickHouse · Postgres · SQLite · HTTP API
//!                                      │ refused
//!                                      ▼
//!                       error queue, error_events, dead letters
//! ```
//!
//! Modules in the order of the data's path:
//!
//! - [`event`]: the domain. Names, ids, splitting a request, JSON. Pure.
//! - [`ingest`]: the doors, a lane for each source of webhooks, and the table from
//!   refusals to status codes.
//! - [`port`]: the server of all ports: connections, their encryption and their bounds.
//! - [`journal`]: what makes an acknowledgement true. Its head holds the contract.
//! - [`broker`]: RabbitMQ; the only module that names lapin.
//! - [`forward`]: journal to RabbitMQ.
//! - [`consume`]: RabbitMQ, or the journal, to sinks.
//! - [`sink`]: one file or folder for each destination; calls of APIs are one, too.
//! - [`admin`]: the admin socket, and the changes that an operator may make.
//! - [`dead_letters`]: what could not be handed on at all.
//! - [`dlq`]: an operator's look at error queues and dead letters, replay and purge.
//! - [`app`]: wiring and the order of a stop. [`cli`]: the commands.
//! - Leaves: [`config`], [`telemetry`], [`retry`], [`clock`], [`pace`], [`drill`],
//!   [`trust`], [`pem`].
//!
//! # Architecture invariants
//!
//! - `cli → app, dlq → ingest, forward, consume, admin → port → journal, broker, sink,
//!   dead_letters → event`; siblings do not name each other (test `layers_point_one_way`).
//! - An event's identity is (host, sequence, index). It is minted when the journal
//!   takes the request and travels in headers to the row's last three columns.
//! - Every hand-over waits for evidence: the ack for the sync, the cursor for the
//!   confirm or the commit, the deletion for every cursor, the broker's ack for
//!   the sink.
//! - Delivery is at least once; tables show each event once, by their keys.
//! - sled is named in one file, lapin in one module, status codes and metric names
//!   in one file each.

pub mod admin;
pub mod app;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod consume;
pub mod dead_letters;
pub mod dlq;
pub mod drill;
pub mod event;
pub mod forward;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ingest;
pub mod journal;
pub mod pace;
pub mod pem;
pub mod port;
pub mod retry;
pub mod sink;
pub mod telemetry;
pub mod trust;
