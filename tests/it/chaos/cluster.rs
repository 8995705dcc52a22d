//! Three RabbitMQ nodes, each in a network of its own behind one bridge, and what can
//! happen to them. Used by `site`.
//!
//! # Invariants
//! - A fault's end returns once every node answers: what comes after that is the
//!   collector's own time.
//! - The queues outlive every fault (a majority of nodes has them on its disk).

use super::Subject;
use crate::support::guarded::Guarded;
use crate::support::small_disk::run;
use crate::support::{Scratch, eventually, root};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How many: the least that has a majority without one.
const NODES: usize = 3;

/// The bridge, whose address is the collector's end.
const BRIDGE: &str = "holdfast0";

/// Where every node listens for clients.
const PORT: u16 = 5672;

/// Seconds after which nodes notice that one is gone, so that a partition of some
/// seconds is one to them, too.
const TICK: &str = "4";

/// How soon nodes answer, on a machine that does much else.
const READY: Duration = Duration::from_secs(120);

/// How soon a node answers that boots: one that does not by then hangs, and its supervisor or an
/// operator starts it anew.
const BOOTS: Duration = Duration::from_secs(60);

/// How soon nodes find each other again by themselves, where they do: many times what they
/// wait for one that does not answer ([`TICK`]).
const HEALS: Duration = Duration::from_secs(30);

/// The queue whose leader is moved: every event goes through it.
const QUEUE: &str = "grpc_clickhouse_event_q";

/// What a slow line lets through.
const SLOW_RATE: &str = "1mbit";

/// A broker that stops and goes on works for the second part of this time.
const HALTS: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(80));

/// What can happen to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// One node stops in order.
    NodeRestarted,
    /// kill -9 of one.
    NodeKilled,
    /// kill -9 of all at once.
    AllKilled,
    /// Every connection to the brokers is reset by the kernel, again and again.
    ConnectionsCut,
    /// One node is cut off from the others and from the collector.
    Partition,
    /// The nodes cannot reach each other; the collector reaches all.
    Split,
    /// The collector reaches no node.
    AllAway,
    /// Publishers are blocked for want of memory.
    MemoryAlarm,
    /// Publishers are blocked for want of disk.
    DiskAlarm,
    /// The queue's leader moves from node to node.
    LeaderMoved,
    /// The lines to all nodes are slow.
    SlowLine,
    /// All nodes stop and go on.
    Halting,
    /// One node answers nothing (SIGSTOP).
    NodeFrozen,
}

/// The nodes.
pub struct Cluster {
    nodes: Vec<Node>,
    /// Goes on with what a fault repeats.
    repeating: Option<(CancellationToken, JoinHandle<()>)>,
    /// Whom the fault in force is about.
    hit: Vec<usize>,
}

struct Node {
    number: usize,
    dir: PathBuf,
    cookie: String,
    /// A process that keeps the node's network while the node is down.
    network: Guarded,
    process: Option<Guarded>,
}

