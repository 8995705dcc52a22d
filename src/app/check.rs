//! What is wrong with a configuration that its values alone do not tell. Called by `cli`, before
//! a start and for `check-config`, and by `reload`. Connects to nothing.
//!
//! # Invariants
//! - What `check-config` refuses a reload refuses, and nothing has changed then (test
//!   `a_reload_makes_all_checks`).
//! - A mistake that would end a start ends it as what it is, so that systemd does not try again
//!   for ever (test `a_start_says_what_is_wrong_with_the_values`). Files may be there a moment
//!   later: they end no start for good, and those of servers that events go to end none at all.

use super::setup::{broker, is_declared, sinks};
use super::{outward, ports};
use crate::config::{Config, Consumer, Errors, Handler, Verify};
use crate::ingest;
use crate::port::Validity;
use crate::telemetry::log::Filter;

/// What a start needs of the values.
///
/// # Errors
/// All that is wrong.
pub fn check_start(config: &Config) -> Result<(), Errors> {
    let mut wrong = wrong_values(config);
    // A sink reads its files when it is made.
    if wrong.is_empty() && outward::wrong_files(config).is_empty() {
        wrong.extend(sinks(config).err().map(|error| error.to_string()));
    }
    none_of(wrong)
}

/// All of it, with the files; until when the certificate of `[tls]` is good.
///
/// # Errors
/// All that is wrong.
pub fn check(config: &Config) -> Result<Option<Validity>, Errors> {
    let mut wrong = wrong_values(config);
    wrong.extend(sinks(config).err().map(|error| error.to_string()));
    wrong.extend(outward::wrong_files(config));
    let expires = match ports::check_tls(config) {
        Ok(expires) => expires,
        Err(error) => {
            wrong.push(format!("tls: {error}"));
            None
        }
    };
    none_of(wrong).map(|()| expires)
}

fn wrong_values(config: &Config) -> Vec<String> {
    let mut wrong = ingest::unknown_events(&config.client);
    wrong.extend(
        Filter::parse(&config.log.level)
            .err()
            .map(|error| error.to_string()),
    );
    wrong.extend(
        broker(config, "check")
            .err()
            .map(|error| format!("rabbitmq: {error}")),
    );
    wrong
}

fn none_of(wrong: Vec<String>) -> Result<(), Errors> {
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Errors(wrong))
    }
}

/// What is allowed, and most likely a mistake (tests `what_is_half_proved_is_warned_of`,
/// `launches_of_another_database_are_warned_of`).
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let of_shopify = half_proved(config);
    unbound_exchange(config)
        .into_iter()
        .chain(of_shopify)
        .chain(launches_elsewhere(config))
        .collect()
}

/// Events that no queue of this host takes.
fn unbound_exchange(config: &Config) -> Option<String> {
    let rabbitmq = config.rabbitmq.as_ref()?;
    let exchange = &rabbitmq.exchange;
    let consumers = config.consumers();
    let is_bound = consumers
        .iter()
        .any(|consumer| is_declared(config, consumer) && consumer.exchange == *exchange);
    (!is_bound).then(|| {
        format!(
            "rabbitmq.exchange: no queue of this host is bound to {exchange:?}; events that no other queue takes go to error_events"
        )
    })
}

/// Consumers that look launches up in a database that this host writes none into, while it does
/// into another: each of their rows would be left out for want of a launch.
fn launches_elsewhere(config: &Config) -> Vec<String> {
    let Some(clickhouse) = &config.clickhouse else {
        return Vec::new();
    };
    let database = |consumer: &Consumer| {
        let namespace = consumer.namespace.as_ref();
        namespace.unwrap_or(&clickhouse.database).clone()
    };
    let consumers = config.consumers();
    let on = || consumers.iter().filter(|c| c.enabled != Some(false));
    let written: Vec<_> = on()
        .filter(|consumer| consumer.handler == Handler::LaunchRefer)
        .map(database)
        .collect();
    let lost = on().filter(|consumer| {
        let looks_up = consumer.handler.looks_up();
        looks_up && !written.is_empty() && !written.contains(&database(consumer))
    });
    lost.map(|consumer| {
        format!(
            "consumer[{}]: it looks launches up in database {:?}, into which no consumer of this host writes any; without them its rows are left out",
            consumer.queue,
            database(consumer)
        )
    })
    .collect()
}

/// A route on which one kind of request is signed and the other is not: who leaves out the headers
/// of the first is taken for the second.
fn half_proved(config: &Config) -> Option<String> {
    let shopify = &config.webhooks.shopify;
    let is_half = !shopify.client_secrets.is_empty() && shopify.verify == Verify::None;
    is_half.then(|| {
        "webhooks.shopify: client_secrets prove Shopify's own webhooks, and nothing proves the envelope that the same route takes; set verify and secrets to take nothing unsigned".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_half_proved_is_warned_of() {
        let warned = |text: &str| {
            let config = crate::config::load_from(text, std::iter::empty()).unwrap();
            warnings(&config)
        };
        let native = "[webhooks.shopify]\nclient_secrets = [\"a\"]\n";
        let texts = warned(native);
        assert_eq!(texts.len(), 1);
        assert!(texts[0].starts_with("webhooks.shopify: "), "{texts:?}");
        assert!(warned("").is_empty());
        let whole = format!("{native}verify = \"secret\"\nsecrets = [\"b\"]\n");
        assert!(warned(&whole).is_empty());
    }

    #[test]
    fn launches_of_another_database_are_warned_of() {
        let warned = |more: &str| {
            let text = format!(
                "[rabbitmq]\n[clickhouse]\nurl = \"http://a\"\ndatabases = [\"b\"]\n{more}"
            );
            let config = crate::config::load_from(&text, std::iter::empty()).unwrap();
            warnings(&config)
        };
        let consumer = |queue, more| format!("[[consumer]]\nqueue = \"{queue}\"\n{more}\n");
        let accounts = consumer("create_user_account_q", "namespace = \"b\"");
        let launches = consumer("launch_refer_event_q", "namespace = \"b\"");
        assert!(warned("").is_empty());
        let texts = warned(&accounts);
        assert_eq!(texts.len(), 1);
        assert!(
            texts[0].starts_with("consumer[create_user_account_q]: "),
            "{texts:?}"
        );
        // Accounts and profiles, whose launches are in the other one.
        assert_eq!(warned(&launches).len(), 2);
        let off = consumer("launch_refer_event_q", "enabled = false");
        assert!(
            warned(&format!("{accounts}{off}")).is_empty(),
            "others write them"
        );
    }
}
