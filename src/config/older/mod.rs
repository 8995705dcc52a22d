//! The names that older deployments set in their environment and `.env`, as the lowest
//! layer of the configuration: they fill what nothing else has set. Called by `load`.
//!
//! # Invariants
//! - A section is switched on by its address alone, such as `RABBIT_HOST`: without it the
//!   other names of the section mean nothing (test
//!   `a_section_is_switched_on_by_its_address`).
//! - An exchange is renamed together with the consumers that are bound to it: events would
//!   go where nobody looks (test `a_renamed_exchange_takes_its_consumers_along`).
//! - Errors name the variable and never show its value (test
//!   `all_errors_name_their_variable_and_show_no_value`).

mod names;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod value_tests;
mod values;

use super::bindings::can_match;
use super::check::BATCH_ROWS_MAX;
use super::dotenv::Variables;
use super::shipped::shipped;
use super::webhooks::{Partner, Webhooks};
use super::{RabbitMq, load};
use names::{NAMES, Name, Rule};
use std::collections::BTreeMap;
use toml::{Table, Value};

/// What the older names did.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// The names that took effect, in the table's order.
    pub(super) names: Vec<&'static str>,
    /// Names that are set and do nothing here, with the reason.
    pub(super) idle: Vec<(&'static str, &'static str)>,
    /// Keys and sections that older names may have set, each with its name.
    by_key: BTreeMap<&'static str, &'static str>,
}

impl Filled {
    /// Adds the older name to an error about a key that only it can have set: an operator
    /// who wrote the one does not know the other.
    pub(super) fn explain(&self, error: String) -> String {
        let key = error.split(':').next().unwrap_or_default();
        match self.by_key.get(key) {
            Some(name) => format!("{name}: {error}"),
            None => error,
        }
    }
}

/// The variables that are set to something.
struct Given<'a>(&'a Variables);

impl Given<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(NAMES.iter().any(|known| known.name == name), "{name}");
        let value = self.0.get(name).map(String::as_str);
        value.filter(|value| !value.trim().is_empty())
    }

    fn is_active(&self, name: &Name) -> bool {
        name.needs.is_none_or(|needs| self.get(needs).is_some())
    }
}

/// Fills what the layers above have left open.
pub(super) fn fill(table: &mut Table, variables: &Variables, errors: &mut Vec<String>) -> Filled {
    let given = Given(variables);
    let mut filled = Filled::default();
    for name in NAMES.iter().filter(|name| given.is_active(name)) {
        if let Some(key) = name.rule.key() {
            if is_set(table, key) {
                // Nobody asks for it: it may be anything, since others use such names, too.
                continue;
            }
            filled.by_key.insert(key, name.name);
            let section = key.split('.').next().unwrap_or_default();
            if name.needs == Some(name.name) {
                filled.by_key.insert(section, name.name);
            }
        }
        let Some(value) = given.get(name.name) else {
            continue;
        };
        if let Rule::Nothing(reason) = name.rule {
            filled.idle.push((name.name, reason));
        }
        match apply(name, value, &given, table) {
            Ok(true) => filled.names.push(name.name),
            Ok(false) => {}
            Err(problems) => errors.extend(problems),
        }
    }
    // The parts of an address took effect where the address did.
    let keys: Vec<_> = NAMES
        .iter()
        .filter(|name| filled.names.contains(&name.name))
        .filter_map(|name| name.rule.address())
        .collect();
    filled.names = NAMES
        .iter()
        .filter(|name| {
            let is_part = matches!(name.rule, Rule::Part(key) if keys.contains(&key));
            (is_part && given.get(name.name).is_some()) || filled.names.contains(&name.name)
        })
        .map(|name| name.name)
        .collect();
    filled
}

