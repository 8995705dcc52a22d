//! What must hold of configurations, whatever is in them. Called by `crate::fuzzing` alone,
//! and compiled for it alone.

use super::dotenv::{self, DotEnv, Variables};
use super::load::{Errors, load_from};
use super::{Config, changed_keys};

/// A secret that nothing else has in it.
const SECRET: &str = "hunter2-hunter2";

/// Variables that hold it, whatever else is there.
const SECRETS: [&str; 5] = [
    "HOLDFAST__CLICKHOUSE__PASSWORD",
    "HOLDFAST__POSTGRES__URL",
    "HOLDFAST__WEBENGAGE__API_KEY",
    "RABBIT_PASSWORD",
    "HMAC_SECRET",
];

/// A configuration: TOML, and after a NUL variables, a line each.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (toml, lines) = text.split_once('\0').unwrap_or((text, ""));
    let variables: Variables = lines
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let load = || load_from(toml, variables.clone().into_iter());
    match (load(), load()) {
        (Ok(config), Ok(again)) => is_whole(&config, &again),
        (Err(Errors(errors)), Err(Errors(again))) => {
            assert_eq!(errors, again);
            assert!(!errors.is_empty() && errors.iter().all(|error| !error.is_empty()));
        }
        (one, other) => panic!("another each time: {one:?}, {other:?}"),
    }
    if text.contains("hunter2") {
        return;
    }
    let secrets = SECRETS.map(|name| (name.to_owned(), SECRET.to_owned()));
    let shown = match load_from(toml, variables.into_iter().chain(secrets)) {
        Ok(config) => format!("{config:?} {:?}", serde_json::to_string(&config)),
        Err(Errors(errors)) => errors.join("\n"),
    };
    assert!(!shown.contains("hunter2"), "a secret shows: {shown}");
}

/// What was taken can be worked with, and means what it meant the first time.
fn is_whole(config: &Config, again: &Config) {
    let changed = changed_keys(config, again).expect("its paths came as UTF-8");
    assert_eq!(changed, [""; 0]);
    let consumers = config.consumers();
    for consumer in &consumers {
        assert!(!consumer.queue.is_empty() && consumer.batch_rows > 0);
        assert!(consumer.workers > 0 && consumer.max_attempts > 0);
    }
    let notes = config.origin.notes().len() + config.origin.idle_notes().len();
    assert!(notes <= 3 + config.origin.idle_names.len());
}

/// A file of variables.
pub(crate) fn dotenv(data: &[u8]) {
    let mut read = DotEnv::default();
    dotenv::parse(data, ".env", &mut read);
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(read.variables.len() <= lines);
    assert!(read.variables.keys().all(|name| !name.is_empty()));
    assert!(
        read.errors.len() <= lines,
        "an error for each line is enough"
    );
    for error in &read.errors {
        // A number and nothing of the file.
        let rest = error.strip_prefix(".env: line ").expect("it names a line");
        let (number, reason) = rest.split_once(": ").expect("it says why");
        let number: usize = number.parse().expect("lines have numbers");
        assert!((1..=lines + 1).contains(&number), "{error}: of {lines}");
        let reasons = [
            "no UTF-8",
            "is no NAME=value, or its value needs single quotes",
        ];
        assert!(reasons.contains(&reason), "{error}");
    }
    let mut again = DotEnv::default();
    dotenv::parse(data, ".env", &mut again);
    assert_eq!(again.variables, read.variables);
}
