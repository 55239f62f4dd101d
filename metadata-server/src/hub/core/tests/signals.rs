//! Signals of wait conditions.

use metadata_delivery::message::WaitSignal;

use super::*;

fn signal(id: &str) -> WaitSignal {
    WaitSignal { id: id.into(), url: "http://h/x".into(), body: "{}".into() }
}

/// Whose signals are to be looked at, by peer and id.
fn looked_at(actions: &[Action]) -> Vec<(u64, String)> {
    let looks = actions.iter().filter_map(|action| match action {
        Action::LookAtSignal { peer, signal, .. } => Some((peer.0, signal.id.clone())),
        _ => None,
    });
    looks.collect()
}

fn look(peer: u64, id: &str) -> (u64, String) {
    (peer, id.into())
}

fn refused() -> Result<(), NotQueued> {
    Err(NotQueued::Refused("not yours".into()))
}

#[test]
fn a_signal_is_confirmed_once_it_is_queued_and_refused_for_good_if_it_may_not_be_sent() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    assert_eq!(looked_at(&bench.say(1, &signal("x"), 1)), [look(1, "x")]);
    let queued = Action::QueueSignal { peer: PeerId(1), agent: agent("a"), signal: signal("x") };
    assert_eq!(bench.give(Input::SignalLookedAt(PeerId(1), Ok(()))), [queued]);
    let confirmed = Action::Confirm(PeerId(1), signal("x").name(), 1);
    assert_eq!(bench.give(Input::SignalQueued(PeerId(1), Ok(()))), [confirmed]);

    bench.say(1, &signal("y"), 2);
    let actions = bench.give(Input::SignalLookedAt(PeerId(1), refused()));
    let [Action::Tell(Notice::ResultRefused { .. }), Action::Refuse { name, version, code, .. }] =
        actions.as_slice()
    else {
        panic!("{actions:#?}")
    };
    assert_eq!((name, *version, *code), (&signal("y").name(), 2, REFUSED_NOT_RELAYED));
}

#[test]
fn a_signal_that_finds_no_room_is_tried_again_on_the_same_connection() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    bench.say(1, &signal("x"), 1);
    assert_eq!(looked_at(&bench.say(1, &signal("y"), 1)), [], "one after the other");
    bench.give(Input::SignalLookedAt(PeerId(1), Ok(())));
    assert_eq!(bench.give(Input::SignalQueued(PeerId(1), Err(NotQueued::Later))), []);
    assert_eq!(bench.pass(STORE_RETRY_MIN - Duration::from_millis(1)), []);
    assert_eq!(looked_at(&bench.pass(Duration::from_millis(1))), [look(1, "x")]);
    // The store could not be read, this time.
    bench.give(Input::SignalLookedAt(PeerId(1), Err(NotQueued::Later)));
    assert_eq!(bench.pass(STORE_RETRY_MIN), [], "with back-off");
    assert_eq!(looked_at(&bench.pass(STORE_RETRY_MIN)), [look(1, "x")]);
    bench.give(Input::SignalLookedAt(PeerId(1), Ok(())));
    let actions = bench.give(Input::SignalQueued(PeerId(1), Ok(())));
    assert!(actions.contains(&Action::Confirm(PeerId(1), signal("x").name(), 1)), "{actions:#?}");
    assert_eq!(looked_at(&actions), [look(1, "y")], "the next one follows at once");
}

#[test]
fn signals_are_looked_at_one_at_a_time_for_each_agent_and_two_in_all() {
    let ids = ["a", "b", "c"];
    let mut bench = Bench::with_pins(&[(1, "a"), (2, "b"), (3, "c")]);
    for (n, id) in (1..).zip(ids) {
        bench.connect(n, n as u8, id);
    }
    let mut looks = Vec::new();
    for n in 0..20 {
        looks.extend(looked_at(&bench.say(1, &signal(&format!("x{n}")), 1)));
    }
    assert_eq!(looks, [look(1, "x0")]);
    assert_eq!(looked_at(&bench.say(2, &signal("y"), 1)), [look(2, "y")]);
    assert_eq!(looked_at(&bench.say(3, &signal("z"), 1)), [], "as many as allowed");
    // The other agents come before the next one of the first.
    let actions = bench.give(Input::SignalLookedAt(PeerId(1), refused()));
    assert_eq!(looked_at(&actions), [look(3, "z")]);
    // A look at the signal of one that has gone ends, too, and only then makes room.
    assert_eq!(looked_at(&bench.give(Input::Gone(PeerId(2), "gone".into()))), []);
    let actions = bench.give(Input::SignalLookedAt(PeerId(2), Ok(())));
    assert_eq!(looked_at(&actions), [look(1, "x1")]);
    // What is being written takes nobody's turn.
    let actions = bench.give(Input::SignalLookedAt(PeerId(3), Ok(())));
    assert!(matches!(actions.as_slice(), [Action::QueueSignal { .. }]), "{actions:#?}");
    assert_eq!(bench.core.looks.running, 1);
}

#[test]
fn only_the_newest_version_of_a_signal_is_looked_at() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    bench.say(1, &signal("first"), 1);
    for version in 1..100 {
        bench.say(1, &signal("x"), version);
    }
    bench.give(Input::SignalLookedAt(PeerId(1), refused()));
    bench.give(Input::SignalLookedAt(PeerId(1), Ok(())));
    let actions = bench.give(Input::SignalQueued(PeerId(1), Ok(())));
    assert_eq!(actions, [Action::Confirm(PeerId(1), signal("x").name(), 99)]);
}
