//! The `.env` file of the working directory, which older deployments bring along. Called
//! by `load`.
//!
//! # Invariants
//! - No text of the file is in an error: any line may hold a secret (test
//!   `broken_lines_are_named_by_number_and_never_shown`).
//! - The process's own environment is not changed: variables go to the configuration, and
//!   to no library or child that reads the environment for itself.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// What the file of variables gave.
#[derive(Debug, Default)]
pub(super) struct DotEnv {
    /// Its variables; of a name that is there twice the last, as shells and systemd do it.
    pub(super) variables: Variables,
    /// The file, if it was there.
    pub(super) read: Option<&'static str>,
    /// The file, if `ENV` names it and it is not there.
    pub(super) missing: Option<&'static str>,
    /// What is wrong with it.
    pub(super) errors: Vec<String>,
}

/// The file that a value of `ENV` picks.
fn file_of(env: Option<&str>) -> &'static str {
    match env {
        Some("PRODUCTION") => ".env.production",
        Some("PRE_PRODUCTION") => ".env.pre_production",
        Some("STAGE") => ".env.stage",
        Some("LOCAL") => ".env.local",
        _ => ".env",
    }
}

/// Reads the file that `env` picks. One that is not there is no mistake: the variables
/// may come from systemd.
pub(super) fn read(dir: &Path, env: Option<&str>) -> DotEnv {
    let file = file_of(env);
    let mut result = DotEnv::default();
    match std::fs::read(dir.join(file)) {
        Ok(bytes) => {
            result.read = Some(file);
            parse(&bytes, file, &mut result);
        }
        // Python's virtual environments are directories of this name.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
            result.missing = (file != ".env").then_some(file);
        }
        Err(error) => result.errors.push(format!("{file}: {error}")),
    }
    result
}

pub(super) fn parse(bytes: &[u8], file: &str, result: &mut DotEnv) {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = valid.split(|byte| *byte == b'\n').count();
            result.errors.push(format!("{file}: line {line}: no UTF-8"));
            return;
        }
    };
    // The parser takes a blank at the very end for the begin of a second line.
    let text = format!("{}\n", text.trim_start_matches('\u{feff}'));
    let begun = Cell::new(0);
    let lines = Lines {
        rest: text.as_bytes(),
        at_begin: true,
        begun: &begun,
    };
    for item in dotenvy::from_read_iter(lines) {
        match item {
            Ok((name, value)) => {
                result.variables.insert(name, value);
            }
            Err(error) => {
                // The piece that failed ends in the line read last.
                let piece = match &error {
                    dotenvy::Error::LineParse(piece, _) => piece.lines().count(),
                    _ => 1,
                };
                let line = (begun.get() + 1).saturating_sub(piece.max(1));
                result.errors.push(format!(
                    "{file}: line {line}: is no NAME=value, or its value needs single quotes"
                ));
            }
        }
    }
}

/// Hands out a line at a time and counts them: the parser names no line in its errors.
struct Lines<'a> {
    rest: &'a [u8],
    at_begin: bool,
    begun: &'a Cell<usize>,
}

impl Read for Lines<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let line = end.map_or(self.rest.len(), |end| end + 1);
        let count = line.min(to.len());
        let (now, later) = self.rest.split_at(count);
        to[..count].copy_from_slice(now);
        if self.at_begin && count > 0 {
            self.begun.set(self.begun.get() + 1);
        }
        self.at_begin = now.ends_with(b"\n");
        self.rest = later;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> DotEnv {
        let mut result = DotEnv::default();
        parse(text, ".env", &mut result);
        result
    }

    #[test]
    fn files_in_the_field_are_read_as_shells_read_them() {
        let text = "\u{feff}# a comment\nA=1\nexport B = two\r\n\nC='a $b \\ #c'\nD=\"e\nf\" # more\nE=\nA=2\nF=x=y \t ";
        let result = parsed(text.as_bytes());
        assert_eq!(result.errors, [""; 0]);
        let expected = [
            ("A", "2"),
            ("B", "two"),
            ("C", "a $b \\ #c"),
            ("D", "e\nf"),
            ("E", ""),
            ("F", "x=y"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(result.variables, Variables::from(expected));
    }

    #[test]
    fn broken_lines_are_named_by_number_and_never_shown() {
        let long = "x".repeat(20_000);
        let text = format!(
            "A=1\n# one\nhunter2 hunter2\nB={long}\nC=hunter2 hunter2\nD='a\nb' hunter2\nE=e\nF='hunter2\n1\n2\n3"
        );
        let result = parsed(text.as_bytes());
        let lines: Vec<_> = result
            .errors
            .iter()
            .map(|error| error.split(": is no").next().unwrap_or_default())
            .collect();
        assert_eq!(
            lines,
            [
                ".env: line 3",
                ".env: line 5",
                ".env: line 6",
                ".env: line 9"
            ]
        );
        assert!(!result.errors.concat().contains("hunter2"));
        assert_eq!(result.variables.len(), 3, "the good lines count");
        assert_eq!(
            parsed(b"A=1\nB=\xff").errors,
            [".env: line 2: no UTF-8".to_owned()]
        );
    }

    #[test]
    fn env_picks_the_file_and_only_a_named_one_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        for (env, file, missing) in [
            (Some("PRODUCTION"), ".env.production", true),
            (Some("PRE_PRODUCTION"), ".env.pre_production", true),
            (Some("STAGE"), ".env.stage", true),
            (Some("LOCAL"), ".env.local", true),
            (Some("production"), ".env", false),
            (None, ".env", false),
        ] {
            let path = dir.path().join(file);
            let result = read(dir.path(), env);
            assert_eq!(result.missing, missing.then_some(file));
            assert!(result.read.is_none() && result.errors.is_empty());
            std::fs::write(&path, format!("FROM={file}")).unwrap();
            let result = read(dir.path(), env);
            assert_eq!((result.read, result.missing), (Some(file), None));
            assert_eq!(result.variables["FROM"], file);
            std::fs::remove_file(path).unwrap();
        }
        std::fs::create_dir(dir.path().join(".env")).unwrap();
        assert!(read(dir.path(), None).errors.is_empty());
        // A link to itself can be read by nobody, whoever runs the test.
        std::os::unix::fs::symlink(".env.stage", dir.path().join(".env.stage")).unwrap();
        let errors = read(dir.path(), Some("STAGE")).errors;
        assert!(errors[0].starts_with(".env.stage: "), "{errors:?}");
    }
}
