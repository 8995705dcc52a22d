//! Which keys of two configurations differ. Called by `app` when the configuration is
//! loaded anew.
//!
//! # Invariants
//! - Names alone come out, since values may be secrets; a secret that is another one is
//!   noticed all the same (test `a_changed_secret_is_named_and_never_told`).
//! - What counts is what a configuration means, not how it is written: a default that is
//!   spelled out is no change (test `a_default_that_is_spelled_out_is_no_change`).

use super::Config;
use serde_json::{Map, Value};

/// The keys whose values differ, in the order of the sections: `log.level`,
/// `webhooks.branch.secrets`, `consumer[visits_q].workers`; a section or a consumer that
/// came or went, by its name alone.
///
/// # Errors
/// When a value has no form in JSON, such as a path that is no UTF-8.
pub fn changed_keys(old: &Config, new: &Config) -> Result<Vec<String>, serde_json::Error> {
    let mut changed = Vec::new();
    compare(
        "",
        &serde_json::to_value(old)?,
        &serde_json::to_value(new)?,
        &mut changed,
    );
    let (old, new) = (consumers(old)?, consumers(new)?);
    compare_maps(
        &|queue| format!("consumer[{queue}]"),
        &old,
        &new,
        &mut changed,
    );
    Ok(changed)
}

/// The consumers as they work, by their queues: entries only change the shipped ones, and
/// their order means nothing.
fn consumers(config: &Config) -> Result<Map<String, Value>, serde_json::Error> {
    let consumers = config.consumers().into_iter();
    consumers
        .map(|consumer| Ok((consumer.queue.clone(), serde_json::to_value(consumer)?)))
        .collect()
}

fn compare(path: &str, old: &Value, new: &Value, changed: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let name = |key: &str| match path {
                "" => key.to_owned(),
                path => format!("{path}.{key}"),
            };
            compare_maps(&name, old, new, changed);
        }
        // A list is one value: which of its places differ says little.
        (old, new) if old != new => changed.push(path.to_owned()),
        _ => {}
    }
}

fn compare_maps(
    name: &dyn Fn(&str) -> String,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    changed: &mut Vec<String>,
) {
    for (key, value) in old {
        compare(
            &name(key),
            value,
            new.get(key).unwrap_or(&Value::Null),
            changed,
        );
    }
    for key in new.keys().filter(|key| !old.contains_key(*key)) {
        changed.push(name(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_from;

    fn load(text: &str) -> Config {
        load_from(text, std::iter::empty()).unwrap()
    }

    fn changes(old: &str, new: &str) -> Vec<String> {
        changed_keys(&load(old), &load(new)).unwrap()
    }

    #[test]
    fn each_key_that_differs_is_named_and_no_other() {
        let old =
            "[journal]\nack_deadline = \"1s\"\nmax_bytes = \"16GiB\"\n[log]\nlevel = \"info\"";
        let new = "[journal]\nack_deadline = \"2s\"\nmax_bytes = \"15GiB\"\n[log]\nlevel = \"warn\"\n[clicks]\nbot_ips = [\"10.0.0.1\"]\n[shutdown]\ngrace = \"1500ms\"";
        let wanted = [
            "journal.max_bytes",
            "journal.ack_deadline",
            "clicks.bot_ips",
            "log.level",
            "shutdown.grace",
        ];
        assert_eq!(changes(old, new), wanted);
        assert_eq!(changes(new, old), wanted);
        assert!(changes(new, new).is_empty());
        let finer = new.replace("1500ms", "1500001us");
        assert_eq!(changes(new, &finer), ["shutdown.grace"]);
    }

    #[test]
    fn a_default_that_is_spelled_out_is_no_change() {
        let shipped = "[[consumer]]\nqueue = \"trace_log\"\nmax_attempts = 3";
        let attempts = load("").consumers()[0].max_attempts;
        let shipped = shipped.replace('3', &attempts.to_string());
        let same = format!("[grpc]\nlisten = \"0.0.0.0:8017\"\n[forward]\nmax_rate = 0\n{shipped}");
        assert!(changes("", &same).is_empty());
    }

    #[test]
    fn sections_and_consumers_that_come_or_go_are_named_alone() {
        let broker = "[rabbitmq]\n[clickhouse]\n";
        assert_eq!(changes("", broker), ["rabbitmq", "clickhouse"]);
        assert_eq!(changes(broker, ""), ["rabbitmq", "clickhouse"]);
        let visits = format!(
            "{broker}[[consumer]]\nqueue = \"visits_q\"\nexchange = \"visits.tx\"\nkeys = [\"*\"]\nhandler = \"flat_json\"\nsink = \"clickhouse\"\ntable = \"visits\"\ncolumns = {{ id = \"text\" }}\nrow_key = [\"id\"]\n"
        );
        assert_eq!(changes(broker, &visits), ["consumer[visits_q]"]);
        assert_eq!(changes(&visits, broker), ["consumer[visits_q]"]);
        let more = format!("{visits}workers = 3\nbatch_age = \"7s\"\n");
        let wanted = ["consumer[visits_q].workers", "consumer[visits_q].batch_age"];
        assert_eq!(changes(&visits, &more), wanted);
        let shipped = format!("{visits}[[consumer]]\nqueue = \"trace_log\"\nworkers = 3\n");
        assert_eq!(changes(&visits, &shipped), ["consumer[trace_log].workers"]);
    }

    #[test]
    fn a_changed_secret_is_named_and_never_told() {
        let text = "[rabbitmq]\nurls = [\"amqp://u:hunter2@h\"]\n[clickhouse]\npassword = \"hunter2\"\n[postgres]\nurl = \"postgres://u:hunter2@h/d\"\n[webhooks]\nhmac_secret = \"aHVudGVyMg==\"\n[webhooks.branch]\nverify = \"secret\"\nsecrets = [\"hunter2\"]\n[webhooks.shopify]\nclient_secrets = [\"hunter2\"]\n[webengage]\napi_key = \"hunter2\"\nbrand_api_key = \"hunter2\"\nurl = \"http://a\"\nuser_url = \"http://a\"\nbrand_url = \"http://a\"\nbrand_user_url = \"http://a\"\n[sentry]\ndsn = \"http://hunter2@localhost/1\"\n";
        let other = text
            .replace("hunter2", "hunter3")
            .replace("aHVudGVyMg==", "aHVudGVyMw==");
        let wanted = [
            "rabbitmq.urls",
            "clickhouse.password",
            "postgres.url",
            "webhooks.hmac_secret",
            "webhooks.branch.secrets",
            "webhooks.shopify.client_secrets",
            "webengage.api_key",
            "webengage.brand_api_key",
            "sentry.dsn",
        ];
        assert_eq!(changes(text, &other), wanted);
        assert!(changes(text, text).is_empty());
        let shown = serde_json::to_string(&load(text)).unwrap();
        assert!(
            !shown.contains("hunter2") && !shown.contains("aHVudGVyMg"),
            "{shown}"
        );
        assert!(shown.contains("http://a"), "the look finds nothing at all");
    }
}
