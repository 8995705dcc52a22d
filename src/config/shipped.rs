//! The consumers that ship: the contract's table as data. Called by `consumers`.
//!
//! # Invariants
//! - Queues, exchanges, keys, workers and error routes are what producers and
//!   operators in the field know; test `the_shipped_consumers_are_the_contract`.

use super::consumers::{Consumer, Handler, SinkKind};
use std::time::Duration;

/// Rows of a batch where nothing else is said: sinks take thousands at the price
/// of one, and a worker holds as many messages.
pub(super) const BATCH_ROWS: usize = 1000;
/// Age of a batch: what a row waits at most before it is written, when traffic is
/// thin. ClickHouse makes a part for each insert, so not much less.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// Rows of a batch of the small logs, as it always was.
const SMALL_BATCH_ROWS: usize = 100;
/// Calls are made one by one.
const CALLS: usize = 1;
/// Attempts for content that a sink refuses, as queues in the field expect.
const MAX_ATTEMPTS: u32 = 3;
/// Wait between attempts: long enough for a schema change to settle, short enough
/// that a refused message does not hold its place in the prefetch for long.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Workers where nothing else is said.
const WORKERS: usize = 2;

/// A consumer with the usual values.
pub(super) fn consumer(
    queue: &str,
    exchange: &str,
    keys: &[&str],
    handler: Handler,
    sink: SinkKind,
) -> Consumer {
    Consumer {
        queue: queue.to_owned(),
        exchange: exchange.to_owned(),
        keys: keys.iter().map(|&key| key.to_owned()).collect(),
        workers: WORKERS,
        batch_rows: BATCH_ROWS,
        batch_age: BATCH_AGE,
        error_exchange: exchange.to_owned(),
        error_key: format!("error.{queue}"),
        error_queue: format!("{queue}_error"),
        handler,
        sink,
        namespace: None,
        table: None,
        columns: Vec::new(),
        row_key: Vec::new(),
        max_attempts: MAX_ATTEMPTS,
        retry_delay: RETRY_DELAY,
        enabled: None,
    }
}

/// A topic exchange's keys for events. `Unknown.*` is bound beside `*`: there `*`
/// stands for one word, and a type that this build does not know has two.
const EVENT_KEYS: [&str; 2] = ["*", "Unknown.*"];

/// A topic exchange's keys for webhooks: `#` beside `*`, since a name that a
/// partner chose may hold dots.
const WEBHOOK_KEYS: [&str; 2] = ["*", "#"];

/// The shipped consumers, in the contract's order.
#[must_use]
pub(super) fn shipped() -> Vec<Consumer> {
    [events(), apps(), vendors(), logs()].concat()
}

/// A row of the table: what differs from the usual.
fn row(
    queue: &str,
    (exchange, keys): (&str, &[&str]),
    (error_exchange, error_key): (&str, &str),
    handler: Handler,
) -> Consumer {
    Consumer {
        error_exchange: error_exchange.to_owned(),
        error_key: error_key.to_owned(),
        ..consumer(queue, exchange, keys, handler, SinkKind::ClickHouse)
    }
}

fn events() -> Vec<Consumer> {
    let errors = "grpc_event_error.dx";
    let event = |queue, sink| Consumer {
        error_exchange: errors.to_owned(),
        ..consumer(queue, "grpc_event.tx", &EVENT_KEYS, Handler::Events, sink)
    };
    let refused = |queue, key, sink| consumer(queue, errors, &[key], Handler::ErrorEvents, sink);
    vec![
        Consumer {
            error_queue: "grpc_clickhouse_event_error_q".to_owned(),
            ..event("grpc_clickhouse_event_q", SinkKind::ClickHouse)
        },
        refused(
            "grpc_clickhouse_event_error_q",
            "error.grpc_clickhouse_event_q",
            SinkKind::ClickHouse,
        ),
        event("grpc_postgres_event_q", SinkKind::Postgres),
        refused(
            "grpc_postgres_event_q_error",
            "error.grpc_postgres_event_q",
            SinkKind::Postgres,
        ),
        row(
            "clickhouse_click_event_q",
            ("grpc_event.dx", &["CLICK"]),
            ("grpc_event.dx", "error.clickhouse_click_event_q"),
            Handler::Click,
        ),
    ]
}

