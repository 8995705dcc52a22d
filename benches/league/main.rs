//! The league: the same payloads, acknowledged durably by this collector and by others, side
//! by side on one machine. Started by `tests/league`, which installs the others.
//!
//! A round starts each system in turn with empty data, sends with one payload in flight,
//! then with 256, and compares what was acknowledged with what is stored. Rounds begin with
//! another system each, so that none always has the disk as its neighbour left it. Before
//! them, a trace of system calls decides for each who syncs before it acknowledges.
//!
//! # Invariants
//! - The command fails if a system that is to sync does not, if anything acknowledged is not
//!   stored, or if more is stored than was sent.
//! - Data is below cargo's target directory, which must be on a disk. Servers end however
//!   the command ends; it removes their data, or if it was killed, the next run does.

mod drive;
mod file;
mod grpc;
#[allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "the suite's own: a server that cannot be guarded ends the run"
)]
#[path = "../../tests/it/support/guarded.rs"]
mod guarded;
mod nats;
mod payload;
mod postgres;
mod process;
mod rabbitmq;
#[path = "../../tests/it/support/raw.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "it serves the tests"
)]
mod raw;
mod redis;
mod report;
mod serve;
#[path = "../support/served.rs"]
mod served;
mod system;
mod trace;
#[allow(unreachable_pub, reason = "the suite's test calls it from outside")]
mod verdict;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use drive::{Driven, Times, drive};
use payload::Payloads;
use report::{Place, Row};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use system::{Promise, Server, System};

/// Payloads in flight, in the two parts of a round.
const IN_FLIGHT: [usize; 2] = [1, 256];

/// How long a system may take to show all that it acknowledged.
const STORED_WAIT: Duration = Duration::from_secs(20);

/// After a server's end, so that the disk is done with its files before the next one.
const BETWEEN: Duration = Duration::from_secs(1);

/// File systems that are memory.
const TMPFS: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// The league of durable acknowledgements.
#[derive(Debug, Parser)]
#[command(name = "league")]
struct Args {
    /// Rounds; the table has medians of them. 0 only traces.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before each, which do not count.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Only these systems, by their names with commas between.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Names the systems, and does nothing.
    #[arg(long)]
    list: bool,
    /// Shows of each trace what happened to its last request.
    #[arg(long)]
    trace: bool,
    /// A line of JSON for each figure, instead of the table.
    #[arg(long)]
    json: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true, value_enum)]
    serve: Option<serve::Served>,
    #[arg(long, hide = true)]
    port: Option<u16>,
    #[arg(long, hide = true)]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match start(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("league: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    let league = async {
        match args.serve {
            Some(served) => {
                let dir = args.dir.as_deref().context("--serve needs --dir")?;
                serve::serve(served, args.port, dir).await?;
                Ok(ExitCode::SUCCESS)
            }
            None => tokio::select! {
                done = run(args) => done,
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted?;
                    bail!("interrupted")
                }
            },
        }
    };
    runtime.block_on(league)
}

