//! What a Postgres error means for a batch: the fault of its rows, or not. Called by
//! `write`; pure.
//!
//! # Invariants
//! - Only what names the content of rows is a refusal: a wrong refusal costs rows
//!   their place in the table, a wrong "unavailable" only time, and stalls the queue
//!   visibly. Tests: `tests` below, `postgres_refuses_only_content` in tests/it/sinks.

use sqlx::postgres::PgDatabaseError;

use crate::sink::WriteError;
use crate::sink::convert::{refused, unavailable};
use crate::sink::schema::Table;

/// What an error of a statement that inserts rows means for its batch. Errors of
/// connecting are never the rows' and do not come here.
pub(super) fn of(error: &sqlx::Error, table: &Table) -> WriteError {
    match error {
        sqlx::Error::Database(inner) => {
            let code = inner.code().unwrap_or_default();
            let text = format!("{code}: {}", inner.message());
            let told = inner.try_downcast_ref::<PgDatabaseError>();
            let column = told.and_then(PgDatabaseError::column);
            let is_ours = column.is_none_or(|name| table.columns.iter().any(|c| c.name == name));
            if is_about_content(&code, inner.constraint(), is_ours) {
                refused(&text)
            } else {
                unavailable(&text)
            }
        }
        // A value that the protocol has no form for.
        sqlx::Error::Encode(_) => refused(&error.to_string()),
        _ => unavailable(&text(error)),
    }
}

/// What went wrong, in words that help an operator.
pub(super) fn text(error: &sqlx::Error) -> String {
    match error {
        // The pool keeps the reason to itself while it tries again and again.
        sqlx::Error::PoolTimedOut => {
            "no connection in time: the server is down or out of reach, or all connections are busy"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// Whether an SQLSTATE blames the rows.
///
/// - 22 data exception: too long (22001), NUL (22021), `\u0000` in JSON (22P05), no
///   JSON (22P02), out of range (22003, 22008): refused.
/// - 23 integrity constraint (not null, check, foreign key, exclusion): refused. Not
///   so 23514 without a constraint's name: the row has no partition, as the table lost its
///   default one, and is as good as any. The message says so, too, but in the server's language.
///   Nor 23502 of a column that is not ours: no row has anything for it.
/// - 54000 program limit (a jsonb string or an index entry too large) and 54001 stack
///   depth (JSON nested too deeply): our statement is the same for all rows, so it is
///   the row: refused. Other 54: too many columns or arguments, the table's shape.
/// - 08, 25 (read-only), 26, 28, 3D, 3F, 40 (deadlock), 42 (missing table, column,
///   right), 53 (full), 55, 57 (shutdown, timeout), 58, XX: not the rows'.
/// - 42804 and 42846 (column of another type, no cast): the table differs from the
///   schema, for every row alike: not the rows'.
/// - 21000 (cardinality), P0001 and 38, 39 (a trigger's own errors): only operators'
///   triggers and rules raise them, and may do so to stop all writes: not the rows'.
fn is_about_content(code: &str, constraint: Option<&str>, is_our_column: bool) -> bool {
    match code {
        "23502" => is_our_column,
        "23514" => constraint.is_some(),
        "54000" | "54001" => true,
        _ => code.starts_with("22") || code.starts_with("23"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::schema::EVENTS;

    #[test]
    fn content_is_refused() {
        for code in [
            "22001", "22003", "22008", "22021", "22P02", "22P05", "23502", "23503", "23505",
            "23514", "23P01", "54000", "54001",
        ] {
            assert!(is_about_content(code, Some("calm"), true), "{code}");
            let needs_no_name = code != "23514";
            assert_eq!(is_about_content(code, None, true), needs_no_name, "{code}");
        }
        assert!(!of(&sqlx::Error::Encode("too big".into()), &EVENTS).is_retryable());
    }

    #[test]
    fn everything_else_waits() {
        for code in [
            "", "08006", "0A000", "21000", "25006", "26000", "28P01", "38000", "3D000", "3F000",
            "40001", "40P01", "42501", "42703", "42804", "42846", "42P01", "53100", "53200",
            "53300", "54011", "54023", "55006", "55P03", "57014", "57P01", "57P03", "58030",
            "P0001", "XX000", "XX001",
        ] {
            assert!(!is_about_content(code, None, true), "{code}");
        }
        assert!(
            !is_about_content("23514", None, true),
            "no partition for it"
        );
        assert!(
            !is_about_content("23502", None, false),
            "a column of others"
        );
        let of = |error| of(&error, &EVENTS);
        assert!(of(sqlx::Error::PoolTimedOut).is_retryable());
        assert!(of(sqlx::Error::Io(std::io::Error::other("reset"))).is_retryable());
        assert!(of(sqlx::Error::Protocol("odd".into())).is_retryable());
    }
}
