//! The page for operators, on a port of its own: the way of an event from the door to the
//! tables as the status has it, with the past of this process. It shows and changes nothing.
//! Called by `serve`.
//!
//! It asks nobody who they are, unless `admin.certificates` says who may read it: so it listens
//! on this host alone unless told otherwise.
//!
//! # Invariants
//! - Reading is all that can be done: other methods are refused (test
//!   `the_page_only_shows`).
//! - A name that this host does not go by is refused, so that a foreign site cannot point
//!   its own name here and read (DNS rebinding; test `other_names_are_refused`).
//! - Where certificates are named, nothing is shown to who has none of them (tests/it/ports,
//!   `the_page_is_for_those_whose_certificates_are_named`).
//! - What a browser loads comes from here, and no text of a server or client is run as
//!   markup: the page puts text in as text, and the browser is told to take no script but
//!   ours (test `hostile_words_stay_words`).
//! - Whoever reads slowly, or not at all, loses the connection after
//!   [`CONNECTION_LIFE`], and each answer ends its connection, so that nobody keeps a place.
//! - A port that is in use or an address that is not there yet is said once and tried again;
//!   it is no reason to refuse events.

use super::app::App;
use super::history::Past;
use super::serve::{broken, error};
use super::status::Status;
use crate::clock::now_ms;
use crate::config::digest_of;
use crate::port::{self, Bounds, Encryption, Peer, Port};
use axum::Router;
use axum::extract::{Json, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Browsers of a few people, each with the handful of connections that browsers open.
const CONNECTIONS_MAX: usize = 32;

/// Of these for one address: others still reach it.
const PER_ADDRESS_MAX: usize = 24;

/// How long a connection may last: an answer is some hundred KB at most.
const CONNECTION_LIFE: Duration = Duration::from_secs(15);

const BOUNDS: Bounds = Bounds {
    connections_max: CONNECTIONS_MAX,
    per_address_max: PER_ADDRESS_MAX,
    header_time: Duration::from_secs(5),
    idle_time: CONNECTION_LIFE,
    write_time: CONNECTION_LIFE,
    life: Some(CONNECTION_LIFE),
};

/// How often an address that cannot be listened on is tried again.
const BIND_PERIOD: Duration = Duration::from_secs(5);

/// Only what comes from here is loaded, and nothing may frame it.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The files of the page: path, type, text.
const FILES: [(&str, &str, &str); 4] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("page/page.html"),
    ),
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    (
        "/page.js",
        "text/javascript; charset=utf-8",
        include_str!("page/page.js"),
    ),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// Where the page is served, and by which names.
#[derive(Debug, Clone)]
pub struct PageOptions {
    /// `admin.listen`; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// `admin.names`
    pub names: Vec<String>,
    /// `admin.certificates`
    pub certificates: Vec<String>,
    /// `tls.admin`
    pub encryption: Option<Encryption>,
}

/// Serves the page until the stop.
pub(super) async fn serve(app: Arc<App>, options: PageOptions, stop: CancellationToken) {
    let Some(address) = options.listen else {
        return;
    };
    let is_for_some = !options.certificates.is_empty();
    let listener = stop.run_until_cancelled(bind(address, is_for_some)).await;
    let Some(listener) = listener else {
        return;
    };
    let port = Port {
        name: "admin",
        bounds: BOUNDS,
        metrics: app.options.metrics.clone(),
        encryption: options.encryption,
    };
    let guests = Arc::new(Guests {
        names: options.names,
        certificates: options.certificates,
    });
    port::serve(listener, routes(app, guests), port, stop).await;
}

/// Who may read the page, and by which names of this host.
struct Guests {
    names: Vec<String>,
    certificates: Vec<String>,
}

impl Guests {
    fn may_read(&self, peer: Option<&Peer>) -> bool {
        let shown = peer.and_then(|peer| peer.certificate.as_ref());
        let is_shown = |wanted: &String| {
            shown.is_some_and(|shown| match digest_of(wanted) {
                Some(digest) => digest == shown.sha256_fingerprint,
                None => shown.names.contains(wanted),
            })
        };
        self.certificates.is_empty() || self.certificates.iter().any(is_shown)
    }
}

/// Listens as soon as that is possible.
async fn bind(address: SocketAddr, is_for_some: bool) -> TcpListener {
    let mut is_said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                if !address.ip().is_loopback() && !is_for_some {
                    tracing::warn!(
                        admin = %address,
                        "whoever reaches the page for operators can read it: it asks nobody who they are"
                    );
                }
                tracing::info!(admin = %address, "the page for operators is there");
                return listener;
            }
            Err(error) if !is_said => {
                is_said = true;
                tracing::error!(%error, "no page for operators: admin.listen cannot be bound; trying again");
            }
            Err(error) => tracing::debug!(%error, "admin.listen cannot be bound"),
        }
        tokio::time::sleep(BIND_PERIOD).await;
    }
}

fn routes(app: Arc<App>, guests: Arc<Guests>) -> Router {
    let mut routes = Router::new()
        .route("/look", get(look))
        .route("/status", get(status));
    for (path, kind, text) in FILES {
        let file = move || async move { ([(header::CONTENT_TYPE, kind)], text) };
        routes = routes.route(path, get(file));
    }
    routes
        .fallback(async || error(StatusCode::NOT_FOUND, "there is no such page"))
        .layer(from_fn_with_state(guests, guard))
        .with_state(app)
}

