//! Real servers: RabbitMQ, ClickHouse's engine, PostgreSQL. Each can be killed with
//! SIGKILL and started again on its data.

use super::guarded::Guarded;
use super::{Scratch, eventually, free_port, root};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const READY: Duration = Duration::from_secs(90);

/// One server of a kind.
pub struct Server {
    kind: Kind,
    pub port: u16,
    dir: PathBuf,
    extra_ports: u16,
    tls: Option<ServerTls>,
    /// Postgres's, as `NAME=VALUE`.
    pub settings: Vec<String>,
    process: Option<Guarded>,
}

/// How a server is encrypted, beside its plain port (Postgres: on the same).
pub struct ServerTls {
    pub port: u16,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The issuer of the certificates that RabbitMQ asks its clients for.
    pub client_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    RabbitMq,
    ClickHouse,
    Postgres,
}

pub const CLICKHOUSE_USER: &str = "holdfast";
pub const CLICKHOUSE_PASSWORD: &str = "click-secret";

impl Server {
    pub fn new(kind: Kind, scratch: &Scratch) -> Self {
        let dir = scratch.0.join(format!("{kind:?}").to_lowercase());
        std::fs::create_dir_all(&dir).unwrap();
        Self {
            kind,
            port: free_port(),
            // RabbitMQ's distribution port, and its port mapper's after it.
            extra_ports: loop {
                let port = free_port();
                if free_port() == port + 1 {
                    break port;
                }
            },
            dir,
            tls: None,
            settings: Vec::new(),
            process: None,
        }
    }

    /// Encrypts it, from its next start.
    pub fn encrypt(&mut self, tls: ServerTls) {
        self.tls = Some(tls);
    }

    /// What the server's script is told of its encryption.
    fn tls_arguments(&self, tls: &ServerTls) -> Vec<String> {
        let [certificate, key] = [&tls.certificate, &tls.key].map(|path| path.display());
        match self.kind {
            Kind::RabbitMq => {
                let mut lines = format!(
                    "listeners.ssl.1 = 127.0.0.1:{}\nssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n",
                    tls.port
                );
                if let Some(ca) = &tls.client_ca {
                    lines += &format!(
                        "ssl_options.cacertfile = {}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
                        ca.display()
                    );
                }
                let file = self.dir.join("tls.conf");
                std::fs::write(&file, lines).unwrap();
                vec![file.display().to_string()]
            }
            Kind::ClickHouse => vec![
                tls.port.to_string(),
                certificate.to_string(),
                key.to_string(),
            ],
            Kind::Postgres => vec![
                "ssl=on".to_owned(),
                format!("ssl_cert_file={certificate}"),
                format!("ssl_key_file={key}"),
            ],
        }
    }

    fn command(&self) -> Vec<String> {
        let equipment = root().join("tests/equipment");
        let port = self.port.to_string();
        let dir = self.data_dir().display().to_string();
        let (script, arguments): (&str, Vec<String>) = match self.kind {
            Kind::RabbitMq => {
                let node = format!("holdfast{}", self.port);
                let dist = self.extra_ports.to_string();
                ("rabbitmq.sh", vec![node, port, dist, dir])
            }
            Kind::ClickHouse => {
                let python = std::env::var("HOLDFAST_TEST_PYTHON")
                    .expect("HOLDFAST_TEST_PYTHON is set by tests/run");
                let arguments = [
                    &port,
                    &dir,
                    CLICKHOUSE_USER,
                    CLICKHOUSE_PASSWORD,
                    "holdfast",
                    &python,
                ];
                (
                    "clickhouse_server.sh",
                    arguments.map(str::to_owned).to_vec(),
                )
            }
            Kind::Postgres => ("postgres.sh", vec![port, dir]),
        };
        let mut command = vec![equipment.join(script).display().to_string()];
        command.extend(arguments);
        command.extend(self.tls.iter().flat_map(|tls| self.tls_arguments(tls)));
        command.extend(self.settings.iter().cloned());
        command
    }

    /// Starts it and waits until it answers.
    pub async fn start(&mut self) {
        self.launch();
        self.ready().await;
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) {
        assert!(self.process.is_none());
        let environment = [(
            "ERL_EPMD_PORT".to_owned(),
            (self.extra_ports + 1).to_string(),
        )];
        let log = self.dir.join("server.log");
        self.process = Some(Guarded::start(&self.command(), &environment, &log));
    }

    /// Waits until it answers in its own protocol.
    pub async fn ready(&mut self) {
        let what = format!("{:?} answers", self.kind);
        let (kind, port) = (self.kind, self.port);
        eventually(&what, READY, || async {
            tokio::task::spawn_blocking(move || answers(kind, port))
                .await
                .unwrap()
        })
        .await;
    }

    /// Waits until it answers, and launches it again where it ended by itself.
    pub async fn ready_again(&mut self) {
        let what = format!("{:?} answers again", self.kind);
        let (kind, port) = (self.kind, self.port);
        eventually(&what, READY, || {
            if self.has_ended() {
                self.launch();
            }
            async move {
                tokio::task::spawn_blocking(move || answers(kind, port))
                    .await
                    .unwrap()
            }
        })
        .await;
    }

