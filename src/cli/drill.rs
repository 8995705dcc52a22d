//! `holdfast drill`: plays an outage on a staging host, sends events of its own through it,
//! says what happened when, and proves at the end that nothing is missing.
//!
//! Exit codes: 0 every acknowledged event arrived; 1 not, or no drill was begun; 3 no service
//! runs.

use super::call::{NOT_RUNNING, change};
use super::reconcile;
use super::site::{Place, Site};
use super::text::{count, fact, span};
use crate::admin::{self, DrillRequest, State, Status};
use crate::app::reconcile::Range;
use crate::config::{Config, PortTls};
use crate::drill::Outage;
use crate::event::proto::event::EventOf;
use crate::event::proto::event_service_client::EventServiceClient;
use crate::event::proto::{Event, Events, Header, TestEvent};
use anyhow::{Context as _, bail};
use clap::{Args as ClapArgs, ValueEnum};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// A service that does not answer in this time is as good as none.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// How often events are sent, and the status is looked at.
const TICK: Duration = Duration::from_millis(200);

/// Requests of its own that a drill waits for at one time: a door that does not answer must
/// not make it pile them up.
const WAITING_MAX: usize = 64;

/// What is played.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// RabbitMQ: sessions are cut, and none is opened
    BrokerDown,
    /// Every sink: nothing is written
    SinkDown,
    /// Room on the disk: requests are refused
    DiskFull,
}

impl What {
    fn outage(self) -> Outage {
        match self {
            Self::BrokerDown => Outage::BrokerDown,
            Self::SinkDown => Outage::SinkDown,
            Self::DiskFull => Outage::DiskFull,
        }
    }
}

/// What to play, and for how long.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) place: Place,
    /// What is away.
    outage: What,
    /// For how long.
    #[arg(value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Events of its own that are sent in a second.
    #[arg(long, value_name = "EVENTS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How long everything may take to arrive afterwards.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) async fn run(site: Site, args: &Args) -> anyhow::Result<ExitCode> {
    let Some(config) = &site.config else {
        bail!("a drill needs the service's configuration (--config)");
    };
    let request = DrillRequest {
        outage: args.outage.outage(),
        seconds: args.time.as_secs(),
        sudo_user: std::env::var("SUDO_USER").ok(),
    };
    // First: an outage without events of its own proves nothing.
    let mut traffic = Traffic::new(config, args.rate)?;
    let begun = change(&site, "/drill", &request, ANSWER_WAIT).await?;
    let Some(status): Option<Status> = begun else {
        return Ok(ExitCode::from(NOT_RUNNING));
    };
    let mut story = Story::new();
    story.tell("the outage begins")?;
    let (first_seq, was_serving) = (status.next_seq, status.state == State::Serving);
    let until = Instant::now() + args.time;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < until {
        ticks.tick().await;
        traffic.send().await;
        story.look(&status_of(&site).await?)?;
    }
    story.tell("the outage is over")?;
    let limit = Instant::now() + args.timeout;
    let status = loop {
        ticks.tick().await;
        if traffic.in_work() {
            traffic.settle().await;
        }
        let status = status_of(&site).await?;
        story.look(&status)?;
        let is_well = status.parts.iter().all(|part| part.trouble.is_none())
            && (status.state == State::Serving || !was_serving);
        if status.left() == 0 && is_well && !traffic.in_work() {
            story.tell("everything is delivered, and all parts are well")?;
            break status;
        }
        if Instant::now() >= limit {
            story.tell("the time is up, and not everything is delivered")?;
            break status;
        }
    };
    let sent = traffic.sent;
    say(&fact(
        "sent",
        &format!(
            "{} acknowledged, the slowest after {} ms; {} refused",
            count(sent.acked, "event"),
            sent.slowest.as_millis(),
            count(sent.refused, "event"),
        ),
    ))?;
    let proved = prove(config, first_seq, status.next_seq, args.timeout).await?;
    if sent.acked == 0 && args.outage.outage() != Outage::DiskFull {
        eprintln!("holdfast: no event was acknowledged, so that nothing was rehearsed");
        return Ok(ExitCode::FAILURE);
    }
    Ok(proved)
}

