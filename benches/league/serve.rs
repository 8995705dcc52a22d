//! What the benchmark serves itself, in a process of its own: the no-op gRPC server, and,
//! for a trace only, the plain file. Called by `main`, in that process, and by the systems,
//! which start it.

use crate::guarded::Guarded;
use crate::{file, grpc, process};
use anyhow::Context as _;
use clap::ValueEnum;
use std::path::Path;

/// What there is to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Served {
    /// Answers each dispatch at once.
    NoOp,
    /// Appends what comes to a file.
    File,
}

/// Starts this benchmark again, as a server.
pub(crate) fn start(what: &str, port: u16, dir: &Path) -> anyhow::Result<Guarded> {
    let program = std::env::current_exe()?.display().to_string();
    let port = port.to_string();
    let dir_text = dir.display().to_string();
    let command = [
        &program, "--serve", what, "--port", &port, "--dir", &dir_text,
    ];
    process::start(&command, &[], dir)
}

/// Serves, until it is killed.
pub(crate) async fn serve(what: Served, port: Option<u16>, dir: &Path) -> anyhow::Result<()> {
    let port = port.context("--serve needs --port")?;
    match what {
        Served::NoOp => grpc::serve_no_op(port).await,
        Served::File => file::serve(port, dir).await,
    }
}
