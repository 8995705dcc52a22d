//! Where values came from that no TOML file shows: what the start and `check-config` tell
//! an operator. Filled by `load`, read by `cli`.
//!
//! # Invariants
//! - Names alone, since values may be secrets (test `secrets_of_older_names_do_not_show`).

use std::collections::BTreeMap;

/// Where values came from that the TOML file does not show. Names only: values may be
/// secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file of variables that was read.
    pub env_file: Option<&'static str>,
    /// The file of variables that `ENV` names, if it is not there.
    pub env_file_missing: Option<&'static str>,
    /// The older names that took effect.
    pub older_names: Vec<&'static str>,
    /// The older names that are set and do nothing here, each with the reason.
    pub idle_names: Vec<(&'static str, &'static str)>,
}

impl Origin {
    /// What an operator should know, a line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let read = self
            .env_file
            .map(|file| format!("variables read from {file}"));
        let missing = self.env_file_missing.map(|file| {
            format!("ENV names {file}, which is not there: variables are those of the environment")
        });
        let names = (!self.older_names.is_empty()).then(|| {
            let names = self.older_names.join(", ");
            format!("older environment names that took effect: {names}")
        });
        [read, missing, names].into_iter().flatten().collect()
    }

    /// The names that need not be set, a line for each reason.
    #[must_use]
    pub fn idle_notes(&self) -> Vec<String> {
        let mut reasons: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, reason) in &self.idle_names {
            reasons.entry(reason).or_default().push(*name);
        }
        let note = |(reason, names): (_, Vec<_>)| {
            let names = names.join(", ");
            format!("older environment names without effect: {names}: {reason}")
        };
        reasons.into_iter().map(note).collect()
    }
}
