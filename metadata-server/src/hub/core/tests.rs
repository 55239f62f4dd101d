//! The hub on a virtual clock: every phase, every refusal, and what one agent can reach of another.

use bytes::Bytes;
use certs::EnrolmentToken;
use certs::token::TokenRecord;
use metadata_delivery::message::{
    DeploymentProgress, DeploymentState, Enrol, Hex32, Message, ResultStatus, Welcome,
    metadata_name,
};
use metadata_delivery::{Document, Name};

use super::*;
use crate::store::{DocumentHead, Dropped, Enrolment, Kept, PinOrigin, StoreError, StoredDocument};

const EXPORTER: [u8; 32] = [9; 32];
const START_MS: u64 = 1_000_000;

fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

fn key(byte: u8) -> Fingerprint {
    Fingerprint::from_bytes([byte; 32])
}

fn pin(byte: u8, id: &str) -> PinRecord {
    PinRecord {
        fingerprint: key(byte),
        agent_id: agent(id),
        origin: PinOrigin::Token,
        added_unix_ms: 0,
    }
}

fn hello(id: &str) -> Hello {
    Hello {
        protocol: 1,
        agent_id: id.into(),
        software: "test/1".into(),
        boot_id: "boot".into(),
        enrol: None,
        holds: None,
    }
}

fn stored(version: u64, text: &str) -> StoredDocument {
    let body = Bytes::copy_from_slice(text.as_bytes());
    let head = DocumentHead {
        version,
        sha256: Hex32::sha256_of(&body),
        bytes: body.len() as u64,
        deployments: 1,
        accepted_unix_ms: 1,
    };
    StoredDocument { head, body }
}

fn result(config_id: &str) -> DeploymentResult {
    DeploymentResult {
        config_id: config_id.into(),
        name: "n".into(),
        group: "script".into(),
        action: "CREATE".into(),
        document_version: 1,
        status: ResultStatus::Complete,
        deploy_stdout: String::new(),
        deploy_stderr: String::new(),
        deploy_status_code: 0,
        outputs: serde_json::Map::new(),
        reason: None,
        started_unix_ms: 1,
        finished_unix_ms: 2,
    }
}

/// A token for an agent, and a hello that proves it over the channel of these tests.
fn token(id: &str, seen: u8, expires_unix: u64) -> (TokenRecord, Hello) {
    let servers = vec!["a.example:1".into()];
    let (token, record) = EnrolmentToken::issue(servers, key(0), agent(id), expires_unix).unwrap();
    let proof = Hex32(token.prove(&EXPORTER, &key(seen)));
    let enrol = Enrol { token_id: token.token_id.to_string(), proof };
    (record, Hello { enrol: Some(enrol), ..hello(id) })
}

struct Bench {
    core: Core,
    now: Instant,
    elapsed: Duration,
}

impl Bench {
    fn with_pins(pins: &[(u8, &str)]) -> Self {
        let settings = Settings {
            server: key(0),
            software: "server/1".into(),
            keep_alive: Duration::from_secs(20),
            agents_max: 2000,
        };
        let pins = pins.iter().map(|(byte, id)| pin(*byte, id));
        Self { core: Core::new(settings, pins), now: Instant::now(), elapsed: Duration::ZERO }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, unix_ms: START_MS + self.elapsed.as_millis() as u64 }
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.elapsed += time;
        self.core.handle_timeout(self.moment());
        self.drain()
    }

    fn drain(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.core.poll_action()).collect()
    }

    fn give(&mut self, input: Input) -> Vec<Action> {
        self.core.handle(self.moment(), input);
        self.drain()
    }

    fn establish(&mut self, peer: u64, seen: u8) -> Vec<Action> {
        let remote = SocketAddr::from(([127, 0, 0, 1], 5000 + peer as u16));
        let (peer, fingerprint) = (PeerId(peer), key(seen));
        self.give(Input::Established { peer, fingerprint, exporter: EXPORTER, remote })
    }

    fn say(&mut self, peer: u64, message: &impl Message, version: u64) -> Vec<Action> {
        self.give(Input::Received(PeerId(peer), message.to_document(version).unwrap()))
    }

    /// Connects an agent that has pin `seen` and no document.
    fn connect(&mut self, peer: u64, seen: u8, id: &str) {
        self.begin(peer, seen, id);
        assert_eq!(offered(&self.load(peer, LoadedDocument::None), peer), [welcome()]);
    }

    /// The same, up to the point where its document is asked for.
    fn begin(&mut self, peer: u64, seen: u8, id: &str) {
        self.establish(peer, seen);
        let actions = self.say(peer, &hello(id), 1);
        assert!(actions.contains(&Action::Load(PeerId(peer), agent(id), None)), "{actions:#?}");
    }

    fn load(&mut self, peer: u64, document: LoadedDocument) -> Vec<Action> {
        self.give(Input::Loaded(PeerId(peer), Ok(Loaded { record: None, document })))
    }
}