    /// kill -9, with all its descendants.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        let process = self.process.take().expect("it runs");
        let limit = Duration::from_secs(40);
        // Postgres would wait for its clients at the other signal.
        match self.kind {
            Kind::Postgres => process.interrupt(limit),
            Kind::RabbitMq | Kind::ClickHouse => process.terminate(limit),
        };
    }

    /// Whether it has ended by itself; it can be started again then.
    pub fn has_ended(&mut self) -> bool {
        let has_ended = self.process.as_mut().is_none_or(Guarded::has_ended);
        if has_ended {
            self.process = None;
        }
        has_ended
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").pid()
    }

    /// Where its data is.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// SIGSTOP, with all its descendants: connections stay open and nobody answers.
    pub async fn pause(&self) {
        self.process.as_ref().expect("it runs").pause().await;
    }

    /// Ends a `pause`.
    pub async fn resume(&self) {
        self.process.as_ref().expect("it runs").resume().await;
    }

    pub fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    pub fn postgres_url(&self) -> String {
        format!("postgres://holdfast@127.0.0.1:{}/holdfast", self.port)
    }

    pub fn clickhouse_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The section of a collector's configuration that names this ClickHouse.
    pub fn clickhouse_section(&self) -> String {
        format!(
            "[clickhouse]\nurl = \"{}\"\ndatabase = \"holdfast\"\n\
             user = \"{CLICKHOUSE_USER}\"\npassword = \"{CLICKHOUSE_PASSWORD}\"\n",
            self.clickhouse_url()
        )
    }

    /// Makes RabbitMQ write its queues' registrations down. RabbitMQ 3.10 confirms a
    /// new quorum queue before they are, and kill -9 within seconds of the
    /// declaration loses the queue for good (seen on every try); a fault of a
    /// broker just set up, not of what these tests are about.
    pub fn settle_queues(&self) {
        self.rabbitmqctl(&["eval", "[dets:sync(T) || T <- dets:all()]."]);
    }

    /// Runs rabbitmqctl on it.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> String {
        let output = Command::new(root().join("tests/equipment/rabbitmqctl.sh"))
            .arg(self.dir.join("data"))
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text
    }
}

fn answers(kind: Kind, port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let limit = Some(Duration::from_secs(2));
    stream.set_read_timeout(limit).unwrap();
    match kind {
        Kind::RabbitMq => {
            // A broker that is up answers the protocol header with a method frame.
            let mut first = [0];
            stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok()
                && stream.read_exact(&mut first).is_ok()
                && first[0] == 1
        }
        Kind::ClickHouse => {
            let request = format!(
                "GET /?query=SELECT%201&database=holdfast HTTP/1.0\r\nX-ClickHouse-User: {CLICKHOUSE_USER}\r\nX-ClickHouse-Key: {CLICKHOUSE_PASSWORD}\r\n\r\n"
            );
            let mut answer = String::new();
            stream.write_all(request.as_bytes()).is_ok()
                && stream.read_to_string(&mut answer).is_ok()
                && answer.contains(" 200 ")
        }
        Kind::Postgres => {
            // A startup packet for the user; 'R' asks for or grants authentication,
            // 'E' says that it still starts.
            let mut packet = vec![0, 0, 0, 0, 0, 3, 0, 0];
            packet.extend(b"user\0holdfast\0database\0holdfast\0\0");
            let length = packet.len() as u32;
            packet[..4].copy_from_slice(&length.to_be_bytes());
            let mut first = [0];
            stream.write_all(&packet).is_ok()
                && stream.read_exact(&mut first).is_ok()
                && first[0] == b'R'
        }
    }
}

/// All three, for tests of the whole path.
pub struct Stack {
    pub rabbitmq: Server,
    pub clickhouse: Server,
    pub postgres: Server,
}

impl Stack {
    pub fn new(scratch: &Scratch) -> Self {
        Self {
            rabbitmq: Server::new(Kind::RabbitMq, scratch),
            clickhouse: Server::new(Kind::ClickHouse, scratch),
            postgres: Server::new(Kind::Postgres, scratch),
        }
    }

    pub async fn start(scratch: &Scratch) -> Self {
        let mut stack = Self::new(scratch);
        for server in stack.servers() {
            server.launch();
        }
        for server in stack.servers() {
            server.ready().await;
        }
        stack
    }

    pub fn servers(&mut self) -> [&mut Server; 3] {
        [&mut self.rabbitmq, &mut self.clickhouse, &mut self.postgres]
    }

    pub fn server(&mut self, kind: Kind) -> &mut Server {
        match kind {
            Kind::RabbitMq => &mut self.rabbitmq,
            Kind::ClickHouse => &mut self.clickhouse,
            Kind::Postgres => &mut self.postgres,
        }
    }

    /// The sections of a collector's configuration that name these servers.
    pub fn config(&self) -> String {
        format!(
            "[rabbitmq]\nurls = [\"{}\"]\n\
             {}\
             [postgres]\nurl = \"{}\"\n",
            self.rabbitmq.amqp_url(),
            self.clickhouse.clickhouse_section(),
            self.postgres.postgres_url(),
        )
    }
}
