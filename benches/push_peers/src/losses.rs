//! Plots of what docs/benchmarks.md has measured of links that lose datagrams: from its tables, so that
//! both say the same.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use crate::growth::write;
use crate::peers::repository;
use crate::plot::{Axis, Line, Plot};

/// The tables, by the line before each, and their plots.
const TABLES: [(&str, &str); 2] = [
    ("4 KiB, on a connection in use, lost each datagram on its own:", "loss-4-KiB.svg"),
    ("64 KiB, on a connection in use, lost each datagram on its own:", "loss-64-KiB.svg"),
];
/// Which column is drawn.
const COLUMN: usize = 3;

/// Writes the plots.
pub(crate) fn run() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(repository().join("docs/benchmarks.md"))?;
    for (before, file) in TABLES {
        let (_, after) = page.split_once(before).with_context(|| format!("no table: {before}"))?;
        let lines = lines(after.trim_start())?;
        ensure!(!lines.is_empty(), "nothing in the table: {before}");
        let lost = (0..=3).map(|tens| (f64::from(tens * 10), format!("{} %", tens * 10)));
        let plot = Plot {
            title: before.replace(", lost each datagram on its own:", ""),
            x: Axis { label: "lost each way".into(), log: false, marks: lost.collect() },
            y: Axis { label: "delivered, p99, ms".into(), log: true, marks: Vec::new() },
            lines: lines.into_iter().map(|(name, points)| Line { name, points }).collect(),
        };
        write(file, &plot)?;
    }
    Ok(())
}

/// The lines of the table that the text begins with: by engine, lost per cent and milliseconds.
fn lines(text: &str) -> anyhow::Result<BTreeMap<String, Vec<(f64, f64)>>> {
    let mut lines = BTreeMap::<String, Vec<(f64, f64)>>::new();
    let mut lost = 0.0;
    for row in text.lines().take_while(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let cell = |at: usize| cells.get(at).copied().with_context(|| format!("short: {row}"));
        if let Some(percent) = cell(0)?.strip_suffix('%') {
            lost = percent.trim().parse()?;
        }
        // What took longer than the run has no place.
        if let Some(ms) = milliseconds(cell(COLUMN)?) {
            lines.entry(cell(1)?.to_owned()).or_default().push((lost, ms));
        }
    }
    Ok(lines)
}

fn milliseconds(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let factor = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_to_its_end_and_what_took_too_long_is_left_out() {
        let table = "| lost | engine | p50 | p99 |\n|---|---|---|---|\n| 0 % | a | 1 ms | 2 ms |\n\
                     | | b | 1 ms | 3 ms |\n| 10 % | a | 1 ms | 1.5 s |\n| | b | 9 s | > 60 s |\n\n| x |";
        let lines = lines(table).unwrap();
        assert_eq!(lines["a"], [(0.0, 2.0), (10.0, 1_500.0)]);
        assert_eq!(lines["b"], [(0.0, 3.0)]);
    }
}
