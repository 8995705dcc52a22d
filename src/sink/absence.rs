//! What kind of absence a sink's words tell of: one line in the log for each kind is enough
//! while it lasts. Pure; called by `consume` and `app`.
//!
//! # Invariants
//! - The kinds of one outage are few, whatever is asked of the sink meanwhile: a server that
//!   is killed, out of reach, or comes up is simply away (test `an_outage_is_of_one_kind`).
//! - What an operator mends in another way is of another kind: a refused login, a full disk,
//!   a table that is missing (test `what_is_mended_otherwise_is_of_another_kind`).

/// ClickHouse's codes that are about one table: `NO_SUCH_COLUMN_IN_TABLE`,
/// `NUMBER_OF_COLUMNS_DOESNT_MATCH`, `UNKNOWN_TABLE`, `TABLE_IS_READ_ONLY`, `ACCESS_DENIED`.
const ABOUT_A_TABLE: [&str; 5] = ["16", "20", "60", "242", "497"];

/// What sqlx puts before the words of a Postgres that refuses a connection.
const REFUSED_BY_POSTGRES: &str = "error returned from database: ";

/// The kind; `about` names the table that was written, or what else was asked.
#[must_use]
pub fn kind(reason: &str, overloaded: bool, about: &str) -> String {
    if overloaded {
        return "overloaded".to_owned();
    }
    if let Some(code) = clickhouse_code(reason) {
        let is_of_table = ABOUT_A_TABLE.contains(&code);
        return named(code, is_of_table, about);
    }
    match sql_state(reason) {
        // It ends or starts, and the connections' own errors.
        Some(code) if code.starts_with("57") || code.starts_with("08") => {}
        Some(code) => return named(code, code.starts_with("42"), about),
        None => {}
    }
    if let Some((_, said)) = reason.split_once(REFUSED_BY_POSTGRES)
        && !said.starts_with("the database system is")
        && !said.starts_with("terminating connection")
    {
        return "refused".to_owned();
    }
    "away".to_owned()
}

fn named(code: &str, is_of_table: bool, about: &str) -> String {
    if is_of_table {
        format!("{code} {about}")
    } else {
        code.to_owned()
    }
}

/// The number in `Code: 60. DB::Exception: …`.
fn clickhouse_code(reason: &str) -> Option<&str> {
    let (_, rest) = reason.split_once("Code: ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    Some(&rest[..end.unwrap_or(rest.len())]).filter(|code| !code.is_empty())
}

/// The SQLSTATE that Postgres' errors begin with.
fn sql_state(reason: &str) -> Option<&str> {
    let (code, _) = reason.split_once(": ")?;
    let is_one = code.len() == 5
        && code
            .chars()
            .all(|c| c.is_ascii_digit() || c.is_ascii_uppercase());
    is_one.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_of_one_kind() {
        for reason in [
            "network error: connection refused",
            "no answer within 30s",
            "502 Bad Gateway",
            "webengage answered 503: {}",
            "57P01: terminating connection due to administrator command",
            "error returned from database: the database system is starting up",
            "error communicating with database: Connection refused",
            "",
        ] {
            assert_eq!(kind(reason, false, "t"), "away", "{reason}");
        }
        for table in ["a", "b"] {
            assert_eq!(
                kind("Code: 241. DB::Exception: x", true, table),
                "overloaded"
            );
            assert_eq!(kind("Code: 243. DB::Exception: x", false, table), "243");
        }
    }

    #[test]
    fn what_is_mended_otherwise_is_of_another_kind() {
        let reasons = [
            "network error: connection refused",
            "bad response: Code: 516. DB::Exception: Authentication failed",
            "bad response: Code: 60. DB::Exception: no table",
            "error returned from database: password authentication failed for user \"x\"",
            "42P01: relation does not exist",
            "53100: disk full",
        ];
        let kinds: std::collections::BTreeSet<_> =
            reasons.map(|reason| kind(reason, false, "t")).into();
        assert_eq!(kinds.len(), reasons.len(), "{kinds:?}");
        let missing = |table| kind("Code: 60. DB::Exception: no table", false, table);
        assert_ne!(missing("a"), missing("b"), "each is to be made");
    }
}
