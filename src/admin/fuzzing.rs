//! What operators and browsers send: bodies of the admin socket, names and queries of the
//! page. Called by `crate::fuzzing` alone, and compiled for it alone.
//!
//! The bytes: which of them (1), and what is sent.

use super::page;
use super::request::{
    DrainRequest, DrillRequest, PaceRequest, PurgeRequest, ReloadRequest, SkipRequest,
};
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Uri, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::net::IpAddr;

/// A name that the page is told to go by.
const NAME: &str = "edge-1.example.org";

pub(crate) fn api(data: &[u8]) {
    let Some((which, sent)) = data.split_first() else {
        return;
    };
    match which % 9 {
        0 => body::<SkipRequest>(sent),
        1 => body::<PurgeRequest>(sent),
        2 => body::<PaceRequest>(sent),
        3 => body::<DrillRequest>(sent),
        4 => body::<DrainRequest>(sent),
        5 => body::<ReloadRequest>(sent),
        6 => host(sent),
        7 => authority(sent),
        _ => query(sent),
    }
}

/// What is taken says the same when it is written, and has no field that is not known.
fn body<T: Serialize + DeserializeOwned>(sent: &[u8]) {
    let Ok(request) = serde_json::from_slice::<T>(sent) else {
        return;
    };
    let told = serde_json::to_value(&request).expect("it came as JSON");
    let again: T = serde_json::from_value(told.clone()).expect("it was written as one");
    assert_eq!(serde_json::to_value(&again).ok().as_ref(), Some(&told));
    let sent: Value = serde_json::from_slice(sent).expect("it was read");
    // Lists are read by the order of the fields.
    if let (Value::Object(mut sent), Value::Object(told)) = (sent, told) {
        for (key, value) in &sent {
            let is_told = told.get(key).is_some_and(|told| same(told, value));
            assert!(is_told, "{key} became something else");
        }
        sent.insert("aply".to_owned(), Value::Bool(true));
        assert!(serde_json::from_value::<T>(Value::Object(sent)).is_err());
    }
}

/// Whether two values mean the same: a whole number may be given for one with a fraction.
fn same(one: &Value, other: &Value) -> bool {
    one == other || matches!((one.as_f64(), other.as_f64()), (Some(a), Some(b)) if a == b)
}

/// A name that is taken for ours is one of ours to another parser, too.
fn host(sent: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(sent) else {
        return;
    };
    let mut request = Request::default();
    request.headers_mut().insert(header::HOST, value);
    if page::is_ours(&request, &[NAME.to_owned()]) {
        let text = std::str::from_utf8(sent).expect("ours are ASCII");
        assert_ours(text);
        // Two names are none.
        request
            .headers_mut()
            .append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(!page::is_ours(&request, &[NAME.to_owned()]));
    }
}

fn authority(sent: &[u8]) {
    let Ok(uri) = Uri::try_from(sent) else {
        return;
    };
    let mut request = Request::default();
    *request.uri_mut() = uri;
    if page::is_ours(&request, &[NAME.to_owned()]) {
        let authority = request.uri().authority().expect("it was judged by it");
        assert_ours(authority.as_str());
    }
}

fn assert_ours(text: &str) {
    let authority: Authority = text.parse().expect("ours are authorities");
    assert!(!text.contains('@'), "{text}");
    let host = authority.host();
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_address = address.unwrap_or(host).parse::<IpAddr>().is_ok();
    let is_named = ["localhost", NAME]
        .iter()
        .any(|n| n.eq_ignore_ascii_case(host));
    assert!(is_address || is_named, "{text} is not ours");
    let port = text.strip_prefix(host).unwrap_or(text);
    let is_port = port
        .strip_prefix(':')
        .map(|port| port.parse::<u16>().is_ok());
    assert!(is_port.unwrap_or(port.is_empty()), "{text}");
}

fn query(sent: &[u8]) {
    let Ok(text) = std::str::from_utf8(sent) else {
        return;
    };
    let Ok(uri) = format!("/look?{text}").parse::<Uri>() else {
        return;
    };
    if let Some((coarse, after)) = page::asked(&uri) {
        let after = after.map(|after| format!("&after={after}"));
        let again = format!(
            "/look?coarse={coarse}{}",
            after.as_deref().unwrap_or_default()
        );
        let again: Uri = again.parse().expect("numbers and words");
        assert_eq!(page::asked(&again).map(|(coarse, _)| coarse), Some(coarse));
        let unknown = format!("{again}&coarser=true");
        let unknown: Uri = unknown.parse().expect("numbers and words");
        assert_eq!(page::asked(&unknown), None);
    }
}