impl Cluster {
    /// Makes the networks and starts the nodes as one cluster. Call it in a network
    /// namespace: the names of devices are the same for all.
    pub async fn start(scratch: &Scratch, seed: u64) -> Self {
        let mut hosts = std::fs::read_to_string("/etc/hosts").unwrap();
        for number in 1..=NODES {
            hosts += &format!("\n{} {}", address(number), host(number));
        }
        let file = scratch.0.join("hosts");
        std::fs::write(&file, hosts + "\n").unwrap();
        let file = file.display().to_string();
        run("mount", &["--bind", &file, "/etc/hosts"]);
        run("ip", &["link", "add", "name", BRIDGE, "type", "bridge"]);
        run("ip", &["addr", "add", "10.77.0.254/24", "dev", BRIDGE]);
        run("ip", &["link", "set", BRIDGE, "up"]);
        let mut random = StdRng::seed_from_u64(seed);
        let cookie = format!("{:032x}", random.random::<u128>());
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            nodes.push(Node::new(scratch, number, &cookie).await);
        }
        let mut cluster = Self {
            nodes,
            repeating: None,
            hit: Vec::new(),
        };
        cluster.nodes.iter_mut().for_each(Node::launch);
        cluster.ready().await;
        cluster
    }

    /// Where the nodes are, for a configuration.
    pub fn urls(&self) -> Vec<String> {
        let url = |node: &Node| {
            let address = address(node.number);
            format!("amqp://guest:guest@{address}:{PORT}/%2f")
        };
        self.nodes.iter().map(url).collect()
    }

    /// Every node answers, and knows of all the others.
    async fn ready(&self) {
        self.answer().await;
        eventually("the nodes are one cluster", READY, || async {
            self.nodes.iter().all(|node| node.running() == NODES)
        })
        .await;
    }

    /// Whether that is so within [`HEALS`].
    async fn is_ready_by_itself(&self) -> bool {
        let until = Instant::now() + HEALS;
        while Instant::now() < until {
            if self.nodes.iter().all(|node| node.running() == NODES) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        false
    }

    /// Nodes that have not answered by then.
    async fn silent_after(&self, limit: Duration) -> Vec<usize> {
        let until = Instant::now() + limit;
        let mut silent: Vec<_> = self.nodes.iter().map(|node| node.number).collect();
        while !silent.is_empty() && Instant::now() < until {
            let asked = silent.clone();
            let still = move || {
                asked
                    .into_iter()
                    .filter(|number| !answers(*number))
                    .collect()
            };
            silent = tokio::task::spawn_blocking(still).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        silent
    }

    async fn answer(&self) {
        for node in &self.nodes {
            let number = node.number;
            eventually(&format!("node {number} answers"), READY, || async move {
                let answers = tokio::task::spawn_blocking(move || answers(number));
                answers.await.unwrap()
            })
            .await;
        }
    }

    /// Whether the collector's side of the network knows no way to the nodes.
    fn away(&self, is: bool) {
        for node in &self.nodes {
            run(
                "ip",
                &blackhole(is, node.number).each_ref().map(String::as_str),
            );
        }
    }

    /// Writes the registrations of queues down (see `Server::settle_queues`).
    pub fn settle_queues(&self) {
        for node in &self.nodes {
            node.ctl(&["eval", "[dets:sync(T) || T <- dets:all()]."]);
        }
    }

    /// Deletes a queue, with what is in it.
    pub fn delete_queue(&self, queue: &str) {
        self.nodes[0].ctl(&["delete_queue", queue]);
    }

    /// Stops the first node in order, until a fault ends.
    pub fn stop_first(&mut self) {
        self.nodes[0].stop();
    }

    /// Whether there is such a queue, of that kind.
    pub fn has_queue(&self, queue: &str, kind: &str) -> bool {
        let text = self.nodes[0].ctl(&["-q", "list_queues", "name", "type"]);
        text.lines().any(|line| {
            line.split_once('\t')
                .is_some_and(|(name, of)| name == queue && of.contains(kind))
        })
    }

    /// What goes from where to which queue, in any order that is always the same.
    pub fn bindings(&self) -> Vec<String> {
        let columns = ["source_name", "routing_key", "destination_name"];
        let text = self.nodes[0].ctl(&[&["-q", "list_bindings"], &columns[..]].concat());
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// The queues with something in them: what waits, what is out, for how many consumers.
    pub fn filled_queues(&self) -> String {
        let columns = "name messages_ready messages_unacknowledged consumers state leader";
        let list: Vec<_> = ["-q", "list_queues"]
            .into_iter()
            .chain(columns.split(' '))
            .collect();
        let text = self.nodes[1].ctl(&list);
        let filled = text.lines().filter(|line| !line.contains("\t0\t0\t"));
        filled.collect::<Vec<_>>().join("\n")
    }

    fn some(&self, random: &mut StdRng) -> usize {
        random.random_range(0..self.nodes.len())
    }

    /// Does something again and again, until the fault's end.
    fn repeat(&mut self, pause: Duration, mut act: impl FnMut() + Send + 'static) {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                tokio::task::block_in_place(&mut act);
                tokio::time::sleep(pause).await;
            }
        });
        self.repeating = Some((stop, task));
    }
}

