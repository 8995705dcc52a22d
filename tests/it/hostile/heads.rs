//! Heads of requests: paths, methods, versions, lengths, headers.

use super::wire::{Case, Port, Want, request};

const NOT_FOUND: Want = Want::Status(&[404]);
const BAD: Want = Want::Status(&[400]);

pub fn cases() -> Vec<Case> {
    let mut cases = paths();
    cases.extend(methods());
    cases.extend(broken());
    cases
}

fn paths() -> Vec<Case> {
    let unknown = [
        "/",
        "/..",
        "/../",
        "/../etc/passwd",
        "/../../../../etc/passwd",
        "/events/..",
        "/events/../metrics",
        "/events/./",
        "/./events",
        "//events",
        "//events//",
        "/events//",
        "/events/x",
        "/EVENTS",
        "/Events/",
        "/%65vents/%2e%2e/metrics",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2fmetrics",
        "/metrics%2f",
        "/metrics%00",
        "/metrics/%0d%0aX:%20y",
        "/events;jsessionid=1",
        "/events%20",
        "/.git/config",
        "/.env",
        "/admin",
        "/status",
        "/heartbeat/../status",
        "/heartbeat/x",
        "/branch/event/../../metrics",
        "/branch",
        "/branch/event/x",
        "/branch%2fevent",
        "/webengage/event/users/x",
        "/shopify/event/..%00/",
        "/\\..\\windows",
        "/c:/windows",
        "/metrics/..;/events",
        "/event.EventService/dispatch",
        "/grpc.health.v1.Health/Check",
    ];
    let mut cases: Vec<_> = unknown
        .iter()
        .map(|path| {
            let want = Want::Status(&[400, 404]);
            Case::new(
                format!("path {path}"),
                Port::Http,
                request("GET", path, "", b""),
                want,
            )
        })
        .collect();
    let long = format!("/{}", "a".repeat(70_000));
    let many = format!("/events?{}", "a=b&".repeat(20_000));
    for (name, path) in [("a path of 70 KB", &long), ("a query of 80 KB", &many)] {
        let want = Want::Status(&[400, 404, 414, 431]);
        cases.push(Case::new(
            name,
            Port::Http,
            request("POST", path, "", b""),
            want,
        ));
    }
    for query in [
        "",
        "?beat",
        "?beat=",
        "?beat=maybe",
        "?beat=2",
        "?beat=%00",
        "?beat=true&beat=false&beat=x",
        "?beat=%ff",
    ] {
        let bytes = request("PUT", &format!("/heartbeat/{query}"), "", b"");
        cases.push(Case::new(format!("beat {query}"), Port::Http, bytes, BAD));
    }
    for path in [
        "/",
        "/event.EventService/",
        "/event.EventService/dispatch2",
        "/event.EventService/../dispatch",
        "/grpc.reflection.v9/x",
    ] {
        let lines = "Content-Type: application/grpc-web+proto\r\n";
        let bytes = request("POST", path, lines, b"\0\0\0\0\0");
        cases.push(Case::new(
            format!("call {path}"),
            Port::Grpc,
            bytes,
            Want::Code(&[12]),
        ));
    }
    cases
}

fn methods() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in [
        "GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "POST2", "get",
    ] {
        for path in ["/events", "/branch/event/"] {
            let name = format!("{method} {path}");
            cases.push(Case::new(
                name,
                Port::Http,
                request(method, path, "", b""),
                Want::Status(&[405]),
            ));
        }
    }
    for method in ["POST", "DELETE", "TRACE"] {
        let name = format!("{method} /metrics");
        cases.push(Case::new(
            name,
            Port::Http,
            request(method, "/metrics", "", b""),
            Want::Status(&[405]),
        ));
    }
    let connect =
        "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\nConnection: close\r\n\r\n";
    cases.push(Case::new(
        "CONNECT",
        Port::Http,
        connect,
        Want::Status(&[400, 404, 405]),
    ));
    let absolute = "POST http://example.org/nothing HTTP/1.1\r\nHost: b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    cases.push(Case::new(
        "a proxy's request",
        Port::Http,
        absolute,
        NOT_FOUND,
    ));
    cases
}

