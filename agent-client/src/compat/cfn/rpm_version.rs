//! Which of two RPM versions is newer, as `rpmvercmp` of RPM tells it.

use std::cmp::Ordering;

/// Compares versions such as `2.2-1.fc16` segment by segment: digits as numbers, letters as text.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        a = a.trim_start_matches(separates);
        b = b.trim_start_matches(separates);
        // A tilde is older than even the end; a caret is newer than the end, and older than all else.
        for (mark, at_end) in [('~', Ordering::Greater), ('^', Ordering::Less)] {
            let (without_a, without_b) = (a.strip_prefix(mark), b.strip_prefix(mark));
            let end_counts = mark == '^';
            match (without_a, without_b) {
                (Some(rest_a), Some(rest_b)) => return compare(rest_a, rest_b),
                (Some(_), None) if end_counts && b.is_empty() => return at_end.reverse(),
                (Some(_), None) => return Ordering::Less,
                (None, Some(_)) if end_counts && a.is_empty() => return at_end,
                (None, Some(_)) => return Ordering::Greater,
                (None, None) => {}
            }
        }
        if a.is_empty() || b.is_empty() {
            return a.len().cmp(&b.len());
        }
        let is_number = a.starts_with(|c: char| c.is_ascii_digit());
        let (segment_a, rest_a) = segment(a, is_number);
        let (segment_b, rest_b) = segment(b, is_number);
        if segment_b.is_empty() {
            // A number is newer than letters.
            return if is_number { Ordering::Greater } else { Ordering::Less };
        }
        let ordering = if is_number {
            let digits = |text: &str| text.trim_start_matches('0').to_owned();
            let (x, y) = (digits(segment_a), digits(segment_b));
            x.len().cmp(&y.len()).then(x.cmp(&y))
        } else {
            segment_a.cmp(segment_b)
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn separates(c: char) -> bool {
    !c.is_ascii_alphanumeric() && c != '~' && c != '^'
}

/// The digits or letters at the front.
fn segment(text: &str, is_number: bool) -> (&str, &str) {
    let belongs = |c: char| if is_number { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
    text.split_at(text.find(|c: char| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_rpm_orders_them() {
        // From RPM's own tests, tests/rpmvercmp.at.
        for (a, b, expected) in [
            ("1.0", "1.0", 0),
            ("1.0", "2.0", -1),
            ("2.0.1", "2.0.1", 0),
            ("2.0", "2.0.1", -1),
            ("2.0.1a", "2.0.1", 1),
            ("5.5p1", "5.5p2", -1),
            ("5.5p10", "5.5p1", 1),
            ("10xyz", "10.1xyz", -1),
            ("xyz10", "xyz10.1", -1),
            ("xyz.4", "8", -1),
            ("5.5p2", "5.6p1", -1),
            ("6.0.rc1", "6.0", 1),
            ("10b2", "10a1", 1),
            ("1.0aa", "1.0aa", 0),
            ("10.0001", "10.1", 0),
            ("10.0001", "10.0039", -1),
            ("4.999.9", "5.0", -1),
            ("20101121", "20101122", -1),
            ("2_0", "2.0", 0),
            ("a", "a+", 0),
            ("1.0~rc1", "1.0", -1),
            ("1.0~rc1", "1.0arc1", -1),
            ("1.0~rc1~git123", "1.0~rc1", -1),
            ("1.0^", "1.0", 1),
            ("1.0^git1", "1.01", -1),
            ("1.0^20160101", "1.0.1", -1),
            ("1.0~rc1^git1", "1.0~rc1", 1),
            ("1.0^git1~pre", "1.0^git1", -1),
            ("2.2-1.fc16", "2.2.22-1.fc16", -1),
        ] {
            assert_eq!(compare(a, b) as i32, expected, "{a} and {b}");
            assert_eq!(compare(b, a) as i32, -expected, "{b} and {a}");
        }
    }
}
