//! The collector under test: the real binary in its own directory.

use super::guarded::Guarded;
use super::{Scratch, eventually, free_port};
use holdfast::event::proto::event_service_client::EventServiceClient;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

pub struct Collector {
    pub dir: PathBuf,
    pub grpc: u16,
    pub http: u16,
    /// Where its page for operators is.
    pub admin: u16,
    /// Set for the process, and for it alone (not for its guard).
    pub environment: Vec<(String, String)>,
    /// Started in its directory without a configuration file, and with no variable but
    /// these.
    is_bare: bool,
    process: Option<Guarded>,
}

/// Of a failed test's collector, so many of its last complaints are shown, each so long: more
/// would push the failure itself out of what is kept of the output.
const SHOWN_LINES: usize = 12;
const SHOWN_CHARS: usize = 240;

impl Drop for Collector {
    fn drop(&mut self) {
        let log = std::fs::read_to_string(self.dir.join("collector.log"));
        let (true, Ok(log)) = (std::thread::panicking(), log) else {
            return;
        };
        let complaints: Vec<_> = log
            .lines()
            .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
            .collect();
        let first = complaints.len().saturating_sub(SHOWN_LINES);
        for line in &complaints[first..] {
            eprintln!(
                "collector: {}",
                line.chars().take(SHOWN_CHARS).collect::<String>()
            );
        }
    }
}

/// The binary that cargo built for this test run.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_holdfast"))
}

impl Collector {
    /// Writes the configuration; `more` is TOML after the listen addresses. Where it says
    /// nothing else, the journal may take longer than by default to acknowledge: the disk
    /// of a test machine is shared with the servers that the tests start, and may stall for
    /// a second.
    pub fn new(scratch: &Scratch, more: &str) -> Self {
        let dir = scratch.0.join("collector");
        std::fs::create_dir_all(&dir).unwrap();
        let (grpc, http, admin) = (free_port(), free_port(), free_port());
        let listen = [("grpc", grpc), ("http", http), ("admin", admin)]
            .map(|(door, port)| format!("[{door}]\nlisten = \"127.0.0.1:{port}\"\n"))
            .concat();
        let data = dir.join("data");
        let mut config = format!("[data]\ndir = \"{}\"\n{listen}{more}", data.display());
        if !config.contains("ack_deadline") {
            const PATIENT: &str = "[journal]\nack_deadline = \"4s\"\n";
            if config.contains("[journal]\n") {
                config = config.replacen("[journal]\n", PATIENT, 1);
            } else {
                config = format!("{config}\n{PATIENT}");
            }
        }
        std::fs::write(dir.join("holdfast.toml"), config).unwrap();
        Self {
            dir,
            grpc,
            http,
            admin,
            environment: Vec::new(),
            is_bare: false,
            process: None,
        }
    }

    /// One without a configuration file, which must find its ports in its directory or
    /// its environment.
    pub fn bare(scratch: &Scratch) -> Self {
        let dir = scratch.0.join("collector");
        std::fs::create_dir_all(&dir).unwrap();
        Self {
            dir,
            grpc: free_port(),
            http: free_port(),
            admin: free_port(),
            environment: Vec::new(),
            is_bare: true,
            process: None,
        }
    }

    /// Another handle to the same addresses, for clients that outlive a restart.
    pub fn same_address(&self) -> Self {
        Self {
            dir: self.dir.clone(),
            grpc: self.grpc,
            http: self.http,
            admin: self.admin,
            environment: Vec::new(),
            is_bare: false,
            process: None,
        }
    }

    /// The most memory that the process ever had resident.
    pub fn peak_memory_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    /// The memory that it has resident now.
    pub fn resident_memory_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Starts it and waits until its heartbeat says that it accepts, and it answers operators,
    /// which it does a moment later.
    pub async fn start(&mut self) {
        self.launch();
        eventually("the collector accepts", Duration::from_secs(30), || async {
            self.heartbeat() == Some(200) && self.is_open_for_operators()
        })
        .await;
    }

