//! Who gets in, who does not, and who has to go.

use super::*;

#[test]
fn a_valid_token_pins_and_welcomes() {
    let mut bench = Bench::with_pins(&[]);
    assert_eq!(bench.establish(1, 5), [], "a stranger's limits stay");
    let (record, hello) = token("a", 5, 2000);
    let token_id = record.token_id.to_string();
    assert_eq!(bench.say(1, &hello, 1), [Action::LookUpToken(PeerId(1), token_id.clone())]);
    assert_eq!(
        bench.give(Input::TokenFound(PeerId(1), Ok(Some(record)))),
        [Action::Enrol { peer: PeerId(1), token_id, fingerprint: key(5) }]
    );
    assert_eq!(bench.pass(STRANGER_TIME_MAX), [], "a slow store is not the peer's fault");
    let enrolled = Ok(Enrolment::Done { agent: agent("a"), replaced: vec![] });
    let actions = bench.give(Input::Enrolled { peer: PeerId(1), fingerprint: key(5), enrolled });
    assert!(actions.contains(&Action::Open(PeerId(1))));
    assert_eq!(offered(&bench.load(1, LoadedDocument::None), 1), [welcome()]);
    // The pin holds for the next connection, too, and for that agent only.
    bench.connect(2, 5, "a");
}

#[test]
fn an_agent_that_was_cut_off_while_it_enrolled_may_come_again_with_the_same_key() {
    let (record, hello) = token("a", 5, 2000);
    let [used, forged] = [CloseCode::TokenUsed, CloseCode::TokenForged].map(Some);
    for (used_by, said, refused) in [(5, "a", None), (6, "a", used), (5, "b", forged)] {
        let mut bench = Bench::with_pins(&[]);
        bench.establish(1, 5);
        bench.say(1, &Hello { agent_id: said.into(), ..hello.clone() }, 1);
        let mut used = record.clone();
        used.used_by = Some(key(used_by));
        let actions = bench.give(Input::TokenFound(PeerId(1), Ok(Some(used))));
        match refused {
            None => assert!(matches!(actions[..], [Action::Enrol { .. }]), "{actions:#?}"),
            Some(code) => assert_eq!(closed(&actions).0, code),
        }
    }
}

#[test]
fn an_agent_pinned_between_its_handshake_and_its_hello_gets_an_agents_limits() {
    let mut bench = Bench::with_pins(&[]);
    assert_eq!(bench.establish(1, 5), [], "a stranger");
    bench.give(Input::PinsAdded(vec![pin(5, "a")]));
    let actions = bench.say(1, &hello("a"), 1);
    assert_eq!(actions[0], Action::Open(PeerId(1)), "{actions:#?}");
}

#[test]
fn a_proof_is_not_looked_at_without_the_channel_that_it_is_bound_to() {
    let mut bench = Bench::with_pins(&[]);
    let (peer, fingerprint) = (PeerId(1), key(5));
    let remote = SocketAddr::from(([127, 0, 0, 1], 5001));
    bench.give(Input::Established { peer, fingerprint, exporter: None, remote });
    let (_, hello) = token("a", 5, 2000);
    let actions = bench.say(1, &hello, 1);
    assert_eq!(refusal_of(&actions).reason, RefusalReason::Busy);
    assert!(!actions.iter().any(|action| matches!(action, Action::LookUpToken(..))));
}

#[test]
fn every_bad_token_is_refused_and_names_the_keys() {
    let (valid, proven) = token("a", 5, 2000);
    let (other, _) = token("a", 5, 2000);
    let other_id = other.token_id.to_string();
    let mut used = valid.clone();
    used.used_by = Some(key(7));
    let expired = token("a", 5, START_MS / 1000);
    let forged = Hello {
        enrol: proven.enrol.clone().map(|e| Enrol { proof: Hex32([0; 32]), ..e }),
        ..proven.clone()
    };
    let renamed = Hello { agent_id: "b".into(), ..proven.clone() };
    let store_down = Err(StoreError::Closed);
    type Found = Result<Option<TokenRecord>, StoreError>;
    let cases: Vec<(&str, Hello, Found)> = vec![
        ("unknown", proven.clone(), Ok(None)),
        ("used", proven.clone(), Ok(Some(used))),
        ("expired", expired.1, Ok(Some(expired.0))),
        ("forged proof", forged, Ok(Some(valid.clone()))),
        ("proof of another token", proven.clone(), Ok(Some(other))),
        ("token of another agent", renamed, Ok(Some(valid))),
        ("store down", proven, store_down),
    ];
    let mut transcript = String::new();
    for (name, hello, found) in cases {
        let mut bench = Bench::with_pins(&[(6, "a")]);
        bench.establish(1, 5);
        let id = hello.enrol.as_ref().unwrap().token_id.clone();
        bench.say(1, &hello, 1);
        let actions = bench.give(Input::TokenFound(PeerId(1), found));
        let refusal = refusal_of(&actions);
        assert_eq!(refusal.fingerprint_seen, key(5));
        let (code, reason) = closed(&actions);
        assert_eq!(reason, refusal.message);
        let reason = reason.replace(&id, "TOKEN").replace(&other_id, "TOKEN");
        let reason =
            reason.replace(&key(5).to_string(), "SEEN").replace(&key(6).to_string(), "PINNED");
        transcript += &format!("{name}: {code:?} {}: {reason}\n", refusal.reason.as_str());
        assert_eq!(bench.core.live(), []);
        assert_eq!(bench.pass(CLOSE_LINGER), [Action::Hangup(PeerId(1))]);
    }
    insta::assert_snapshot!(transcript);
}

