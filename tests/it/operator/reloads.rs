//! Loading the configuration anew: by a signal and by the command, as one thing and no
//! other, while the service takes events.

use super::Site;
use crate::support::cli::Said;
use crate::support::collector::send;
use crate::support::{eventually, free_port};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value as Json, json};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a signal may take to have its effect.
const PROMPT: Duration = Duration::from_secs(20);

/// What the configuration of these tests begins with, beside its doors.
const FIRST: &str =
    "[log]\nlevel = \"info\"\n[forward]\nmax_rate = 500\n[ingest]\nkeep_rejected = true\n";

impl Site {
    /// Writes the configuration with something in another's place.
    fn rewrite(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(self.config(), text.replace(from, to)).unwrap();
    }

    fn max_rate(&self) -> Json {
        let said = self.look("pace --json");
        assert_eq!(said.code, 0, "{said:?}");
        said.json()["settings"]["max_rate"].clone()
    }

    /// Whether a request that is refused shows in the log, which it does at `debug`.
    fn is_talkative(&self) -> bool {
        let before = self.collector.log().matches("request refused").count();
        let answer = send(self.collector.http, "POST", "/events", b"{\"header\":{}}");
        assert_eq!(answer.unwrap().0, 400);
        self.collector.log().matches("request refused").count() > before
    }

    fn next_seq(&self) -> u64 {
        self.ask("status --json").json()["next_seq"]
            .as_u64()
            .unwrap()
    }

    /// What the socket answers, to the letter.
    fn status_line(&self) -> String {
        let dir = std::fs::File::open(self.data_dir()).unwrap();
        let socket = format!("/proc/self/fd/{}/admin.sock", dir.as_raw_fd());
        let mut caller = UnixStream::connect(socket).unwrap();
        let head = "POST /reload HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        caller.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap().to_owned()
    }

    fn reload(&self) -> Json {
        let said = self.ask("reload --json");
        assert_eq!(said.code, 0, "{said:?}");
        said.json()
    }

    /// The audit's lines of reloads: their results.
    fn reloads(&self) -> Vec<Json> {
        let lines = self.audit().into_iter();
        let lines = lines.filter(|line| line["verb"] == "reload");
        lines.map(|line| line["result"].clone()).collect()
    }
}

