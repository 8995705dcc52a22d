//! Asks the running service over its admin socket. Called by the `cli`.
//!
//! # Invariants
//! - "Nobody is there" is its own answer, apart from every failure: only then may
//!   the caller look at the directory instead.
//! - Each call ends within its time.

use super::listener;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Bytes of an answer: 57 event types on some ways out take some tens of KiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No service listens there.
    #[error("no service is running on this directory")]
    NotRunning,
    /// It may not be asked by this user.
    #[error("the admin socket is its owner's alone: run this as the service's user or as root")]
    Denied,
    /// It did not answer in time; worth another try, but a change may have been made.
    #[error("the service did not answer within {0:?}")]
    Late(Duration),
    /// It refused; the text says why.
    #[error("{1}")]
    Refused(StatusCode, String),
    /// The conversation broke off.
    #[error("the admin socket failed: {0}")]
    Broken(String),
}

/// `GET path`.
///
/// # Errors
/// See [`CallError`].
pub async fn get<T: DeserializeOwned>(
    data_dir: &Path,
    path: &str,
    limit: Duration,
) -> Result<T, CallError> {
    call(data_dir, Method::GET, path, Vec::new(), limit).await
}

/// `POST path` with a document.
///
/// # Errors
/// See [`CallError`].
pub async fn post<T: DeserializeOwned>(
    data_dir: &Path,
    path: &str,
    body: &impl Serialize,
    limit: Duration,
) -> Result<T, CallError> {
    let body = serde_json::to_vec(body).map_err(broken)?;
    call(data_dir, Method::POST, path, body, limit).await
}

fn broken(error: impl std::fmt::Display) -> CallError {
    CallError::Broken(error.to_string())
}

async fn call<T: DeserializeOwned>(
    data_dir: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
    limit: Duration,
) -> Result<T, CallError> {
    let work = exchange(data_dir, method, path, body);
    let (status, body) = tokio::time::timeout(limit, work)
        .await
        .map_err(|_| CallError::Late(limit))??;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(broken);
    }
    let text = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|answer| Some(answer["error"].as_str()?.to_owned()));
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    Err(CallError::Refused(status, text))
}

async fn exchange(
    data_dir: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), CallError> {
    let stream = listener::connect(data_dir)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CallError::NotRunning,
            io::ErrorKind::PermissionDenied => CallError::Denied,
            _ => broken(error),
        })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "holdfast")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(broken)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(broken)?
        .to_bytes();
    connection.abort();
    Ok((status, body))
}