impl Subject for Cluster {
    type Fault = Fault;
    const FAULTS: &'static [Fault] = &[
        Fault::NodeRestarted,
        Fault::NodeKilled,
        Fault::AllKilled,
        Fault::ConnectionsCut,
        Fault::Partition,
        Fault::Split,
        Fault::AllAway,
        Fault::MemoryAlarm,
        Fault::DiskAlarm,
        Fault::LeaderMoved,
        Fault::SlowLine,
        Fault::Halting,
        Fault::NodeFrozen,
    ];

    fn longest(fault: Fault) -> Duration {
        // Longer than the nodes' own patience with each other.
        let is_partition = matches!(fault, Fault::Partition | Fault::Split | Fault::AllAway);
        Duration::from_secs(if is_partition { 9 } else { 4 })
    }

    async fn begin(&mut self, fault: Fault, random: &mut StdRng) {
        let some = self.some(random);
        self.hit = vec![some];
        match fault {
            Fault::NodeRestarted => self.nodes[some].stop(),
            Fault::NodeKilled => self.nodes[some].kill(),
            Fault::AllKilled => self.nodes.iter_mut().for_each(Node::kill),
            Fault::ConnectionsCut => {
                let pause = Duration::from_millis(random.random_range(200..1500));
                let port = format!("dport = :{PORT}");
                self.repeat(pause, move || {
                    run("ss", &["-K", "dst", "10.77.0.0/24", &port]);
                });
            }
            Fault::Partition => self.nodes[some].line("down"),
            Fault::Split => {
                for node in &self.nodes {
                    node.away_from_the_others(true);
                }
            }
            Fault::AllAway => self.away(true),
            Fault::MemoryAlarm => {
                let low = ["set_vm_memory_high_watermark", "0.000001"];
                self.nodes[some].ctl(&low);
            }
            Fault::DiskAlarm => {
                self.nodes[some].ctl(&["set_disk_free_limit", "100000GB"]);
            }
            Fault::LeaderMoved => {
                for to in random_order(random) {
                    self.nodes[some].lead_at(to);
                }
            }
            Fault::SlowLine => {
                for node in &self.nodes {
                    let device = node.device();
                    run(
                        "tc",
                        &[
                            "qdisc", "add", "dev", &device, "root", "tbf", "rate", SLOW_RATE,
                            "burst", "16kb", "latency", "300ms",
                        ],
                    );
                }
            }
            Fault::Halting => {
                let pids: Vec<_> = self.nodes.iter().map(Node::pid).collect();
                self.repeat(HALTS.1, move || {
                    signal_all("STOP", &pids);
                    std::thread::sleep(HALTS.0);
                    signal_all("CONT", &pids);
                });
            }
            Fault::NodeFrozen => self.nodes[some].process().pause().await,
        }
    }

    async fn end(&mut self, fault: Fault) {
        if let Some((stop, task)) = self.repeating.take() {
            stop.cancel();
            task.await.unwrap();
        }
        for at in std::mem::take(&mut self.hit) {
            match fault {
                Fault::Partition => self.nodes[at].line("up"),
                Fault::MemoryAlarm => {
                    self.nodes[at].ctl(&["set_vm_memory_high_watermark", "0.4"]);
                }
                Fault::DiskAlarm => {
                    self.nodes[at].ctl(&["set_disk_free_limit", "50MB"]);
                }
                Fault::NodeFrozen => self.nodes[at].process().resume().await,
                _ => {}
            }
        }
        match fault {
            Fault::Split => {
                for node in &self.nodes {
                    node.away_from_the_others(false);
                }
            }
            Fault::AllAway => self.away(false),
            Fault::SlowLine => {
                for node in &self.nodes {
                    run("tc", &["qdisc", "del", "dev", &node.device(), "root"]);
                }
            }
            _ => {}
        }
        let down = self.nodes.iter_mut().filter(|node| node.process.is_none());
        down.for_each(Node::launch);
        // Seen of a node that restarts itself because it had lost the others: its log ends in the
        // middle of its boot.
        let hanging = self.silent_after(BOOTS).await;
        for node in self.nodes.iter_mut() {
            if hanging.contains(&node.number) {
                eprintln!(
                    "node {} hangs while it boots, and is started anew",
                    node.number
                );
                node.kill();
                node.launch();
            }
        }
        self.answer().await;
    }

    async fn settle(&mut self) {
        self.answer().await;
        for _ in 0..NODES {
            if self.is_ready_by_itself().await {
                return;
            }
            // Nodes that lost each other and were back before they had noticed do not join
            // again: their log says "inconsistent_database", and their guide to partitions
            // tells the operator to start one of them anew.
            let seen = self.nodes.iter_mut().min_by_key(|node| node.running());
            let lone = seen.expect("there are nodes");
            eprintln!("node {} is started anew, as its guide says", lone.number);
            lone.kill();
            lone.launch();
            self.answer().await;
        }
        self.ready().await;
    }
}

