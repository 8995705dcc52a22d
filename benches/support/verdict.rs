//! Figures beside their floors. Used by the bench `verdict`, and by the test of the suite that
//! holds `floors.toml` to its own form.
//!
//! # Invariants
//! - A figure that has a floor and was not measured, though its bench ran, fails: a bench
//!   that loses a figure is noticed (test `figures_are_held_to_their_floors`).
//! - A number that is none fails.

use serde::Deserialize;
use std::collections::BTreeMap;

/// What a floor is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// Ours by its ceiling.
    #[default]
    Ratio,
    /// Ours, in its unit.
    Ours,
}

/// A floor, or where less is better, a ceiling that must not be broken.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// The bench that measures it.
    pub bench: String,
    #[serde(default)]
    pub of: Of,
    /// More is better: at least this.
    pub at_least: Option<f64>,
    /// Less is better: at most this.
    pub at_most: Option<f64>,
    /// What we want; between it and the floor there is work to do.
    pub target: f64,
}

impl Floor {
    /// Whether a number is as good as another, by what is better here.
    fn is_met(&self, is: f64, wanted: f64) -> bool {
        if self.at_least.is_some() {
            is >= wanted
        } else {
            is <= wanted
        }
    }

    /// The bound itself; a floor has one.
    fn bound(&self) -> f64 {
        self.at_least.or(self.at_most).unwrap_or(f64::NAN)
    }

    /// What is wrong with it, if something is.
    pub fn mistake(&self) -> Option<&'static str> {
        if self.at_least.is_some() == self.at_most.is_some() {
            return Some("needs one of at_least and at_most");
        }
        let is_sound = self.is_met(self.target, self.bound());
        (!is_sound).then_some("its target does not meet it")
    }

    fn text(&self) -> String {
        let of = if self.of == Of::Ours { " ours" } else { "" };
        let sign = if self.at_least.is_some() { ">=" } else { "<=" };
        format!("{sign} {}{of}", self.bound())
    }
}

/// All of `floors.toml`, by the figure's name.
pub type Floors = BTreeMap<String, Floor>;

/// A line that a bench has written.
#[derive(Debug, Clone, Deserialize)]
pub struct Figure {
    pub name: String,
    pub ours: Option<f64>,
    pub ceiling: Option<f64>,
    pub ratio: Option<f64>,
    pub ratio_min: Option<f64>,
    pub ratio_max: Option<f64>,
    #[serde(default)]
    pub unit: String,
}

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Met,
    /// The floor holds, the target is not met.
    BelowTarget,
    Broken,
    NotMeasured,
    NoFloor,
}

impl Verdict {
    pub fn fails(self) -> bool {
        matches!(self, Self::Broken | Self::NotMeasured)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Met => "ok",
            Self::BelowTarget => "ok, below target",
            Self::Broken => "BROKEN",
            Self::NotMeasured => "NOT MEASURED",
            Self::NoFloor => "-",
        }
    }
}

/// A line of the table.
#[derive(Debug)]
pub struct Row {
    pub verdict: Verdict,
    cells: [String; 6],
}

/// The head of the table.
const HEAD: [&str; 6] = ["what", "ours", "ceiling", "ratio", "floor", "verdict"];

/// Judges the figures of these benches.
pub fn judge(figures: &[Figure], floors: &Floors, benches: &[String]) -> Vec<Row> {
    let mut rows: Vec<Row> = figures
        .iter()
        .map(|figure| row(figure, floors.get(&figure.name)))
        .collect();
    for (name, floor) in floors {
        let is_wanted = benches.contains(&floor.bench);
        if is_wanted && !figures.iter().any(|figure| figure.name == *name) {
            let nothing = || "-".to_owned();
            let verdict = Verdict::NotMeasured;
            let cells = [
                name.clone(),
                nothing(),
                nothing(),
                nothing(),
                floor.text(),
                verdict.text().to_owned(),
            ];
            rows.push(Row { verdict, cells });
        }
    }
    rows
}

fn row(figure: &Figure, floor: Option<&Floor>) -> Row {
    let verdict = match floor {
        None => Verdict::NoFloor,
        Some(floor) => {
            let is = match floor.of {
                Of::Ratio => figure.ratio,
                Of::Ours => figure.ours,
            };
            match is {
                None => Verdict::NotMeasured,
                Some(is) if !floor.is_met(is, floor.bound()) => Verdict::Broken,
                Some(is) if !floor.is_met(is, floor.target) => Verdict::BelowTarget,
                Some(_) => Verdict::Met,
            }
        }
    };
    let with_unit = |is: Option<f64>| match is {
        Some(is) => format!("{} {}", number(is), figure.unit),
        None => "-".to_owned(),
    };
    let ratio = match (figure.ratio, figure.ratio_min, figure.ratio_max) {
        (Some(ratio), Some(min), Some(max)) => format!("{ratio:.3} ({min:.3}..{max:.3})"),
        (Some(ratio), _, _) => format!("{ratio:.3}"),
        (None, _, _) => "-".to_owned(),
    };
    let text = floor.map_or_else(
        || "-".to_owned(),
        |floor| format!("{}, target {}", floor.text(), floor.target),
    );
    let cells = [
        figure.name.clone(),
        with_unit(figure.ours),
        with_unit(figure.ceiling),
        ratio,
        text,
        verdict.text().to_owned(),
    ];
    Row { verdict, cells }
}

/// As many digits as tell something.
fn number(is: f64) -> String {
    match is.abs() {
        size if size >= 100.0 => format!("{is:.0}"),
        size if size >= 10.0 => format!("{is:.1}"),
        _ => format!("{is:.3}"),
    }
}

/// The table as text.
pub fn table(rows: &[Row]) -> String {
    let head = HEAD.map(str::to_owned);
    let lines: Vec<&[String; 6]> = std::iter::once(&head)
        .chain(rows.iter().map(|row| &row.cells))
        .collect();
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|at| lines.iter().map(|cells| cells[at].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for cells in lines {
        let padded = cells.iter().zip(&widths);
        let padded: Vec<String> = padded
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(padded.join(" | ").trim_end());
        text.push('\n');
    }
    text
}
