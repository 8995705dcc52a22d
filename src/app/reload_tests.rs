//! What a reload takes over, what it leaves, and when it comes.

use super::*;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

/// How long a reload may take to come.
const PROMPT: Duration = Duration::from_secs(20);

const STARTED: &str = "[log]\nlevel = \"info\"\n[forward]\nmax_rate = 500\n";

/// Another value for every key that can change while the service runs, and for two that
/// cannot.
const OTHER: &str = "[log]\nlevel = \"warn\"\n[forward]\nmax_rate = 7\nbacklog_share = 0.5\ndocuments_per_message = 200\nmessage_bytes = \"16KiB\"\n[ingest]\nkeep_rejected = false\nmax_in_flight = 3\n[shutdown]\ngrace = \"3s\"\n[webhooks.branch]\nverify = \"secret\"\nsecrets = [\"s\"]\n[[consumer]]\nqueue = \"trace_log\"\nworkers = 5\n";

const WAITING: [&str; 2] = ["ingest.max_in_flight", "consumer[trace_log].workers"];

struct Fixture {
    file: PathBuf,
    pace: Pace,
    coalescing: watch::Sender<Coalescing>,
    keep_rejected: Arc<AtomicBool>,
    reloader: Arc<Reloader>,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("holdfast.toml");
        std::fs::write(&file, STARTED).unwrap();
        let config = config::load(Some(&file)).unwrap();
        let pace = Pace::new(config.forward.settings());
        let coalescing = watch::Sender::new(coalescing(&config));
        let keep_rejected = Arc::new(AtomicBool::new(true));
        let live = Live {
            pace: pace.clone(),
            coalescing: coalescing.clone(),
            keep_rejected: Arc::clone(&keep_rejected),
            callers: crate::ingest::Callers::default(),
            partners: Partners::default(),
        };
        let source = Source {
            file: Some(file.clone()),
            level: Level::of_no_log(),
        };
        Self {
            file,
            pace,
            coalescing,
            keep_rejected,
            reloader: Arc::new(Reloader::new(source, config, live)),
            _dir: dir,
        }
    }

    fn reload(&self, text: &str) -> Result<Reloaded, ReloadError> {
        std::fs::write(&self.file, text).unwrap();
        self.reloader.reload()
    }

    fn is_as_started(&self) -> bool {
        self.pace.settings().max_rate == Some(500)
            && self.coalescing.borrow().documents == 1
            && self.keep_rejected.load(Ordering::Relaxed)
            && self.grace() == Duration::from_secs(20)
            && lock(&self.reloader.state).in_force.log.level == "info"
    }

    fn grace(&self) -> Duration {
        lock(&self.reloader.state).in_force.shutdown.grace.get()
    }
}

