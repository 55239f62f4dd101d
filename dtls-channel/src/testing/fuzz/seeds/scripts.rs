//! Scripts for the bodies that take operations.

use super::Seed;

/// Puts a script together: each word is the tag of an operation, by name, or a number that it takes.
fn assemble(tags: &[(&str, u8)], script: &str) -> Vec<u8> {
    let word = |word: &str| {
        let tag = tags.iter().find(|(name, _)| *name == word).map(|(_, tag)| *tag);
        tag.unwrap_or_else(|| word.parse().expect("a tag or a number"))
    };
    script.split_whitespace().map(word).collect()
}

/// Tags of the association's operations; the ones in capitals are about the server.
const ASSOCIATION: &[(&str, u8)] = &[
    ("exchange", 0),
    ("deliver", 1),
    ("DELIVER", 0x81),
    ("nth", 2),
    ("NTH", 0x82),
    ("all", 3),
    ("ALL", 0x83),
    ("again", 4),
    ("AGAIN", 0x84),
    ("lose", 5),
    ("LOSE", 0x85),
    ("replay", 6),
    ("REPLAY", 0x86),
    ("bend", 7),
    ("BEND", 0x87),
    ("part", 8),
    ("PART", 0x88),
    ("cut", 0x48),
    ("CUT", 0xc8),
    ("raw", 9),
    ("forge", 10),
    ("FORGE", 0x8a),
    ("forge-message", 0x4a),
    ("FORGE-MESSAGE", 0xca),
    ("wait", 11),
    ("timer", 12),
    ("send", 13),
    ("SEND", 0x8d),
    ("mtu", 14),
    ("close", 0x4e),
    ("CLOSE", 0xce),
    ("anew", 15),
];

/// Handshakes under many settings, with losses, repetitions and forgeries, resumed ones too.
pub(super) fn associations() -> Vec<Seed> {
    let scripts = [
        ("open", "exchange send 9 SEND 200 exchange close exchange"),
        ("resume", "exchange anew exchange send 9 SEND 1 exchange anew timer"),
        ("loss", "lose 0 timer ALL LOSE 0 timer timer all LOSE 1"),
        ("repeats", "AGAIN 0 ALL again 1 again 0 all REPLAY 0"),
        (
            "data-repeats",
            "exchange send 3 send 4 ALL REPLAY 255 REPLAY 254 SEND 5 AGAIN 0 all replay 255",
        ),
        ("orders", "ALL nth 3 nth 2 nth 1 NTH 2 NTH 1 deliver"),
        ("pieces", "ALL part 0 1 part 0 0 part 1 0 all PART 0 3 CUT 0 0 90 cut 0 0 40"),
        ("early-data", "ALL all DELIVER send 3 ALL timer"),
        ("last-flight", "ALL all ALL LOSE 0 timer ALL all send 1 exchange"),
        (
            "early-flood",
            &format!("ALL all ALL LOSE 0 {} all timer exchange", "SEND 190 ".repeat(8)),
        ),
        ("bent", "BEND 0 0 30 1 exchange bend 0 0 99 4 send 1 BEND 0 0 20 1"),
        ("alert", "forge 1 0 0 2 2 40 wait 100 exchange timer FORGE 1 0 0 2 1 0"),
        ("forged", "forge-message 2 0 1 0 0 0 4 1 2 3 4 exchange FORGE-MESSAGE 20 2 5 0 0 0 12"),
        ("raw", "raw 14 22 254 253 0 0 0 0 0 0 0 0 0 1 0 exchange mtu 250 exchange"),
        ("other-life", "exchange send 5 exchange anew replay 1 REPLAY 0 exchange replay 3"),
    ];
    let settings = [
        [0, 0],
        [0, 13],
        [0x90, 0x1d],
        [0x4a, 0x2e],
        [0xff, 0x3f],
        [5, 0x9c],
        [0x20, 0xed],
        [0, 0x30],
    ];
    let mut seeds = Vec::new();
    for (name, script) in scripts {
        for (number, setting) in settings.iter().enumerate() {
            let script = assemble(ASSOCIATION, script);
            seeds.push((format!("{name}-{number}"), [&setting[..], &script].concat()));
        }
    }
    seeds
}

/// Tags of the endpoint's operations.
const ENDPOINT: &[(&str, u8)] = &[
    ("connect", 0),
    ("up", 3),
    ("down", 6),
    ("exchange", 8),
    ("again", 9),
    ("spoof", 10),
    ("bend", 12),
    ("split", 14),
    ("lose", 16),
    ("raw", 17),
    ("wait", 18),
    ("timer", 19),
    ("send", 21),
    ("answer", 23),
    ("close", 24),
    ("end", 25),
    ("move", 26),
];