fn answer(applied: &[&str], needs_restart: &[&str]) -> Json {
    json!({"applied": applied, "needs_restart": needs_restart})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_and_the_command_load_the_configuration_anew() {
    let mut site = Site::with("operator_reloads", FIRST).await;
    assert!(!site.is_talkative());
    assert_eq!(site.max_rate(), 500);
    let said = site.ask("reload");
    assert_eq!((said.code, said.fits().as_str()), (0, "nothing changed\n"));

    // By a signal.
    site.rewrite("\"info\"", "\"debug\"");
    site.rewrite("= 500", "= 600");
    site.collector.hang_up();
    eventually("the new rate", PROMPT, || async { site.max_rate() == 600 }).await;
    eventually("the line of it", PROMPT, || async {
        let log = site.collector.log();
        let line = log
            .lines()
            .find(|line| line.contains("configuration reloaded applied=[\"forward"));
        line.is_some_and(|line| line.contains("\"log.level\"] needs_restart=[]"))
    })
    .await;
    assert!(site.is_talkative());
    assert_eq!(site.reload(), answer(&[], &[]), "it was all");

    // By the command; and what `pace` changed is as configured again.
    assert_eq!(site.look("pace --max-rate 700").code, 0);
    site.rewrite("\"debug\"", "\"info\"");
    let keys = ["forward.max_rate", "log.level"];
    assert_eq!(site.reload(), answer(&keys, &[]));
    assert_eq!(site.max_rate(), 600);
    assert!(!site.is_talkative());

    // For the doors that are open.
    let kept = site.next_seq();
    assert!(kept > 2, "each of those above was kept");
    site.rewrite("= true", "= false");
    assert_eq!(site.reload(), answer(&["ingest.keep_rejected"], &[]));
    assert!(!site.is_talkative());
    assert_eq!(site.next_seq(), kept);

    // What needs a restart is named until it is there.
    let grpc = format!("127.0.0.1:{}", site.collector.grpc);
    site.rewrite(&grpc, &format!("127.0.0.1:{}", free_port()));
    site.rewrite("= 600", "= 650");
    let said = site.ask("reload");
    let text = "now in force: forward.max_rate\nonly after a restart: grpc.listen\n";
    assert_eq!((said.code, said.fits().as_str()), (0, text));
    assert_eq!(site.reload(), answer(&[], &["grpc.listen"]));
    let listens = std::net::TcpStream::connect(("127.0.0.1", site.collector.grpc));
    assert!(listens.is_ok(), "its door is where it was: {listens:?}");

    let lines: Vec<_> = site.audit();
    assert_eq!(site.reloads(), vec![json!("applied"); 6]);
    let last = lines.last().unwrap();
    assert!(
        last["by"]["uid"].is_u64() && last["by"]["pid"].is_u64(),
        "{last}"
    );
    assert!(site.collector.terminate().success());
    let said = site.ask("reload");
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("no service runs on"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_file_changes_nothing_and_names_its_mistakes() {
    let secret = "[postgres]\nurl = \"postgres://u:hunter2@127.0.0.1:9/d\"\n";
    let mut site = Site::with("operator_reloads_wrong", &format!("{FIRST}{secret}")).await;
    site.rewrite("= 500", "= \"many\"");
    site.rewrite("\"info\"", "\"debug\"\ncolour = 1");
    let names_both = |text: &str| text.contains("forward.max_rate") && text.contains("log.colour");
    let refused = |said: &Said| {
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.out.is_empty(), "{said:?}");
        assert!(
            said.err.contains("the configuration stays as it was"),
            "{said:?}"
        );
    };
    let said = site.ask("reload");
    refused(&said);
    assert!(names_both(&said.err), "{said:?}");
    let errors = |site: &Site| {
        let log = site.collector.log();
        log.matches("configuration not reloaded").count()
    };
    assert!(names_both(&site.collector.log()));
    assert_eq!(errors(&site), 1);
    site.collector.hang_up();
    eventually("an error in the log", PROMPT, || async {
        errors(&site) == 2
    })
    .await;
    assert_eq!(site.max_rate(), 500);
    assert!(!site.is_talkative());

    // A level that is none, and a file that is no TOML, in which the service is still found.
    site.rewrite("\"many\"", "600");
    site.rewrite("\"debug\"\ncolour = 1", "\"=loud=\"");
    let said = site.ask("reload");
    refused(&said);
    assert!(said.err.contains("log.level"), "{said:?}");
    site.rewrite("level = \"=loud=\"", "level =");
    let said = site.ask("reload");
    refused(&said);
    assert!(said.err.contains("line "), "{said:?}");
    assert_eq!(site.max_rate(), 500);
    assert!(site.status_line().contains(" 422 "));
    assert_eq!(site.reloads(), vec![json!("refused"); 4]);

    // A secret that is another one is named; neither is told anywhere.
    site.rewrite("level =", "level = \"info\"");
    site.rewrite("hunter2", "hunter3");
    let keys = answer(&["forward.max_rate"], &["postgres.url"]);
    assert_eq!(site.reload(), keys);
    assert_eq!(site.max_rate(), 600);
    let audit = std::fs::read_to_string(site.data_dir().join("audit.ndjson")).unwrap();
    for text in [site.collector.log(), audit] {
        assert!(!text.contains("hunter"), "{text}");
    }
    assert!(site.collector.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_does_not_answer_keeps_no_service_from_its_end() {
    let mut site = Site::with("operator_reloads_silent", FIRST).await;
    std::fs::remove_file(site.config()).unwrap();
    let (kind, mode) = (FileType::Fifo, Mode::RUSR | Mode::WUSR);
    rustix::fs::mknodat(CWD, site.config(), kind, mode, 0).unwrap();
    site.collector.hang_up();
    eventually("the reload has begun", PROMPT, || async {
        let log = site.collector.log();
        log.contains("SIGHUP: the configuration is loaded anew")
    })
    .await;
    let began = Instant::now();
    assert!(site.collector.terminate().success());
    let took = began.elapsed();
    assert!(took < PROMPT, "{took:?}");
    let log = site.collector.log();
    assert!(log.contains("stopped"), "{log}");
}