#[test]
fn a_token_that_somebody_else_used_meanwhile_does_not_admit() {
    for (outcome, reason) in [
        (Ok(Enrolment::Used), RefusalReason::TokenUsed),
        (Ok(Enrolment::Expired), RefusalReason::TokenExpired),
        (Ok(Enrolment::Unknown), RefusalReason::TokenUnknown),
        (Ok(Enrolment::FingerprintTaken { by: agent("b") }), RefusalReason::PinMismatch),
        (Err(StoreError::Full { what: "test".into() }), RefusalReason::Store),
    ] {
        let mut bench = Bench::with_pins(&[]);
        bench.establish(1, 5);
        let (record, hello) = token("a", 5, 2000);
        bench.say(1, &hello, 1);
        bench.give(Input::TokenFound(PeerId(1), Ok(Some(record))));
        let (peer, fingerprint) = (PeerId(1), key(5));
        let actions = bench.give(Input::Enrolled { peer, fingerprint, enrolled: outcome });
        assert_eq!(refusal_of(&actions).reason, reason);
        assert_eq!(bench.core.live(), []);
    }
}

#[test]
fn an_enrolment_replaces_the_old_key_and_ends_its_connection() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    bench.establish(2, 5);
    let (record, hello) = token("a", 5, 2000);
    bench.say(2, &hello, 1);
    bench.give(Input::TokenFound(PeerId(2), Ok(Some(record))));
    let enrolled = Ok(Enrolment::Done { agent: agent("a"), replaced: vec![key(1)] });
    let actions = bench.give(Input::Enrolled { peer: PeerId(2), fingerprint: key(5), enrolled });
    assert!(actions.iter().any(|a| matches!(a, Action::Close(PeerId(1), ..))), "{actions:#?}");
    assert_eq!(bench.core.live_agent(&agent("a")).unwrap().fingerprint, key(5));
    bench.establish(3, 1);
    let (code, reason) = closed(&bench.say(3, &self::hello("a"), 1));
    assert_eq!(code, CloseCode::PinMismatch);
    assert!(reason.contains(&key(5).to_string()), "names the key expected: {reason}");
}

#[test]
fn a_wrong_pin_is_refused_and_the_keys_seen_and_expected_are_named() {
    let mut bench = Bench::with_pins(&[(1, "a"), (2, "b")]);
    // A known key that claims another agent's id.
    bench.establish(1, 1);
    let actions = bench.say(1, &hello("b"), 1);
    let (code, reason) = closed(&actions);
    assert_eq!(code, CloseCode::PinMismatch);
    assert_eq!(reason, format!("{} is pinned for agent a, not b; expected {}", key(1), key(2)));
    assert_eq!(refusal_of(&actions).fingerprints_expected, [key(2)]);
    // An unknown key that claims a known agent's id.
    bench.establish(2, 7);
    let (code, reason) = closed(&bench.say(2, &hello("a"), 1));
    assert_eq!(code, CloseCode::PinMismatch);
    assert_eq!(reason, format!("{} is not pinned for agent a; expected {}", key(7), key(1)));
    // An unknown key and an unknown id.
    bench.establish(3, 7);
    let (code, reason) = closed(&bench.say(3, &hello("c"), 1));
    assert_eq!(code, CloseCode::UnknownAgent);
    assert_eq!(
        reason,
        format!(
            "{} is not pinned for agent c; nothing is, and no enrolment token was shown",
            key(7)
        )
    );
    assert_eq!(bench.core.live(), []);
}

#[test]
fn a_silent_stranger_is_closed_within_five_seconds_and_a_silent_agent_later() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.establish(1, 1);
    bench.establish(2, 7);
    assert_eq!(bench.pass(STRANGER_TIME_MAX - Duration::from_millis(1)), []);
    let actions = bench.pass(Duration::from_millis(1));
    let (code, reason) = closed(&actions);
    assert_eq!(code, CloseCode::UnknownAgent);
    assert_eq!(
        reason,
        format!(
            "{} is not pinned for any agent, and no proof of an enrolment token came within 5 s",
            key(7)
        )
    );
    assert_eq!(refusal_of(&actions).reason, RefusalReason::Silent);
    assert_eq!(bench.pass(CLOSE_LINGER), [Action::Hangup(PeerId(2))]);
    let actions = bench.pass(HELLO_TIME_MAX);
    assert!(closed(&actions).1.contains("pinned for agent a, said no hello"), "{actions:#?}");
}