/// A route that leads nowhere, or none.
fn blackhole(is: bool, number: usize) -> [String; 4] {
    let change = if is { "add" } else { "del" };
    let to = format!("{}/32", address(number));
    ["route", change, "blackhole", &to].map(str::to_owned)
}

impl Node {
    async fn new(scratch: &Scratch, number: usize, cookie: &str) -> Self {
        let dir = scratch.0.join(host(number));
        std::fs::create_dir_all(&dir).unwrap();
        let command = ["unshare", "-n", "sleep", "infinity"].map(str::to_owned);
        let network = Guarded::start(&command, &[], &dir.join("network.log"));
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let pidfile = dir.join("network.pid");
        eventually("the node has its network", READY, || async {
            pidfile.exists()
                && std::fs::read_link(format!("/proc/{}/ns/net", network.pid()))
                    .is_ok_and(|other| other != own)
        })
        .await;
        let node = Self {
            number,
            dir,
            cookie: cookie.to_owned(),
            network,
            process: None,
        };
        let (device, pid) = (node.device(), node.network.pid().to_string());
        let inside = format!("eth{number}");
        run(
            "ip",
            &[
                "link", "add", "name", &device, "type", "veth", "peer", "name", &inside,
            ],
        );
        run("ip", &["link", "set", &inside, "netns", &pid]);
        run("ip", &["link", "set", &device, "master", BRIDGE]);
        node.line("up");
        let prefix = format!("{}/24", address(number));
        node.inside(&["ip", "link", "set", "lo", "up"]);
        node.inside(&["ip", "addr", "add", &prefix, "dev", &inside]);
        node.inside(&["ip", "link", "set", &inside, "up"]);
        node
    }

    /// The end of its line that is at the bridge.
    fn device(&self) -> String {
        format!("node{}", self.number)
    }

    fn line(&self, state: &str) {
        run("ip", &["link", "set", &self.device(), state]);
    }

    /// Whether it knows no way to the other nodes.
    fn away_from_the_others(&self, is: bool) {
        for other in (1..=NODES).filter(|other| *other != self.number) {
            let route = blackhole(is, other);
            let route = route.each_ref().map(String::as_str);
            self.inside(&[&["ip"], &route[..]].concat());
        }
    }

    /// Runs a command in its network.
    fn inside(&self, command: &[&str]) -> String {
        let network = format!("--net=/proc/{}/ns/net", self.network.pid());
        run("nsenter", &[&[network.as_str()], command].concat())
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        let script = root().join("tests/equipment/rabbitmqctl.sh");
        let (script, dir) = (script.display().to_string(), self.data());
        let command = [&[script.as_str(), dir.as_str()], arguments].concat();
        tokio::task::block_in_place(|| self.inside(&command))
    }

