//! What a fuzzer runs, shared with the replay of its corpus.

use std::fmt::Display;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::token::{EnrolmentToken, TokenId, line};
use crate::{AgentId, Fingerprint};

/// What people paste and agents send when they enrol: tokens, fingerprints, ids. Whatever is taken
/// is written in one form, which is taken again and means the same.
///
/// Layout: kind 1; text.
///
/// # Panics
/// When a rule is broken.
pub fn enrolment(input: &[u8]) {
    let Some((kind, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match kind % 6 {
        0 => token(text),
        // No fuzzer finds the checksum by itself.
        1 => token(&line(Zeroizing::new(text.as_bytes().to_vec()))),
        2 => same::<Fingerprint>(text),
        3 => same::<AgentId>(text),
        4 => same::<TokenId>(text),
        _ => issued(text),
    }
}

/// A token for any servers can be read, if it can be made.
fn issued(servers: &str) {
    let servers = servers.lines().map(str::to_owned).collect();
    let (server, Ok(agent)) = (Fingerprint::of_der(b"server"), "x".repeat(255).parse()) else {
        panic!("the longest id is an id");
    };
    if let Ok((issued, _)) = EnrolmentToken::issue(servers, server, agent, u64::MAX) {
        let line = issued.encode();
        assert!(line.parse::<EnrolmentToken>().is_ok(), "{line:?} cannot be read");
        token(&line);
    }
}

fn token(text: &str) {
    let Ok(token) = text.parse::<EnrolmentToken>() else { return };
    let line = token.encode();
    assert!(!line.contains(char::is_whitespace));
    let Ok(again) = line.parse::<EnrolmentToken>() else { panic!("{line:?} is not taken back") };
    assert_eq!(again.encode(), line);
    assert_eq!(
        (&again.servers, &again.agent_id, &again.token_id),
        (&token.servers, &token.agent_id, &token.token_id)
    );
    assert_eq!(
        (again.server_fingerprint, again.expires_unix),
        (token.server_fingerprint, token.expires_unix)
    );
}

fn same<T: FromStr + Display + PartialEq>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let written = value.to_string();
    let again = written.parse::<T>();
    assert!(again.is_ok_and(|again| again == value), "{written:?} is not taken back");
}
