//! Figures of rounds: a table for people, lines of JSON for what judges them.

use serde_json::{Value as Json, json};
use std::io::Write as _;
use std::path::Path;

const UNIT: &str = "events/s";

/// What one measurement gives.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    pub per_s: f64,
    /// Of this process, for each event.
    pub cpu_us: f64,
}

/// One number, measured in each round beside its ceiling.
#[derive(Default)]
struct Figure {
    name: String,
    ours: Vec<f64>,
    ceiling: Vec<f64>,
    cpu_us: Vec<f64>,
    ceiling_cpu_us: Vec<f64>,
}

#[derive(Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Notes a round's measurement.
    pub fn add(&mut self, name: &str, ours: Measured, ceiling: Measured) {
        let ratio = ours.per_s / ceiling.per_s;
        eprintln!(
            "{name}: {:.0} to {:.0} {UNIT}, {ratio:.3}; own CPU {:.1} to {:.1} us an event",
            ours.per_s, ceiling.per_s, ours.cpu_us, ceiling.cpu_us
        );
        let at = self.0.iter().position(|figure| figure.name == name);
        let at = at.unwrap_or_else(|| {
            self.0.push(Figure {
                name: name.to_owned(),
                ..Figure::default()
            });
            self.0.len() - 1
        });
        let figure = &mut self.0[at];
        figure.ours.push(ours.per_s);
        figure.ceiling.push(ceiling.per_s);
        figure.cpu_us.push(ours.cpu_us);
        figure.ceiling_cpu_us.push(ceiling.cpu_us);
    }

    pub fn print(&self) {
        eprintln!(
            "\n{:<26} {:>9} {:>9} {:>6}  {:<14}  own CPU, us",
            "name", "ours", "ceiling", "ratio", "spread"
        );
        for figure in &self.0 {
            let ratios = figure.ratios();
            let (low, high) = ends(&ratios);
            eprintln!(
                "{:<26} {:>9.0} {:>9.0} {:>6.3}  {low:.3} to {high:.3}  {:.1} to {:.1}",
                figure.name,
                median(&figure.ours),
                median(&figure.ceiling),
                median(&ratios),
                median(&figure.cpu_us),
                median(&figure.ceiling_cpu_us)
            );
        }
    }

    /// Adds a line for each to a file.
    pub fn write(&self, to: &Path, suffix: &str) {
        let file = std::fs::File::options().create(true).append(true).open(to);
        let mut file = file.unwrap();
        for figure in &self.0 {
            writeln!(file, "{}", figure.line(suffix)).unwrap();
        }
    }
}

impl Figure {
    fn ratios(&self) -> Vec<f64> {
        let pairs = self.ours.iter().zip(&self.ceiling);
        pairs.map(|(ours, ceiling)| ours / ceiling).collect()
    }

    fn line(&self, suffix: &str) -> Json {
        let ratios = self.ratios();
        let (low, high) = ends(&ratios);
        json!({
            "name": format!("{}{suffix}", self.name),
            "ours": median(&self.ours),
            "ceiling": median(&self.ceiling),
            "ratio": median(&ratios),
            "ratio_min": low,
            "ratio_max": high,
            "unit": UNIT,
            "rounds": self.ours.len(),
            "own_cpu_us": median(&self.cpu_us),
            "ceiling_cpu_us": median(&self.ceiling_cpu_us),
        })
    }
}

/// The least and the most.
fn ends(of: &[f64]) -> (f64, f64) {
    let low = of.iter().copied().fold(f64::INFINITY, f64::min);
    (low, of.iter().copied().fold(0.0, f64::max))
}

/// The middle one, or the mean of the two in the middle.
fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    (sorted[half] + sorted[(sorted.len() - 1) / 2]) / 2.0
}
