//! Reads the layers, and reports every mistake in one go. Called by `cli`.

use super::Config;
use super::check::check;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use toml::{Table, Value};

/// Prefix of the variables that override the file.
const PREFIX: &str = "HOLDFAST__";

/// Everything that is wrong with a configuration; retrying does not help.
#[derive(Debug)]
pub struct Errors(pub Vec<String>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} configuration error(s)", self.0.len())?;
        for error in &self.0 {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Loads the file, if one is named, and the process's environment over it.
///
/// # Errors
/// All mistakes, each with its key.
pub fn load(file: Option<&Path>) -> Result<Config, Errors> {
    let text = match file {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Errors(vec![format!("{}: {error}", path.display())]))?,
    };
    load_from(
        &text,
        std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }),
    )
}

/// Loads from a text and variables.
///
/// # Errors
/// All mistakes, each with its key.
pub fn load_from(
    text: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, Errors> {
    let mut errors = Vec::new();
    let mut table = text.parse::<Table>().unwrap_or_else(|error| {
        // The message of the parser, without the line itself: it may be a secret.
        let line = error
            .span()
            .map_or(0, |span| text[..span.start].lines().count().max(1));
        errors.push(format!("line {line}: {}", error.message()));
        Table::new()
    });
    // What a variable may mean, the likeliest last.
    let mut readings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (name, value) in environment {
        let Some(path) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let path = path.to_ascii_lowercase().replace("__", ".");
        let mut meanings = meanings_of(&value);
        if let Some(first) = meanings.pop() {
            if !set(&mut table, &path, first) {
                errors.push(format!("{name}: {path} is not a key of a section"));
            }
            readings.insert(path, meanings);
        }
    }
    let config = loop {
        let mut unknown = Vec::new();
        match read(&table, &mut unknown) {
            Ok(config) => {
                errors.extend(unknown.into_iter().map(|key| format!("{key}: unknown key")));
                break config;
            }
            Err((path, message)) => {
                let other = readings.get_mut(&path).and_then(Vec::pop);
                if let Some(value) = other {
                    set(&mut table, &path, value);
                } else {
                    errors.push(format!("{path}: {message}"));
                    if !remove(&mut table, &path) {
                        return Err(Errors(errors));
                    }
                }
            }
        }
    };
    check(&config, &mut errors);
    if errors.is_empty() {
        Ok(config)
    } else {
        Err(Errors(errors))
    }
}

fn read(table: &Table, unknown: &mut Vec<String>) -> Result<Config, (String, String)> {
    let mut track = serde_path_to_error::Track::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
    let from = serde_path_to_error::Deserializer::new(table.clone(), &mut track);
    let result = Config::deserialize(serde_ignored::Deserializer::new(from, &mut note));
    result.map_err(|error| {
        let message = error.message().trim().to_owned();
        (track.path().to_string(), message)
    })
}

/// What the text of a variable may mean: itself, a comma list of texts, or a TOML
/// number, boolean or array.
fn meanings_of(text: &str) -> Vec<Value> {
    let list = text
        .split(',')
        .map(|part| Value::String(part.trim().to_owned()))
        .collect();
    let mut meanings = vec![Value::Array(list), Value::String(text.to_owned())];
    if let Ok(mut table) = format!("value = {text}").parse::<Table>()
        && let Some(value) = table.remove("value")
        && !value.is_str()
    {
        meanings.push(value);
    }
    meanings
}

fn set(table: &mut Table, path: &str, value: Value) -> bool {
    let mut at = table;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            at.insert(part.to_owned(), value);
            return true;
        }
        let next = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        match next {
            Value::Table(table) => at = table,
            _ => return false,
        }
    }
    false
}

/// Takes the value at a path such as `consumer[1].workers` out, so that reading
/// can go on and find the next mistake.
fn remove(table: &mut Table, path: &str) -> bool {
    let Some((first, rest)) = split_path(path) else {
        return false;
    };
    if rest.is_empty() {
        return table.remove(first).is_some();
    }
    let removed_inside = table
        .get_mut(first)
        .is_some_and(|value| remove_in(value, rest));
    removed_inside || table.remove(first).is_some()
}