fn closed(actions: &[Action]) -> (CloseCode, String) {
    actions
        .iter()
        .find_map(|a| match a {
            Action::Close(_, code, reason) => Some((*code, reason.clone())),
            _ => None,
        })
        .unwrap_or_else(|| panic!("not closed: {actions:#?}"))
}

fn refusal_of(actions: &[Action]) -> Refusal {
    actions
        .iter()
        .find_map(|a| match a {
            Action::Tell(Notice::AgentRefused(refusal)) => Some(refusal.clone()),
            _ => None,
        })
        .unwrap_or_else(|| panic!("not refused: {actions:#?}"))
}

/// What a peer was offered: name and version of each document.
fn offered(actions: &[Action], peer: u64) -> Vec<(String, u64)> {
    actions
        .iter()
        .filter_map(|a| match a {
            Action::Offer(to, d) if *to == PeerId(peer) => Some((d.name.to_string(), d.version)),
            _ => None,
        })
        .collect()
}

fn welcome() -> (String, u64) {
    ("welcome".into(), 1)
}

/// The document that a peer's welcome names.
fn newest(actions: &[Action], peer: u64) -> Option<u64> {
    let welcome = actions.iter().find_map(|a| match a {
        Action::Offer(to, d) if *to == PeerId(peer) && d.name.as_str() == "welcome" => {
            Some(Welcome::from_body(&d.body).unwrap())
        }
        _ => None,
    });
    welcome.unwrap_or_else(|| panic!("not welcomed: {actions:#?}")).newest.map(|n| n.version)
}

fn metadata(version: u64) -> Vec<(String, u64)> {
    vec![("metadata".into(), version)]
}

#[test]
fn an_agent_that_moved_is_shown_where_it_is() {
    let mut hub = Bench::with_pins(&[(1, "a")]);
    hub.connect(1, 1, "a");
    let moved = SocketAddr::from(([192, 0, 2, 7], 7));
    assert_eq!(hub.give(Input::Moved(PeerId(1), moved)), []);
    assert_eq!(hub.core.live_agent(&agent("a")).unwrap().record.remote, moved.to_string());
    assert_eq!(hub.give(Input::Moved(PeerId(9), moved)), [], "it has gone meanwhile");
}

#[test]
fn a_pinned_agent_is_welcomed_and_sent_its_document() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    assert_eq!(bench.establish(1, 1), [Action::Open(PeerId(1))]);
    let actions = bench.say(1, &hello("a"), 1);
    assert_eq!(offered(&actions, 1), [], "the welcome names the document, which is looked for");
    let actions = bench.load(1, LoadedDocument::Push(stored(3, "{}")));
    assert_eq!(offered(&actions, 1), [vec![welcome()], metadata(3)].concat());
    assert_eq!(newest(&actions, 1), Some(3));
    assert_eq!(bench.core.live_agent(&agent("a")).unwrap().sending_version, Some(3));
    bench.pass(Duration::from_millis(4));
    let actions = bench.give(Input::PeerStored(PeerId(1), metadata_name(), 3));
    let delivered = Notice::DocumentDelivered { agent_id: agent("a"), version: 3, after_ms: 4.0 };
    assert!(actions.contains(&Action::Tell(delivered)), "{actions:#?}");
    let live = bench.core.live_agent(&agent("a")).unwrap();
    assert_eq!((live.sending_version, live.record.delivered_version), (None, Some(3)));
}

#[test]
fn what_an_agent_already_holds_is_not_sent_again() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.establish(1, 1);
    let holds = Holds { version: 3, sha256: Hex32([1; 32]) };
    let actions = bench.say(1, &Hello { holds: Some(holds), ..hello("a") }, 1);
    assert!(actions.contains(&Action::Load(PeerId(1), agent("a"), Some(holds))));
    let actions = bench.load(1, LoadedDocument::Held);
    assert_eq!(offered(&actions, 1), [welcome()]);
    assert_eq!(newest(&actions, 1), Some(3), "so that the agent knows");
    assert_eq!(bench.core.live()[0].record.delivered_version, Some(3));
    let actions = bench.give(Input::DocumentAccepted(agent("a"), stored(3, "late notice")));
    assert_eq!(offered(&actions, 1), [], "the notice of a version it holds");
}