/// Whether a name took effect.
fn apply(
    name: &Name,
    value: &str,
    given: &Given<'_>,
    table: &mut Table,
) -> Result<bool, Vec<String>> {
    let named = |problem: &str| vec![format!("{}: {problem}", name.name)];
    match name.rule {
        Rule::Key(key, read) => {
            let value = read(value).map_err(named)?;
            Ok(value.is_some_and(|value| set_default(table, key, value)))
        }
        Rule::Address(key, read) => {
            let url = read(&|name| given.get(name).map(str::to_owned))?;
            Ok(set_default(table, key, url))
        }
        Rule::Databases => {
            let Some(list) = values::list(value).map_err(named)? else {
                return Ok(false);
            };
            let first = list.get(0).cloned();
            // Where a default database is named, it is set by now.
            if let Some(first) = first {
                set_default(table, "clickhouse.database", first);
            }
            Ok(set_default(table, "clickhouse.databases", list))
        }
        Rule::Exchange(key, partner) => rename(table, key, partner, value).map_err(|p| named(&p)),
        Rule::BatchRows => {
            let rows = values::count(value).map_err(named)?;
            // 0 is what a host without the variable had, and is no size of a batch.
            if rows == 0 {
                return Ok(false);
            }
            let rows = rows.min(BATCH_ROWS_MAX as u64);
            let rows = Value::Integer(i64::try_from(rows).unwrap_or(i64::MAX));
            let filled = names::SCRAPE_QUEUES
                .map(|queue| set_consumer_default(table, queue, "batch_rows", rows.clone()));
            Ok(filled.contains(&true))
        }
        Rule::SentryEnvironment => {
            // Where errors are reported is nothing that `ENV` switches on.
            let is_configured = table.get("sentry").is_some_and(Value::is_table);
            let value = Value::String(value.trim().to_lowercase());
            Ok(is_configured && set_default(table, "sentry.environment", value))
        }
        Rule::Part(_) | Rule::Nothing(_) => Ok(false),
    }
}

/// Renames an exchange, and binds the shipped consumers of the usual one to it.
fn rename(
    table: &mut Table,
    key: &str,
    partner: Option<Partner>,
    exchange: &str,
) -> Result<bool, String> {
    let usual = match partner {
        None => RabbitMq::default().exchange,
        Some(partner) => Webhooks::default().exchange(partner).to_owned(),
    };
    let followers = shipped();
    let followers = followers.iter().filter(|c| c.exchange == usual);
    for consumer in followers.filter(|_| exchange != usual) {
        let queue = &consumer.queue;
        let has_own = |key| consumer_entry(table, queue).is_some_and(|own| own.contains_key(key));
        let can_follow = consumer.keys.iter().all(|key| can_match(exchange, key));
        if !can_follow && !has_own("exchange") && !has_own("keys") {
            return Err(format!(
                "does not end in .tx, so it is no topic exchange, as {queue} needs it"
            ));
        }
        let exchange = Value::String(exchange.to_owned());
        set_consumer_default(table, queue, "exchange", exchange);
    }
    Ok(set_default(table, key, Value::String(exchange.to_owned())))
}

fn is_set(table: &Table, key: &str) -> bool {
    let mut parts = key.split('.');
    let first = parts.next().and_then(|part| table.get(part));
    parts
        .try_fold(first, |at, part| at.map(|value| value.get(part)))
        .flatten()
        .is_some()
}

/// Sets a key that has no value; whether it had none.
fn set_default(table: &mut Table, key: &str, value: Value) -> bool {
    !is_set(table, key) && load::set(table, key, value)
}

fn consumer_entry<'a>(table: &'a Table, queue: &str) -> Option<&'a Table> {
    let entries = table.get("consumer")?.as_array()?.iter();
    let mut entries = entries.filter_map(Value::as_table);
    entries.find(|entry| entry.get("queue").and_then(Value::as_str) == Some(queue))
}

/// The same for a key of the `[[consumer]]` entry of a queue.
fn set_consumer_default(table: &mut Table, queue: &str, key: &str, value: Value) -> bool {
    let entries = table
        .entry("consumer")
        .or_insert_with(|| Value::Array(Vec::new()));
    let Some(entries) = entries.as_array_mut() else {
        return false;
    };
    let is_of_queue =
        |entry: &&mut Table| entry.get("queue").and_then(Value::as_str) == Some(queue);
    let mut tables = entries.iter_mut().filter_map(Value::as_table_mut);
    if let Some(entry) = tables.find(is_of_queue) {
        if entry.contains_key(key) {
            return false;
        }
        entry.insert(key.to_owned(), value);
        return true;
    }
    let mut entry = Table::new();
    entry.insert("queue".to_owned(), Value::String(queue.to_owned()));
    entry.insert(key.to_owned(), value);
    // Behind the file's own entries, which errors name by their number.
    entries.push(Value::Table(entry));
    true
}