/// The repository's root; `guarded` asks for it, too.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Awaits a condition: `guarded` asks for it.
pub(crate) async fn eventually<F, T>(what: &str, limit: Duration, mut check: F)
where
    F: FnMut() -> T,
    T: Future<Output = bool>,
{
    let until = Instant::now() + limit;
    while !check().await {
        assert!(Instant::now() < until, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All who take part, in the order of the table.
fn systems(dir: &Path) -> anyhow::Result<Vec<Box<dyn System>>> {
    Ok(vec![
        Box::new(grpc::Holdfast),
        Box::new(rabbitmq::RabbitMq { is_quorum: true }),
        Box::new(rabbitmq::RabbitMq { is_quorum: false }),
        Box::new(postgres::Postgres { rows: 1 }),
        Box::new(postgres::Postgres {
            rows: postgres::ROWS,
        }),
        Box::new(redis::Redis { is_always: true }),
        Box::new(redis::Redis { is_always: false }),
        Box::new(nats::Nats::new(dir)?),
        Box::new(file::PlainFile),
        Box::new(grpc::NoOp),
    ])
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let scratch = Scratch::new()?;
    let mut systems = systems(&scratch.dir.join("data"))?;
    if let Some(unknown) = args.only.iter().find(|name| {
        let mut named = systems.iter().map(|system| system.name());
        !named.any(|is| is == *name)
    }) {
        bail!("there is no {unknown}; --list names all");
    }
    systems.retain(|system| {
        let name = system.name();
        args.only.is_empty() || args.only.iter().any(|only| only == name)
    });
    if args.list {
        let names = systems.iter().map(|system| format!("{}\n", system.name()));
        say(&names.collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let payloads = Arc::new(Payloads::new(holdfast::clock::now_ms())?);
    eprintln!("league: payloads of about {} bytes", payloads.mean_bytes());
    let mut rows = Vec::new();
    for system in &systems {
        rows.push(traced(&**system, &payloads, &scratch, args.trace).await?);
    }
    let times = Times {
        warm_up: Duration::from_secs_f64(args.warm_up),
        measured: Duration::from_secs_f64(args.seconds),
    };
    for round in 0..args.rounds {
        for step in 0..systems.len() {
            // Another one begins each time.
            let at = (round + step) % systems.len();
            let name = systems[at].name();
            eprintln!("league: round {} of {}: {name}", round + 1, args.rounds);
            let measured = measure(&*systems[at], &payloads, &scratch, times, &mut rows[at]);
            measured.await.with_context(|| name.to_owned())?;
        }
    }
    if args.json {
        say(&report::json(&rows)?)?;
    } else if args.rounds > 0 {
        say(&report::table(&rows))?;
    }
    let wrong: Vec<_> = rows.iter().flat_map(|row| row.wrong.iter()).collect();
    for line in &wrong {
        eprintln!("league: {line}");
    }
    Ok(ExitCode::from(u8::from(!wrong.is_empty())))
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// A row that knows whether its system syncs.
async fn traced(
    system: &dyn System,
    payloads: &Payloads,
    scratch: &Scratch,
    is_shown: bool,
) -> anyhow::Result<Row> {
    let mut row = Row::new(system.name(), system.about());
    if system.promise() == Promise::StoresNothing {
        return Ok(row);
    }
    eprintln!("league: tracing {}", system.name());
    let file = scratch.trace_file(system.name());
    let dir = scratch.data_dir(system.name())?;
    let finding = trace::trace(system, payloads, &dir, &file).await;
    let finding = finding.with_context(|| system.name().to_owned())?;
    std::fs::remove_dir_all(&dir)?;
    row.synced = Some(finding.is_synced());
    if system.promise() == Promise::Synced && !finding.is_synced() {
        row.wrong.push(format!(
            "{} acknowledged {} of {} requests before their sync: see {}",
            row.name,
            finding.requests - finding.synced,
            finding.requests,
            file.display()
        ));
    }
    if is_shown {
        let (name, file) = (system.name(), file.display());
        say(&format!(
            "{name}: synced {} of {} requests; {file}\n",
            finding.synced, finding.requests
        ))?;
        let data = dir.display().to_string();
        for line in report::excerpt(&finding.excerpt, &data) {
            say(&format!("    {line}\n"))?;
        }
    }
    Ok(row)
}

/// One system in one round.
async fn measure(
    system: &dyn System,
    payloads: &Arc<Payloads>,
    scratch: &Scratch,
    times: Times,
    row: &mut Row,
) -> anyhow::Result<()> {
    let dir = scratch.data_dir(system.name())?;
    let server = system.start(&dir).await?;
    let per_ack = system.payloads_per_ack();
    let (mut acked, mut refused) = (0, 0);
    for in_flight in IN_FLIGHT {
        // One payload cannot wait for a commit of several.
        if in_flight < per_ack {
            continue;
        }
        let senders = server.senders(in_flight / per_ack).await?;
        let driven = drive(senders, payloads, per_ack, times).await?;
        acked += driven.acked;
        refused += driven.refused;
        if let Some(said) = &driven.first_refusal {
            eprintln!("league: {} refused {}: {said}", row.name, driven.refused);
        }
        row.places.push(place(in_flight, &driven)?);
    }
    if let Some(stored) = stored(&*server, acked).await? {
        row.acked += acked;
        row.stored += stored;
        // What was refused may be there.
        if stored < acked || stored > acked + refused {
            row.wrong.push(format!(
                "{}: {acked} payloads were acknowledged, {refused} refused, and {stored} are stored",
                row.name
            ));
        }
    }
    drop(server);
    std::fs::remove_dir_all(&dir)?;
    tokio::time::sleep(BETWEEN).await;
    Ok(())
}

fn place(in_flight: usize, driven: &Driven) -> anyhow::Result<Place> {
    let latency = |quantile| {
        driven
            .latency_ms(quantile)
            .context("nothing was acknowledged")
    };
    Ok(Place {
        in_flight,
        per_s: driven.per_s,
        p50_ms: latency(0.5)?,
        p99_ms: latency(0.99)?,
    })
}

/// What is stored, once it is all that was acknowledged, or after a while.
async fn stored(server: &dyn Server, acked: u64) -> anyhow::Result<Option<u64>> {
    let until = Instant::now() + STORED_WAIT;
    loop {
        let stored = server.stored().await?;
        if stored.is_none_or(|stored| stored >= acked) || Instant::now() > until {
            return Ok(stored);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Below cargo's target directory: data, which goes with it, and traces, which stay.
struct Scratch {
    dir: PathBuf,
    /// Held, so that no other run takes the data, or the cores.
    _lock: File,
}

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("league");
        std::fs::create_dir_all(dir.join("traces"))?;
        let is_memory = TMPFS.contains(&(rustix::fs::statfs(&dir)?.f_type as u64));
        ensure!(
            !is_memory,
            "{} is in memory, and not on a disk",
            dir.display()
        );
        let lock = File::create(dir.join("lock"))?;
        lock.try_lock().context("another run is under way")?;
        let data = dir.join("data");
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        std::fs::create_dir_all(&data)?;
        Ok(Self { dir, _lock: lock })
    }

    fn data_dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join("data").join(name);
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }

    fn trace_file(&self, name: &str) -> PathBuf {
        self.dir.join("traces").join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Servers have ended: what is left here is left for the next run to remove.
        drop(std::fs::remove_dir_all(self.dir.join("data")));
    }
}
