//! A second cut, during the recovery from the first. Called by `campaign`.

use super::cuts::Cut;
use super::log::Log;
use super::world::World;
use super::{image, recorder};
use rand::Rng as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set for the process that opens an image under the recorder.
pub const IMAGE: &str = "HOLDFAST_TEST_IMAGE";

/// How many images a recovery is cut into.
const SECOND_CUTS: usize = 3;

/// Recovers the image in a process of its own under the recorder, on a copy, and
/// builds images of cuts during that.
pub fn second_cuts(image: &Path, cut: Cut, seed: u64) -> Vec<(String, PathBuf)> {
    let sibling = |suffix: &str| {
        let name = image.file_name().unwrap().to_str().unwrap();
        image.with_file_name(format!("{name}-{suffix}"))
    };
    let (copy, calls) = (sibling("copy"), sibling("calls"));
    let status = Command::new("cp")
        .arg("-a")
        .arg(image)
        .arg(&copy)
        .status()
        .unwrap();
    assert!(status.success());
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "power::tests::opens_the_image_it_is_given"])
        .env(IMAGE, &copy)
        .envs(recorder::environment(&copy, &calls))
        .output()
        .unwrap();
    let log = Log::read(&calls);
    // The image itself is still as it was cut.
    let mut world = World::on(log.clone(), image);
    let mut images = Vec::new();
    if !status.status.success() {
        // The check of the image itself says why.
        eprintln!("the recovery of {} failed", image.display());
    }
    let mut random = cut.dice(seed, 1);
    let mut cuts: Vec<usize> = (0..SECOND_CUTS)
        .map(|_| random.random_range(0..=log.ops.len()))
        .collect();
    cuts.sort_unstable();
    for (number, at) in cuts.into_iter().enumerate() {
        world.advance(at);
        let dir = sibling(&format!("again-{number}"));
        std::fs::create_dir(&dir).unwrap();
        image::build(&world, &mut cut.dice(seed, 2 + number as u64), &dir);
        images.push((format!(", again at {at}"), dir));
    }
    std::fs::remove_dir_all(&copy).unwrap();
    std::fs::remove_file(&calls).unwrap();
    images
}