fn apps() -> Vec<Consumer> {
    let errors = "event_error.dx";
    vec![
        row(
            "app_init_event_q",
            ("event.dx", &["APP_INIT"]),
            (errors, "error.app_init_event_q"),
            Handler::AppInit,
        ),
        row(
            "launch_refer_event_q",
            ("event.dx", &["LAUNCH_REFER_EVENT"]),
            (errors, "error.launch_refer_event_q"),
            Handler::LaunchRefer,
        ),
        row(
            "create_user_account_q",
            ("identity.dx", &["user.client.account.create"]),
            (errors, "error.create_user_account_q"),
            Handler::AccountCreated,
        ),
        row(
            "event.account_profile_complete",
            ("identity.dx", &["user.client.account.profile.completed"]),
            (errors, "error.event.account_profile_complete"),
            Handler::ProfileCompleted,
        ),
        row(
            "ab_assignments",
            ("ab.dx", &["ab_assignments"]),
            ("ab.dx", "error.ab_assignments"),
            Handler::AbAssignments,
        ),
    ]
}

fn vendors() -> Vec<Consumer> {
    let webengage = "webengage_event.dx";
    let calls = |queue: &str, workers, key, handler| Consumer {
        workers,
        batch_rows: CALLS,
        ..consumer(queue, webengage, &[key], handler, SinkKind::WebEngage)
    };
    let graphy = ("graphy_event_error.dx", "error.graphy_event_q");
    vec![
        row(
            "branch_event_q",
            ("branch_event.tx", &WEBHOOK_KEYS),
            ("branch_event_error.dx", "error.branch_event_q"),
            Handler::Branch,
        ),
        row(
            "graphy_event_q",
            ("graphy_event.tx", &WEBHOOK_KEYS),
            graphy,
            Handler::Graphy,
        ),
        // The calls of the one before, so that an API that is away delays no row.
        Consumer {
            batch_rows: CALLS,
            sink: SinkKind::WebEngage,
            ..row(
                "graphy_webengage_event_q",
                ("graphy_event.tx", &WEBHOOK_KEYS),
                (graphy.0, "error.graphy_webengage_event_q"),
                Handler::GraphyCall,
            )
        },
        Consumer {
            ..row(
                "shopify_events_q",
                ("shopify_event.dx", &["shopify_events"]),
                ("shopify_event.dx", "error.shopify_events_q"),
                Handler::Shopify,
            )
        },
        calls("webengage_event_q", 3, "EVENT", Handler::WebEngageCall),
        Consumer {
            workers: 5,
            ..row(
                "webengage_ch_event_q",
                (webengage, &["EVENT"]),
                (webengage, "error.webengage_ch_event_q"),
                Handler::WebEngageEvent,
            )
        },
        calls(
            "webengage_user_event_q",
            5,
            "USER_EVENT",
            Handler::WebEngageUserCall,
        ),
    ]
}