/// Clients that come, go, move and resume, among strangers.
pub(super) fn endpoints() -> Vec<Seed> {
    let everybody = "connect 0 connect 1 connect 2 connect 3 connect 4";
    let scripts = [
        ("one", "connect 0 exchange send 0 9 answer 0 3 exchange close 0 exchange"),
        ("many", &format!("{everybody} exchange send 2 4 exchange end 1 exchange")),
        (
            "half-open",
            &format!("{everybody} up up up up up down down down down down up up up up up"),
        ),
        (
            "spoofed",
            "connect 0 spoof 0 8 spoof 0 9 up down spoof 0 8 spoof 0 9 spoof 0 1 spoof 0 2 up",
        ),
        ("bent", "connect 0 up down bend 0 0 0 60 1 bend 0 136 0 70 2 exchange"),
        ("pieces", "connect 0 split 0 80 up up up down split 0 80 up up up exchange"),
        ("pieces-lost", "connect 0 up down split 0 90 up lose 0 up timer wait 255"),
        (
            "pieces-of-others",
            "connect 0 connect 1 up up down down split 0 99 split 0 99 spoof 1 1 up up up",
        ),
        ("again", "connect 0 exchange connect 0 up down again 0 up exchange send 0 1 exchange"),
        ("resumed", "connect 0 exchange connect 0 exchange connect 0 exchange send 0 8 exchange"),
        (
            "resumed-from-another-port",
            "move 0 1 connect 0 exchange move 0 0 connect 0 up timer timer exchange send 0 8 exchange",
        ),
        (
            "resumed-from-another-host",
            "connect 0 exchange move 0 2 connect 0 up timer timer exchange send 0 8 exchange",
        ),
        ("moved", "connect 0 exchange move 0 5 send 0 4 exchange answer 0 7 exchange"),
        (
            "moved-twice",
            "connect 0 exchange move 0 5 send 0 4 up timer timer timer move 0 6 send 0 1 exchange",
        ),
        (
            "stolen",
            "connect 0 exchange send 0 4 spoof 0 8 timer timer down timer spoof 0 9 up timer exchange",
        ),
        ("raw", "raw 1 3 1 2 3 raw 9 14 22 254 253 0 0 0 0 0 0 0 0 0 1 1"),
        ("old-cookie", "connect 0 up down wait 255 wait 255 up exchange timer exchange"),
    ];
    let seed = |(name, script): (&str, &str)| (name.to_owned(), assemble(ENDPOINT, script));
    scripts.into_iter().map(seed).collect()
}

/// Tags of the operations on fragments. A whole message has a number and a length, a piece a place
/// and its own length as well.
const REASSEMBLY: &[(&str, u8)] =
    &[("rebase", 0), ("forget", 1), ("next", 2), ("whole", 5), ("piece", 8), ("PIECE", 0x88)];

/// Whole, in pieces, out of order, overlapping, contradicting, forgotten; at the first message and
/// at the last.
pub(super) fn reassemblies() -> Vec<Seed> {
    let sparse: String =
        (0..160).step_by(2).map(|offset| format!("piece 2 200 {offset} 1 ")).collect();
    let scripts = [
        ("whole", "whole 2 20 next whole 2 0 next whole 3 5 whole 2 5 next next"),
        ("pieces", "piece 2 40 0 10 piece 2 40 20 20 piece 2 40 10 10 next"),
        ("overlap", "piece 2 40 5 20 piece 2 40 0 30 piece 2 40 10 30 next"),
        ("contradiction", "piece 2 40 5 20 piece 2 41 0 30 PIECE 2 41 0 30"),
        ("large", "piece 2 250 0 250 piece 3 250 9 9 whole 2 250 whole 2 255"),
        ("whole-after-pieces", "piece 2 40 5 20 whole 2 40 next piece 1 40 5 20"),
        ("forgotten", "piece 2 40 5 20 forget piece 2 40 0 30 rebase 9 next"),
        ("far", "piece 9 40 5 20 piece 10 40 5 20 piece 0 4 1 2"),
        ("sparse", &sparse),
    ];
    let mut seeds = Vec::new();
    for (name, script) in scripts {
        let script = assemble(REASSEMBLY, script);
        seeds.push((name.to_owned(), [&[0, 0], &script[..]].concat()));
        seeds.push((format!("{name}-last"), [&[0xff, 0xfe], &script[..]].concat()));
    }
    seeds
}
