use std::fmt::Write;

use super::*;
use crate::testing::start;

const MS: Duration = Duration::from_millis(1);

fn counts(ect0: u64, ce: u64) -> Option<EcnCounts> {
    Some(EcnCounts { ect0, ect1: 0, ce })
}

fn packet(sent_at: Instant, marked: bool) -> SentPacket {
    let mut packet = SentPacket::empty(sent_at);
    packet.marked = marked;
    packet
}

fn packets(count: usize) -> Vec<SentPacket> {
    vec![packet(start(), true); count]
}

/// Marks so many packets, if it marks any.
fn send(marking: &mut Marking, count: usize) {
    for _ in 0..count {
        if marking.marks(start()) {
            marking.sent(true);
        }
    }
}

/// A peer that counts, and nothing sent yet.
fn testing() -> Marking {
    let mut marking = Marking::default();
    marking.set_possible(true);
    marking
}

fn waiting() -> Marking {
    let mut marking = testing();
    send(&mut marking, usize::from(TEST_PACKETS));
    marking
}

/// Ten packets have arrived as they were sent, and twenty more are on their way.
fn capable() -> Marking {
    let mut marking = waiting();
    assert!(!acked(&mut marking, 10, counts(10, 0)));
    send(&mut marking, 20);
    marking
}

fn acked(marking: &mut Marking, marked: usize, counts: Option<EcnCounts>) -> bool {
    marking.on_ack(start(), (&packets(marked), &[]), true, counts)
}

fn lost(marking: &mut Marking, marked: usize) {
    marking.on_lost(start(), packets(marked).iter());
}

#[test]
fn nothing_is_marked_for_a_peer_that_does_not_count() {
    let mut marking = Marking::default();
    assert!(!marking.marks(start()));
    marking.begin_path(start());
    assert!(!marking.marks(start()), "on no path");
    marking.set_possible(true);
    assert!(marking.marks(start()));
    marking.set_possible(false);
    assert!(!marking.marks(start()));
}

#[test]
fn ten_packets_are_marked_then_none_until_one_has_arrived_so() {
    let mut marking = testing();
    for _ in 0..TEST_PACKETS {
        assert!(marking.marks(start()));
        marking.sent(true);
    }
    assert!(!marking.marks(start()));
    assert!(!acked(&mut marking, 1, counts(1, 0)));
    assert!(marking.marks(start()) && marking.is_capable());
}

#[test]
fn when_all_of_the_first_are_lost_no_more_are_marked_for_ten_minutes() {
    let mut marking = waiting();
    lost(&mut marking, 9);
    assert_eq!(marking.state, State::Waiting);
    lost(&mut marking, 1);
    assert!(!marking.marks(start() + AGAIN_AFTER - MS));
    assert!(marking.marks(start() + AGAIN_AFTER), "the path may have become another one");
}

#[test]
fn a_timeout_ends_the_test_early_so_that_less_is_lost() {
    let mut marking = testing();
    marking.timed_out(start());
    send(&mut marking, 3);
    assert!(marking.marks(start()));
    marking.timed_out(start());
    assert!(!marking.marks(start()));
    lost(&mut marking, 3);
    assert!(matches!(marking.state, State::Failed { .. }));
}

#[test]
fn counts_that_rise_by_less_than_what_arrived_or_fall_or_are_missing_end_it() {
    for wrong in [
        None,
        counts(10, 0),
        counts(11, 0),
        counts(9, 3),
        counts(12, 0).map(|ecn| EcnCounts { ect1: 1, ..ecn }),
    ] {
        let mut marking = capable();
        assert!(!acked(&mut marking, 2, wrong), "{wrong:?}");
        assert!(!marking.marks(start()), "{wrong:?}");
    }
    let mut marking = capable();
    acked(&mut marking, 2, counts(31, 0));
    assert!(!marking.marks(start()), "more than were ever marked");
    for right in [counts(12, 0), counts(11, 1), counts(10, 2), counts(15, 3)] {
        let mut marking = capable();
        assert_eq!(acked(&mut marking, 2, right), right.is_some_and(|ecn| ecn.ce > 0));
        assert!(marking.marks(start()), "{right:?}");
    }
}

#[test]
fn an_acknowledgement_that_was_overtaken_proves_nothing() {
    let mut marking = capable();
    assert!(!marking.on_ack(start(), (&packets(1), &packets(1)), false, counts(3, 2)));
    assert!(!marking.on_ack(start(), (&packets(1), &[]), false, None));
    assert!(marking.marks(start()));
    assert!(acked(&mut marking, 1, counts(13, 1)), "the counts are those of before");
}

#[test]
fn what_an_acknowledgement_leaves_out_may_be_told_later_than_its_marks() {
    let mut marking = capable();
    assert!(!acked(&mut marking, 2, counts(29, 0)), "the newest of them");
    assert!(!acked(&mut marking, 18, counts(30, 0)), "the others");
    assert!(marking.is_capable());
}

