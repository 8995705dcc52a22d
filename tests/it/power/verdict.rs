//! What a proof found. A value and not a panic, so that the negative controls can tell
//! a proof that fails for the right reason from one that merely fails.

use serde::Deserialize;
use std::fmt;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum Fault {
    /// An acknowledgement began to leave before the sync of its bytes had returned.
    AckBeforeSync,
    /// An acknowledgement began to leave before the names of its file were synced.
    AckBeforeName,
    /// An acknowledged record is in no journal and not delivered.
    AckedLost,
    /// A record before the saved cursor has no row: it will never be delivered.
    SkippedByCursor,
    /// A record was not delivered in the recorded life itself, whose cursor is at the end.
    NeverDelivered,
    /// A record at or after the saved cursor is gone, though its row is there.
    DeletedBeforeSave,
    /// A record was served that nobody sent, or with other bytes, or twice.
    Foreign,
    /// The journal did not open, or did not serve what it holds.
    NotServed,
    /// The journal reported a loss.
    LossReported,
    /// The ledger does not say what became of the records.
    LedgerWrong,
}

/// One finding: what, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub fault: Fault,
    pub text: String,
}

impl Finding {
    pub fn new(fault: Fault, text: impl Into<String>) -> Self {
        Self {
            fault,
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.fault, self.text)
    }
}

/// The outcome of a proof: how much was checked, and what was wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub checked: usize,
    pub findings: Vec<Finding>,
}

/// Findings that a failed assertion shows.
const SHOWN_MAX: usize = 20;

impl Verdict {
    pub fn holds(&self) -> bool {
        self.findings.is_empty()
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.findings.iter().any(|finding| finding.fault == fault)
    }

    #[track_caller]
    pub fn assert_holds(&self, what: &str) {
        assert!(self.holds(), "{what}: {self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} checked, {} wrong", self.checked, self.findings.len())?;
        for finding in self.findings.iter().take(SHOWN_MAX) {
            write!(f, "\n  {finding}")?;
        }
        Ok(())
    }
}
