//! The consumers' contract as a whole, on real RabbitMQ, ClickHouse and Postgres: a
//! foreign producer puts a thousand realistic messages on each queue's exchange, one of a
//! hundred broken in a known way, and a foreign judge compares what became of them with
//! its record (tests/clients/python/queues.py).

mod clickhouse_away;
mod every_queue;
mod partners;

use self::partners::Partners;
use crate::support::collector::{Collector, get};
use crate::support::scripts::Script;
use crate::support::servers::{CLICKHOUSE_PASSWORD, CLICKHOUSE_USER, Stack};
use crate::support::{Scratch, eventually, load_events, seed};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a script may take; it ends by itself before that.
const SCRIPT: Duration = Duration::from_secs(310);

/// How long the databases may take to make the tables.
const TABLES: Duration = Duration::from_secs(60);

/// How long everything may take to arrive, in the scripts' form: seconds.
const ARRIVAL: &str = "120";

/// The queue whose rows others look up.
const LAUNCHES: &str = "launch_refer_event_q";

/// What makes a click a bot's, as the producer knows it.
const CLICKS: &str =
    "[clicks]\nbot_ips = [\"203.0.113.66\"]\nbot_referers = [\"preview.example\"]\n";

/// How long calls to partners may be under way that were begun already.
const SETTLED: Duration = Duration::from_secs(60);

/// How old the broker's figures of a queue may be: it takes them every 5 s.
const COUNTED: Duration = Duration::from_secs(6);

/// Servers, a collector with all sinks, and the producer's record.
struct Site {
    stack: Stack,
    collector: Collector,
    partners: Partners,
    scratch: Scratch,
    seed: u64,
    /// Messages of each queue.
    messages: usize,
    /// The day on which it began.
    day: i64,
}

impl Site {
    /// Starts all but the collector. `consumers` are `[[consumer]]` entries.
    async fn start(name: &str, consumers: &str, welcomes_all: bool) -> Self {
        let scratch = Scratch::new(name);
        let stack = Stack::start(&scratch).await;
        let partners = Partners::start(&scratch.0.join("calls.jsonl"), welcomes_all).await;
        let collector = collector(&scratch, &stack, &partners, consumers);
        Self {
            stack,
            collector,
            partners,
            scratch,
            seed: seed(),
            messages: (load_events() / 200).max(20),
            day: day(),
        }
    }

    /// Another collector on the same data directory; the one before has ended.
    fn configure(&mut self, consumers: &str) {
        self.collector = collector(&self.scratch, &self.stack, &self.partners, consumers);
    }

    /// Starts the collector and waits until both databases have their tables.
    async fn open(&mut self) {
        self.collector.start().await;
        let tables = || async { self.collector.log().matches("tables are there").count() == 2 };
        eventually("both databases have their tables", TABLES, tables).await;
    }

    fn path(&self, name: &str) -> String {
        self.scratch.0.join(name).display().to_string()
    }

    /// The records with these names, as the scripts take them.
    fn records(&self, names: &[&str]) -> String {
        let paths: Vec<_> = names.iter().map(|name| self.path(name)).collect();
        paths.join(",")
    }

    /// Starts a verb of queues.py. `@` words stand for addresses and paths.
    fn begin(&self, verb: &str, arguments: &[&str]) -> Script {
        let mut all = vec![verb.to_owned()];
        for &argument in arguments {
            match argument {
                "@broker" => all.push(self.stack.rabbitmq.amqp_url()),
                "@calls" => all.push(self.path("calls.jsonl")),
                "@tables" => all.extend([
                    self.stack.clickhouse.clickhouse_url(),
                    CLICKHOUSE_USER.to_owned(),
                    CLICKHOUSE_PASSWORD.to_owned(),
                    "holdfast".to_owned(),
                    self.stack.postgres.postgres_url(),
                ]),
                other => all.push(other.to_owned()),
            }
        }
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        Script::start_python(&self.scratch, "queues.py", &all)
    }

    /// Runs a verb of queues.py to its good end; gives what it said.
    async fn verb(&self, verb: &str, arguments: &[&str]) -> String {
        let started = Instant::now();
        let said = self.begin(verb, arguments).ends(SCRIPT).await;
        eprintln!("{verb}, {:.1?}: {said}", started.elapsed());
        said
    }

    /// Starts publishing into a record.
    fn produce(&self, record: &str, more: &[&str]) -> Script {
        let (record, count) = (self.path(record), self.messages.to_string());
        let seed = self.seed.to_string();
        let arguments = [&["@broker", &record, &count, &seed], more].concat();
        self.begin("produce", &arguments)
    }

    /// Ends the collector, so that what it had not settled would be back in its queue,
    /// and has the judges look at everything.
    async fn judge(&mut self, records: &str, state: &[&str], judged: Judged) {
        // What a killed collector had in work comes again, and may be in work again when all
        // rows are there; a consumer that lost its connection is back only after a while.
        self.verb("emptied", &["@broker"]).await;
        let settled_since = Cell::new(None);
        eventually("every delivery is settled", SETTLED, || async {
            let looked = Instant::now();
            let words = ["-q", "list_queues", "name", "messages_unacknowledged"];
            let queues = self.stack.rabbitmq.rabbitmqctl(&words);
            let count = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
            let mut counts = queues.lines().filter_map(count).peekable();
            let is_settled = counts.peek().is_some() && counts.all(|count| count == 0);
            let since = is_settled.then(|| settled_since.get().unwrap_or(looked));
            settled_since.set(since);
            since.is_some_and(|since| looked - since > COUNTED)
        })
        .await;
        let status = self.collector.terminate();
        assert!(status.success(), "{status}");
        self.verb("drained", &["@broker"]).await;
        let lives = (judged.lives + day() - self.day).to_string();
        let (killed, in_work) = (judged.killed_to.to_string(), judged.in_work.to_string());
        let tables = [&["@tables", records][..], state, &["--lives", &lives]].concat();
        self.verb("judge", &tables).await;
        let errors = [&["@broker", records][..], state, &["--killed-to", &killed]].concat();
        self.verb("errors", &errors).await;
        let more = ["--killed-to", &killed, "--in-work", &in_work];
        self.verb("calls", &[&["@calls", records][..], state, &more].concat())
            .await;
    }
}

/// What the judges allow for.
struct Judged {
    /// Lives of collectors that consumed; each counts clicks anew.
    lives: i64,
    /// Messages up to this number may have been handed over again.
    killed_to: usize,
    /// Calls that may have been in work when the collector was killed.
    in_work: usize,
}

/// Clicks are counted by the day.
fn day() -> i64 {
    holdfast::clock::now_ms() / (24 * 3600 * 1000)
}

fn collector(scratch: &Scratch, stack: &Stack, partners: &Partners, consumers: &str) -> Collector {
    let (servers, calls) = (stack.config(), partners.config());
    let config = [servers.as_str(), &calls, CLICKS, consumers].concat();
    Collector::new(scratch, &config)
}

/// The sum of a counter of consumers over all of them that have an outcome.
fn outcomes(collector: &Collector, outcome: &str) -> f64 {
    let (_, text) = get(collector.http, "/metrics").expect("metrics are served");
    let label = format!("outcome=\"{outcome}\"");
    let series = text
        .lines()
        .filter(|line| line.starts_with("holdfast_consumer_rows_total{") && line.contains(&label));
    series
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