#[test]
fn losses_prove_nothing_but_silence_has_the_path_tested_anew() {
    let mut marking = capable();
    lost(&mut marking, 19);
    assert!(marking.is_capable(), "a queue without marks was full");
    marking.timed_out(start() + MS);
    assert_eq!(marking.state, State::Testing { marked: 0 });
    // It was an outage.
    let again = [packet(start() + MS, true)];
    marking.sent(true);
    marking.on_ack(start() + 2 * MS, (&again, &[]), true, counts(11, 0));
    assert!(marking.is_capable());
    // It was the marks.
    marking.timed_out(start() + 3 * MS);
    let again = vec![packet(start() + 3 * MS, true); 10];
    send(&mut marking, 10);
    marking.on_lost(start() + 4 * MS, again.iter());
    assert!(!marking.marks(start() + 4 * MS));
}

#[test]
fn a_path_that_marks_everything_for_congestion_is_not_believed() {
    let mut marking = waiting();
    assert!(!acked(&mut marking, 6, counts(0, 6)), "too early to say");
    assert!(!acked(&mut marking, 4, counts(0, 10)));
    assert!(matches!(marking.state, State::Failed { .. }));
}

#[test]
fn congestion_met_by_the_first_packets_counts_once_another_has_met_none() {
    let mut marking = waiting();
    assert!(!acked(&mut marking, 6, counts(0, 6)));
    assert!(acked(&mut marking, 1, counts(1, 6)));
    assert!(!acked(&mut marking, 1, counts(2, 6)), "no more than once");
}

#[test]
fn another_path_is_tested_anew_and_what_took_the_old_one_says_nothing_of_it() {
    let mut marking = capable();
    let later = start() + MS;
    marking.begin_path(later);
    assert_eq!(marking.state, State::Testing { marked: 0 });
    for _ in 0..TEST_PACKETS {
        assert!(marking.marks(later));
        marking.sent(true);
    }
    // Of the old path: one that was bleached, and losses.
    assert!(!acked(&mut marking, 5, counts(10, 0)));
    lost(&mut marking, 15);
    assert_eq!(marking.state, State::Waiting);
    let new = vec![packet(later, true); 10];
    assert!(!marking.on_ack(later, (&new[..1], &[]), true, counts(11, 0)));
    assert!(marking.is_capable());
    marking.on_lost(later, new[1..].iter());
    assert_eq!(marking.outstanding, 0);
}

#[test]
fn a_packet_that_was_not_sent_after_all_is_not_waited_for() {
    let mut marking = waiting();
    marking.retracted();
    lost(&mut marking, 9);
    assert!(matches!(marking.state, State::Failed { .. }));
}

#[test]
fn every_state_with_everything_that_may_happen() {
    let mut picture = String::new();
    type Before = fn() -> Marking;
    let states: [(&str, Before); 5] = [
        ("off", Marking::default),
        ("testing", || {
            let mut marking = testing();
            send(&mut marking, 3);
            marking
        }),
        ("waiting", waiting),
        ("capable", capable),
        ("failed", || {
            let mut marking = waiting();
            lost(&mut marking, 10);
            marking
        }),
    ];
    type Step = fn(&mut Marking) -> bool;
    let inputs: [(&str, Step); 14] = [
        ("the peer counts", |marking| {
            marking.set_possible(true);
            false
        }),
        ("the peer does not", |marking| {
            marking.set_possible(false);
            false
        }),
        ("asked for a mark", |marking| {
            send(marking, 1);
            false
        }),
        ("asked ten minutes later", |marking| {
            marking.marks(start() + AGAIN_AFTER);
            false
        }),
        ("a probe timeout", |marking| {
            marking.timed_out(start());
            false
        }),
        ("one arrived marked", |marking| acked(marking, 1, counts(marking.counted.ect0 + 1, 0))),
        ("one met congestion", |marking| acked(marking, 1, counts(marking.counted.ect0, 1))),
        ("one of each", |marking| acked(marking, 2, counts(marking.counted.ect0 + 1, 1))),
        ("one arrived bleached", |marking| acked(marking, 1, marking.counted.told())),
        ("one arrived, no counts", |marking| acked(marking, 1, None)),
        ("an unmarked one arrived", |marking| acked(marking, 0, marking.counted.told())),
        ("one was lost", |marking| {
            lost(marking, 1);
            false
        }),
        ("all were lost", |marking| {
            lost(marking, marking.outstanding as usize);
            false
        }),
        ("another path", |marking| {
            marking.begin_path(start());
            false
        }),
    ];
    for (name, state) in states {
        for (input, step) in inputs {
            let mut marking = state();
            let congested = if step(&mut marking) { ", congestion" } else { "" };
            let after = match marking.state {
                State::Off => "off".to_owned(),
                State::Testing { marked } => format!("testing, {marked} marked"),
                State::Waiting => "waiting".to_owned(),
                State::Capable => "capable".to_owned(),
                State::Failed { again_at } => format!("failed for {:?}", again_at - start()),
            };
            writeln!(picture, "{name}, {input} -> {after}{congested}").expect("a string");
        }
    }
    insta::assert_snapshot!(picture);
}