#[test]
fn a_stranger_may_say_nothing_but_hello() {
    let mut bench = Bench::with_pins(&[]);
    bench.establish(1, 7);
    let actions = bench.say(1, &result("x"), 1);
    assert_eq!(closed(&actions).0, CloseCode::UnknownAgent);
    assert!(!actions.iter().any(|a| matches!(a, Action::SaveResult { .. })));
    bench.establish(2, 7);
    let garbled = Document {
        name: Name::new("hello").unwrap(),
        version: 1,
        body: Bytes::from_static(b"{\"protocol\": 1"),
    };
    let actions = bench.give(Input::Received(PeerId(2), garbled));
    assert_eq!(refusal_of(&actions).reason, RefusalReason::Protocol);
    bench.establish(3, 7);
    let actions = bench.say(3, &Hello { protocol: 2, ..hello("a") }, 1);
    assert_eq!(closed(&actions).0, CloseCode::ProtocolVersion);
}

#[test]
fn the_newest_connection_of_an_agent_wins() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    bench.establish(2, 1);
    let actions = bench.say(2, &hello("a"), 1);
    assert_eq!(closed(&actions).0, CloseCode::Superseded);
    bench.load(2, LoadedDocument::None);
    // What the old one still says is not heard, and its end does not end the new one.
    assert_eq!(bench.say(1, &result("x"), 1), []);
    bench.give(Input::Gone(PeerId(1), "test".into()));
    let actions = bench.give(Input::DocumentAccepted(agent("a"), stored(1, "{}")));
    assert_eq!(offered(&actions, 2), metadata(1));
    assert_eq!(bench.core.live().len(), 1);
}

#[test]
fn an_unpinned_agent_is_closed_and_not_let_in_again() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    assert_eq!(closed(&bench.give(Input::PinRemoved(key(1)))).0, CloseCode::UnknownAgent);
    bench.establish(2, 1);
    assert_eq!(closed(&bench.say(2, &hello("a"), 1)).0, CloseCode::UnknownAgent);
    bench.give(Input::PinsAdded(vec![pin(1, "a")]));
    bench.connect(3, 1, "a");
}

#[test]
fn too_many_strangers_push_out_the_oldest_and_no_agent() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(0, 1, "a");
    for peer in 1..=STRANGERS_MAX as u64 {
        assert_eq!(bench.establish(peer, 7), []);
    }
    let actions = bench.establish(9999, 7);
    assert!(matches!(actions.as_slice(), [Action::Tell(_), Action::Close(PeerId(1), ..)]));
    assert_eq!(bench.core.census(), Census { waiting: STRANGERS_MAX, accepted: 1, closing: 1 });
}

#[test]
fn more_peers_than_allowed_are_refused() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.core.settings.agents_max = 1;
    bench.connect(1, 1, "a");
    assert_eq!(refusal_of(&bench.establish(2, 2)).reason, RefusalReason::Busy);
}

#[test]
fn proofs_are_looked_at_only_so_often() {
    let mut bench = Bench::with_pins(&[]);
    let (_, hello) = token("a", 7, 2000);
    let mut looked = 0;
    for peer in 0..u64::from(PROOFS_PER_S_MAX) + 5 {
        bench.establish(peer, 7);
        looked += usize::from(matches!(bench.say(peer, &hello, 1)[..], [Action::LookUpToken(..)]));
    }
    assert_eq!(looked, PROOFS_PER_S_MAX as usize);
    bench.pass(Duration::from_secs(1));
    bench.establish(5000, 7);
    assert!(matches!(bench.say(5000, &hello, 1)[..], [Action::LookUpToken(..)]));
}

#[test]
fn a_stop_says_goodbye_to_everybody_and_lets_nobody_in() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    bench.establish(2, 7);
    let actions = bench.give(Input::Drain);
    let shutdowns =
        actions.iter().filter(|a| matches!(a, Action::Close(_, CloseCode::Shutdown, _))).count();
    assert_eq!(shutdowns, 2);
    assert_eq!(closed(&bench.establish(3, 1)).0, CloseCode::Shutdown);
    assert!(!bench.core.is_drained());
    for peer in 1..=3 {
        bench.give(Input::Gone(PeerId(peer), "closed".into()));
    }
    assert!(bench.core.is_drained());
}

#[test]
fn late_answers_for_a_peer_that_is_gone_change_nothing() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    let actions = bench.give(Input::Gone(PeerId(1), "timed out".into()));
    assert!(actions.iter().any(|a| matches!(a, Action::Tell(Notice::AgentDisconnected { reason, .. }) if reason == "timed out")));
    assert_eq!(bench.load(1, LoadedDocument::Push(stored(1, "{}"))), []);
    assert_eq!(bench.give(Input::TokenFound(PeerId(1), Ok(None))), []);
    assert_eq!(bench.give(Input::PeerStored(PeerId(1), metadata_name(), 1)), []);
    assert_eq!(bench.core.next_timeout(), None, "no timer is left behind");
    // An enrolment that became durable after the peer went away still pins.
    let enrolled = Ok(Enrolment::Done { agent: agent("b"), replaced: vec![] });
    bench.give(Input::Enrolled { peer: PeerId(4), fingerprint: key(4), enrolled });
    bench.connect(5, 4, "b");
}
