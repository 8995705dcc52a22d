//! `holdfast dispatch FILE|-`: sends protobuf JSON batches to a collector, with
//! retries, and says what became of each.

use super::door::Door;
use crate::event::descriptor::schema;
use crate::event::json;
use crate::event::proto::Events;
use crate::event::proto::event_service_client::EventServiceClient;
use anyhow::Context as _;
use clap::Args as ClapArgs;
use futures::stream::{self, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use prost::Message as _;
use std::io::{BufRead, BufReader, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Longest line that is read: more than any collector takes.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Mistakes that are shown one by one; the rest are counted.
const MISTAKES_SHOWN: usize = 20;

/// What to send, and where.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// File with one batch ({"header": …, "events": […]}) a line; - is stdin.
    file: PathBuf,
    #[command(flatten)]
    door: Door,
    /// Batches on their way at one time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// How long to try a batch that the collector cannot take now.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    retry_for: Duration,
    /// Print the result as JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// One line on its way.
struct Line {
    number: usize,
    bytes: u64,
    batch: Result<Events, String>,
}

#[derive(Debug, Default)]
struct Tally {
    batches: usize,
    events: usize,
    refused: usize,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = EventServiceClient::new(args.door.endpoint()?.connect_lazy());
    let token = args.door.authorization()?;
    let (lines, size) = open(&args.file)?;
    let bar = progress(size);
    let mut tally = Tally::default();
    let mut answers = stream::iter(lines)
        .map(|line| {
            let (client, token) = (client.clone(), token.clone());
            async move {
                let line = line?;
                let answer = match line.batch {
                    Ok(batch) => send(client, batch, token, args.retry_for).await,
                    Err(mistake) => Err(mistake),
                };
                anyhow::Ok((line.number, line.bytes, answer))
            }
        })
        .buffer_unordered(usize::from(args.concurrency));
    while let Some(answer) = answers.next().await {
        let (number, bytes, answer) = answer?;
        bar.inc(bytes);
        match answer {
            Ok(events) => {
                tally.batches += 1;
                tally.events += events;
            }
            Err(mistake) => {
                tally.refused += 1;
                if tally.refused <= MISTAKES_SHOWN {
                    bar.suspend(|| eprintln!("line {number}: {mistake}"));
                }
            }
        }
        bar.set_message(format!("{} events durable", tally.events));
    }
    drop(answers);
    bar.finish_and_clear();
    report(&args, &tally)
}

fn report(args: &Args, tally: &Tally) -> anyhow::Result<ExitCode> {
    if args.json {
        let result = serde_json::json!({
            "batches": tally.batches, "events": tally.events, "refused": tally.refused,
        });
        writeln!(std::io::stdout(), "{result}")?;
    }
    eprintln!(
        "{} events in {} batches are durable at {}; {} lines refused",
        tally.events,
        tally.batches,
        args.door.address(),
        tally.refused
    );
    Ok(if tally.refused == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

type Lines = Box<dyn Iterator<Item = anyhow::Result<Line>> + Send>;

/// The lines of the file, and its size where it has one.
fn open(path: &Path) -> anyhow::Result<(Lines, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((read_lines(Box::new(BufReader::new(std::io::stdin()))), None));
    }
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let size = file.metadata()?.len();
    Ok((read_lines(Box::new(BufReader::new(file))), Some(size)))
}

fn read_lines(mut from: Box<dyn BufRead + Send>) -> Lines {
    let mut number = 0;
    Box::new(std::iter::from_fn(move || {
        loop {
            let mut text = Vec::new();
            let read = (&mut from)
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut text);
            number += 1;
            match read {
                Err(error) => {
                    return Some(Err(error).with_context(|| format!("read line {number}")));
                }
                Ok(0) => return None,
                Ok(_) if text.trim_ascii().is_empty() => {}
                Ok(read) => {
                    return Some(Ok(Line {
                        number,
                        bytes: read as u64,
                        batch: parse(&text),
                    }));
                }
            }
        }
    }))
}

fn parse(text: &[u8]) -> Result<Events, String> {
    let batch = json::parse(&schema().events, text).map_err(|error| error.to_string())?;
    Events::decode(&batch.encode_to_vec()[..]).map_err(|error| error.to_string())
}

/// Sends one batch until it is durable, refused for good, or the time is up; the
/// number of its events.
async fn send(
    mut client: EventServiceClient<Channel>,
    batch: Events,
    token: Option<MetadataValue<Ascii>>,
    retry_for: Duration,
) -> Result<usize, String> {
    let until = Instant::now() + retry_for;
    let mut backoff = crate::retry::Backoff::new();
    loop {
        let mut request = Request::new(batch.clone());
        if let Some(token) = &token {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        let status = match client.dispatch(request).await {
            Ok(answer) if answer.get_ref().status == "SUCCESS" => return Ok(batch.events.len()),
            Ok(answer) => return Err(format!("answer: {:?}", answer.get_ref())),
            Err(status) => status,
        };
        let retryable = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
        let wait = pushback(&status).unwrap_or_else(|| backoff.next());
        if !retryable || Instant::now() + wait > until {
            return Err(format!("{:?}: {}", status.code(), status.message()));
        }
        tokio::time::sleep(wait).await;
    }
}

fn pushback(status: &Status) -> Option<Duration> {
    let text = status
        .metadata()
        .get("grpc-retry-pushback-ms")?
        .to_str()
        .ok()?;
    text.parse().ok().map(Duration::from_millis)
}

/// A bar on a terminal, nothing elsewhere.
fn progress(size: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:24} {percent:>3}% {bytes_per_sec} eta {eta} {msg}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {bytes_per_sec} {msg}",
        ),
    };
    bar.with_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}