#[test]
fn an_agent_ahead_of_the_store_makes_it_go_on_above() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.establish(1, 1);
    let holds = Holds { version: 9, sha256: Hex32([1; 32]) };
    bench.say(1, &Hello { holds: Some(holds), ..hello("a") }, 1);
    let actions = bench.load(1, LoadedDocument::Ahead);
    assert!(actions.contains(&Action::RaiseVersion(PeerId(1), agent("a"), holds)));
    assert_eq!(offered(&actions, 1), [], "not welcome before it is known what it should hold");
    let actions = bench.load(1, LoadedDocument::Push(stored(10, "{}")));
    assert_eq!(offered(&actions, 1), [vec![welcome()], metadata(10)].concat());
    assert_eq!(newest(&actions, 1), Some(10));
}

#[test]
fn a_newer_document_is_never_followed_by_an_older_one() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.begin(1, 1, "a");
    for version in [4, 5, 3] {
        let actions = bench.give(Input::DocumentAccepted(agent("a"), stored(version, "new")));
        assert_eq!(offered(&actions, 1), [], "nothing before the welcome");
    }
    let actions = bench.load(1, LoadedDocument::Push(stored(4, "old")));
    assert_eq!(offered(&actions, 1), [vec![welcome()], metadata(5)].concat());
    assert_eq!(newest(&actions, 1), Some(5));
    let actions = bench.give(Input::DocumentAccepted(agent("a"), stored(4, "old")));
    assert_eq!(offered(&actions, 1), []);
}

#[test]
fn a_document_accepted_while_the_versions_are_raised_is_not_forgotten() {
    for (accepted, raised, expected) in [(11, 10, 11), (9, 10, 10)] {
        let mut bench = Bench::with_pins(&[(1, "a")]);
        bench.establish(1, 1);
        let holds = Holds { version: 9, sha256: Hex32([1; 32]) };
        bench.say(1, &Hello { holds: Some(holds), ..hello("a") }, 1);
        bench.give(Input::DocumentAccepted(agent("a"), stored(accepted, "new")));
        bench.load(1, LoadedDocument::Ahead);
        let actions = bench.load(1, LoadedDocument::Push(stored(raised, "raised")));
        assert_eq!(offered(&actions, 1), [vec![welcome()], metadata(expected)].concat());
    }
}

#[test]
fn a_document_goes_to_its_agent_and_to_nobody_else() {
    let mut bench = Bench::with_pins(&[(1, "a"), (2, "b")]);
    bench.connect(1, 1, "a");
    bench.connect(2, 2, "b");
    bench.establish(3, 3);
    let actions = bench.give(Input::DocumentAccepted(agent("a"), stored(1, "for a")));
    assert_eq!(offered(&actions, 1), metadata(1));
    assert_eq!((offered(&actions, 2), offered(&actions, 3)), (vec![], vec![]));
    let actions = bench.give(Input::DocumentAccepted(agent("c"), stored(1, "for nobody")));
    assert!(actions.iter().all(|a| matches!(a, Action::Tell(_))), "{actions:#?}");
}

#[test]
fn a_result_counts_for_the_agent_of_the_association_whatever_it_says() {
    let mut bench = Bench::with_pins(&[(1, "a"), (2, "b")]);
    bench.connect(1, 1, "a");
    bench.connect(2, 2, "b");
    let actions = bench.say(2, &result("config-of-a"), 1);
    let [Action::SaveResult { agent: whose, .. }] = actions.as_slice() else {
        panic!("{actions:#?}")
    };
    assert_eq!(*whose, agent("b"));
}

