//! The operator's commands, as the real binary.

use super::collector::binary;
use serde_json::Value as Json;
use std::process::Command;

/// Columns of an operator's terminal.
const COLUMNS: usize = 80;

/// What the binary said.
pub struct Said {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Said {
    pub fn text(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }

    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn lines(&self) -> Vec<Json> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// All lines of text fit the terminal.
    pub fn fits(&self) -> String {
        let text = self.text();
        assert!(!text.is_empty(), "{self:?}");
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        text
    }
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let out = String::from_utf8_lossy(&self.out);
        write!(f, "exit {}\n{out}\n{}", self.code, self.err)
    }
}

/// Runs `holdfast` with these words.
pub fn holdfast(words: &str) -> Said {
    let output = Command::new(binary())
        .args(words.split_whitespace())
        .env_remove("HOLDFAST_CONFIG")
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
