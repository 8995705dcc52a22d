//! Text for a terminal of 80 columns: tables, sizes, ages. Called by the operator's
//! verbs. Scripts use `--json`, which has every number whole.
//!
//! # Invariants
//! - No line is wider than [`WIDTH`] (tests here and in
//!   `status` and `ls`), whatever names and numbers come.

use std::borrow::Cow;

/// Columns of the narrowest terminal that is catered for.
pub(super) const WIDTH: usize = 80;

/// Where the values of a list of facts begin.
const FACT_INDENT: usize = 11;

/// A size as people read it.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// A length of time in its two largest units.
pub(super) fn span(seconds: u64) -> String {
    let (d, h, m, s) = (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, m) => format!("{m}m {s}s"),
        (0, h, m) => format!("{h}h {m}m"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

/// A length of time in its largest unit.
pub(super) fn age(seconds: u64) -> String {
    let text = span(seconds);
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// A number in at most six characters: whole below a million, then three digits
/// and a unit.
fn short(number: u64) -> String {
    if number < 1_000_000 {
        return number.to_string();
    }
    let (mut whole, mut rest, mut unit) = (number / 1_000_000, number % 1_000_000, 0);
    while whole >= 1000 {
        (whole, rest, unit) = (whole / 1000, whole % 1000 * 1000, unit + 1);
    }
    let unit = ["M", "G", "T", "P", "E"][unit];
    match whole {
        0..10 => format!("{whole}.{:02}{unit}", rest / 10_000),
        10..100 => format!("{whole}.{}{unit}", rest / 100_000),
        _ => format!("{whole}{unit}"),
    }
}

/// One with its unit, or many.
pub(super) fn count(number: u64, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {one}{s}")
}

/// Cut to so many characters, with a mark where something is missing.
pub(super) fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.chars().count() <= width {
        return Cow::Borrowed(text);
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    Cow::Owned(kept + "…")
}

/// A name and its value, the value broken into as many lines as it needs.
pub(super) fn fact(name: &str, value: &str) -> String {
    let room = WIDTH - FACT_INDENT;
    let mut lines: Vec<String> = vec![String::new()];
    for word in value.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().expect("there is always a line");
            let used = line.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + word.len() <= room {
                line.extend(std::iter::repeat_n(' ', gap).chain(word));
                break;
            }
            if used == 0 {
                // A word longer than a line, such as a path.
                line.extend(word.drain(..room));
            }
            lines.push(String::new());
        }
    }
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let name = if at == 0 { name } else { "" };
        text.push_str(&format!("{name:FACT_INDENT$}{line}\n"));
    }
    text
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    /// Left-aligned.
    Text(String),
    /// Right-aligned, and shortened when the table would be too wide.
    Number(u64),
    /// Right-aligned, as it is.
    Right(String),
}

impl Cell {
    fn text(&self, shortened: bool) -> Cow<'_, str> {
        match self {
            Self::Text(text) | Self::Right(text) => Cow::Borrowed(text),
            Self::Number(number) if shortened => Cow::Owned(short(*number)),
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }
}

/// A table whose columns are as wide as their widest cell. When it is too wide its
/// numbers are shortened, then its gaps, then its widest cells are cut.
pub(super) fn table(head: &[&str], rows: &[Vec<Cell>]) -> String {
    let layout = |shortened: bool| -> Vec<usize> {
        let widest = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            let cells = cells.map(|cell| cell.text(shortened).chars().count());
            cells.chain([head[at].chars().count()]).max().unwrap_or(0)
        };
        (0..head.len()).map(widest).collect()
    };
    let is_wide = |widths: &[usize], gap: &str| {
        widths.iter().sum::<usize>() + gap.len() * (head.len() - 1) > WIDTH
    };
    let (mut shortened, mut gap) = (false, "  ");
    let mut widths = layout(shortened);
    if is_wide(&widths, gap) {
        shortened = true;
        widths = layout(shortened);
    }
    if is_wide(&widths, gap) {
        gap = " ";
    }
    while is_wide(&widths, gap) {
        let Some(widest) = widths.iter_mut().max() else {
            break;
        };
        *widest -= 1;
    }
    let mut text = String::new();
    let is_right = |at: usize| {
        let cell = rows.first().and_then(|row| row.get(at));
        matches!(cell, Some(Cell::Number(_) | Cell::Right(_)))
    };
    let mut line = |cells: Vec<Cow<'_, str>>| {
        let mut columns = Vec::new();
        for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let cell = cut(cell, *width);
            columns.push(if is_right(at) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            });
        }
        text.push_str(columns.join(gap).trim_end());
        text.push('\n');
    };
    line(head.iter().map(|name| Cow::Borrowed(*name)).collect());
    for row in rows {
        line(row.iter().map(|cell| cell.text(shortened)).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap()
    }

    #[test]
    fn times_and_sizes_are_readable() {
        assert_eq!(span(0), "0s");
        assert_eq!(span(200), "3m 20s");
        assert_eq!(span(3700), "1h 1m");
        assert_eq!(span(100_000), "1d 3h");
        assert_eq!(age(100_000), "1d");
        assert_eq!(size(64 << 20), "64.0 MiB");
        assert_eq!(count(1, "event"), "1 event");
        assert_eq!(count(2, "event"), "2 events");
    }

    #[test]
    fn numbers_fit_six_characters() {
        for (number, text) in [
            (0, "0"),
            (999_999, "999999"),
            (1_000_000, "1.00M"),
            (1_239_999, "1.23M"),
            (12_345_678, "12.3M"),
            (999_999_999, "999M"),
            (1_050_000_000, "1.05G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn a_table_fits_whatever_is_in_it() {
        let name = "PhoneVerificationInitiateEvent";
        let head = [
            "EVENT TYPE",
            "ACCEPTED",
            "DELIVERED",
            "PENDING",
            "DEAD",
            "PURGED",
            "LOST",
        ];
        for n in [0, 999_999, 10_000_000, 12_345_678_901, u64::MAX] {
            let mut row = vec![Cell::Text(name.into())];
            row.extend(vec![Cell::Number(n); 6]);
            let text = table(&head, &[row]);
            assert!(widest(&text) <= WIDTH && text.contains(name), "{text}");
        }
        let row = vec![Cell::Text("w".repeat(64)), Cell::Text("x".repeat(90))];
        assert_eq!(widest(&table(&["A", "B"], &[row])), WIDTH);
    }

    #[test]
    fn a_small_table_is_aligned() {
        let rows = [
            vec![Cell::Text("a".into()), Cell::Number(5)],
            vec![Cell::Text("long".into()), Cell::Number(100)],
        ];
        assert_eq!(
            table(&["NAME", "N"], &rows),
            "NAME    N\na       5\nlong  100\n"
        );
    }

    #[test]
    fn facts_wrap() {
        let text = fact("directory", &format!("{} and more", "/d".repeat(80)));
        assert!(widest(&text) <= WIDTH, "{text}");
        assert_eq!(text.replace([' ', '\n'], "").len(), 9 + 160 + 7);
        assert_eq!(fact("a", "b c"), "a          b c\n");
    }
}