#[test]
fn a_result_is_confirmed_when_it_is_durable_and_not_before() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    let document = result("x").to_document(1).unwrap();
    let actions = bench.give(Input::Received(PeerId(1), document.clone()));
    let [Action::SaveResult { result, .. }] = actions.as_slice() else { panic!("{actions:#?}") };
    let saved = |saved| Input::ResultSaved {
        peer: PeerId(1),
        agent: agent("a"),
        document: document.clone(),
        result: result.clone(),
        saved,
    };
    let full = || Err(StoreError::Full { what: "test".into() });
    assert_eq!(bench.give(saved(full())), [], "not confirmed, not refused");
    assert_eq!(bench.pass(Duration::from_millis(999)), []);
    assert_eq!(bench.pass(Duration::from_millis(1)), actions, "tried again");
    bench.give(saved(full()));
    assert_eq!(bench.pass(Duration::from_millis(1999)), [], "with back-off");
    assert_eq!(bench.pass(Duration::from_millis(1)), actions);
    let kept = |is_new| {
        let old = Dropped { number: 2, config_id: "old".into() };
        Kept { number: 7, is_new, dropped: if is_new { vec![old] } else { vec![] } }
    };
    let done = bench.give(saved(Ok(kept(true))));
    assert!(done.contains(&Action::Confirm(PeerId(1), document.name.clone(), 1)), "{done:#?}");
    assert!(done.iter().any(|a| matches!(a, Action::Tell(Notice::ResultStored { number: 7, .. }))));
    let dropped =
        Notice::ResultDropped { agent_id: agent("a"), number: 2, config_id: "old".into() };
    assert!(done.contains(&Action::Tell(dropped)), "not without a word: {done:#?}");
    let again = bench.give(saved(Ok(kept(false))));
    assert_eq!(again, [Action::Confirm(PeerId(1), document.name.clone(), 1)], "told once");
}

#[test]
fn a_result_that_cannot_be_read_or_bears_a_wrong_name_is_refused_with_the_reason() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    let mut renamed = result("x").to_document(1).unwrap();
    renamed.name = Name::new("result/y").unwrap();
    let garbled = Document {
        name: Name::new("result/z").unwrap(),
        version: 1,
        body: Bytes::from_static(b"[]"),
    };
    for (document, why) in [(renamed, "it is the result of config \"x\""), (garbled, "this is no")]
    {
        let actions = bench.give(Input::Received(PeerId(1), document));
        let refused = actions.iter().any(
            |a| matches!(a, Action::Refuse { reason, code: REFUSED_MALFORMED, .. } if reason.contains(why)),
        );
        assert!(refused, "{why}: {actions:#?}");
        assert!(!actions.iter().any(|a| matches!(a, Action::SaveResult { .. })));
    }
}

#[test]
fn results_that_overtake_the_hello_of_a_pinned_agent_are_kept_for_after_it() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.establish(1, 1);
    assert_eq!(bench.say(1, &result("x"), 1), []);
    let actions = bench.say(1, &hello("a"), 1);
    assert!(actions.iter().any(|a| matches!(a, Action::SaveResult { .. })), "{actions:#?}");
}

#[test]
fn progress_is_told_and_the_end_of_all_deployments_means_applied() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    let progress = |state| Progress {
        document_version: 4,
        deployments: vec![DeploymentProgress {
            id: "x".into(),
            name: "n".into(),
            group: "script".into(),
            state,
            since_unix_ms: 1,
            output_tail: None,
        }],
    };
    let applied = |actions: &[Action]| {
        actions
            .iter()
            .any(|a| matches!(a, Action::Tell(Notice::DocumentApplied { version: 4, .. })))
    };
    let running = bench.say(1, &progress(DeploymentState::Running), 1);
    assert!(!applied(&running));
    assert!(applied(&bench.say(1, &progress(DeploymentState::Failed), 2)));
    assert!(!applied(&bench.say(1, &progress(DeploymentState::Failed), 3)), "told once");
    let live = bench.core.live_agent(&agent("a")).unwrap();
    assert_eq!(live.record.applied_version, Some(4));
    assert_eq!(live.progress, Some(progress(DeploymentState::Failed)));
}

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
    bench.give(Input::PinAdded(pin(5, "a")));
    let actions = bench.say(1, &hello("a"), 1);
    assert_eq!(actions[0], Action::Open(PeerId(1)), "{actions:#?}");
}

#[test]
fn many_versions_of_one_result_take_the_room_of_one() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.establish(1, 1);
    for version in 1..100 {
        bench.say(1, &result("x"), version);
    }
    let saves = |actions: &[Action]| {
        actions.iter().filter(|a| matches!(a, Action::SaveResult { .. })).count()
    };
    let actions = bench.say(1, &hello("a"), 1);
    assert_eq!(saves(&actions), 1, "those that overtook the hello");
    for version in 100..200 {
        let document = result("x").to_document(version).unwrap();
        bench.give(Input::ResultSaved {
            peer: PeerId(1),
            agent: agent("a"),
            document,
            result: Arc::new(result("x")),
            saved: Err(StoreError::Full { what: "test".into() }),
        });
    }
    assert_eq!(saves(&bench.pass(STORE_RETRY_MAX)), 1, "those that wait for room");
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
    bench.give(Input::PinAdded(pin(1, "a")));
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

