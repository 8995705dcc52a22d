//! `holdfast dlq show`: refused messages one by one. Called by `mod.rs`.

use super::Which;
use super::places::Places;
use crate::cli::site::{Place, Site};
use crate::cli::text::{cut, fact};
use crate::dlq::{DEAD_LETTERS, Letter};
use clap::Args as ClapArgs;
use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Characters of a body that are shown as text; `--json` has it whole.
const BODY_CHARS: usize = 1000;

/// What to show.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    which: Which,
    /// How many, at most.
    #[arg(long, value_name = "N", default_value_t = 10)]
    count: u64,
    /// One JSON document a line, with the whole body.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(site: &Site, args: &Args) -> anyhow::Result<ExitCode> {
    let filter = args.which.filter();
    let mut places = Places::find(site, &filter).await?;
    let mut out = std::io::stdout();
    let mut shown = 0;
    let mut failed = None;
    let mut show = |letter: Letter| {
        if shown == args.count {
            return ControlFlow::Break(());
        }
        shown += 1;
        let written = if args.json {
            serde_json::to_string(&letter)
                .map_err(std::io::Error::from)
                .and_then(|line| writeln!(out, "{line}"))
        } else {
            out.write_all(render(&letter, shown == 1).as_bytes())
        };
        if let Err(error) = written {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        if shown == args.count {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let error_queues = places.error_queues.clone();
    let mut queues = places.queues.take();
    let mut troubles = Vec::new();
    if let Some(queues) = &mut queues {
        for at in &error_queues {
            if let Err(error) = queues.look(at, &filter, &mut show).await {
                troubles.push((at.name.as_str(), error));
            }
        }
    }
    if let Some(local) = &places.local
        && let Err(error) = local.look(&filter, &mut show).await
    {
        troubles.push((DEAD_LETTERS, error));
    }
    places.queues = queues;
    for (place, error) in troubles {
        places.trouble(place, error);
    }
    let is_whole = places.close().await;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if is_whole && shown == 0 {
        eprintln!("no refused message is meant");
    }
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn render(letter: &Letter, is_first: bool) -> String {
    let mut text = String::new();
    if !is_first {
        text.push('\n');
    }
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&fact(name, value));
        }
    };
    add("id", &letter.id);
    add("in", &letter.place);
    add("refused by", &letter.queue);
    add("type", &letter.event_type);
    add("reason", &letter.reason);
    add("at", letter.refused_at.as_deref().unwrap_or_default());
    if !letter.host.is_empty() {
        let origin = match (letter.documents.first(), letter.documents.last()) {
            (Some(first), Some(last)) => format!(
                "{}, {} documents of requests {} to {}",
                letter.host,
                letter.documents.len(),
                first.seq,
                last.seq
            ),
            _ => format!(
                "{}, request {}, events {}",
                letter.host, letter.seq, letter.indexes
            ),
        };
        add("taken by", &origin);
    }
    add(
        "message id",
        letter.message_id.as_deref().unwrap_or_default(),
    );
    add("content", &letter.content_type);
    for line in &letter.history {
        add("history", line);
    }
    for (name, value) in &letter.headers {
        add("header", &cut(&format!("{name}: {value}"), BODY_CHARS));
    }
    let body = letter.body.as_ref().or(letter.body_base64.as_ref());
    add("body", &cut(body.map_or("", String::as_str), BODY_CHARS));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Message;
    use crate::event::envelope::{HISTORY_HEADER, HOST_HEADER, REASON_HEADER};

    #[test]
    fn a_letter_fits_a_terminal() {
        let mut message = Message {
            routing_key: "INSTALL".into(),
            body: "{\"name\":\"INSTALL\"}".repeat(200).into(),
            ..Message::default()
        };
        message
            .headers
            .set(REASON_HEADER, "id: missing ".repeat(50));
        message
            .headers
            .set(HOST_HEADER, "c7fd34fb4c144c40868edb4dd667041e");
        message.headers.set(HISTORY_HEADER, vec!["x ".repeat(100)]);
        message.headers.set("x-bb-os", "android");
        let mut letter = Letter::of_message("branch_event_q_error", "branch_event_q", &message);
        letter.documents = crate::event::documents::parse("7:0:5:0;9:1:6:3").unwrap();
        let text = render(&letter, true);
        assert!(text.contains("2 documents of requests 7 to 9"), "{text}");
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(crate::cli::text::WIDTH), "{text}");
        assert!(text.contains("header     x-bb-os: \"android\""), "{text}");
        assert!(text.contains('…'), "a long body is cut: {text}");
    }
}
