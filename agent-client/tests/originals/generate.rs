//! Metadata and templates by chance, from a seed.

use serde_json::{Map, Value, json};

/// SplitMix64.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

const NAMES: [&str; 10] = [
    "a",
    "b",
    "c",
    "list",
    "with-hyphen",
    "with_underscore",
    "x1",
    "ümläut",
    "os-collect-config",
    "0",
];
const PATHS: [&str; 14] = [
    "a",
    "b",
    "c",
    "list",
    "with-hyphen",
    "x1",
    "ümläut",
    ".",
    "a.b",
    "a.b.c",
    "list.0",
    "b.list.a",
    "missing",
    "0",
];
const TEXTS: [&str; 8] = ["", "text", "0", "<&\"'>", "two\nlines\n", "ü😀", "{{a}}", " "];

/// An object with names that templates ask for.
pub(crate) fn object(chance: &mut Chance, depth: usize) -> Map<String, Value> {
    let members = chance.below(7);
    (0..members).map(|_| (chance.pick(&NAMES).to_owned(), value(chance, depth))).collect()
}

fn value(chance: &mut Chance, depth: usize) -> Value {
    match chance.below(if depth == 0 { 8 } else { 13 }) {
        0 => Value::Null,
        1 => Value::Bool(chance.below(2) == 0),
        2 => json!(chance.below(3)),
        3 => json!(-(chance.below(1_000_000_000) as i64)),
        4 => json!((chance.below(2_000) as f64 - 1_000.0) / 8.0),
        5 => json!([1e16, 1e-7, 1.5e300, 0.1, 100.0][chance.below(5)]),
        6 | 7 => json!(chance.pick(&TEXTS)),
        8..=10 => Value::Object(object(chance, depth - 1)),
        _ => (0..chance.below(4)).map(|_| value(chance, depth - 1)).collect(),
    }
}

/// A template whose tags are in order.
pub(crate) fn template(chance: &mut Chance, depth: usize) -> String {
    let mut text = String::new();
    for _ in 0..chance.below(8) {
        let path = chance.pick(&PATHS);
        let blank = chance.pick(&["", "", " ", "\t"]);
        match chance.below(12) {
            0..=2 => {
                text.push_str(chance.pick(&["text", "\n", " ", "  \n", "\r\n", "}}", "{ x", "%"]));
            }
            3 | 4 => text += &format!("{{{{{blank}{path}{blank}}}}}"),
            5 => text += &format!("{{{{{{{blank}{path}{blank}}}}}}}"),
            6 => text += &format!("{{{{&{blank}{path}}}}}"),
            7 => text += &format!("{blank}{{{{! {path} }}}}{}", chance.pick(&["", "\n"])),
            8 => text += &format!("{blank}{{{{> {}}}}}\n", chance.pick(&["part", "none"])),
            9 => text += &format!("{{{{=<% %>=}}}}<% {path} %>{{{{{path}}}}}<%={{{{ }}}}=%>"),
            _ if depth > 0 => {
                let kind = chance.pick(&["#", "^"]);
                let end = chance.pick(&["", "\n"]);
                let inner = template(chance, depth - 1);
                text +=
                    &format!("{blank}{{{{{kind}{path}}}}}{end}{inner}{blank}{{{{/{path}}}}}{end}");
            }
            _ => {}
        }
    }
    text
}