    fn data(&self) -> String {
        self.dir.join("data").display().to_string()
    }

    fn launch(&mut self) {
        let mut config = "loopback_users = none\ncluster_partition_handling = pause_minority\n\
                          cluster_formation.peer_discovery_backend = classic_config\n\
                          cluster_formation.randomized_startup_delay_range.min = 0\n\
                          cluster_formation.randomized_startup_delay_range.max = 1\n"
            .to_owned();
        for number in 1..=NODES {
            config += &format!(
                "cluster_formation.classic_config.nodes.{number} = holdfast@{}\n",
                host(number)
            );
        }
        let file = self.dir.join("cluster.conf");
        std::fs::write(&file, config).unwrap();
        let script = root().join("tests/equipment/rabbitmq.sh");
        let network = format!("--net=/proc/{}/ns/net", self.network.pid());
        let command = [
            "nsenter",
            &network,
            &script.display().to_string(),
            "holdfast",
            &PORT.to_string(),
            "25672",
            &self.data(),
            &file.display().to_string(),
        ]
        .map(str::to_owned);
        let environment = [
            ("RABBIT_HOST", host(self.number)),
            ("RABBIT_ADDRESS", address(self.number)),
            ("RABBIT_COOKIE", self.cookie.clone()),
            ("RABBIT_TICK", TICK.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let log = self.dir.join("server.log");
        self.process = Some(Guarded::start(&command, &environment, &log));
    }

    fn process(&self) -> &Guarded {
        self.process.as_ref().expect("the node runs")
    }

    fn pid(&self) -> String {
        self.process().pid().to_string()
    }

    fn kill(&mut self) {
        self.process.take().expect("the node runs").kill();
    }

    fn stop(&mut self) {
        let process = self.process.take().expect("the node runs");
        process.terminate(Duration::from_secs(40));
    }

    /// How many nodes run and are in touch with it; 0 where it does not.
    fn running(&self) -> usize {
        let query = "rabbit_mnesia:cluster_nodes(running).";
        let script = root().join("tests/equipment/rabbitmqctl.sh");
        let network = format!("--net=/proc/{}/ns/net", self.network.pid());
        let arguments = [
            network,
            script.display().to_string(),
            self.data(),
            "eval".to_owned(),
            query.to_owned(),
        ];
        let command = std::process::Command::new("nsenter")
            .args(arguments)
            .output();
        let text = String::from_utf8(command.unwrap().stdout).unwrap();
        (1..=NODES)
            .filter(|number| text.contains(&host(*number)))
            .count()
    }

    /// Makes another node the leader of the queue, where it is not yet.
    fn lead_at(&self, to: usize) {
        let query = format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{QUEUE}\">>)), \
             rabbit_quorum_queue:transfer_leadership(Q, 'holdfast@{}').",
            host(to)
        );
        let said = self.ctl(&["eval", &query]);
        assert!(said.contains("migrated"), "{said}");
    }
}

fn host(number: usize) -> String {
    format!("holdfastnode{number}")
}

fn address(number: usize) -> String {
    format!("10.77.0.{number}")
}

fn random_order(random: &mut StdRng) -> Vec<usize> {
    let all: Vec<_> = (1..=NODES).collect();
    all.choose_multiple(random, NODES).copied().collect()
}

fn signal_all(signal: &str, pids: &[String]) {
    for pid in pids {
        run("kill", &[&format!("-{signal}"), pid]);
    }
}

/// A broker that is up answers the protocol header with a method frame.
fn answers(number: usize) -> bool {
    let address: SocketAddr = format!("{}:{PORT}", address(number)).parse().unwrap();
    let limit = Duration::from_secs(2);
    let Ok(mut stream) = TcpStream::connect_timeout(&address, limit) else {
        return false;
    };
    let mut first = [0];
    stream.set_read_timeout(Some(limit)).is_ok()
        && stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok()
        && stream.read_exact(&mut first).is_ok()
        && first[0] == 1
}
