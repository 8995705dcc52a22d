//! How the values of older names are read: ports, levels, times, lists, and the parts of
//! URLs. Called by `names`.
//!
//! # Invariants
//! - What cannot be read is told without the value: it may be a secret.
//! - Whatever a user, password or name holds, the URL says exactly that (test
//!   `logins_and_names_survive_the_url`).

use toml::Value;

/// Reads the value of a key; `None` where it says nothing.
pub(super) type ReadText = fn(&str) -> Result<Option<Value>, &'static str>;

/// Finds a variable by its name.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A URL, or all that is wrong with its parts.
pub(super) type Url = Result<Value, Vec<String>>;

/// Makes a URL from variables.
pub(super) type ReadUrl = fn(Lookup<'_>) -> Url;

pub(super) fn text(text: &str) -> Result<Option<Value>, &'static str> {
    Ok(Some(text.into()))
}

/// A comma list.
pub(super) fn list(text: &str) -> Result<Option<Value>, &'static str> {
    let parts = text.split(',').map(str::trim);
    let parts: Vec<Value> = parts
        .filter(|part| !part.is_empty())
        .map(Value::from)
        .collect();
    Ok((!parts.is_empty()).then_some(Value::Array(parts)))
}

const PORT: &str = "is no port: a number from 1 to 65535";

fn port_number(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|port| *port > 0)
}

/// A port, on all addresses of the host.
pub(super) fn port(text: &str) -> Result<Option<Value>, &'static str> {
    let port = port_number(text).ok_or(PORT)?;
    Ok(Some(format!("0.0.0.0:{port}").into()))
}

/// A whole number.
pub(super) fn count(text: &str) -> Result<u64, &'static str> {
    text.trim().parse().map_err(|_| "is no whole number")
}

/// Milliseconds as the whole seconds that the protocol has. 0 left it to the broker: the
/// default stays, since heartbeats are never off.
pub(super) fn heartbeat(text: &str) -> Result<Option<Value>, &'static str> {
    let ms = count(text).map_err(|_| "is no number of milliseconds")?;
    Ok((ms > 0).then(|| format!("{}s", ms.div_ceil(1000)).into()))
}

/// A level by zerolog's number or by its name.
pub(super) fn level(text: &str) -> Result<Option<Value>, &'static str> {
    let text = text.trim();
    let number = text.parse::<i64>();
    let level = match (text.to_ascii_lowercase().as_str(), number) {
        (_, Ok(-1)) | ("trace", _) => "trace",
        (_, Ok(0)) | ("debug", _) => "debug",
        (_, Ok(1)) | ("info", _) => "info",
        (_, Ok(2)) | ("warn" | "warning", _) => "warn",
        (_, Ok(7)) | ("off" | "disabled", _) => "off",
        (_, Ok(3..)) | ("error" | "fatal" | "panic", _) => "error",
        _ => return Err("is no level: a number from -1 (trace) to 7 (off), or a level's name"),
    };
    Ok(Some(level.into()))
}

/// A port that may be left out.
pub(super) fn port_of(get: Lookup<'_>, name: &str) -> Result<Option<u16>, String> {
    let Some(text) = get(name) else {
        return Ok(None);
    };
    let port = port_number(&text).ok_or_else(|| format!("{name}: {PORT}"))?;
    Ok(Some(port))
}

/// A host. What else stands in it would change the meaning of the URL around it.
pub(super) fn host_of(get: Lookup<'_>, name: &str) -> Result<String, String> {
    let host = get(name).unwrap_or_default();
    let host = host.trim();
    let is_name = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if host.is_empty() || !is_name {
        return Err(format!(
            "{name}: is neither a host's name nor an IPv4 address, without a port"
        ));
    }
    Ok(host.to_owned())
}

/// Both, or all that is wrong.
pub(super) fn both<A, B>(
    a: Result<A, String>,
    b: Result<B, String>,
) -> Result<(A, B), Vec<String>> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err(a.err().into_iter().chain(b.err()).collect()),
    }
}

/// `user:password@`, as far as they are given.
pub(super) fn login(get: Lookup<'_>, user: &str, password: &str) -> String {
    let user = get(user).map(|user| encoded(&user)).unwrap_or_default();
    match get(password) {
        Some(password) => format!("{user}:{}@", encoded(&password)),
        None if user.is_empty() => user,
        None => format!("{user}@"),
    }
}

/// Percent-encoded: every byte but letters, digits and the marks that mean nothing in a URL.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
