//! What people and programs read.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::error::{Exit, Failure};

/// Prints text to stdout. A reader that has gone away is no error. What agents and hooks say is part
/// of it, so nothing in it may steer the terminal; JSON has no control characters to lose.
pub(super) fn out(text: &str) -> Result<(), Failure> {
    out_bytes(tame(text).as_bytes())
}

fn tame(text: &str) -> String {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Prints bytes to stdout.
pub(super) fn out_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("cannot write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints JSON, indented, to stdout.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot write JSON: {e}")))?;
    out(&format!("{text}\n"))
}

/// Says on stderr what the user may want to do next.
pub(super) fn next(text: &str) {
    note(&format!("next: {text}"));
}

/// Says something on stderr.
pub(super) fn note(text: &str) {
    // Nothing is left to do if the terminal is gone.
    drop(writeln!(io::stderr(), "{text}"));
}

/// Says on stderr what failed and what to try.
pub(super) fn failure(failure: &Failure) {
    for (index, line) in failure.message.lines().enumerate() {
        note(&if index == 0 { format!("error: {line}") } else { format!("       {line}") });
    }
    if let Some(hint) = &failure.hint {
        note(&format!("  try: {hint}"));
    }
}

/// Aligned columns under their headers; the last column is not padded.
pub(super) fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headers.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let headers: Vec<String> = headers.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&headers).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let padding = width - cell.chars().count() + 2;
            line.push_str(cell);
            line.push_str(&" ".repeat(padding));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `2026-11-22 06:05:19` in UTC.
pub(super) fn time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (year, month, day) = date(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02} {}", clock_time(unix_ms))
}

/// `06:05:19` in UTC.
pub(super) fn clock_time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Year, month and day of a number of days since 1970 (Gregorian; eras of 400 years from March on).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// A number, or a dash.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hook_prints_does_not_steer_the_terminal() {
        assert_eq!(tame("a\tb\u{1b}[2J\u{9b}\r\nc"), "a\tb\u{fffd}[2J\u{fffd}\u{fffd}\nc");
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(time(1_795_327_519_999), "2026-11-22 06:05:19");
        assert_eq!(time(4_102_444_799_000), "2099-12-31 23:59:59");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".into(), "x".into()], vec!["longer".into(), "y".into()]];
        assert_eq!(table(&["ID", "STATE"], &rows), "ID      STATE\na       x\nlonger  y\n");
    }
}