/// Heads that are none.
fn broken() -> Vec<Case> {
    let start = "POST /events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let refused: &[(&str, String)] = &[
        ("no version", "GET /events\r\n\r\n".to_owned()),
        ("a later version", "GET /events HTTP/3.0\r\n\r\n".to_owned()),
        (
            "a version without end",
            "GET /events HTTP/1.1.1\r\n\r\n".to_owned(),
        ),
        ("no path", "GET HTTP/1.1\r\n\r\n".to_owned()),
        ("only line ends", "\r\n\r\n\r\n\r\n\0\r\n\r\n".to_owned()),
        ("binary", "\u{1}\u{2}\u{3}\u{4}\r\n\r\n".to_owned()),
        ("a header without colon", format!("{start}X\r\n\r\n")),
        ("a header without name", format!("{start}: x\r\n\r\n")),
        (
            "a blank before the colon",
            format!("{start}Content-Length : 5\r\n\r\nhello"),
        ),
        ("a folded header", format!("{start}X: a\r\n b\r\n\r\n")),
        ("a header with NUL", format!("{start}X: a\0b\r\n\r\n")),
        ("a bare CR", format!("{start}X: a\rb\r\n\r\n")),
        ("a name with a blank", format!("{start}X y: z\r\n\r\n")),
        (
            "a length that is none",
            format!("{start}Content-Length: x\r\n\r\n"),
        ),
        (
            "a negative length",
            format!("{start}Content-Length: -1\r\n\r\n"),
        ),
        (
            "a signed length",
            format!("{start}Content-Length: +5\r\n\r\nhello"),
        ),
        (
            "a hexadecimal length",
            format!("{start}Content-Length: 0x5\r\n\r\nhello"),
        ),
        (
            "a length beyond 64 bits",
            format!("{start}Content-Length: 99999999999999999999\r\n\r\n"),
        ),
        (
            "two lengths",
            format!("{start}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        ),
        (
            "a list of lengths",
            format!("{start}Content-Length: 5, 6\r\n\r\nhello!"),
        ),
        (
            "an unknown transfer coding",
            format!("{start}Transfer-Encoding: identity\r\n\r\n"),
        ),
        (
            "chunked that is not last",
            format!("{start}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        ),
        (
            "a chunk size that is none",
            format!("{start}Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "a chunk size beyond 64 bits",
            format!("{start}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx"),
        ),
        (
            "a negative chunk size",
            format!("{start}Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "a chunk without its end",
            format!("{start}Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n"),
        ),
        (
            "an endless chunk extension",
            format!(
                "{start}Transfer-Encoding: chunked\r\n\r\n5;{}\r\nhello\r\n0\r\n\r\n",
                "x".repeat(40_000)
            ),
        ),
        (
            "200 headers",
            format!("{start}{}\r\n", "X: y\r\n".repeat(200)),
        ),
        (
            "a header of 70 KB",
            format!("{start}X: {}\r\n\r\n", "y".repeat(70_000)),
        ),
        (
            "a name of 70 KB",
            format!("{start}{}: y\r\n\r\n", "X".repeat(70_000)),
        ),
    ];
    let mut cases = Vec::new();
    for (name, bytes) in refused {
        for port in [Port::Http, Port::Grpc] {
            let name = format!("{name} at {port:?}");
            cases.push(Case::new(name, port, bytes.as_bytes(), Want::Ends));
        }
    }
    // A second request that hides in the body of the first must not be answered.
    let inner = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    let smuggled = format!(
        "{start}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
        inner.len() + 5
    );
    cases.push(Case::new(
        "a length beside chunks",
        Port::Http,
        smuggled,
        Want::Ends,
    ));
    cases
}
