//! Times and states in words, and text that does a terminal no harm.

use std::fmt::Write as _;

use jiff::Timestamp;

/// `2026-11-22 03:00:00 UTC`.
pub(crate) fn clock(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    match time {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        None => "(no time)".into(),
    }
}

/// A span of time, as exact as one wants to know: `0.4 s`, `12 s`, `3 m 5 s`, `2 h 10 m`, `4 d 3 h`.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..10 => format!("{}.{} s", s, ms % 1_000 / 100),
        10..60 => format!("{s} s"),
        60..3_600 => format!("{} m {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} m", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

/// `2026-11-22 03:00:00 UTC, 5 m 0 s ago`.
pub(crate) fn clock_and_age(unix_ms: u64, now_unix_ms: u64) -> String {
    format!("{}, {} ago", clock(unix_ms), span(now_unix_ms.saturating_sub(unix_ms)))
}

/// `1 deployment`, `2 deployments`.
pub(crate) fn deployments(count: usize) -> String {
    format!("{count} deployment{}", if count == 1 { "" } else { "s" })
}

/// `UPDATE, group script`.
pub(crate) fn about(action: &str, group: &str) -> String {
    match (action, group) {
        ("", "") => String::new(),
        ("", group) => format!("group {group}"),
        (action, "") => action.to_owned(),
        (action, group) => format!("{action}, group {group}"),
    }
}

/// Text of others for a terminal: control characters other than line ends and tabs are shown, not obeyed.
pub(crate) fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {
                let _ = write!(out, "{}", c.escape_default());
            }
            c => out.push(c),
        }
    }
    out
}

/// As [`harmless`], on one line.
pub(crate) fn line(text: &str) -> String {
    harmless(&text.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_exactly_as_one_wants_to_know() {
        assert_eq!(clock(1_700_000_000_000), "2023-11-14 22:13:20 UTC");
        assert_eq!(clock(u64::MAX), "(no time)");
        for (ms, words) in [
            (0, "0.0 s"),
            (450, "0.4 s"),
            (12_900, "12 s"),
            (185_000, "3 m 5 s"),
            (7_800_000, "2 h 10 m"),
            (356_400_000, "4 d 3 h"),
        ] {
            assert_eq!(span(ms), words);
        }
        assert_eq!(clock_and_age(5_000, 4_000), "1970-01-01 00:00:05 UTC, 0.0 s ago");
    }

    #[test]
    fn what_a_hook_prints_does_not_drive_the_terminal() {
        assert_eq!(harmless("a\tb\n\x1b[2Jc\rd"), "a\tb\n\\u{1b}[2Jc\\rd");
        assert_eq!(line("two\nlines\x07"), "two lines\\u{7}");
    }
}
