//! `holdfast::sink` against real servers: every value arrives as it was, a batch is
//! refused only for its content, all else is waited for within a bound, and what is
//! missing is made. Each test has its own database, schema or file; the servers are
//! shared (`Shared`), but for the one that is frozen.

mod bounds;
mod clickhouse;
mod clickhouse_forms;
mod limits;
mod looks;
mod postgres;
mod postgres_tables;
mod referrals;
mod rows;
mod sqlite;
mod tap;

use holdfast::sink::WriteError;

fn refused(result: Result<(), WriteError>) -> String {
    match result {
        Err(WriteError::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn unavailable(result: Result<(), WriteError>) -> String {
    match result {
        Err(WriteError::Unavailable { reason, .. }) => reason,
        other => panic!("not unavailable: {other:?}"),
    }
}
