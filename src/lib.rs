//! Holdfast
pub mod event;
pub mod journal;
pub mod ingest { pub mod codec; }