fn remove_in(value: &mut Value, path: &str) -> bool {
    match value {
        Value::Table(table) => remove(table, path),
        Value::Array(list) => {
            let Some((index, rest)) = split_path(path) else {
                return false;
            };
            let Some(index) = index.parse().ok().filter(|&i: &usize| i < list.len()) else {
                return false;
            };
            if rest.is_empty() || !remove_in(&mut list[index], rest) {
                list.remove(index);
            }
            true
        }
        _ => false,
    }
}

/// `a.b[1].c` into `a` and `b[1].c`; `[1].c` into `1` and `c`.
fn split_path(path: &str) -> Option<(&str, &str)> {
    if let Some(inner) = path.strip_prefix('[') {
        let (index, rest) = inner.split_once(']')?;
        return Some((index, rest.trim_start_matches('.')));
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let rest = &path[end..];
    (end > 0).then(|| (&path[..end], rest.strip_prefix('.').unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect();
        pairs.into_iter()
    }

    #[test]
    fn nothing_at_all_is_a_configuration() {
        let config = load_from("", env(&[])).unwrap();
        assert_eq!(config.grpc.listen.port(), 8017);
        assert!(config.sqlite_path().is_some());
        assert!(config.rabbitmq.is_none());
    }

    #[test]
    fn variables_win_over_the_file_and_are_read_by_the_key_s_type() {
        let config = load_from(
            "[journal]\nmax_bytes = \"1GiB\"\n[clickhouse]\npassword = \"x\"",
            env(&[
                ("HOLDFAST__JOURNAL__MAX_BYTES", "2GiB"),
                ("HOLDFAST__JOURNAL__ACK_DEADLINE", "250ms"),
                ("HOLDFAST__CLICKHOUSE__PASSWORD", "12345"),
                ("HOLDFAST__CLICKHOUSE__DATABASES", "a, b"),
                ("HOLDFAST__INGEST__KEEP_REJECTED", "false"),
                ("HOLDFAST__RABBITMQ__URLS", "amqp://a,amqp://b"),
                ("HOLDFAST__RABBITMQ__CONFIRM_WINDOW", "7"),
                ("OTHER", "x"),
            ]),
        )
        .unwrap();
        assert_eq!(config.journal.max_bytes, super::super::Size::gib(2));
        assert_eq!(config.journal.ack_deadline.get().as_millis(), 250);
        let clickhouse = config.clickhouse.unwrap();
        assert_eq!(clickhouse.password.expose(), "12345");
        assert_eq!(clickhouse.databases, ["a", "b"]);
        assert!(!config.ingest.keep_rejected);
        let rabbitmq = config.rabbitmq.unwrap();
        assert_eq!(rabbitmq.urls.len(), 2);
        assert_eq!(rabbitmq.confirm_window, 7);
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let text = "
            [journal]
            max_bytes = \"lots\"
            ack_deadline = 5
            colour = \"red\"
            [grpc]
            listen = \"here\"
            [[consumer]]
            queue = \"grpc_clickhouse_event_q\"
            workers = \"many\"
            [[consumer]]
            queue = \"new\"
            [[consumer]]
            queue = \"other\"
            handler = \"nothing\"
            [nonsense]
            a = 1
        ";
        let Errors(errors) = load_from(text, env(&[])).unwrap_err();
        let all = errors.join("\n");
        for part in [
            "journal.max_bytes: \"lots\" is not a size",
            "journal.ack_deadline: expected a time",
            "journal.colour: unknown key",
            "grpc.listen:",
            "consumer[0].workers:",
            "consumer[1].exchange: is required",
            "consumer[2].handler:",
            "nonsense: unknown key",
        ] {
            assert!(all.contains(part), "{part} is not in\n{all}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let text = "[clickhouse]\npassword = 5\n[postgres]\nurl = \"postgres://u:hunter2@h/d\"";
        let Errors(errors) = load_from(text, env(&[])).unwrap_err();
        assert_eq!(errors, ["clickhouse.password: expected text"]);
        let config = load_from("[postgres]\nurl = \"postgres://u:hunter2@h/d\"", env(&[])).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
