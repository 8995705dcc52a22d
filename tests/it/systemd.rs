//! The service as systemd sees it: what it says over the notify socket, which here is the
//! test's own, and the files that come with it. The package, under a systemd that is
//! booted, is the business of `tests/package`.

use crate::support::cli::holdfast;
use crate::support::collector::{Collector, binary, send};
use crate::support::faults::Faults;
use crate::support::{Scratch, eventually, root};
use holdfast::config::{self, Config};
use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a change of the service may take to show.
const PROMPT: Duration = Duration::from_secs(30);

/// The watchdog's limit in these tests: looks are a sixth of it apart, and each must find
/// that the keeper has gone round (200 ms).
const LIMIT: Duration = Duration::from_millis(3000);

/// What stands in for systemd.
struct Manager {
    socket: UnixDatagram,
    // Short, and not below target/: a socket's address has room for 107 bytes.
    dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        Self { socket, dir }
    }

    fn environment(&self) -> (String, String) {
        let path = self.dir.path().join("notify").display().to_string();
        ("NOTIFY_SOCKET".to_owned(), path)
    }

    /// What it is told in a time.
    fn hear(&self, time: Duration) -> Vec<String> {
        let until = Instant::now() + time;
        let mut heard = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let wait = left.max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(wait)).unwrap();
            match self.socket.recv(&mut bytes) {
                Ok(length) => {
                    let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
                    heard.push(text.trim().to_owned());
                }
                Err(_) if left.is_zero() => return heard,
                Err(_) => {}
            }
        }
    }

    /// Waits for the first that it is told.
    fn hears_ready(&self) {
        let until = Instant::now() + PROMPT;
        let mut heard = Vec::new();
        while heard.is_empty() && Instant::now() < until {
            heard = self.hear(Duration::from_millis(10));
        }
        assert_eq!(heard, ["READY=1"]);
    }

    fn pings(&self, time: Duration) -> usize {
        let heard = self.hear(time);
        assert!(heard.iter().all(|text| text == "WATCHDOG=1"), "{heard:?}");
        heard.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_hears_of_the_start_and_the_stop() {
    let scratch = Scratch::new("systemd_start_stop");
    let manager = Manager::new();
    let mut collector = Collector::new(&scratch, "[shutdown]\ngrace = \"300s\"\n");
    collector.environment = vec![manager.environment()];
    collector.launch();
    manager.hears_ready();
    assert_eq!(
        collector.heartbeat(),
        Some(200),
        "ready means that it accepts"
    );
    assert!(collector.terminate().success());
    let heard = manager.hear(Duration::ZERO);
    let more_time = "EXTEND_TIMEOUT_USEC=310000000";
    // Doors, ways out, admin socket, journal; no pings, since nobody asked for them.
    let stop = ["STOPPING=1", more_time, more_time, more_time, more_time];
    assert_eq!(heard, stop);
}

/// That systemd is told of one reload, and of its end.
fn is_a_reload(heard: &[String]) -> bool {
    let [begins, ends] = heard else {
        return false;
    };
    let Some(at) = begins.strip_prefix("RELOADING=1\nMONOTONIC_USEC=") else {
        return false;
    };
    at.parse::<u64>().is_ok_and(|at| at > 0) && ends == "READY=1"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_hears_of_each_reload_and_a_stop_of_none() {
    let scratch = Scratch::new("systemd_reload");
    let (manager, faults) = (Manager::new(), Faults::new(&scratch.0));
    // The start takes as long as this test likes.
    faults.set("sync * 1 * HANG");
    let mut collector = Collector::new(&scratch, "");
    collector.environment = faults.environment();
    collector.environment.push(manager.environment());
    collector.launch();
    eventually("the port is bound", PROMPT, || async {
        TcpStream::connect(("127.0.0.1", collector.http)).is_ok()
    })
    .await;
    // One that comes before the service is ready does not end it, and is not lost.
    collector.hang_up();
    assert_eq!(manager.hear(Duration::from_millis(500)), [""; 0]);
    assert!(!collector.has_ended());
    faults.lift();
    let mut heard = Vec::new();
    eventually("it was loaded anew", PROMPT, || {
        heard.extend(manager.hear(Duration::from_millis(100)));
        let is_done = heard.len() == 3;
        async move { is_done }
    })
    .await;
    assert_eq!(heard.remove(0), "READY=1");
    assert!(is_a_reload(&heard), "{heard:?}");

    // By the command, good or not; it is told before the command ends.
    let config = collector.dir.join("holdfast.toml");
    let reload = || holdfast(&format!("reload --config {}", config.display()));
    assert_eq!(reload().code, 0);
    let heard = manager.hear(Duration::ZERO);
    assert!(is_a_reload(&heard), "{heard:?}");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{good}[nonsense]\n")).unwrap();
    assert_eq!(reload().code, 1);
    let heard = manager.hear(Duration::ZERO);
    assert!(is_a_reload(&heard), "{heard:?}");

    // What a stop may take is that of the last reload.
    std::fs::write(&config, format!("{good}[shutdown]\ngrace = \"300s\"\n")).unwrap();
    assert_eq!(reload().code, 0);
    let heard = manager.hear(Duration::ZERO);
    assert!(is_a_reload(&heard), "{heard:?}");

    // During the stop, which waits two seconds for a caller that does not end its request.
    let dir = std::fs::File::open(collector.data_dir()).unwrap();
    let socket = format!("/proc/self/fd/{}/admin.sock", dir.as_raw_fd());
    let mut caller = UnixStream::connect(socket).unwrap();
    caller.write_all(b"GET /sta").unwrap();
    let stops = std::thread::scope(|scope| {
        let (pid, manager) = (collector.pid().to_string(), &manager);
        let hears = scope.spawn(move || {
            let mut heard = Vec::new();
            let until = Instant::now() + PROMPT;
            while !heard.contains(&"STOPPING=1".to_owned()) && Instant::now() < until {
                heard.extend(manager.hear(Duration::from_millis(10)));
            }
            let sent = Command::new("kill").args(["-HUP", &pid]).status();
            assert!(sent.unwrap().success(), "it is still there");
            heard
        });
        assert!(collector.terminate().success(), "no SIGHUP ends it");
        hears.join().unwrap()
    });
    let all = [stops, manager.hear(Duration::ZERO)].concat();
    let told = all.iter().any(|text| text.contains("RELOADING"));
    assert!(!told, "{all:?}");
    let more_time = all
        .iter()
        .filter(|text| *text == "EXTEND_TIMEOUT_USEC=310000000");
    assert_eq!(more_time.count(), 4, "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_disk_ends_the_pings_and_a_fence_does_not() {
    let scratch = Scratch::new("systemd_watchdog");
    let (manager, faults) = (Manager::new(), Faults::new(&scratch.0));
    let mut collector = Collector::new(&scratch, "[journal]\nack_deadline = \"1s\"\n");
    collector.environment = faults.environment();
    let limit = ("WATCHDOG_USEC".to_owned(), LIMIT.as_micros().to_string());
    collector.environment.extend([manager.environment(), limit]);
    collector.launch();
    manager.hears_ready();
    assert!(manager.pings(LIMIT) >= 3, "an idle service goes round");

    let body = br#"{"header":{"deviceId":"d"},"events":[{"id":"e","timestamp":"1700000000000","testEvent":{}}]}"#;
    let post = || send(collector.http, "POST", "/events", body).unwrap().0;
    assert_eq!(post(), 200);
    faults.set("sync */generations/* 1 * HANG");
    assert_eq!(post(), 503, "not durable within the deadline");
    manager.pings(LIMIT / 3);
    assert_eq!(manager.pings(LIMIT), 0, "the writer hangs");
    let named = r#"stands still; if it does for the whole limit, systemd restarts the service part="journal writer""#;
    assert!(collector.log().contains(named), "{}", collector.log());
    faults.lift();
    eventually("it goes on", PROMPT, || async { post() == 200 }).await;
    manager.pings(LIMIT / 3);
    assert!(manager.pings(LIMIT) >= 3, "it goes on");

    faults.set("sync */generations/* 1 * EIO");
    assert_eq!(post(), 503);
    eventually("the fence shows", PROMPT, || async {
        collector.heartbeat() == Some(410)
    })
    .await;
    manager.pings(LIMIT / 3);
    assert!(manager.pings(LIMIT) >= 3, "a fence is no hang");
    collector.terminate();
}

fn unit() -> String {
    std::fs::read_to_string(root().join("systemd/holdfast.service")).unwrap()
}

/// The value of a setting of the unit that is there once.
fn setting(name: &str) -> String {
    let (unit, prefix) = (unit(), format!("{name}="));
    let mut found = unit.lines().filter_map(|line| line.strip_prefix(&prefix));
    let value = found.next().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(found.next(), None, "{name} is there twice");
    value.to_owned()
}

/// Runs systemd-analyze; what it said, and whether it was content.
fn analyze(words: &[&str], unit: &Path) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(words)
        .arg(unit)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("systemd-analyze is installed by tests/run");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}

#[test]
fn the_unit_is_valid_and_its_sandbox_tight() {
    let words = ["security", "--offline=true", "--threshold=20", "--no-pager"];
    let (is_tight, text) = analyze(&words, &root().join("systemd/holdfast.service"));
    assert!(is_tight, "exposed to more than 2.0:\n{text}");
    let verdict = text
        .lines()
        .find(|line| line.contains("Overall exposure level"));
    assert!(verdict.is_some(), "{text}");

    // As installed, with the binary at hand for the one that is not.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("holdfast.service");
    let text = unit().replace("=/usr/bin/holdfast ", &format!("={} ", binary().display()));
    std::fs::write(&file, text).unwrap();
    let (is_valid, text) = analyze(&["verify", "--man=no"], &file);
    // Other units of the machine have mistakes of their own.
    let about_us: Vec<_> = text.lines().filter(|l| l.contains("holdfast")).collect();
    assert!(is_valid && about_us.is_empty(), "{text}");
}

#[test]
fn the_unit_fits_the_service() {
    let scratch = Scratch::new("systemd_unit");
    let config = scratch.0.join("wrong.toml");
    std::fs::write(&config, "[nonsense]\na = 1\n").unwrap();
    let said = holdfast(&format!("run --config {}", config.display()));
    assert_eq!(said.code.to_string(), setting("RestartPreventExitStatus"));
    let shipped = shipped();
    let state = Path::new("/var/lib").join(setting("StateDirectory"));
    assert_eq!(shipped.data.dir, state);
    let stop = humantime::parse_duration(&setting("TimeoutStopSec")).unwrap();
    let phases = unit().matches("Four phases of shutdown.grace").count() * 4;
    assert!(stop > shipped.shutdown.grace.get() * phases as u32 && phases > 0);
    let main = "/usr/bin/holdfast run --config /etc/holdfast/holdfast.toml";
    assert_eq!(setting("ExecStart"), main);
    // As a command, since a signal cannot say that the file is wrong.
    let reload = "/usr/bin/holdfast reload --config /etc/holdfast/holdfast.toml";
    assert_eq!(setting("ExecReload"), reload);
}

fn shipped_text() -> String {
    std::fs::read_to_string(root().join("systemd/holdfast.toml")).unwrap()
}

fn shipped() -> Config {
    config::load_from(&shipped_text(), std::iter::empty()).unwrap()
}

#[test]
fn the_shipped_configuration_is_closed_and_shows_the_defaults() {
    let config = shipped();
    assert!(config.grpc.listen.ip().is_loopback() && config.http.listen.ip().is_loopback());
    assert!(config.rabbitmq.is_none() && config.sqlite_path().is_some());

    // With every line that is behind one #: the same as without them.
    let text = shipped_text();
    let uncomment = |line: &str| {
        let rest = line.strip_prefix('#').unwrap_or(line);
        let is_prose = rest.is_empty() || rest.starts_with([' ', '#']);
        if is_prose {
            String::new()
        } else {
            format!("{rest}\n")
        }
    };
    let all: String = text.lines().map(uncomment).collect();
    assert!(all.contains("\n[rabbitmq]\nurls ="), "{all}");
    let load = |text: &str| config::load_from(text, std::iter::empty()).unwrap();
    let bare = "[data]\ndir = \"/var/lib/holdfast\"\n[grpc]\nlisten = \"127.0.0.1:8017\"\n\
        [http]\nlisten = \"127.0.0.1:8019\"\n[rabbitmq]\n[clickhouse]\n[postgres]\n";
    let (all, bare) = (load(&all), load(bare));
    assert_eq!(format!("{all:#?}"), format!("{bare:#?}"));
    let urls = |config: &Config| {
        let rabbitmq = config.rabbitmq.as_ref().unwrap();
        rabbitmq
            .urls
            .iter()
            .map(|url| url.expose().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(urls(&all), urls(&bare), "which Debug does not show");
}

#[test]
fn the_manual_and_the_completions_know_every_verb() {
    let scratch = Scratch::new("systemd_generate");
    let help = holdfast("--help").text();
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let verbs: Vec<_> = list
        .lines()
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.contains(&"run") && verbs.contains(&"dlq"), "{help}");
    assert!(!verbs.contains(&"generate"), "that is for packages");

    assert_eq!(
        holdfast(&format!("generate man {}", scratch.0.display())).code,
        0
    );
    let page = |name: &str| std::fs::read_to_string(scratch.0.join(name)).unwrap();
    assert!(page("holdfast.1").contains("78 wrong configuration"));
    for verb in &verbs {
        let page = page(&format!("holdfast-{verb}.1"));
        assert!(
            page.starts_with(".ie") && page.contains(".SH SYNOPSIS"),
            "{page}"
        );
    }
    assert!(page("holdfast-journal-purge.1").contains("quarantine"));

    for shell in ["bash", "zsh", "fish"] {
        let script = holdfast(&format!("generate completions {shell}")).text();
        for verb in &verbs {
            assert!(script.contains(verb), "{shell} does not know {verb}");
        }
    }
    let script = holdfast("generate completions bash").text();
    let file = scratch.0.join("bash");
    std::fs::write(&file, script).unwrap();
    let complete = "source \"$0\"; COMP_WORDS=(holdfast jou); COMP_CWORD=1; _holdfast holdfast jou holdfast; echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["-c", complete])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "journal\n",
        "{output:?}"
    );
    assert_eq!(holdfast("generate man /no/such/directory").code, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_journal_lines_are_text_on_stderr() {
    let scratch = Scratch::new("systemd_no_journal");
    let mut collector = Collector::new(&scratch, "[log]\nformat = \"journald\"\n");
    // Of another stream: its log is a file.
    collector.environment = vec![("JOURNAL_STREAM".to_owned(), "1:1".to_owned())];
    collector.start().await;
    assert!(collector.terminate().success());
    let log = collector.log();
    if Path::new("/run/systemd/journal/socket").exists() {
        assert!(!log.contains("accepting"), "the journal has them: {log}");
        return;
    }
    let said = log
        .lines()
        .filter(|line| line.contains("there is no journal"));
    let said: Vec<_> = said.collect();
    assert!(
        matches!(said[..], [line] if line.contains(" WARN ")),
        "{log}"
    );
    assert!(log.contains(" INFO accepting "), "{log}");
    assert!(!log.contains("<6>"), "{log}");
}

/// A log file stands for the journal: it is the stream that the variable names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_to_the_journal_begin_with_their_priority() {
    use std::os::unix::fs::MetadataExt as _;
    let scratch = Scratch::new("systemd_priorities");
    // More connections need more descriptors than some machines give, which is warned of.
    let mut collector = Collector::new(&scratch, "[connections]\nmax = 500\n");
    let file = collector.dir.join("collector.log");
    let meta = std::fs::File::create(&file).unwrap().metadata().unwrap();
    let stream = format!("{}:{}", meta.dev(), meta.ino());
    collector.environment = vec![("JOURNAL_STREAM".to_owned(), stream)];
    collector.start().await;
    assert!(collector.terminate().success());
    let log = collector.log();
    assert!(log.lines().count() > 3, "{log}");
    assert!(log.lines().all(|line| line.starts_with("<6>")), "{log}");
}
