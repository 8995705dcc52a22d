//! Ways out, consumers and sinks as lines of text: what is well in as few words as it
//! needs, what is not with its reason. Called by `status` and `top`.

use super::text::{count, fact, span};
use crate::admin::Part;
use crate::clock::now_ms;
use std::collections::BTreeMap;

/// Parts with the same trouble that are named; the rest are counted.
const NAMED: usize = 2;

/// Different troubles that are told; the rest are counted.
const TOLD: usize = 3;

/// The parts of a host.
pub(super) fn render(parts: &[Part]) -> String {
    if parts.is_empty() {
        return String::new();
    }
    let mut text = "\n".to_owned();
    for part in parts.iter().filter(|part| part.kind != "consumer") {
        let kind = if part.kind == "sink" {
            "sink"
        } else {
            "way out"
        };
        text.push_str(&fact(kind, &format!("{}: {}", part.name, state(part))));
    }
    let consumers: Vec<_> = parts.iter().filter(|p| p.kind == "consumer").collect();
    if consumers.is_empty() {
        return text;
    }
    let well = consumers.iter().filter(|part| is_well(part)).count();
    let all = count(consumers.len() as u64, "consumer");
    text.push_str(&fact("queues", &format!("{well} of {all} at work")));
    let mut troubles = alike(consumers.into_iter().filter(|part| !is_well(part)));
    // What most of them say comes first.
    troubles.sort_by_key(|(_, parts)| std::cmp::Reverse(parts.len()));
    let rest: usize = troubles
        .iter()
        .skip(TOLD)
        .map(|(_, parts)| parts.len())
        .sum();
    for (said, parts) in troubles.into_iter().take(TOLD) {
        let named: Vec<_> = parts.iter().take(NAMED).map(|p| p.name.as_str()).collect();
        let mut who = named.join(", ");
        if parts.len() > NAMED {
            who.push_str(&format!(" and {} more", parts.len() - NAMED));
        }
        // The longest of them says since when.
        let oldest = parts
            .iter()
            .min_by_key(|p| p.trouble.as_ref().map(|t| t.since_ms));
        let since = oldest.and_then(|part| part.trouble.as_ref());
        let state = since.map_or("NOT CONNECTED".to_owned(), |trouble| {
            format!("TROUBLE for {}: {said}", ago(trouble.since_ms))
        });
        text.push_str(&fact("", &format!("{who}: {state}")));
    }
    if rest > 0 {
        text.push_str(&fact(
            "",
            &format!("and {rest} more for other reasons (--json has them)"),
        ));
    }
    text
}

/// Parts by what is wrong with them: a broker that is away is one trouble, not dozens, although
/// each says it of its own queue.
fn alike<'a>(parts: impl Iterator<Item = &'a Part>) -> Vec<(String, Vec<&'a Part>)> {
    let mut groups: BTreeMap<String, Vec<&Part>> = BTreeMap::new();
    for part in parts {
        let said = part
            .trouble
            .as_ref()
            .map(|trouble| trouble.text.replace(&part.name, "…"));
        groups
            .entry(said.unwrap_or_default())
            .or_default()
            .push(part);
    }
    groups.into_iter().collect()
}

fn ago(ms: i64) -> String {
    span(u64::try_from(now_ms().saturating_sub(ms)).unwrap_or(0) / 1000)
}

fn is_well(part: &Part) -> bool {
    part.trouble.is_none() && part.connected != Some(false)
}

fn state(part: &Part) -> String {
    if let Some(trouble) = &part.trouble {
        return format!("TROUBLE for {}: {}", ago(trouble.since_ms), trouble.text);
    }
    let mut words = match part.connected {
        Some(true) => "connected".to_owned(),
        Some(false) => "NOT CONNECTED".to_owned(),
        None => "well".to_owned(),
    };
    match part.done_at_ms {
        Some(ms) => words.push_str(&format!(", worked {} ago", ago(ms))),
        None => words.push_str(", nothing to do yet"),
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Trouble;

    fn part(kind: &str, name: &str, connected: Option<bool>) -> Part {
        Part {
            kind: kind.into(),
            name: name.into(),
            connected,
            done_at_ms: None,
            trouble: None,
        }
    }

    #[test]
    fn what_is_well_is_short_and_what_is_not_has_its_reason() {
        let mut ill = part("consumer", "profile_relationship_log_events_q", Some(true));
        ill.trouble = Some(Trouble {
            since_ms: now_ms() - 125_000,
            text: "clickhouse is away: ".to_owned() + &"x".repeat(200),
        });
        let mut parts = vec![
            part("way_out", "rabbitmq", Some(true)),
            part("sink", "clickhouse", None),
            ill,
            part("consumer", "trace_log", Some(false)),
        ];
        parts.extend((0..25).map(|at| part("consumer", &format!("q{at}"), Some(true))));
        let text = render(&parts);
        assert!(text.lines().count() < 15, "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= super::super::text::WIDTH, "{line}");
        }
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "25 of 27 consumers at work",
            "TROUBLE for 2m 5s: clickhouse is away",
            "trace_log: NOT CONNECTED",
            "sink clickhouse: well",
            "way out rabbitmq: connected",
        ] {
            assert!(flat.contains(part), "{part}: {text}");
        }
        for part in &mut parts {
            part.trouble = Some(Trouble {
                since_ms: now_ms(),
                text: "waits for the broker".into(),
            });
        }
        let flat = render(&parts)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let one = "trace_log and 25 more: TROUBLE for 0s: waits for the broker";
        assert!(flat.contains(one), "{flat}");
        // Each in the words of its own queue, and some for reasons of their own.
        for part in &mut parts {
            let text = format!("the session was lost under '{}'", part.name);
            part.trouble = Some(Trouble {
                since_ms: now_ms(),
                text,
            });
        }
        for (at, part) in parts.iter_mut().rev().take(6).enumerate() {
            let text = format!("reason {at}");
            part.trouble = Some(Trouble {
                since_ms: now_ms(),
                text,
            });
        }
        let flat = render(&parts)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let one = "and 19 more: TROUBLE for 0s: the session was lost under '…'";
        assert!(flat.contains(one), "{flat}");
        assert!(
            flat.ends_with("and 4 more for other reasons (--json has them)"),
            "{flat}"
        );
        assert_eq!(render(&[]), "");
    }
}
