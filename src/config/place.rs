//! Where the data directory is, of a configuration that may be wrong. Called by `cli`, for
//! `reload`: a service must be reached, and say what is wrong, while its file is broken.
//!
//! # Invariants
//! - Of a configuration without mistakes it is what `load` says (test
//!   `the_directory_is_found_whatever_else_is_wrong`).

use super::Data;
use super::dotenv;
use super::load::{environment, load, set};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The one key that is looked for.
const KEY: &str = "data.dir";

/// The variable that wins over the file.
const VARIABLE: &str = "HOLDFAST__DATA__DIR";

/// The data directory that the file, if one is named, and variables set; whatever else is
/// wrong with them. The default where it cannot be found.
#[must_use]
pub fn data_dir(file: Option<&Path>) -> PathBuf {
    if let Ok(config) = load(file) {
        return config.data.dir;
    }
    let text = file.and_then(|path| std::fs::read_to_string(path).ok());
    let environment = environment();
    let below = dotenv::read(Path::new(""), environment.get("ENV").map(String::as_str));
    let variable = environment.get(VARIABLE).or(below.variables.get(VARIABLE));
    dir_in(&text.unwrap_or_default(), variable.map(String::as_str))
}

fn dir_in(text: &str, variable: Option<&str>) -> PathBuf {
    // No TOML at all: its section may still be some.
    let table = text.parse::<Table>().or_else(|_| section(text).parse());
    let mut table = table.unwrap_or_default();
    if let Some(dir) = variable {
        set(&mut table, KEY, Value::String(dir.to_owned()));
    }
    let data = table.get("data").and_then(Value::as_table);
    let dir = data
        .and_then(|data| data.get("dir"))
        .and_then(Value::as_str);
    dir.map_or_else(|| Data::default().dir, PathBuf::from)
}

/// The lines of `[data]`, as far as its key goes.
fn section(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let mut lines = lines.skip_while(|line| !is_head(line));
    let head = lines.next().unwrap_or_default();
    let key = lines
        .take_while(|line| !line.starts_with('['))
        .find(|line| {
            line.split('=')
                .next()
                .is_some_and(|key| key.trim() == "dir")
        });
    format!("{head}\n{}", key.unwrap_or_default())
}

fn is_head(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default();
    let name = line
        .trim()
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    name.is_some_and(|name| name.trim() == "data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_found_whatever_else_is_wrong() {
        let default = Data::default().dir;
        for (text, wanted) in [
            ("", default.as_path()),
            ("[data]\ndir = \"/a\"", Path::new("/a")),
            ("[data]\ndir = \"/a\"\n[nonsense]\na = 1", Path::new("/a")),
            ("data.dir = '/a'\n[grpc]\nlisten = 5", Path::new("/a")),
            (
                "[grpc\n[data] # here\ncolour = red\n dir = '/a' # there\n[log]\ndir = 3",
                Path::new("/a"),
            ),
            (
                "[log]\ndir = \"/b\"\nlevel =\n[data]\n[grpc]\ndir = '/c'",
                default.as_path(),
            ),
            ("[data]\ndir = 5", default.as_path()),
            ("[data]\ndir = \"/a\n", default.as_path()),
        ] {
            assert_eq!(dir_in(text, None), wanted, "{text}");
            assert_eq!(dir_in(text, Some("/v")), Path::new("/v"), "{text}");
            if let Ok(config) = super::super::load_from(text, std::iter::empty()) {
                assert_eq!(config.data.dir, wanted, "{text}");
            }
        }
    }

    #[test]
    fn a_broken_file_is_read_for_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("holdfast.toml");
        assert_eq!(data_dir(Some(&file)), Data::default().dir, "is not there");
        std::fs::write(&file, "[data]\ndir = \"/a\"\n[log]\nlevel = \n").unwrap();
        assert_eq!(data_dir(Some(&file)), Path::new("/a"));
        std::fs::write(&file, "[data]\ndir = \"/b\"\n[log]\nlevel = \"warn\"\n").unwrap();
        assert_eq!(data_dir(Some(&file)), Path::new("/b"));
    }
}
