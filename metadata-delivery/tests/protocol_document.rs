//! `docs/protocol.md` says what the code does.

use std::path::Path;

use metadata_delivery::message::{Hello, Message};
use metadata_delivery::testing::start;
use metadata_delivery::{
    ACK_RANGES_MAX, ANSWERS_MAX, CloseCode, DOCUMENT_BYTES_MAX, Limits, NAME_BYTES_MAX,
    NAMES_REMEMBERED_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, PENDING_PIECES_MAX,
    REASON_BYTES_MAX, REPAIR_SYMBOL_BYTES_MAX, REPAIR_SYMBOLS_MAX, SENT_PACKETS_MAX,
    STRANGER_DOCUMENT_BYTES_MAX, Session, SessionConfig, TRANSFERS_CEILING,
};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("docs/protocol.md: {error}"))
}

/// The bytes of the last example: two-digit tokens at the begin of each line, up to a wide gap.
fn example(document: &str) -> Vec<u8> {
    let block = document.rsplit("```text\n").next().and_then(|rest| rest.split("```").next());
    let lines = block.unwrap_or_default().lines();
    let digits = lines.flat_map(|line| {
        line.trim_start().split("  ").next().unwrap_or_default().split(' ').map(str::to_owned)
    });
    digits.filter_map(|byte| u8::from_str_radix(&byte, 16).ok()).collect()
}

#[test]
fn the_example_packet_is_what_a_session_writes() {
    let hello = Hello {
        protocol: 1,
        agent_id: "web-1".into(),
        software: "agent 1".into(),
        boot_id: "7f".into(),
        enrol: None,
        holds: None,
    };
    let config = SessionConfig { limits: Limits::agent(), ..SessionConfig::default() };
    let mut session = Session::new(start(), config);
    session.offer(start(), hello.to_document(1).unwrap()).unwrap();
    let mut packet = Vec::new();
    assert!(session.poll_transmit(start(), 1, &mut packet));
    assert_eq!(packet, example(&document()));
}

#[test]
fn the_tables_of_limits_have_the_values_of_the_code() {
    let document = document();
    for (limit, value) in [
        ("NAME_BYTES_MAX", NAME_BYTES_MAX),
        ("TRANSFERS_CEILING", TRANSFERS_CEILING),
        ("PAYLOAD_BYTES_MAX", PAYLOAD_BYTES_MAX),
        ("PAYLOAD_BYTES_MIN", PAYLOAD_BYTES_MIN),
        ("DOCUMENT_BYTES_MAX", DOCUMENT_BYTES_MAX),
        ("STRANGER_DOCUMENT_BYTES_MAX", STRANGER_DOCUMENT_BYTES_MAX),
        ("REASON_BYTES_MAX", REASON_BYTES_MAX),
        ("SENT_PACKETS_MAX", SENT_PACKETS_MAX),
        ("ACK_RANGES_MAX", ACK_RANGES_MAX),
        ("PENDING_PIECES_MAX", PENDING_PIECES_MAX),
        ("ANSWERS_MAX", ANSWERS_MAX),
        ("REPAIR_SYMBOLS_MAX", REPAIR_SYMBOLS_MAX),
        ("REPAIR_SYMBOL_BYTES_MAX", REPAIR_SYMBOL_BYTES_MAX),
        ("NAMES_REMEMBERED_MAX", NAMES_REMEMBERED_MAX),
    ] {
        let row = format!("| `{limit}` | {value} |");
        assert!(document.contains(&row), "no row {row}");
    }
}

#[test]
fn the_table_of_close_codes_is_complete() {
    let document = document();
    let section = document.split("### 3.7").nth(1).and_then(|rest| rest.split("## 4").next());
    let section = section.unwrap_or_default();
    for code in 0..=u16::MAX {
        let listed = section.contains(&format!("\n| {code} |"));
        let known = !matches!(CloseCode::from_wire(code), CloseCode::Other(_));
        assert_eq!(listed, known, "close code {code}");
    }
}