    /// Whether somebody listens at its admin socket, or it has said that nobody will.
    fn is_open_for_operators(&self) -> bool {
        // Some have their data elsewhere. A socket's path may be too long by itself.
        let Ok(dir) = File::open(self.data_dir()) else {
            return true;
        };
        let socket = format!("/proc/self/fd/{}/admin.sock", dir.as_raw_fd());
        UnixStream::connect(socket).is_ok() || self.log().contains("no admin socket")
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) {
        assert!(self.process.is_none());
        let mut command = vec!["env".to_owned()];
        let dir = self.dir.display().to_string();
        if self.is_bare {
            command.extend(["-i".into(), "-C".into(), dir.clone()]);
            // No name of older deployments says where the page is.
            command.push(format!("HOLDFAST__ADMIN__LISTEN=127.0.0.1:{}", self.admin));
        }
        let set = self.environment.iter();
        command.extend(set.map(|(key, value)| format!("{key}={value}")));
        command.extend([binary().display().to_string(), "run".into()]);
        if !self.is_bare {
            command.extend(["--config".into(), format!("{dir}/holdfast.toml")]);
        }
        let log = self.dir.join("collector.log");
        self.process = Some(Guarded::start(&command, &[], &log));
    }

    /// What its heartbeat answers; `None` while nobody answers.
    pub fn heartbeat(&self) -> Option<u16> {
        get(self.http, "/heartbeat/").map(|(status, _)| status)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.as_mut().expect("it was started").has_ended()
    }

    /// The exit status of one that ended by itself, or ends now.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.process.take().expect("it was started").wait(limit)
    }

    /// kill -9
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").pid()
    }

    /// SIGHUP, to it alone.
    pub fn hang_up(&self) {
        let status = Command::new("kill")
            .args(["-HUP", &self.pid().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// SIGSTOP: it holds its ports and says nothing.
    pub async fn pause(&self) {
        self.process.as_ref().expect("it runs").pause().await;
    }

    /// Ends a `pause`.
    pub async fn resume(&self) {
        self.process.as_ref().expect("it runs").resume().await;
    }

    /// Whether there is a process, or its end to be looked at.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    pub fn terminate(&mut self) -> ExitStatus {
        let limit = Duration::from_secs(45);
        self.process.take().expect("it runs").terminate(limit)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("collector.log")).unwrap()
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    pub fn client(&self) -> EventServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(self.address()).unwrap();
        EventServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(1 << 20)
    }

    /// A metric's value; 0 when it is not there yet.
    pub fn metric(&self, series: &str) -> f64 {
        let text = get(self.http, "/metrics").map_or(String::new(), |(_, text)| text);
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Waits until a cursor has nothing left to deliver.
    pub async fn delivered(&self, cursor: &str, limit: Duration) {
        let series = format!("holdfast_journal_backlog_requests{{cursor=\"{cursor}\"}}");
        eventually(&format!("{series} is 0"), limit, || async {
            let text = get(self.http, "/metrics").map_or(String::new(), |(_, text)| text);
            text.contains(&format!("{series} 0\n"))
        })
        .await;
    }
}

/// A plain HTTP GET: status and body.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    http(port, &format!("GET {path} HTTP/1.0\r\n\r\n"), b"")
}

/// A plain HTTP request with a body.
pub fn send(port: u16, method: &str, path: &str, body: &[u8]) -> Option<(u16, String)> {
    let head = format!(
        "{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    http(port, &head, body)
}

/// The same with more lines of head, each with its end.
pub fn send_with(port: u16, path: &str, lines: &str, body: &[u8]) -> Option<(u16, String)> {
    let head = format!(
        "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n{lines}\r\n",
        body.len()
    );
    http(port, &head, body)
}

fn http(port: u16, head: &str, body: &[u8]) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .ok()?;
    stream.write_all(head.as_bytes()).ok()?;
    // A server that refuses early may close before it has read everything.
    drop(stream.write_all(body));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let text = answer.split_once("\r\n\r\n")?.1.to_owned();
    Some((status, text))
}