/// Every phase against every kind of input: what becomes of the phase. A change of the rules shows
/// up in this snapshot.
#[test]
fn the_transitions_between_phases_are_these() {
    let phases = ["stranger", "pinned", "looking up", "enrolling", "accepted", "closing"];
    type Make = fn() -> Input;
    let inputs: [(&str, Make); 13] = [
        ("hello of its agent", || Input::Received(PeerId(1), hello("a").to_document(1).unwrap())),
        ("hello of another agent", || {
            Input::Received(PeerId(1), hello("b").to_document(1).unwrap())
        }),
        ("hello with a token", || {
            Input::Received(PeerId(1), token("a", 5, 2000).1.to_document(1).unwrap())
        }),
        ("a result", || Input::Received(PeerId(1), result("x").to_document(1).unwrap())),
        ("token not found", || Input::TokenFound(PeerId(1), Ok(None))),
        ("enrolled", || Input::Enrolled {
            peer: PeerId(1),
            fingerprint: key(5),
            enrolled: Ok(Enrolment::Done { agent: agent("a"), replaced: vec![] }),
        }),
        ("enrolled by another", || Input::Enrolled {
            peer: PeerId(1),
            fingerprint: key(5),
            enrolled: Ok(Enrolment::Used),
        }),
        ("no document", || {
            let loaded = Loaded { record: None, document: LoadedDocument::None };
            Input::Loaded(PeerId(1), Ok(loaded))
        }),
        ("store fails to load", || Input::Loaded(PeerId(1), Err(StoreError::Closed))),
        ("peer misbehaves", || {
            Input::Misbehaved(PeerId(1), CloseCode::PeerFault, "malformed".into())
        }),
        ("peer ends", || Input::Ended(PeerId(1), "bye".into())),
        ("pin removed", || Input::PinRemoved(key(5))),
        ("drain", || Input::Drain),
    ];
    let enter = |phase: &str| {
        let pins: &[(u8, &str)] = match phase {
            "pinned" | "accepted" | "closing" => &[(5, "a")],
            _ => &[],
        };
        let mut bench = Bench::with_pins(pins);
        bench.establish(1, 5);
        match phase {
            "looking up" | "enrolling" => {
                let (record, hello) = token("a", 5, 2000);
                bench.say(1, &hello, 1);
                if phase == "enrolling" {
                    bench.give(Input::TokenFound(PeerId(1), Ok(Some(record))));
                }
            }
            "accepted" | "closing" => {
                bench.say(1, &hello("a"), 1);
                if phase == "closing" {
                    bench.give(Input::Drain);
                }
            }
            _ => {}
        }
        bench
    };
    let phase_of = |core: &Core| match &core.peers[&PeerId(1)].phase {
        Phase::Waiting { .. } => "Waiting",
        Phase::LookingUp { .. } => "LookingUp",
        Phase::Enrolling { .. } => "Enrolling",
        Phase::Accepted(_) => "Accepted",
        Phase::Closing => "Closing",
    };
    let mut table = String::new();
    for phase in phases {
        for (name, input) in &inputs {
            let mut bench = enter(phase);
            let before = phase_of(&bench.core);
            let actions = bench.give(input());
            let after = phase_of(&bench.core);
            let doing: Vec<&str> = actions
                .iter()
                .map(|a| match a {
                    Action::Open(_) => "open",
                    Action::Offer(..) => "offer",
                    Action::Confirm(..) => "confirm",
                    Action::Refuse { .. } => "refuse document",
                    Action::Close(..) => "close",
                    Action::Hangup(_) => "hang up",
                    Action::LookUpToken(..) => "look up token",
                    Action::Enrol { .. } => "enrol",
                    Action::Load(..) => "load",
                    Action::RaiseVersion(..) => "raise version",
                    Action::SaveResult { .. } => "save result",
                    Action::SaveAgent(_) => "save agent",
                    Action::Tell(_) => "tell",
                })
                .collect();
            table += &format!("{phase} + {name}: {before} -> {after} [{}]\n", doing.join(", "));
        }
    }
    insta::assert_snapshot!(table);
}
