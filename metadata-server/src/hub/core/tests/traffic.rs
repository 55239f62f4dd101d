//! Documents out, progress and results in.

use super::*;

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

/// The digest of what the agent holds, as a push says.
fn held(actions: &[Action]) -> Option<Hex32> {
    let held = actions.iter().find_map(|action| match action {
        Action::Push { held, .. } => Some(*held),
        _ => None,
    });
    held.unwrap_or_else(|| panic!("nothing is pushed: {actions:#?}"))
}

#[test]
fn a_push_builds_on_what_the_agent_said_it_holds_and_later_on_what_it_has_stored() {
    let mut bench = Bench::with_pins(&[(1, "a"), (2, "b")]);
    bench.establish(1, 1);
    let holds = Holds { version: 9, sha256: Hex32([1; 32]) };
    bench.say(1, &Hello { holds: Some(holds), ..hello("a") }, 1);
    let actions = bench.load(1, LoadedDocument::Push(stored(10, "ten")));
    assert_eq!(held(&actions), Some(Hex32([1; 32])));
    // Two are under way; the agent stores the first.
    let accepted = |bench: &mut Bench, id, document: &StoredDocument| {
        bench.give(Input::DocumentAccepted(agent(id), document.clone()))
    };
    let eleven = stored(11, "eleven");
    assert_eq!(held(&accepted(&mut bench, "a", &eleven)), Some(Hex32([1; 32])));
    bench.give(Input::PeerStored(PeerId(1), metadata_name(), 10));
    let twelve = stored(12, "twelve");
    assert_eq!(held(&accepted(&mut bench, "a", &twelve)), Some(stored(10, "ten").head.sha256));
    bench.give(Input::PeerStored(PeerId(1), metadata_name(), 12));
    let actions = accepted(&mut bench, "a", &stored(13, "thirteen"));
    assert_eq!(held(&actions), Some(twelve.head.sha256));

    bench.connect(2, 2, "b");
    assert_eq!(held(&accepted(&mut bench, "b", &eleven)), None, "it holds nothing");
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
