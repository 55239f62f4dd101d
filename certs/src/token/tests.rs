use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;
const EXPORTER: [u8; 32] = [5; 32];

fn key(name: &str) -> Fingerprint {
    Fingerprint::of_der(name.as_bytes())
}

fn issue() -> (EnrolmentToken, TokenRecord) {
    EnrolmentToken::issue(
        vec!["metadata.example:4433".into(), "[2001:db8::1]:4433".into()],
        key("server"),
        "web-1".parse().unwrap(),
        NOW + 600,
    )
    .unwrap()
}

fn claim<'a>(proof: &'a [u8], server: &'a Fingerprint, agent: &'a Fingerprint) -> Claim<'a> {
    Claim { exporter: &EXPORTER, server, agent, agent_id: "web-1", proof }
}

#[test]
fn a_token_survives_its_line_with_everything_in_it() {
    let (token, record) = issue();
    let line = token.encode();
    assert!(line.starts_with("mdt1."));
    assert!(line[5..].bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    let read: EnrolmentToken = format!("  {line}\n").parse().unwrap();
    assert_eq!(read.servers, token.servers);
    assert_eq!(read.server_fingerprint, token.server_fingerprint);
    assert_eq!(read.agent_id, token.agent_id);
    assert_eq!(read.token_id, token.token_id);
    assert_eq!(read.expires_unix, token.expires_unix);
    let proof = read.prove(&EXPORTER, &key("agent"));
    assert_eq!(record.check(NOW, &claim(&proof, &key("server"), &key("agent"))), Ok(()));
}

#[test]
fn a_token_of_an_earlier_release_is_still_read() {
    // Frozen when version 1 was made. An unknown field "zz" stands for a later addition.
    let json = format!(
        r#"{{"s":["127.0.0.1:4433"],"f":"{}","a":"web-1","t":"0a1b","k":"{}","e":1800000600,"zz":1}}"#,
        BASE64URL_NOPAD.encode(&[3; 32]),
        BASE64URL_NOPAD.encode(&[1; 32]),
    );
    let token: EnrolmentToken = line_of(json.as_bytes()).parse().unwrap();
    assert_eq!(token.servers, ["127.0.0.1:4433"]);
    assert_eq!(token.server_fingerprint, Fingerprint::from_bytes([3; 32]));
    assert_eq!((token.agent_id.as_str(), token.token_id.as_str()), ("web-1", "0a1b"));
    assert_eq!(token.secret.as_slice(), [1; 32]);
}

fn line_of(json: &[u8]) -> String {
    let bytes = [json, checksum(json).as_slice()].concat();
    format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
}

#[test]
fn two_tokens_share_neither_id_nor_secret() {
    let ((one, _), (two, _)) = (issue(), issue());
    assert_ne!(one.token_id, two.token_id);
    assert_ne!(one.secret, two.secret);
}

#[test]
fn a_token_cut_anywhere_is_refused_as_cut() {
    let line = issue().0.encode();
    for length in 0..line.len() {
        let error = line[..length].parse::<EnrolmentToken>().unwrap_err();
        let expected = match length {
            0 => matches!(error, TokenParseError::Empty),
            1..5 => matches!(error, TokenParseError::NotAToken),
            _ => matches!(error, TokenParseError::Damaged(n) if n == length),
        };
        assert!(expected, "{length} characters: {error:?}");
    }
}

#[test]
fn a_token_with_any_character_changed_is_refused() {
    let line = issue().0.encode();
    for position in TOKEN_PREFIX.len()..line.len() {
        for replacement in [b'A', b'B', b'_', b' ', b'+'] {
            let mut garbled = line.clone().into_bytes();
            if garbled[position] == replacement {
                continue;
            }
            garbled[position] = replacement;
            let garbled = String::from_utf8(garbled).unwrap();
            let read = garbled.parse::<EnrolmentToken>();
            // A blank at the very end is a cut: it is trimmed with other white space.
            assert!(read.is_err(), "position {position}: {garbled}");
        }
    }
}

#[test]
fn errors_say_what_to_do_and_never_repeat_the_text() {
    let error = |text: &str| text.parse::<EnrolmentToken>().unwrap_err().to_string();
    assert_eq!(error(" \n"), "the enrolment token is empty");
    assert_eq!(error("hunter2"), "not an enrolment token: it must start with \"mdt1.\"");
    assert_eq!(error("mdt-secret.x"), "not an enrolment token: it must start with \"mdt1.\"");
    assert!(error("mdt2.AAAA").contains("version \"2\""));
    assert!(error("mdt1.ab cd").contains("position 8"));
    assert!(error(&"m".repeat(5000)).contains("5000 characters"));
    assert!(error("mdt1.AAAA").contains("damaged or cut short (9 characters)"));
}

#[test]
fn an_undamaged_token_with_a_bad_field_names_the_field() {
    let valid = serde_json::json!({
        "s": ["h:1"], "f": BASE64URL_NOPAD.encode(&[3; 32]), "a": "web-1", "t": "0a",
        "k": BASE64URL_NOPAD.encode(&[1; 32]), "e": 1,
    });
    let error = |field: &str, value: serde_json::Value| {
        let mut json = valid.clone();
        json[field] = value;
        line_of(json.to_string().as_bytes()).parse::<EnrolmentToken>().unwrap_err()
    };
    assert!(line_of(valid.to_string().as_bytes()).parse::<EnrolmentToken>().is_ok());
    assert_eq!(error("s", serde_json::json!([])), TokenParseError::BadField("server address"));
    assert_eq!(error("f", "AAAA".into()), TokenParseError::BadField("server fingerprint"));
    assert_eq!(error("a", "../x".into()), TokenParseError::BadField("agent id"));
    assert_eq!(error("t", "A".into()), TokenParseError::BadField("token id"));
    assert_eq!(error("k", "AAAA".into()), TokenParseError::BadField("secret"));
    assert_eq!(error("e", (-1).into()), TokenParseError::BadField("set of fields"));
    assert_eq!(
        line_of(b"not json").parse::<EnrolmentToken>().unwrap_err(),
        TokenParseError::BadField("set of fields")
    );
}

#[test]
fn addresses_are_checked_when_a_token_is_made() {
    let issue = |servers: &[&str]| {
        let servers = servers.iter().map(|&s| s.to_owned()).collect();
        EnrolmentToken::issue(servers, key("s"), "a".parse().unwrap(), 0).map(|_| ())
    };
    for good in ["h:1", "10.0.0.1:65535", "[::1]:4433", "[fe80::1%eth0]:4433", "a-b.example:4433"] {
        assert_eq!(issue(&[good]), Ok(()), "{good}");
    }
    for bad in
        ["", "h", ":1", "h:", "h:0", "h:65536", "h:+1", "::1:4433", "[h]:1", "a b:1", "h/x:1"]
    {
        assert_eq!(issue(&[bad]), Err(IssueError::BadServer(bad.into())), "{bad}");
    }
    let long = format!("{}:1", "h".repeat(TOKEN_SERVER_CHARS_MAX));
    assert_eq!(issue(&[&long]), Err(IssueError::BadServer(long.clone())));
    assert_eq!(issue(&[]), Err(IssueError::ServerCount(0)));
    assert_eq!(issue(&["h:1"; 9]), Err(IssueError::ServerCount(9)));
}

#[test]
fn the_largest_token_that_can_be_made_can_be_read() {
    let server = format!("{}:65535", "h".repeat(TOKEN_SERVER_CHARS_MAX - 6));
    let id = "x".repeat(crate::agent_id::AGENT_ID_CHARS_MAX).parse().unwrap();
    let servers = vec![server; TOKEN_SERVERS_MAX];
    let (token, _) = EnrolmentToken::issue(servers, key("s"), id, u64::MAX).unwrap();
    let line = token.encode();
    assert!(line.len() <= TOKEN_CHARS_MAX, "{} characters", line.len());
    assert!(line.parse::<EnrolmentToken>().is_ok());
}

#[test]
fn a_zone_that_needs_escapes_does_not_make_a_token_too_long_to_be_read() {
    let zone = |length| format!("[fe80::1%{}]:65535", "\"".repeat(length));
    let issue = |server: String| {
        let id = "x".repeat(crate::agent_id::AGENT_ID_CHARS_MAX).parse().unwrap();
        EnrolmentToken::issue(vec![server; TOKEN_SERVERS_MAX], key("s"), id, u64::MAX)
    };
    let (token, _) = issue(zone(ZONE_CHARS_MAX)).unwrap();
    assert!(token.encode().parse::<EnrolmentToken>().is_ok());
    let longer = zone(ZONE_CHARS_MAX + 1);
    assert_eq!(issue(longer.clone()).map(|_| ()), Err(IssueError::BadServer(longer)));
}

#[test]
fn a_token_admits_its_own_agent_key_and_channel_only() {
    let (token, record) = issue();
    let (server, agent) = (key("server"), key("agent"));
    let proof = token.prove(&EXPORTER, &agent);
    let good = claim(&proof, &server, &agent);
    assert_eq!(record.check(NOW, &good), Ok(()));

    let other_token = issue().0.prove(&EXPORTER, &agent);
    let (other_key, other_exporter) = (key("other"), [6; 32]);
    for (what, bad) in [
        ("channel", Claim { exporter: &other_exporter, ..good }),
        ("server", Claim { server: &other_key, ..good }),
        ("agent key", Claim { agent: &other_key, ..good }),
        ("agent id", Claim { agent_id: "web-2", ..good }),
        ("secret", Claim { proof: &other_token, ..good }),
        ("no proof", Claim { proof: &[], ..good }),
    ] {
        let refused = record.check(NOW, &bad).unwrap_err();
        assert!(matches!(refused, TokenRefused::Forged { .. }), "{what}: {refused:?}");
        assert!(refused.to_string().contains(&bad.agent.to_string()), "{what}");
    }
}

#[test]
fn a_used_or_expired_token_is_refused_with_the_keys_named() {
    let (token, mut record) = issue();
    let (server, agent) = (key("server"), key("agent"));
    let proof = token.prove(&EXPORTER, &agent);
    let good = claim(&proof, &server, &agent);
    assert_eq!(record.check(NOW + 599, &good), Ok(()));
    assert!(!token.is_expired(NOW + 599) && token.is_expired(NOW + 600));
    let late = record.check(NOW + 660, &good).unwrap_err().to_string();
    assert_eq!(late, format!("enrolment token {} expired 60 s ago (key {agent})", token.token_id));
    record.used_by = Some(key("first"));
    let used = record.check(NOW, &good).unwrap_err().to_string();
    assert!(
        used.contains(&key("first").to_string()) && used.contains(&agent.to_string()),
        "{used}"
    );
}

#[test]
fn only_who_proves_the_secret_learns_that_a_token_was_used_or_is_expired() {
    let (_, mut record) = issue();
    record.used_by = Some(key("first"));
    let (server, agent) = (key("server"), key("agent"));
    let refused = record.check(NOW + 10_000, &claim(&[0; 32], &server, &agent)).unwrap_err();
    assert!(matches!(refused, TokenRefused::Forged { .. }), "{refused:?}");
}

#[test]
fn neither_debug_nor_the_stored_record_shows_the_secret() {
    let (token, record) = issue();
    let secret = [
        HEXLOWER.encode(token.secret.as_slice()),
        BASE64URL_NOPAD.encode(token.secret.as_slice()),
        format!("{:?}", token.secret.as_slice()),
    ];
    let stored = serde_json::to_string(&record).unwrap();
    for shown in [format!("{token:?}"), format!("{token:#?}"), format!("{record:?}"), stored] {
        for spelling in &secret {
            assert!(!shown.contains(spelling), "{shown}");
        }
    }
    assert!(format!("{record:?}").contains("ProofKey(hidden)"));
}

#[test]
fn a_stored_record_comes_back_whole() {
    let (token, mut record) = issue();
    record.used_by = Some(key("agent"));
    let read: TokenRecord = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
    assert_eq!(read.token_id, record.token_id);
    assert_eq!(read.agent_id, record.agent_id);
    assert_eq!(read.expires_unix, record.expires_unix);
    assert_eq!(read.used_by, record.used_by);
    let proof = token.prove(&EXPORTER, &key("agent"));
    let refused = read.check(NOW, &claim(&proof, &key("server"), &key("agent"))).unwrap_err();
    assert!(matches!(refused, TokenRefused::Used { .. }), "the proof still fits: {refused:?}");
}

#[test]
fn token_ids_are_short_plain_words() {
    for good in ["0", "0a1b2c", &"z".repeat(TOKEN_ID_CHARS_MAX)] {
        assert_eq!(good.parse::<TokenId>().unwrap().as_str(), good);
    }
    for bad in ["", "A", "a-b", "a/b", "é", &"z".repeat(TOKEN_ID_CHARS_MAX + 1)] {
        assert_eq!(bad.parse::<TokenId>(), Err(TokenIdError), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(mdt[0-9]?\\.?)?\\PC{0,200}") {
        let _ = text.parse::<EnrolmentToken>();
    }

    #[test]
    fn no_payload_makes_the_reader_panic(json in "\\{\"s\":\\[\"\\PC{0,20}\"\\],\\PC{0,80}\\}") {
        let _ = line_of(json.as_bytes()).parse::<EnrolmentToken>();
    }

    #[test]
    fn any_valid_values_survive_the_line(
        id in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}", host in "[a-z0-9.-]{1,200}",
        port in 1u16.., expires: u64, server: [u8; 32],
    ) {
        let servers = vec![format!("{host}:{port}")];
        let server = Fingerprint::from_bytes(server);
        let (token, _) =
            EnrolmentToken::issue(servers, server, id.parse().unwrap(), expires).unwrap();
        let read: EnrolmentToken = token.encode().parse().unwrap();
        prop_assert_eq!(read.encode(), token.encode());
        prop_assert_eq!(read.server_fingerprint, server);
    }
}
