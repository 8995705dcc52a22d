//! Rounds of a bench that sets ours beside a ceiling: its options, its figures, and the lines
//! of JSON that `verdict` reads. Used by every bench but the micro ones.
//!
//! # Invariants
//! - A ratio is made within a round, of two measurements some seconds apart: what slows the
//!   machine slows both. The figure of a run is the median of its rounds.
//! - Ours and the ceiling change places from round to round.

use serde_json::{Value as Json, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// What every bench can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Rounds; their median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Add the figures to this file, a line of JSON each; default: stdout.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Configuration of the collector, such as `rabbitmq.confirm_window=500`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Added to the figures' names, for a run with other settings.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub suffix: String,
    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A configuration key and its value.
fn setting(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(key, _)| key.contains('.'));
    let (key, value) = parts.ok_or("wanted: SECTION.KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Options {
    /// How long a measurement takes.
    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// The settings as the collector's environment has them.
    pub fn environment(&self) -> Vec<(String, String)> {
        let name = |key: &str| format!("HOLDFAST__{}", key.replace('.', "__").to_uppercase());
        let settings = self.settings.iter();
        settings
            .map(|(key, value)| (name(key), value.clone()))
            .collect()
    }

    /// One setting.
    pub fn setting(&self, key: &str) -> Option<&str> {
        let found = self.settings.iter().rev().find(|(is, _)| is == key);
        found.map(|(_, value)| value.as_str())
    }
}

/// One number, measured in each round.
#[derive(Debug)]
struct Figure {
    name: String,
    unit: &'static str,
    ours: Vec<f64>,
    ceiling: Vec<f64>,
}

/// All numbers of a bench.
#[derive(Debug)]
pub struct Figures {
    options: Options,
    figures: Vec<Figure>,
}

/// Ours, or what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Ours,
    Ceiling,
}

/// The order of the sides in a round.
pub fn sides(round: u32) -> [Side; 2] {
    if round.is_multiple_of(2) {
        [Side::Ceiling, Side::Ours]
    } else {
        [Side::Ours, Side::Ceiling]
    }
}

impl Figures {
    pub fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            figures: Vec::new(),
        }
    }

    /// Notes a round's two measurements.
    pub fn add(&mut self, name: &str, unit: &'static str, ours: f64, ceiling: f64) {
        assert!(ceiling > 0.0, "{name}: there is no ratio to {ceiling}");
        eprintln!(
            "{name}: {ours:.3} to {ceiling:.3} {unit}, {:.3}",
            ours / ceiling
        );
        let figure = self.figure(name, unit);
        figure.ours.push(ours);
        figure.ceiling.push(ceiling);
    }

    /// Notes a round's measurement that is compared with nothing.
    pub fn add_alone(&mut self, name: &str, unit: &'static str, ours: f64) {
        eprintln!("{name}: {ours:.3} {unit}");
        self.figure(name, unit).ours.push(ours);
    }

    fn figure(&mut self, name: &str, unit: &'static str) -> &mut Figure {
        let name = format!("{name}{}", self.options.suffix);
        let at = self.figures.iter().position(|figure| figure.name == name);
        let at = at.unwrap_or_else(|| {
            self.figures.push(Figure {
                name,
                unit,
                ours: Vec::new(),
                ceiling: Vec::new(),
            });
            self.figures.len() - 1
        });
        &mut self.figures[at]
    }

    /// Writes them, a line each.
    pub fn write(&self) {
        let mut to: Box<dyn std::io::Write> = match &self.options.json {
            Some(file) => {
                let file = std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(file);
                Box::new(file.unwrap())
            }
            None => Box::new(std::io::stdout()),
        };
        for figure in &self.figures {
            writeln!(to, "{}", figure.line()).unwrap();
        }
    }
}

impl Figure {
    fn line(&self) -> Json {
        let pairs = self.ours.iter().zip(&self.ceiling);
        let ratios: Vec<f64> = pairs.map(|(ours, ceiling)| ours / ceiling).collect();
        json!({
            "name": self.name,
            "ours": median(&self.ours),
            "ceiling": median(&self.ceiling),
            "ratio": median(&ratios),
            "ratio_min": ratios.iter().copied().reduce(f64::min),
            "ratio_max": ratios.iter().copied().reduce(f64::max),
            "unit": self.unit,
            "rounds": self.ours.len(),
            "ours_of_each": self.ours,
            "ceiling_of_each": self.ceiling,
        })
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(of: &[f64]) -> Option<f64> {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some((sorted[low] + sorted[high]) / 2.0)
}

/// A part of the way up the sorted values, such as 0.99.
pub fn percentile(of: &mut [f64], part: f64) -> f64 {
    of.sort_by(f64::total_cmp);
    let at = (of.len() as f64 * part).ceil() as usize;
    of[at.clamp(1, of.len()) - 1]
}
