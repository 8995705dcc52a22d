//! What must hold of the rows that a handler makes. Called by `messages` and `webhooks`.

use crate::config::{Consumer, Handler, load_from};
use crate::consume::handlers::{self, Context, Input, Item};
use crate::sink::Value;
use crate::sink::schema::Table;
use serde::de::IgnoredAny;
use std::sync::LazyLock;

/// All handlers, with the table that each fills.
pub(super) static HANDLERS: LazyLock<Vec<(Handler, &'static Table)>> = LazyLock::new(|| {
    let text = r#"
        [rabbitmq]
        urls = ["amqp://localhost"]
        [clickhouse]
        url = "http://localhost"
        [[consumer]]
        queue = "visits_q"
        exchange = "visits.tx"
        keys = ["*"]
        handler = "flat_json"
        sink = "clickhouse"
        table = "visits"
        columns = { id = "text", at = "time", count = "int?", note = "text?" }
        row_key = ["id"]
    "#;
    let config = load_from(text, std::iter::empty()).expect("the configuration is right");
    let own = config.consumers();
    let own = own.iter().filter(|own| own.handler == Handler::FlatJson);
    let own = own.map(|own: &Consumer| (own.handler, handlers::table_of(own)));
    let shipped = SHIPPED.into_iter();
    shipped
        .filter_map(|handler| Some((handler, handlers::table(handler)?)))
        .chain(own)
        .collect()
});

const SHIPPED: [Handler; 26] = [
    Handler::Events,
    Handler::ErrorEvents,
    Handler::Click,
    Handler::AppInit,
    Handler::LaunchRefer,
    Handler::AccountCreated,
    Handler::ProfileCompleted,
    Handler::AbAssignments,
    Handler::Branch,
    Handler::Graphy,
    Handler::GraphyCall,
    Handler::TraceLog,
    Handler::AffiliateOrder,
    Handler::BigbossVote,
    Handler::PostLog,
    Handler::SentimentLog,
    Handler::PostActivityLog,
    Handler::ProfileLog,
    Handler::ProfileRelationshipLog,
    Handler::ScrapeRequestLog,
    Handler::OrderLog,
    Handler::Shopify,
    Handler::WebEngageCall,
    Handler::WebEngageEvent,
    Handler::WebEngageUserCall,
    Handler::PartnerActivity,
];

/// Runs a handler, which must make rows of its table or say why not, and the same of the
/// same message; how many rows and refusals.
pub(super) fn run(
    handler: Handler,
    table: &'static Table,
    input: &Input<'_>,
) -> Result<usize, String> {
    let run = || handlers::run(handler, table, input, &Context::default(), super::NOW_MS);
    let made = run();
    match &made {
        Err(reason) => assert!(!reason.is_empty(), "{handler:?} does not say why"),
        Ok(items) => check(table, items),
    }
    let again = run();
    assert_eq!(plain(&made), plain(&again), "{handler:?}");
    made.map(|items| items.len())
}

/// What can be compared: as text, since some numbers are not equal to themselves, and with
/// the entries of JSON objects in order, since a protobuf map has none.
fn plain(made: &Result<Vec<Item>, String>) -> Result<Vec<String>, &String> {
    let value = |value: &Value| match value {
        Value::Json(text) => {
            let mut read: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            read.sort_all_objects();
            read.to_string()
        }
        other => format!("{other:?}"),
    };
    let item = |item: &Item| match item {
        Ok(new) => {
            let values: Vec<_> = new.row.values.iter().map(value).collect();
            format!("{} {values:?}", new.id)
        }
        Err(reason) => reason.clone(),
    };
    made.as_ref().map(|items| items.iter().map(item).collect())
}

/// Every row fits its table.
pub(super) fn check(table: &Table, items: &[Item]) {
    for item in items {
        let new = match item {
            Ok(new) => new,
            Err(reason) => {
                assert!(!reason.is_empty(), "{} does not say why", table.name);
                continue;
            }
        };
        assert!(!new.id.is_empty(), "a row of {} has no id", table.name);
        let values = &new.row.values;
        assert_eq!(values.len(), table.columns.len(), "{}", table.name);
        for (value, column) in values.iter().zip(table.columns) {
            let name = format!("{}.{}", table.name, column.name);
            match value {
                Value::Null => assert!(column.nullable, "{name} is no column for NULL"),
                Value::Json(text) => {
                    let read = serde_json::from_str::<IgnoredAny>(text);
                    assert!(read.is_ok(), "{name} is no JSON: {text}");
                }
                _ => {}
            }
        }
    }
}
