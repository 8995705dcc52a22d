//! What a ClickHouse error means for a batch: the fault of its rows, or not.
//! Called by `write`; pure.
//!
//! # Invariants
//! - Only what names the content of rows is a refusal: a wrong refusal costs rows
//!   their place in the table, a wrong "unavailable" only time, and stalls the
//!   queue visibly. Tests: `tests` below, `clickhouse_refuses_only_content` in
//!   tests/it/sinks.

use clickhouse::error::Error;

use super::server::told;
use crate::sink::WriteError;
use crate::sink::convert::{overloaded, refused, unavailable};

/// Codes that are about the text of values: they did not parse or convert, are out
/// of the column's range, or break a constraint of the table.
///
/// Left out on purpose, although they sound alike:
/// 16 `NO_SUCH_COLUMN_IN_TABLE`, 20, 43, 44, 60, 81, 115: the table or the server is
/// not as we think, and `schema apply` heals it;
/// 33 `CANNOT_READ_ALL_DATA`, 40 `CHECKSUM_DOESNT_MATCH`, 271 `CANNOT_DECOMPRESS`: we
/// send whole rows, so the transfer broke;
/// 62 `SYNTAX_ERROR`: the statement is ours, not the row's;
/// 158, 201, 241, 243, 290, 307, 1016 and other limits: there will be room later;
/// 395 `FUNCTION_THROW_IF_VALUE_IS_NON_ZERO`: only a view of the operator's throws it;
/// 565 `TOO_MANY_PARTITIONS`: said of reading;
/// 1001, 1002, 49: unknown, thus not the rows'.
const ABOUT_CONTENT: &[u32] = &[
    6,   // CANNOT_PARSE_TEXT
    19,  // SIZE_OF_FIXED_STRING_DOESNT_MATCH
    25,  // CANNOT_PARSE_ESCAPE_SEQUENCE
    26,  // CANNOT_PARSE_QUOTED_STRING
    27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    38,  // CANNOT_PARSE_DATE
    41,  // CANNOT_PARSE_DATETIME
    53,  // TYPE_MISMATCH
    69,  // ARGUMENT_OUT_OF_BOUND
    70,  // CANNOT_CONVERT_TYPE
    72,  // CANNOT_PARSE_NUMBER
    117, // INCORRECT_DATA; native JSON says it of duplicate paths, depth, non-objects
    128, // TOO_LARGE_ARRAY_SIZE
    130, // CANNOT_READ_ARRAY_FROM_TEXT
    131, // TOO_LARGE_STRING_SIZE
    190, // SIZES_OF_ARRAYS_DONT_MATCH
    306, // TOO_DEEP_RECURSION; our statement is flat, so a value is deep
    321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    376, // CANNOT_PARSE_UUID
    407, // DECIMAL_OVERFLOW
    441, // CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING
    467, // CANNOT_PARSE_BOOL
    469, // VIOLATED_CONSTRAINT
    563, // CANNOT_READ_MAP_FROM_TEXT
    632, // UNEXPECTED_DATA_AFTER_PARSED_VALUE
    645, // NUMBER_OF_DIMENSIONS_MISMATCHED
    675, // CANNOT_PARSE_IPV4
    676, // CANNOT_PARSE_IPV6
    691, // UNKNOWN_ELEMENT_OF_ENUM
];

/// `TOO_MANY_PARTS`: of a table under load (wait), or of one insert that touches too
/// many months (split it).
const TOO_MANY_PARTS: u32 = 252;

/// Codes of a server that is well but has too much to do: `TOO_MANY_PARTS`,
/// `TOO_MANY_SIMULTANEOUS_QUERIES`, `MEMORY_LIMIT_EXCEEDED`.
const OVERLOADED: &[u32] = &[TOO_MANY_PARTS, 202, 241];

/// Codes of a server that may have taken the same rows as JSON, beside those about content:
/// it found the end elsewhere, has not got the format, or does not let this user have its
/// settings.
const ABOUT_FORMAT: &[u32] = &[
    32,  // ATTEMPT_TO_READ_AFTER_EOF
    33,  // CANNOT_READ_ALL_DATA
    48,  // NOT_IMPLEMENTED
    73,  // UNKNOWN_FORMAT
    115, // UNKNOWN_SETTING
    452, // SETTING_CONSTRAINT_VIOLATION
];

/// Whether an insert of binary rows failed so that the same rows as JSON are to decide: the
/// server says what it does not like of a value in the words of its text then.
pub(super) fn leaves_it_to_json(error: &Error) -> bool {
    match error {
        Error::BadResponse(answer) => {
            let is_format = |code| ABOUT_FORMAT.contains(&code) && !is_of_a_view(answer);
            is_about_content(answer) || code(answer).is_some_and(is_format)
        }
        _ => false,
    }
}

