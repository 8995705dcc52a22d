//! Looks into PromQL for names: that each metric, label and label value of an expression
//! is one of the catalogue. Whether it parses is promtool's to say.

use holdfast::telemetry::catalogue::{ALL, Entry, Kind, Values};

/// What Prometheus puts on every series.
const TARGET_LABELS: [&str; 2] = ["instance", "job"];

/// Words before a list of labels.
const BEFORE_LABELS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// Operators that are words.
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(c) = rest.next() {
        let mut take_while = |fits: fn(char) -> bool| {
            let mut taken = String::new();
            while let Some(next) = rest.next_if(|next| fits(*next)) {
                taken.push(next);
            }
            taken
        };
        let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if c == '"' {
            tokens.push(Token::Text(take_while(|c| c != '"')));
            rest.next();
        } else if c == '[' {
            take_while(|c| c != ']');
            rest.next();
        } else if c.is_ascii_digit() {
            take_while(|c| c.is_ascii_alphanumeric() || c == '.');
        } else if in_word(c) {
            let more = take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
            tokens.push(Token::Word(format!("{c}{more}")));
        } else if !c.is_whitespace() {
            tokens.push(Token::Sign(c));
        }
    }
    tokens
}

/// A metric of the catalogue by the name of one of its series, and whether that series
/// has `le`.
pub fn entry_of(series: &str) -> Option<(&'static Entry, bool)> {
    ALL.into_iter().find_map(|entry| {
        let suffix = series.strip_prefix(entry.name)?;
        match (entry.kind, suffix) {
            (Kind::Histogram, "_bucket") => Some((entry, true)),
            (Kind::Histogram, "_sum" | "_count") => Some((entry, false)),
            (Kind::Counter | Kind::Gauge, "") => Some((entry, false)),
            _ => None,
        }
    })
}

/// The metrics of an expression.
///
/// # Errors
/// A name, label or value that is not in the catalogue.
pub fn metrics(expression: &str) -> Result<Vec<&'static str>, String> {
    let tokens = tokens(expression);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let next = tokens.get(at + 1);
        let Token::Word(word) = &tokens[at] else {
            at += 1;
            continue;
        };
        at += 1;
        if BEFORE_LABELS.contains(&word.as_str()) {
            while tokens.get(at).is_some_and(|t| *t != Token::Sign(')')) {
                if let Token::Word(label) = &tokens[at] {
                    known_label(label)?;
                }
                at += 1;
            }
        } else if OPERATORS.contains(&word.as_str())
            || next == Some(&Token::Sign('('))
            || matches!(next, Some(Token::Word(w)) if BEFORE_LABELS[..2].contains(&w.as_str()))
        {
            // A function; promtool knows them.
        } else {
            let entry = entry_of(word);
            if word != "up" && entry.is_none() {
                return Err(format!("{word} is no metric"));
            }
            found.extend(entry.map(|(entry, _)| entry.name));
            if next == Some(&Token::Sign('{')) {
                at = matchers(&tokens, at + 1, entry)?;
            }
        }
    }
    Ok(found)
}

fn known_label(label: &str) -> Result<(), String> {
    let ours = ALL.into_iter().flat_map(|entry| entry.labels);
    let is_known = TARGET_LABELS.contains(&label)
        || label == "le"
        || ours.into_iter().any(|known| known.name == label);
    is_known
        .then_some(())
        .ok_or_else(|| format!("no metric has {label}"))
}

/// Goes through `label="value", …}`; where it ends.
fn matchers(
    tokens: &[Token],
    mut at: usize,
    entry: Option<(&Entry, bool)>,
) -> Result<usize, String> {
    while tokens.get(at).is_some_and(|t| *t != Token::Sign('}')) {
        let Token::Word(label) = &tokens[at] else {
            at += 1;
            continue;
        };
        let mut is_pattern = false;
        let value = loop {
            at += 1;
            match tokens.get(at) {
                Some(Token::Text(value)) => break value,
                Some(Token::Sign(sign)) => is_pattern |= *sign == '~',
                _ => return Err(format!("{label} has no value")),
            }
        };
        at += 1;
        if TARGET_LABELS.contains(&label.as_str()) {
            continue;
        }
        let Some((entry, has_le)) = entry else {
            return Err(format!("up has no {label}"));
        };
        if has_le && label == "le" {
            continue;
        }
        let known = entry.labels.iter().find(|known| known.name == label);
        let known = known.ok_or_else(|| format!("{} has no {label}", entry.name))?;
        if let Values::Are(named) = known.values {
            let alternatives: Vec<&str> = if is_pattern {
                value.split('|').collect()
            } else {
                vec![value]
            };
            for value in alternatives {
                if !named.contains(&value) {
                    return Err(format!("{label} of {} is never {value:?}", entry.name));
                }
            }
        }
    }
    Ok(at)
}

#[test]
fn a_name_that_is_not_in_the_catalogue_is_found() {
    let good = r#"sum by (instance, le) (rate(holdfast_ingest_ack_latency_seconds_bucket{job="x"}[5m])) > 0.25
        and on (instance) holdfast_journal_state{what=~"pressure|fenced"} == 1 or up{job="x"} == bool 0"#;
    assert_eq!(metrics(good).unwrap().len(), 2);
    for bad in [
        "holdfast_redy",
        "holdfast_ingest_ack_latency_seconds",
        "sum by (instanse) (holdfast_ready)",
        r#"holdfast_journal_state{what="presure"}"#,
        r#"holdfast_journal_state{what=~"pressure|fence"}"#,
        r#"holdfast_ready{what="pressure"}"#,
        r#"up{what="pressure"}"#,
        "rate(node_load1[5m])",
    ] {
        assert!(metrics(bad).is_err(), "{bad}");
    }
}