#[test]
fn a_reload_makes_all_checks() {
    let fixture = Fixture::new();
    for (text, part) in [
        ("[log]\nlevel = \"warning\"", "log.level"),
        ("[postgres]\nurl = \"postgres://h:x/d\"", "postgres"),
        (
            "[rabbitmq]\nurls = [\"amqp://h:x\"]\n[clickhouse]\nurl = \"http://c\"",
            "rabbitmq",
        ),
        (
            "[postgres]\nurl = \"postgres://h/d\"\ntls_ca = \"/nowhere.pem\"",
            "nowhere.pem",
        ),
        (
            "[tls]\ncertificate = \"/nowhere.pem\"\nkey = \"/nowhere.pem\"\ngrpc = \"on\"",
            "tls: ",
        ),
    ] {
        let error = fixture.reload(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
        assert!(fixture.is_as_started(), "{text}");
    }
}

#[test]
fn what_waits_is_named_until_it_is_taken_back() {
    let fixture = Fixture::new();
    assert!(fixture.is_as_started());
    assert_eq!(fixture.reload(STARTED).unwrap(), Reloaded::default());
    let first = fixture.reload(OTHER).unwrap();
    let live = [
        "ingest.keep_rejected",
        "forward.max_rate",
        "forward.backlog_share",
        "forward.documents_per_message",
        "forward.message_bytes",
        "webhooks.branch.verify",
        "webhooks.branch.secrets",
        "log.level",
        "shutdown.grace",
    ];
    assert_eq!(first.applied, live);
    assert_eq!(first.needs_restart, WAITING);
    assert_eq!(fixture.pace.settings().max_rate, Some(7));
    assert_eq!(fixture.pace.settings().backlog_share, 0.5);
    let messages = Coalescing {
        documents: 200,
        bytes: 16 << 10,
    };
    assert_eq!(*fixture.coalescing.borrow(), messages);
    assert!(!fixture.keep_rejected.load(Ordering::Relaxed));
    assert_eq!(fixture.grace(), Duration::from_secs(3));

    let again = fixture.reload(OTHER).unwrap();
    assert!(again.applied.is_empty(), "{again:?}");
    assert_eq!(again.needs_restart, WAITING);
    let back = fixture.reload(STARTED).unwrap();
    assert_eq!(back.applied, live);
    assert!(back.needs_restart.is_empty(), "{back:?}");
    assert!(fixture.is_as_started());
}

#[test]
fn what_an_operator_changed_is_as_configured_again_and_named() {
    let fixture = Fixture::new();
    let mut settings = fixture.pace.settings();
    settings.max_rate = Some(9);
    fixture.pace.set(settings);
    let reloaded = fixture.reload(STARTED).unwrap();
    assert_eq!(reloaded.applied, ["forward.max_rate"]);
    assert!(fixture.is_as_started());
}

#[test]
fn a_mistake_anywhere_changes_nothing() {
    let fixture = Fixture::new();
    let two = OTHER.replace("0.5", "7.5").replace("\"3s\"", "3");
    for (text, named) in [
        (
            two.as_str(),
            vec!["forward.backlog_share", "shutdown.grace"],
        ),
        (&OTHER.replace("warn", "=loud="), vec!["log.level"]),
        ("[log", vec!["line 1"]),
    ] {
        let said = fixture.reload(text).unwrap_err().to_string();
        for name in named {
            assert!(said.contains(name), "{said} does not name {name}");
        }
        assert!(fixture.is_as_started(), "{text}");
    }
    std::fs::remove_file(&fixture.file).unwrap();
    let said = fixture.reloader.reload().unwrap_err().to_string();
    assert!(said.contains("holdfast.toml"), "{said}");
    assert!(fixture.is_as_started());
}

#[test]
fn a_stop_has_the_grace_of_the_last_reload_and_ends_them() {
    let fixture = Fixture::new();
    fixture.reload(OTHER).unwrap();
    assert_eq!(fixture.reloader.end(), Duration::from_secs(3));
    let late = fixture.reload(STARTED).unwrap_err();
    assert!(matches!(late, ReloadError::Stopping), "{late}");
    // Also one whose file was read before.
    let new = config::load(Some(&fixture.file)).unwrap();
    let late = fixture.reloader.apply(&new).unwrap_err();
    assert!(matches!(late, ReloadError::Stopping), "{late}");
    assert_eq!(fixture.pace.settings().max_rate, Some(7));
}

/// Waits until a pipe is read from, and opens it to write.
fn opened(pipe: &Path) -> Option<std::fs::File> {
    let until = Instant::now() + PROMPT;
    while Instant::now() < until {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        if let Ok(file) = rustix::fs::open(pipe, flags, Mode::empty()) {
            return Some(file.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

fn send_hangup() {
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::HUP).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_during_a_reload_is_answered_after_it() {
    let fixture = Fixture::new();
    // A file that is read for as long as this test likes.
    std::fs::remove_file(&fixture.file).unwrap();
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, &fixture.file, FileType::Fifo, mode, 0).unwrap();
    let hangup = crate::app::shutdown::hangup().unwrap();
    let loop_of_them = tokio::spawn(on(hangup, Arc::clone(&fixture.reloader)));
    send_hangup();
    let mut pipe = opened(&fixture.file).expect("the first is in work");
    // Two that come meanwhile are one: it reads what is there after both.
    send_hangup();
    send_hangup();
    // For the runtime to hear of them while the first is in work.
    tokio::time::sleep(Duration::from_millis(200)).await;
    pipe.write_all(b"[shutdown]\ngrace = \"4s\"\n").unwrap();
    drop(pipe);
    // Not before the first is done, whose pipe would take the text.
    let until = Instant::now() + PROMPT;
    while fixture.grace() != Duration::from_secs(4) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut pipe = opened(&fixture.file).expect("another one follows");
    pipe.write_all(b"[shutdown]\ngrace = \"5s\"\n").unwrap();
    drop(pipe);
    let until = Instant::now() + PROMPT;
    while fixture.grace() != Duration::from_secs(5) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fixture.grace(), Duration::from_secs(5));
    loop_of_them.abort();
}