/// Whether a browser asks for this host, and what it may do with the answer.
async fn guard(State(guests): State<Arc<Guests>>, request: Request, next: Next) -> Response {
    let version = request.version();
    let mut response = if !guests.may_read(request.extensions().get()) {
        let text = "the page is for those whose certificates admin.certificates names";
        error(StatusCode::FORBIDDEN, text)
    } else if !is_ours(&request, &guests.names) {
        let text =
            "this host does not go by that name: use its address, or list the name in admin.names";
        error(StatusCode::MISDIRECTED_REQUEST, text)
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // HTTP/2 has no such header; its connections end by their life.
    if version < Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the one name that is asked for is one of ours: an address, this host, or one that
/// is configured.
pub(super) fn is_ours(request: &Request, names: &[String]) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let authority = request.uri().authority();
    let host = match (hosts.next(), hosts.next(), authority) {
        (Some(host), None, None) => host.to_str().ok(),
        // Of HTTP/2, where a Host beside it would be a second name.
        (None, None, Some(authority)) => Some(authority.as_str()),
        _ => None,
    };
    let Some(host) = host else {
        return false;
    };
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.split_once(']').filter(|(_, port)| is_port(port));
        return address.is_some_and(|(address, _)| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let (name, port) = host.find(':').map_or((host, ""), |at| host.split_at(at));
    let is_known = || names.iter().any(|known| known.eq_ignore_ascii_case(name));
    is_port(port)
        && (name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost") || is_known())
}

/// Nothing, or a colon and a number.
fn is_port(text: &str) -> bool {
    text.strip_prefix(':')
        .map_or(text.is_empty(), |port| port.parse::<u16>().is_ok())
}

/// Which part of the past is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Points of a minute instead of a second.
    #[serde(default)]
    coarse: bool,
    /// Only what is newer, milliseconds since the service started.
    after: Option<u64>,
}

/// What a query asks for, where it can be read.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn asked(uri: &axum::http::Uri) -> Option<(bool, Option<u64>)> {
    let Query(asked) = Query::<Asked>::try_from_uri(uri).ok()?;
    Some((asked.coarse, asked.after))
}

/// All that the page shows.
#[derive(Debug, Serialize)]
struct Look {
    /// When the service started, epoch milliseconds: another one has another past.
    started_at_ms: i64,
    /// How long ago that is, on a clock that does not jump.
    up_ms: u64,
    /// This host's clock, epoch milliseconds.
    now_ms: i64,
    /// The present.
    status: Status,
    /// The past.
    past: Past,
}

async fn status(State(app): State<Arc<App>>) -> Response {
    match app.whole_status().await {
        Ok(status) => Json(status).into_response(),
        Err(failed) => broken(&failed),
    }
}

async fn look(State(app): State<Arc<App>>, Query(asked): Query<Asked>) -> Response {
    let status = match Arc::clone(&app).whole_status().await {
        Ok(status) => status,
        Err(failed) => return broken(&failed),
    };
    let look = Look {
        started_at_ms: app.started_at_ms(),
        up_ms: app.up_ms(),
        now_ms: now_ms(),
        status,
        past: app.past(asked.coarse, asked.after),
    };
    Json(look).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ours_by(request: &Request) -> bool {
        is_ours(request, &["edge-1.example.org".to_owned()])
    }

    fn asks(hosts: &[&str]) -> bool {
        let mut request = Request::default();
        for host in hosts {
            request.headers_mut().append(
                header::HOST,
                HeaderValue::from_bytes(host.as_bytes()).unwrap(),
            );
        }
        is_ours_by(&request)
    }

    #[test]
    fn over_http2_the_name_is_the_authority() {
        let asks = |uri: &str| {
            let mut request = Request::default();
            *request.uri_mut() = uri.parse().unwrap();
            request
        };
        assert!(is_ours_by(&asks("https://localhost:8020/look")));
        assert!(is_ours_by(&asks("https://[::1]:8020/")));
        assert!(!is_ours_by(&asks("https://evil.example.org/look")));
        assert!(!is_ours_by(&asks("https://localhost@evil.example.org/")));
        let mut two = asks("https://localhost/");
        let host = HeaderValue::from_static("evil.example.org");
        two.headers_mut().insert(header::HOST, host);
        assert!(!is_ours_by(&two));
    }

    #[test]
    fn other_names_are_refused() {
        for good in [
            "127.0.0.1",
            "127.0.0.1:8020",
            "10.1.2.3:80",
            "[::1]:8020",
            "[fd00::1]",
            "localhost",
            "LOCALHOST:8020",
            "Edge-1.Example.org:8020",
        ] {
            assert!(asks(&[good]), "{good}");
        }
        for bad in [
            "",
            ":8020",
            "evil.example.org",
            "localhost.evil.org",
            "127.0.0.1.evil.org:8020",
            "edge-1.example.org.",
            "localhost:",
            "localhost:99999",
            "localhost:80:80",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "::1",
            "user@localhost",
            "löcalhost",
        ] {
            assert!(!asks(&[bad]), "{bad}");
        }
        assert!(!asks(&[]), "none");
        assert!(!asks(&["localhost", "localhost"]), "two");
    }
}
