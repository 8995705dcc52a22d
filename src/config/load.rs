//! Reads the layers, and reports every mistake in one go. Called by `cli`.

use super::check::check;
use super::dotenv::{self, DotEnv, Variables};
use super::secret::NO_CREDENTIALS;
use super::{Config, Origin, older};
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

impl Errors {
    /// Whether credentials are missing, as where systemd has not started the process.
    #[must_use]
    pub fn lack_credentials(&self) -> bool {
        self.0.iter().any(|error| error.contains(NO_CREDENTIALS))
    }
}

/// Loads the file, if one is named, and variables: those of the process's environment,
/// and below them those of `.env`.
///
/// # Errors
/// All mistakes, each with its key or variable.
pub fn load(file: Option<&Path>) -> Result<Config, Errors> {
    let text = match file {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Errors(vec![format!("{}: {error}", path.display())]))?,
    };
    load_in(Path::new(""), &text, environment())
}

/// The process's own variables.
pub(super) fn environment() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The same with a working directory, the text of the file, and an environment.
fn load_in(dir: &Path, text: &str, environment: Variables) -> Result<Config, Errors> {
    let file = dotenv::read(dir, environment.get("ENV").map(String::as_str));
    load_layers(text, file, environment)
}

/// Loads from a text and variables.
///
/// # Errors
/// All mistakes, each with its key or variable.
pub fn load_from(
    text: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, Errors> {
    load_layers(text, DotEnv::default(), environment.collect())
}

fn load_layers(text: &str, file: DotEnv, environment: Variables) -> Result<Config, Errors> {
    let mut errors = file.errors;
    let mut table = text.parse::<Table>().unwrap_or_else(|error| {
        // The message of the parser, without the line itself: it may be a secret.
        let line = error
            .span()
            .map_or(0, |span| text[..span.start].lines().count().max(1));
        errors.push(format!("line {line}: {}", error.message()));
        Table::new()
    });
    let mut variables = file.variables;
    // What a variable may mean, the likeliest last.
    let mut readings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for layer in [&variables, &environment] {
        override_by(layer, &mut table, &mut readings, &mut errors);
    }
    // An empty value is none: it hides nothing.
    variables.extend(
        environment
            .into_iter()
            .filter(|(_, value)| !value.is_empty()),
    );
    let older = older::fill(&mut table, &variables, &mut errors);
    let mut wrong = Vec::new();
    let mut config = read_all(table, readings, &mut wrong);
    if let Some(config) = &config {
        check(config, &mut wrong);
    }
    errors.extend(wrong.into_iter().map(|error| older.explain(error)));
    match config.take() {
        Some(mut config) if errors.is_empty() => {
            config.origin = Origin {
                env_file: file.read,
                env_file_missing: file.missing,
                older_names: older.names,
                idle_names: older.idle,
            };
            Ok(config)
        }
        _ => Err(Errors(errors)),
    }
}

/// Puts the `HOLDFAST__SECTION__KEY` variables of a layer over the table.
fn override_by(
    layer: &Variables,
    table: &mut Table,
    readings: &mut BTreeMap<String, Vec<Value>>,
    errors: &mut Vec<String>,
) {
    for (name, value) in layer {
        let Some(path) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let path = path.to_ascii_lowercase().replace("__", ".");
        let mut meanings = meanings_of(value);
        if let Some(first) = meanings.pop() {
            if !set(table, &path, first) {
                errors.push(format!("{name}: {path} is not a key of a section"));
            }
            readings.insert(path, meanings);
        }
    }
}

/// Reads the table; each value that cannot be read is noted and left out. `None` where
/// that does not help.
fn read_all(
    mut table: Table,
    mut readings: BTreeMap<String, Vec<Value>>,
    errors: &mut Vec<String>,
) -> Option<Config> {
    loop {
        let mut unknown = Vec::new();
        match read(&table, &mut unknown) {
            Ok(config) => {
                errors.extend(unknown.into_iter().map(|key| format!("{key}: unknown key")));
                return Some(config);
            }
            Err((path, message)) => {
                let other = readings.get_mut(&path).and_then(Vec::pop);
                if let Some(value) = other {
                    set(&mut table, &path, value);
                } else {
                    errors.push(format!("{path}: {message}"));
                    if !remove(&mut table, &path) {
                        return None;
                    }
                }
            }
        }
    }
}

fn read(table: &Table, unknown: &mut Vec<String>) -> Result<Config, (String, String)> {
    let mut track = serde_path_to_error::Track::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
    let from = serde_path_to_error::Deserializer::new(table.clone(), &mut track);
    let result = Config::deserialize(serde_ignored::Deserializer::new(from, &mut note));
    result.map_err(|error| (track.path().to_string(), unquoted(error.message().trim())))
}

/// What serde says of a value of a wrong kind, without the value: it may be a secret that is
/// written where a list or a section belongs.
fn unquoted(message: &str) -> String {
    let is_of_value = ["invalid type: ", "invalid value: "]
        .iter()
        .any(|begin| message.starts_with(begin));
    let quote = message.find(['"', '`']);
    match (quote, message.rfind(", expected ")) {
        (Some(quote), Some(expected)) if is_of_value && quote < expected => {
            format!("{}{}", message[..quote].trim_end(), &message[expected..])
        }
        _ => message.to_owned(),
    }
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

/// Sets the value at a path such as `rabbitmq.urls`; whether its sections are such.
pub(super) fn set(table: &mut Table, path: &str, value: Value) -> bool {
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
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("clickhouse.password: expected text, or { file"));
        let config = load_from("[postgres]\nurl = \"postgres://u:hunter2@h/d\"", env(&[])).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn the_environment_wins_over_its_file_layer_by_layer() {
        let dir = tempfile::tempdir().unwrap();
        let file = "PORT=1\nGIN_PORT=2\nHOLDFAST__DATA__DIR=file\nHOLDFAST__LOG__LEVEL=warn\nCLICKHOUSE_HOST=file\nPOSTGRES_HOST=file";
        std::fs::write(dir.path().join(".env.stage"), file).unwrap();
        let environment = [
            ("ENV", "STAGE"),
            ("PORT", "3"),
            ("CLICKHOUSE_HOST", ""),
            ("POSTGRES_HOST", "real"),
            ("HOLDFAST__DATA__DIR", "real"),
        ];
        let text = "[data]\ndir = \"text\"\n[log]\nlevel = \"debug\"";
        let config = load_in(dir.path(), text, env(&environment).collect()).unwrap();
        assert_eq!(config.grpc.listen.port(), 3);
        assert_eq!(config.http.listen.port(), 2);
        assert_eq!(config.data.dir, Path::new("real"));
        assert_eq!(config.log.level, "warn");
        assert_eq!(config.clickhouse.unwrap().url, "http://file:8123");
        assert_eq!(
            config.postgres.unwrap().url.expose(),
            "postgres://real:5432"
        );
        assert_eq!(config.origin.env_file, Some(".env.stage"));
        assert!(std::env::var_os("GIN_PORT").is_none(), "is no one else's");
        let notes = config.origin.notes();
        assert_eq!(notes.len(), 2);
        assert!(notes[1].ends_with(": PORT, GIN_PORT, CLICKHOUSE_HOST, POSTGRES_HOST"));
    }

    #[test]
    fn a_missing_file_of_variables_is_told_and_a_broken_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let production = || env(&[("ENV", "PRODUCTION"), ("PORT", "70000")]).collect();
        let missing = || env(&[("ENV", "PRODUCTION")]).collect();
        let config = load_in(dir.path(), "", missing()).unwrap();
        let notes = config.origin.notes();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].starts_with("ENV names .env.production, which is not there"));
        std::fs::write(dir.path().join(".env.production"), "A=1\nsecret word").unwrap();
        let Errors(errors) = load_in(dir.path(), "[colour]", production()).unwrap_err();
        assert_eq!(errors.len(), 3, "all at once: {errors:?}");
        assert!(errors[0].starts_with(".env.production: line 2: "));
        assert!(!errors.concat().contains("secret word"));
    }
}
