//! Bounded keeping of what a hook prints.

use std::collections::VecDeque;

/// Bytes kept from the beginning of a stream.
pub const HEAD_BYTES_MAX: usize = 128 << 10;
/// Bytes kept from the end of a stream.
pub const TAIL_BYTES_MAX: usize = 128 << 10;
/// Bytes kept from the beginning of a hook's response, which is JSON: it has the hook's output in it, and
/// may be several times as long as what Heat takes in the end.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;
/// Bytes of the live view that goes with each snapshot of progress.
pub const LIVE_BYTES_MAX: usize = 2 << 10;
/// Bytes kept for whoever begins to watch a run, or watches by a slow path.
pub const WATCHED_BYTES_MAX: usize = 32 << 10;

/// The beginning and the end of a stream of any length.
#[derive(Debug)]
pub struct Capture {
    head: Vec<u8>,
    head_max: usize,
    tail: Tail,
    total: u64,
}

impl Capture {
    /// Keeps this many bytes at either end.
    pub fn new(head_max: usize, tail_max: usize) -> Self {
        Self { head: Vec::new(), head_max, tail: Tail::new(tail_max), total: 0 }
    }

    /// Takes in more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (head, rest) = bytes.split_at(bytes.len().min(self.head_max - self.head.len()));
        self.head.extend_from_slice(head);
        self.tail.push(rest);
    }

    /// Whether something was left out.
    pub fn is_cut(&self) -> bool {
        self.total > self.head.len() as u64 + self.tail.0.len() as u64
    }

    /// What was kept, as valid UTF-8, with a line in place of what was not.
    pub fn into_text(self) -> String {
        let left_out = self.total - self.head.len() as u64 - self.tail.0.len() as u64;
        let tail: Vec<u8> = self.tail.0.into();
        if left_out == 0 {
            let mut whole = self.head;
            whole.extend_from_slice(&tail);
            return into_text(whole);
        }
        // A character cut by the bounds would show as a replacement character: drop its rest.
        let head = trim_end(&self.head);
        let tail = trim_start(&tail);
        format!(
            "{}{}{}",
            String::from_utf8_lossy(head),
            marker(left_out + (self.head.len() - head.len()) as u64),
            String::from_utf8_lossy(tail)
        )
    }
}

/// The line that stands for `bytes` bytes left out.
pub fn marker(bytes: u64) -> String {
    format!("\n[agent-client: {bytes} bytes left out]\n")
}

/// The last bytes of a stream.
#[derive(Debug)]
pub struct Tail(VecDeque<u8>, usize);

impl Tail {
    /// Keeps this many bytes.
    pub fn new(max: usize) -> Self {
        Self(VecDeque::new(), max)
    }

    /// Takes in more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.1)..];
        let surplus = (self.0.len() + bytes.len()).saturating_sub(self.1);
        self.0.drain(..surplus);
        self.0.extend(bytes);
    }

    /// What was kept.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into()
    }

    /// How many bytes were kept.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last `count` of the bytes kept.
    pub fn last(&self, count: usize) -> Vec<u8> {
        self.0.range(self.0.len().saturating_sub(count)..).copied().collect()
    }

    /// The end of what was kept, as valid UTF-8 of at most so many bytes.
    pub fn text(&self, bytes_max: usize) -> String {
        let bytes = self.last(bytes_max);
        let mut text = into_text(trim_start(&bytes).to_vec());
        // Replacement characters are longer than what they stand for.
        while text.len() > bytes_max {
            let surplus = text.len() - bytes_max;
            let cut = (surplus..text.len()).find(|&i| text.is_char_boundary(i));
            text.drain(..cut.unwrap_or(text.len()));
        }
        text
    }
}

/// Bytes as text; what is no UTF-8 is replaced, U+FFFD each.
pub fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// `text` cut to at most `bytes_max` bytes, beginning and end kept with a marker between.
pub fn shorten(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let half = bytes_max.saturating_sub(marker(u64::MAX).len()) / 2;
    let mut capture = Capture::new(half, half);
    capture.push(text.as_bytes());
    capture.into_text()
}

/// Without the continuation bytes at the front whose character began earlier.
fn trim_start(bytes: &[u8]) -> &[u8] {
    let rest = bytes.iter().take(3).take_while(|&&b| b & 0xc0 == 0x80).count();
    &bytes[rest..]
}

/// Without a character at the end whose last bytes are missing.
fn trim_end(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(&bytes[bytes.len().saturating_sub(3)..]) {
        Ok(_) => bytes,
        Err(_) => {
            let lead = bytes.iter().rev().take(3).position(|&b| b >= 0xc0);
            match lead {
                Some(back) => {
                    let at = bytes.len() - 1 - back;
                    let needs = match bytes[at] {
                        0xc0..=0xdf => 2,
                        0xe0..=0xef => 3,
                        _ => 4,
                    };
                    if bytes.len() - at < needs { &bytes[..at] } else { bytes }
                }
                None => bytes,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_stream_is_kept_whole() {
        let mut capture = Capture::new(4, 4);
        for piece in ["ab", "cde", "fgh"] {
            capture.push(piece.as_bytes());
        }
        assert_eq!(capture.into_text(), "abcdefgh");
    }

    #[test]
    fn of_a_long_stream_both_ends_are_kept_and_the_gap_is_named() {
        let mut capture = Capture::new(4, 4);
        capture.push(b"0123456789abcdef");
        assert_eq!(capture.into_text(), "0123\n[agent-client: 8 bytes left out]\ncdef");
    }

    #[test]
    fn what_is_no_utf8_is_replaced() {
        let mut capture = Capture::new(10, 10);
        capture.push(b"a\xff\xfeb");
        assert_eq!(capture.into_text(), "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn characters_cut_by_the_bounds_leave_no_rubbish() {
        let text = "ä€😀".repeat(50);
        for bound in 1..40 {
            let mut capture = Capture::new(bound, bound);
            capture.push(text.as_bytes());
            let kept = capture.into_text();
            assert!(!kept.contains('\u{fffd}'), "bound {bound}: {kept}");
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_for_any_bytes_in_any_pieces(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20),
            max in 1usize..60,
        ) {
            let mut capture = Capture::new(max, max);
            let mut tail = Tail::new(max);
            for piece in &pieces {
                capture.push(piece);
                tail.push(piece);
                prop_assert!(capture.head.len() <= max && capture.tail.0.len() <= max);
            }
            prop_assert!(tail.text(max).len() <= max && tail.text(3).len() <= 3);
            let whole = pieces.concat();
            let text = capture.into_text();
            if whole.len() <= 2 * max {
                prop_assert_eq!(text, String::from_utf8_lossy(&whole));
            } else {
                prop_assert!(text.contains("bytes left out"));
            }
        }

        #[test]
        fn shortened_text_fits_and_keeps_both_ends(text in "\\PC{0,300}", max in 100usize..400) {
            let short = shorten(&text, max);
            prop_assert!(short.len() <= max.max(text.len().min(max)));
            if text.len() <= max {
                prop_assert_eq!(short, text);
            }
        }
    }
}
