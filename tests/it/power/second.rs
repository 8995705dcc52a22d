//! A second cut, during the recovery from the first or soon after it. Called by
//! `campaign`.
//!
//! The recovery runs in a process of its own under the recorder: it opens the journal,
//! reads all of it, opens it again and appends some requests. A directory made after
//! each append's answer marks the acknowledgement in the log.

use super::check::{self, Expected};
use super::cuts::Cut;
use super::load::{Request, Token, small};
use super::log::{Log, Op};
use super::verdict::{Fault, Finding};
use super::world::World;
use super::{image, recorder};
use holdfast::clock::now_ms;
use holdfast::event::scan;
use holdfast::journal::{Journal, Kind, NewRecord};
use rand::Rng as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set for the process that opens an image under the recorder.
pub const IMAGE: &str = "HOLDFAST_TEST_IMAGE";

/// How many images a recovery is cut into.
const SECOND_CUTS: usize = 4;

/// Requests that are appended after a recovery.
const APPENDS: u64 = 8;

/// Client number of their tokens: no client of a recording has it.
const CLIENT: u64 = 1 << 20;

/// Where the marks of their acknowledgements are.
const MARKS: &str = "acknowledged";

/// An image of a second cut.
pub struct Second {
    pub name: String,
    pub dir: PathBuf,
    /// The requests of the second life that were acknowledged before this cut.
    pub acked: Vec<Token>,
}

/// What came of a recovery.
#[derive(Default)]
pub struct Recovery {
    pub images: Vec<Second>,
    /// The requests of the second life.
    pub expected: Vec<(Token, Expected)>,
    /// The recovery itself failed.
    pub finding: Option<Finding>,
}

/// What the process does: see above. Its own failure is a panic.
pub fn live(image: &Path) {
    let data = image.join("data");
    let read = check::read_all(&data).map(|contents| contents.records.len());
    read.unwrap();
    let marks = image.join(MARKS);
    std::fs::create_dir(&marks).unwrap();
    let journal = Journal::open(&check::options(&data)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for request in requests() {
        let record = NewRecord {
            kind: Kind::Dispatch,
            received_at_ms: now_ms(),
            reason: None,
            events: scan::request(&request.content, usize::MAX).unwrap().tally,
            content: request.content.into(),
        };
        let seq = runtime.block_on(journal.append(record, None)).unwrap();
        let mark = format!("{} {seq}", request.token.text());
        std::fs::create_dir(marks.join(mark)).unwrap();
    }
    journal.close();
}

fn requests() -> impl Iterator<Item = Request> {
    (0..APPENDS).map(|number| small(Token(CLIENT << 32 | number)))
}

/// The acknowledgement that an operation marks.
fn marked(op: &Op) -> Option<(Token, u64)> {
    let Op::MakeDir { path } = op else {
        return None;
    };
    let (token, seq) = path
        .strip_prefix(MARKS)?
        .strip_prefix('/')?
        .split_once(' ')?;
    Some((Token::parse(token)?, seq.parse().ok()?))
}

/// Recovers a copy of the image, and builds images of cuts during that.
pub fn second_cuts(image: &Path, cut: Cut, seed: u64) -> Recovery {
    let sibling = |suffix: &str| {
        let name = image.file_name().unwrap().to_str().unwrap();
        image.with_file_name(format!("{name}-{suffix}"))
    };
    let (copy, calls) = (sibling("copy"), sibling("calls"));
    let mut command = Command::new("cp");
    let status = command.arg("-a").arg(image).arg(&copy).status().unwrap();
    assert!(status.success());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "power::tests::opens_the_image_it_is_given"])
        .env(IMAGE, &copy)
        .envs(recorder::environment(&copy, &calls))
        .output()
        .unwrap();
    let mut recovery = Recovery::default();
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        recovery.finding = Some(Finding::new(Fault::NotServed, text));
    }
    let log = Log::read(&calls);
    let marks: Vec<_> = log
        .ops
        .iter()
        .enumerate()
        .filter_map(|(at, op)| Some((at, marked(op)?)))
        .collect();
    recovery.expected = requests()
        .map(|request| {
            let mark = marks.iter().find(|(_, (token, _))| *token == request.token);
            let expected = Expected {
                seq: mark.map(|(_, (_, seq))| *seq),
                content: request.content.into(),
            };
            (request.token, expected)
        })
        .collect();
    // The image itself is still as it was cut.
    let mut world = World::on(log.clone(), image);
    let mut random = cut.dice(seed, 1);
    // Every other one after the first acknowledgement: most calls are the opens'.
    let first_ack = marks.first().map_or(0, |(at, _)| *at);
    let mut cuts: Vec<usize> = (0..SECOND_CUTS)
        .map(|number| {
            let from = if number % 2 == 0 { 0 } else { first_ack };
            random.random_range(from..=log.ops.len())
        })
        .collect();
    cuts.sort_unstable();
    for (number, at) in cuts.into_iter().enumerate() {
        world.advance(at);
        let dir = sibling(&format!("again-{number}"));
        std::fs::create_dir(&dir).unwrap();
        image::build(&world, &mut cut.dice(seed, 2 + number as u64), &dir);
        let before = marks.iter().filter(|(marked_at, _)| *marked_at < at);
        recovery.images.push(Second {
            name: format!(", again at {at}"),
            dir,
            acked: before.map(|(_, (token, _))| *token).collect(),
        });
    }
    world.advance(log.ops.len());
    let wrong = world.differences(&copy);
    assert!(wrong.is_empty(), "calls were not recorded: {wrong:#?}");
    std::fs::remove_dir_all(&copy).unwrap();
    std::fs::remove_file(&calls).unwrap();
    recovery
}