async fn status_of(site: &Site) -> anyhow::Result<Status> {
    admin::get(&site.data_dir, "/status", ANSWER_WAIT)
        .await
        .context("the service does not answer in the middle of the drill")
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// What happens, as lines with their time.
struct Story {
    began: Instant,
    /// What was said of each part, and of the door.
    known: std::collections::BTreeMap<String, String>,
    most_pending: u64,
}

impl Story {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            known: std::collections::BTreeMap::new(),
            most_pending: 0,
        }
    }

    fn tell(&self, text: &str) -> anyhow::Result<()> {
        let at = format!("+{}", span(self.began.elapsed().as_secs()));
        say(&fact(&at, text))
    }

    /// Tells what has changed.
    fn look(&mut self, status: &Status) -> anyhow::Result<()> {
        let door = match status.state {
            State::Serving => "requests are taken".to_owned(),
            _ => format!("NOT SERVING: {}", status.reasons.join("; ")),
        };
        self.note("the door", door, "requests are taken")?;
        let mut consumers = 0;
        for part in &status.parts {
            let said = match (&part.trouble, part.connected) {
                (Some(trouble), _) => format!("TROUBLE: {}", trouble.text),
                (None, Some(false)) => "NOT CONNECTED".to_owned(),
                (None, _) => "well".to_owned(),
            };
            if part.kind == "consumer" {
                consumers += usize::from(said != "well");
            } else {
                self.note(&part.name, said, "well")?;
            }
        }
        let said = match consumers {
            0 => "all at work".to_owned(),
            // Not each step of their going and coming.
            _ => "not all at work".to_owned(),
        };
        self.note("consumers", said, "all at work")?;
        self.most_pending = self.most_pending.max(status.left());
        Ok(())
    }

    fn note(&mut self, who: &str, said: String, normal: &str) -> anyhow::Result<()> {
        let before = self.known.get(who).map_or(normal, String::as_str);
        if before != said {
            let pending = count(self.most_pending, "event");
            let most = if self.most_pending > 0 {
                format!(" ({pending} pending at most so far)")
            } else {
                String::new()
            };
            self.tell(&format!("{who}: {said}{most}"))?;
            self.known.insert(who.to_owned(), said);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    acked: u64,
    refused: u64,
    slowest: Duration,
}

/// Events of the drill's own.
struct Traffic {
    client: EventServiceClient<Channel>,
    /// Makes ids that no other drill has.
    name: String,
    each: u32,
    made: u64,
    waiting: tokio::task::JoinSet<Sent>,
    sent: Sent,
}

impl Traffic {
    fn new(config: &Config, rate: u32) -> anyhow::Result<Self> {
        if config
            .tls
            .as_ref()
            .is_some_and(|tls| tls.grpc != PortTls::Off)
        {
            anyhow::bail!(
                "a drill sends its events unencrypted: set tls.grpc = \"off\" on this staging host"
            );
        }
        let clients = &config.client;
        if !clients.is_empty() && !clients.iter().any(|client| client.anonymous) {
            anyhow::bail!(
                "a drill sends its events without a token: give this staging host a [[client]] with anonymous = true"
            );
        }
        let listen = config.grpc.listen;
        let ip = match listen.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        let address = format!("http://{}", SocketAddr::new(ip, listen.port()));
        let channel = Endpoint::from_shared(address)?.connect_lazy();
        let ticks = Duration::from_secs(1).as_millis() / TICK.as_millis();
        Ok(Self {
            client: EventServiceClient::new(channel),
            name: uuid::Uuid::new_v4().simple().to_string(),
            each: rate.div_ceil(u32::try_from(ticks).unwrap_or(1)),
            made: 0,
            waiting: tokio::task::JoinSet::new(),
            sent: Sent::default(),
        })
    }

    /// Sends what is due, unless too much waits for its answer.
    async fn send(&mut self) {
        self.settle().await;
        if self.waiting.len() >= WAITING_MAX {
            return;
        }
        let now_ms = crate::clock::now_ms();
        let events = (0..self.each).map(|_| {
            self.made += 1;
            Event {
                id: format!("drill-{}-{}", self.name, self.made),
                timestamp: now_ms.to_string(),
                event_of: Some(EventOf::TestEvent(TestEvent {
                    test_param1: "drill".to_owned(),
                    ..TestEvent::default()
                })),
                ..Event::default()
            }
        });
        let batch = Events {
            events: events.collect(),
            header: Some(Header {
                device_id: "holdfast-drill".to_owned(),
                ..Header::default()
            }),
        };
        let (mut client, events) = (self.client.clone(), u64::from(self.each));
        self.waiting.spawn(async move {
            let began = Instant::now();
            let mut sent = Sent::default();
            match client.dispatch(batch).await {
                Ok(_) => {
                    sent.acked = events;
                    sent.slowest = began.elapsed();
                }
                Err(status) => {
                    if !matches!(status.code(), Code::ResourceExhausted | Code::Unavailable) {
                        eprintln!("unexpected answer: {status}");
                    }
                    sent.refused = events;
                }
            }
            sent
        });
    }

    fn in_work(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes the answers that are there.
    async fn settle(&mut self) {
        while let Some(answer) = self.waiting.try_join_next() {
            match answer {
                Ok(sent) => {
                    self.sent.acked += sent.acked;
                    self.sent.refused += sent.refused;
                    self.sent.slowest = self.sent.slowest.max(sent.slowest);
                }
                Err(error) => eprintln!("a request of the drill failed: {error}"),
            }
        }
    }
}

/// Compares what came in during the drill with the tables.
async fn prove(
    config: &Config,
    from_seq: u64,
    to_seq: u64,
    wait: Duration,
) -> anyhow::Result<ExitCode> {
    let range = Range {
        from_seq: Some(from_seq),
        to_seq: Some(to_seq),
        ..Range::default()
    };
    let report = reconcile::wait_for(config, &range, None, Some(wait)).await?;
    say(&format!("\n{}", reconcile::render(&report)))?;
    Ok(reconcile::exit_code(&report))
}