fn logs() -> Vec<Consumer> {
    let small = |consumer: Consumer| Consumer {
        batch_rows: SMALL_BATCH_ROWS,
        ..consumer
    };
    // Queue, key and error key of the scraper's logs are one word each.
    let beat = |queue: &str, workers, key: &str, error_key: &str, handler| Consumer {
        workers,
        ..row(queue, ("beat.dx", &[key]), ("beat.dx", error_key), handler)
    };
    vec![
        // On a direct exchange `*` is a key like any other: `trace_log` is bound, too.
        small(row(
            "trace_log",
            ("identity.dx", &["*", "trace_log"]),
            ("trace_log_event_error.dx", "error.trace_log_event_q"),
            Handler::TraceLog,
        )),
        small(row(
            "affiliate_orders_event_q",
            ("affiliate.dx", &["*"]),
            (
                "affiliate_orders_event_error.dx",
                "error.affiliate_orders_event_q",
            ),
            Handler::AffiliateOrder,
        )),
        small(row(
            "bigboss_votes_log_q",
            ("bigboss", &["*"]),
            ("bigboss", "error.big_boss_vote_log_q"),
            Handler::BigbossVote,
        )),
        beat(
            "post_log_events_q",
            20,
            "post_log_events",
            "error.post_log_events_q",
            Handler::PostLog,
        ),
        beat(
            "sentiment_log_events_q",
            2,
            "sentiment_log_events",
            "error.sentiment_log_events_q",
            Handler::SentimentLog,
        ),
        beat(
            "post_activity_log_events_q",
            2,
            "post_activity_log_events",
            "error.post_activity_log_events_q",
            Handler::PostActivityLog,
        ),
        beat(
            "profile_log_events_q",
            2,
            "profile_log_events",
            "error.profile_log_events_q",
            Handler::ProfileLog,
        ),
        beat(
            "profile_relationship_log_events_q",
            2,
            "profile_relationship_log_events",
            "error.profile_relationship_log_events",
            Handler::ProfileRelationshipLog,
        ),
        beat(
            "scrape_request_log_events_q",
            2,
            "scrape_request_log_events",
            "error.scrape_request_log_events_q",
            Handler::ScrapeRequestLog,
        ),
        beat(
            "order_log_events_q",
            2,
            "order_log_events",
            "error.order_log_events_q",
            Handler::OrderLog,
        ),
        beat(
            "post_log_events_q_bkp",
            5,
            "post_log_events_bkp",
            "error.post_log_events_q_bkp",
            Handler::PostLog,
        ),
        row(
            "activity_tracker_q",
            ("coffee.dx", &["activity_tracker_rk"]),
            ("coffee.dx", "error.activity_tracker"),
            Handler::PartnerActivity,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_consumers_are_the_contract() {
        let all = shipped();
        let contract = include_str!("contract_consumers.txt");
        let rows: Vec<_> = contract.lines().filter(|l| !l.starts_with('#')).collect();
        assert_eq!(rows.len(), 27);
        for row in &rows {
            let queue = row.split(" | ").next().unwrap();
            let found = all.iter().find(|consumer| consumer.queue == queue);
            let c = found.unwrap_or_else(|| panic!("no consumer of {queue}"));
            let is = [
                c.queue.clone(),
                c.exchange.clone(),
                c.keys.join(","),
                c.workers.to_string(),
                c.error_exchange.clone(),
                c.error_key.clone(),
                c.error_queue.clone(),
                format!("{:?}", c.handler),
                c.batch_rows.to_string(),
            ];
            assert_eq!(is.join(" | "), *row);
        }
        // Of the contract's 26 consumers, "80 in all".
        let workers: usize = rows[..26]
            .iter()
            .map(|row| row.split(" | ").nth(3).unwrap().parse::<usize>().unwrap())
            .sum();
        assert_eq!(workers, 80);
        // Beside them: the error events of Postgres, and Graphy's calls.
        assert_eq!(all.len(), rows.len() + 2);
    }

    #[test]
    fn the_readme_lists_every_consumer() {
        let readme = include_str!("../../README.md");
        for c in shipped() {
            let keys: Vec<_> = c.keys.iter().map(|key| format!("`{key}`")).collect();
            let begin = format!("| `{}` | `{}`: {} |", c.queue, c.exchange, keys.join(", "));
            let end = format!("| `{}` |", c.error_queue);
            let row = readme.lines().find(|line| line.starts_with(&begin));
            assert!(
                row.is_some_and(|row| row.ends_with(&end)),
                "{begin} … {end}"
            );
        }
    }
}
