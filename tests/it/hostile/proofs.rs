//! Tokens and signatures that are almost right.

use super::wire::{Case, Port, Site, Want, request};
use crate::support::cli::holdfast;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

const UNAUTHORIZED: Want = Want::Status(&[401]);

/// A client's token, and its lines of configuration.
pub struct Token {
    pub value: String,
    pub lines: String,
}

pub fn token() -> Token {
    let said = holdfast("token app");
    Token {
        value: said.text().trim().to_owned(),
        lines: said.err,
    }
}

pub fn cases(site: &Site) -> Vec<Case> {
    let mut cases = tokens(&site.token);
    cases.extend(signatures());
    cases
}

fn tokens(token: &str) -> Vec<Case> {
    let body =
        br#"{"header":{"deviceId":"d"},"events":[{"id":"h","timestamp":"1","launchEvent":{}}]}"#;
    let mut values: Vec<(String, String)> = Vec::new();
    for at in (0..token.len()).step_by(5) {
        let mut bytes = token.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        values.push((
            format!("byte {at} changed"),
            format!("Authorization: Bearer {changed}\r\n"),
        ));
    }
    let mut add = |name: &str, lines: String| values.push((name.to_owned(), lines));
    add(
        "cut off",
        format!("Authorization: Bearer {}\r\n", &token[..token.len() - 1]),
    );
    add("with more", format!("Authorization: Bearer {token}A\r\n"));
    add(
        "twice in one",
        format!("Authorization: Bearer {token}{token}\r\n"),
    );
    add(
        "in two headers",
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
    );
    add(
        "after a wrong one",
        format!("Authorization: Bearer x\r\nAuthorization: Bearer {token}\r\n"),
    );
    add(
        "in a list",
        format!("Authorization: Bearer {token}, Bearer x\r\n"),
    );
    add(
        "in upper case",
        format!("Authorization: Bearer {}\r\n", token.to_uppercase()),
    );
    add(
        "without its prefix",
        format!("Authorization: Bearer {}\r\n", &token[3..]),
    );
    add("without a scheme", format!("Authorization: {token}\r\n"));
    add(
        "of another scheme",
        format!("Authorization: Token {token}\r\n"),
    );
    add(
        "as a password",
        format!(
            "Authorization: Basic {}\r\n",
            STANDARD.encode(format!("app:{token}"))
        ),
    );
    add("empty", "Authorization: Bearer \r\n".to_owned());
    add("quoted", format!("Authorization: Bearer \"{token}\"\r\n"));
    add(
        "as base64",
        format!("Authorization: Bearer {}\r\n", STANDARD.encode(token)),
    );
    add(
        "of 20 KB",
        format!("Authorization: Bearer {}\r\n", "x".repeat(20_000)),
    );
    add(
        "that is a JWT of nobody",
        "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhcHAifQ.\r\n".to_owned(),
    );
    let cases = values.into_iter().map(|(name, lines)| {
        let bytes = request("POST", "/events", &lines, body);
        Case::new(format!("token: {name}"), Port::Http, bytes, UNAUTHORIZED)
    });
    cases.collect()
}

fn signatures() -> Vec<Case> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"hunter2");
    let body = br#"{"name":"n","id":"w"}"#;
    let sign = |body: &[u8]| STANDARD.encode(hmac::sign(&key, body));
    let mut cases = Vec::new();
    let mut add = |name: &str, path: &str, lines: String, body: &[u8], want: Want| {
        let bytes = request("POST", path, &lines, body);
        cases.push(Case::new(
            format!("webhook: {name}"),
            Port::Http,
            bytes,
            want,
        ));
    };
    let branch = "/branch/event/";
    add("no secret", branch, String::new(), body, UNAUTHORIZED);
    for (name, secret) in [
        ("wrong", "hunter3"),
        ("cut off", "hunter"),
        ("with more", "hunter22"),
        ("in upper case", "HUNTER2"),
        ("empty", ""),
        ("with a blank", "hunter2 x"),
    ] {
        add(
            &format!("a secret {name}"),
            branch,
            format!("x-webhook-secret: {secret}\r\n"),
            body,
            UNAUTHORIZED,
        );
    }
    add(
        "the secret in another header",
        branch,
        "x-webhook-signature: hunter2\r\n".to_owned(),
        body,
        UNAUTHORIZED,
    );
    add(
        "the secret in the query",
        "/branch/event/?x-webhook-secret=hunter2",
        String::new(),
        body,
        UNAUTHORIZED,
    );
    let vidooly = "/vidooly/event/";
    let good = sign(body);
    let mut flipped = good.clone().into_bytes();
    flipped[3] ^= 1;
    let flipped = String::from_utf8_lossy(&flipped).into_owned();
    for (name, signature) in [
        ("missing", String::new()),
        ("of an empty body", sign(b"")),
        ("of another body", sign(br#"{"name":"m","id":"w"}"#)),
        ("with a bit changed", flipped),
        ("cut off", good[..20].to_owned()),
        ("said to be sha1", format!("sha1={good}")),
        (
            "of another key",
            STANDARD.encode(hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, b"hunter3"),
                body,
            )),
        ),
        ("that is the key", "hunter2".to_owned()),
        ("of zeros", STANDARD.encode([0; 32])),
    ] {
        add(
            &format!("a signature {name}"),
            vidooly,
            format!("x-webhook-signature: {signature}\r\n"),
            body,
            UNAUTHORIZED,
        );
    }
    // A signature that was seen, with another body, or at another door.
    add(
        "a replayed signature over more",
        vidooly,
        format!("x-webhook-signature: {good}\r\n"),
        br#"{"name":"n","id":"w" }"#,
        UNAUTHORIZED,
    );
    add(
        "a replayed signature at another door",
        branch,
        format!("x-webhook-signature: {good}\r\nx-webhook-secret: {good}\r\n"),
        body,
        UNAUTHORIZED,
    );
    let shopify = "/shopify/event/";
    let native = |signature: &str| {
        format!("x-shopify-topic: orders/create\r\nx-shopify-hmac-sha256: {signature}\r\n")
    };
    add(
        "Shopify without a signature",
        shopify,
        "x-shopify-topic: orders/create\r\n".to_owned(),
        body,
        UNAUTHORIZED,
    );
    add(
        "Shopify with a wrong signature",
        shopify,
        native(&sign(b"x")),
        body,
        UNAUTHORIZED,
    );
    add(
        "Shopify with a signature that is none",
        shopify,
        native("!!!"),
        body,
        UNAUTHORIZED,
    );
    // Genuine, and still no webhook.
    let signed = |body: &[u8]| format!("x-webhook-signature: {}\r\n", sign(body));
    let deep = format!("{}1{}", r#"{"a":"#.repeat(50_000), "}".repeat(50_000));
    for (name, body) in [
        ("empty", &b""[..]),
        ("a list", b"[]"),
        ("a number", b"1"),
        ("cut off", br#"{"name":"n""#),
        ("no UTF-8", b"{\"name\":\"\xff\"}"),
        ("50,000 levels", deep.as_bytes()),
    ] {
        add(
            &format!("signed, and {name}"),
            vidooly,
            signed(body),
            body,
            Want::Status(&[400]),
        );
    }
    let large = vec![b' '; 3 << 20];
    add(
        "3 MiB",
        vidooly,
        signed(&large),
        &large,
        Want::Status(&[413]),
    );
    cases
}