/// What an error of an insert means for its batch.
pub(super) fn of(error: &Error) -> WriteError {
    let text = told(error);
    match error {
        Error::BadResponse(answer) if is_about_content(answer) => refused(&text),
        Error::BadResponse(answer) if code(answer).is_some_and(|c| OVERLOADED.contains(&c)) => {
            overloaded(&text)
        }
        // Everything else is the network, a timeout, a proxy or our client.
        _ => unavailable(&text),
    }
}

/// Whether the server's answer blames the rows.
fn is_about_content(answer: &str) -> bool {
    // The rows are in the table already, and the view is the operator's to mend.
    if is_of_a_view(answer) {
        return false;
    }
    match code(answer) {
        Some(TOO_MANY_PARTS) => answer.contains("partitions for single INSERT block"),
        Some(code) => ABOUT_CONTENT.contains(&code),
        // A proxy with a limit on bodies: smaller batches get through.
        None => {
            answer.contains("413 Payload Too Large")
                || answer.contains("413 Request Entity Too Large")
        }
    }
}

fn is_of_a_view(answer: &str) -> bool {
    answer.contains("while pushing to view")
}

/// The number in `Code: 60. DB::Exception: …`, with or without what follows it.
pub(super) fn code(answer: &str) -> Option<u32> {
    let rest = answer.trim_start().strip_prefix("Code: ")?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(answer: &str) -> bool {
        !of(&Error::BadResponse(answer.to_owned())).is_retryable()
    }

    #[test]
    fn content_is_refused() {
        for code in ABOUT_CONTENT {
            assert!(
                is_refused(&format!("Code: {code}. DB::Exception: x: (at row 1)")),
                "{code}"
            );
        }
        assert!(is_refused(
            "Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100). …"
        ));
        assert!(is_refused("413 Payload Too Large"));
        assert!(is_refused(
            "<html><head><title>413 Request Entity Too Large</title>"
        ));
    }

    #[test]
    fn too_much_to_do_is_told_apart() {
        let is_overloaded = |answer: &str| {
            let error = of(&Error::BadResponse(answer.to_owned()));
            matches!(
                error,
                WriteError::Unavailable {
                    overloaded: true,
                    ..
                }
            )
        };
        assert!(is_overloaded(
            "Code: 252. DB::Exception: Too many parts (3000). Merges are slower than inserts."
        ));
        assert!(is_overloaded(
            "Code: 202. DB::Exception: Too many simultaneous queries."
        ));
        assert!(!is_overloaded("Code: 60. DB::Exception: no table"));
        assert!(!is_overloaded("502 Bad Gateway"));
    }

    #[test]
    fn everything_else_waits() {
        let codes = [
            1, 3, 16, 20, 33, 36, 40, 43, 44, 48, 49, 60, 62, 81, 115, 158, 159, 164, 173, 201,
            202, 209, 210, 225, 241, 242, 243, 252, 271, 290, 307, 319, 394, 395, 432, 452, 497,
            516, 565, 999, 1000, 1001, 1002,
        ];
        for code in codes {
            assert!(
                !is_refused(&format!("Code: {code}. DB::Exception: something")),
                "{code}"
            );
        }
        assert!(!is_refused(
            "Code: 252. DB::Exception: Too many parts (3000). Merges are slower than inserts."
        ));
        assert!(!is_refused(
            "Code: 117. DB::Exception: bad: while pushing to view `a`.`b`. (INCORRECT_DATA)"
        ));
        assert!(!is_refused("502 Bad Gateway"));
        assert!(!is_refused("<html>Code: 27</html>"));
        assert!(!is_refused(""));
        assert!(of(&Error::TimedOut).is_retryable());
        assert!(of(&Error::Network("connection refused".into())).is_retryable());
    }

    #[test]
    fn json_decides_what_may_be_the_formats_fault() {
        let leaves = |answer: &str| leaves_it_to_json(&Error::BadResponse(answer.to_owned()));
        for code in ABOUT_CONTENT.iter().chain(ABOUT_FORMAT) {
            assert!(leaves(&format!("Code: {code}. DB::Exception: x")), "{code}");
        }
        for code in [16, 60, 202, 241, 252, 516, 999] {
            assert!(
                !leaves(&format!("Code: {code}. DB::Exception: x")),
                "{code}"
            );
        }
        // It would be in the table twice for the views that took it.
        assert!(!leaves(
            "Code: 33. DB::Exception: bad: while pushing to view `a`.`b`. (CANNOT_READ_ALL_DATA)"
        ));
        assert!(!leaves("502 Bad Gateway"));
        assert!(!leaves_it_to_json(&Error::TimedOut));
    }

    #[test]
    fn codes_are_read_with_and_without_text() {
        assert_eq!(code("Code: 60. DB::Exception: no"), Some(60));
        assert_eq!(code("Code: 241"), Some(241));
        assert_eq!(code("Code: x"), None);
        assert_eq!(code("503 Service Unavailable"), None);
    }
}
