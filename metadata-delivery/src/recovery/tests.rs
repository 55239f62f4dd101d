use super::*;
use crate::testing::start;
use crate::wire::{Frame, frames, write_ack};

const MS: Duration = Duration::from_millis(1);
const INITIAL: Duration = Duration::from_millis(100);

fn sending(numbers: impl IntoIterator<Item = u64>) -> Recovery {
    let mut recovery = Recovery::new(start(), INITIAL);
    for number in numbers {
        recovery.on_sent(start(), number, 100, vec![SentFrame::Offer { transfer: number }]);
    }
    recovery
}

fn ack(
    recovery: &mut Recovery,
    now: Instant,
    ranges: &[(u64, u64)],
) -> Result<Settled, PacketError> {
    let mut packet = Vec::new();
    write_ack(&mut packet, 1000, 0, None, ranges.iter().copied());
    let Some(Ok(Frame::Ack(ack))) = frames(&packet).next() else { panic!("no ACK written") };
    recovery.on_ack(now, &ack, Duration::ZERO)
}

fn transfers(packets: &[SentPacket]) -> Vec<u64> {
    let frames = packets.iter().flat_map(|packet| &packet.frames);
    let transfer = |frame: &SentFrame| match frame {
        SentFrame::Offer { transfer } => *transfer,
        other => panic!("{other:?}"),
    };
    frames.map(transfer).collect()
}

#[test]
fn a_packet_three_below_an_acknowledged_one_is_lost() {
    let mut recovery = sending(1..=5);
    let settled = ack(&mut recovery, start() + 50 * MS, &[(5, 5)]).unwrap();
    assert_eq!(transfers(&settled.acked), [5]);
    assert_eq!(transfers(&settled.lost), [1, 2]);
    assert_eq!(recovery.bytes_in_flight(), 200);
}

#[test]
fn of_many_packets_one_just_below_an_acknowledged_one_is_lost_after_nine_eighths_of_a_round_trip() {
    let mut recovery = sending(1..=40);
    let settled = ack(&mut recovery, start() + 80 * MS, &[(2, 2)]).unwrap();
    assert!(settled.lost.is_empty());
    assert_eq!(recovery.next_timeout(Duration::ZERO), Some(start() + 90 * MS));
}

#[test]
fn the_peers_delay_counts_where_it_may_hold_an_acknowledgement_back() {
    let timeout = |initial_rtt, packets: u64| {
        let mut recovery = Recovery::new(start(), initial_rtt);
        for number in 1..=packets {
            recovery.on_sent(start(), number, 100, vec![SentFrame::Ping]);
        }
        recovery.rtt.sample(initial_rtt, Duration::ZERO, Duration::ZERO);
        recovery.next_timeout(10 * MS).map(|at| at - start())
    };
    // 64 ms and four times the variation, which is a sixty-fourth.
    assert_eq!(timeout(64 * MS, 1), Some(78 * MS));
    assert_eq!(timeout(64 * MS, 2), Some(68 * MS));
    assert_eq!(timeout(MS, 2), timeout(MS, 1), "on a short path the peer's time is most of it");
}

#[test]
fn of_few_packets_one_just_below_an_acknowledged_one_is_lost_a_sixteenth_after_a_round_trip() {
    let mut recovery = sending(1..=2);
    let settled = ack(&mut recovery, start() + 80 * MS, &[(2, 2)]).unwrap();
    assert_eq!(settled.sample, Some(80 * MS));
    assert!(settled.lost.is_empty());
    assert_eq!(recovery.next_timeout(Duration::ZERO), Some(start() + 85 * MS));
    assert!(matches!(recovery.on_timeout(start() + 84 * MS, Duration::ZERO), TimedOut::Nothing));
    let TimedOut::Lost(lost) = recovery.on_timeout(start() + 85 * MS, Duration::ZERO) else {
        panic!("not lost")
    };
    assert_eq!(transfers(&lost), [1]);
    assert_eq!(recovery.bytes_in_flight(), 0);
    assert_eq!(recovery.next_timeout(Duration::ZERO), None);
    assert_eq!(recovery.unanswered_since(), None);
}

#[test]
fn a_late_packet_teaches_patience_one_step_per_round_trip() {
    let mut recovery = sending(1..=10);
    let settled = ack(&mut recovery, start() + 80 * MS, &[(10, 10)]).unwrap();
    assert_eq!(transfers(&settled.lost), [1, 2, 3, 4, 5, 6, 7]);
    let settled = ack(&mut recovery, start() + 81 * MS, &[(10, 10), (2, 4)]).unwrap();
    assert_eq!(transfers(&settled.late), [4, 3, 2]);
    assert!(settled.acked.is_empty() && settled.lost.is_empty());
    assert_eq!(
        recovery.next_timeout(Duration::ZERO),
        Some(start() + 100 * MS),
        "10/8 of the round trip, whatever the numbers"
    );
    let settled = ack(&mut recovery, start() + 82 * MS, &[(10, 10), (1, 4)]).unwrap();
    assert_eq!(transfers(&settled.late), [1]);
    assert_eq!(recovery.next_timeout(Duration::ZERO), Some(start() + 100 * MS));
}

#[test]
fn lost_packets_are_remembered_within_bounds() {
    let last = 2 * LOST_REMEMBERED_MAX as u64;
    let mut recovery = sending(1..=last);
    ack(&mut recovery, start() + 50 * MS, &[(last, last)]).unwrap();
    assert_eq!(recovery.lost.len(), LOST_REMEMBERED_MAX);
    let settled = ack(&mut recovery, start() + 51 * MS, &[(1, last - 1)]).unwrap();
    assert_eq!(settled.late.len(), LOST_REMEMBERED_MAX);
    assert_eq!(recovery.lost.len(), 0);

    let mut recovery = sending(1..=last);
    ack(&mut recovery, start() + 50 * MS, &[(last, last)]).unwrap();
    recovery.on_timeout(start() + 5000 * MS, Duration::ZERO);
    assert!(recovery.is_idle());
    assert_eq!(recovery.lost.len(), 0, "an idle session remembers none");
}

#[test]
fn probe_timeouts_double_from_the_third_up_to_the_cap_and_end_with_an_acknowledgement() {
    let mut recovery = sending([1]);
    recovery.set_suspect(false, false);
    let mut at = start();
    let mut waits = Vec::new();
    for count in 1..=6 {
        let due = recovery.next_timeout(10 * MS).unwrap();
        waits.push(due - at);
        at = due;
        assert!(
            matches!(recovery.on_timeout(at, 10 * MS), TimedOut::Probe { dead } if dead == (count > 2))
        );
        assert!(recovery.probe_owed());
    }
    assert_eq!(waits, [210 * MS, 310 * MS, 620 * MS, 1240 * MS, 2480 * MS, 3000 * MS]);
    recovery.on_sent(at, 2, 100, vec![SentFrame::Ping]);
    let settled = ack(&mut recovery, at + 40 * MS, &[(2, 2)]).unwrap();
    assert_eq!(transfers(&settled.lost), [1]);
    assert!(!recovery.probe_owed());
    assert_eq!(recovery.next_timeout(10 * MS), None);
}

#[test]
fn a_repeated_packet_counts_as_in_flight_until_it_must_be_gone() {
    let mut recovery = sending(1..=3);
    recovery.on_sent(start() + 20 * MS, 4, 100, vec![SentFrame::Offer { transfer: 4 }]);
    assert_eq!(recovery.repeat_at(17 * MS), Some(start() + 17 * MS));
    let repeats = recovery.take_repeats(start() + 19 * MS, |_| false);
    assert_eq!(repeats.len(), 3);
    assert_eq!(recovery.repeat_at(17 * MS), Some(start() + 37 * MS), "only the fourth is left");
    assert_eq!(recovery.bytes_in_flight(), 400);
    assert_eq!(recovery.gone_at(60 * MS), Some(start() + 60 * MS));
    recovery.take_gone(start() + 60 * MS);
    assert_eq!(recovery.bytes_in_flight(), 100);
    assert_eq!(recovery.gone_at(60 * MS), None, "the fourth was not repeated");

    let settled = ack(&mut recovery, start() + 70 * MS, &[(4, 4), (2, 2)]).unwrap();
    assert_eq!(transfers(&settled.acked), [4, 2]);
    assert_eq!(transfers(&settled.lost), [1, 3]);
    assert!(settled.lost.iter().all(|packet| packet.repeated));
    assert_eq!(recovery.bytes_in_flight(), 0);
}

#[test]
fn probes_of_the_path_mtu_are_not_repeated() {
    let mut recovery = sending([]);
    recovery.on_sent(start(), 1, 1400, vec![SentFrame::MtuProbe { bytes: 1400 }]);
    assert!(recovery.take_repeats(start() + 50 * MS, |_| false).is_empty());
    assert_eq!(recovery.repeat_at(MS), None);
}

#[test]
fn acknowledging_what_was_never_sent_is_an_error() {
    let mut recovery = sending([]);
    let error = ack(&mut recovery, start(), &[(1, 1)]).unwrap_err();
    assert_eq!(error, PacketError::AckOfUnsent { acked: 1, largest_sent: None });
    let mut recovery = sending(5..=6);
    let error = ack(&mut recovery, start(), &[(7, 7)]).unwrap_err();
    assert_eq!(error, PacketError::AckOfUnsent { acked: 7, largest_sent: Some(6) });
    let error = ack(&mut recovery, start(), &[(4, 6)]).unwrap_err();
    assert_eq!(error, PacketError::AckOfUnsent { acked: 4, largest_sent: Some(6) });
    assert_eq!(recovery.bytes_in_flight(), 200, "nothing was settled");
}

#[test]
fn the_same_acknowledgement_twice_settles_once_and_gives_no_second_sample() {
    let mut recovery = sending(1..=3);
    assert_eq!(ack(&mut recovery, start() + 9 * MS, &[(1, 3)]).unwrap().acked.len(), 3);
    let settled = ack(&mut recovery, start() + 500 * MS, &[(1, 3)]).unwrap();
    assert!(settled.acked.is_empty() && settled.sample.is_none());
    assert_eq!(recovery.rtt().measured(), Some(9 * MS));
}

#[test]
fn packets_that_ask_for_nothing_are_not_tracked() {
    let mut recovery = sending([]);
    recovery.on_sent(start(), 1, 40, Vec::new());
    assert!(recovery.is_idle());
    assert_eq!(recovery.next_timeout(Duration::ZERO), None);
    assert!(ack(&mut recovery, start(), &[(1, 1)]).is_ok(), "but they were sent");
}

#[test]
fn a_sample_may_come_from_a_packet_that_asked_for_nothing() {
    let mut recovery = sending([1]);
    recovery.on_sent(start() + 30 * MS, 2, 40, Vec::new());
    let settled = ack(&mut recovery, start() + 70 * MS, &[(1, 2)]).unwrap();
    assert_eq!(settled.sample, Some(40 * MS));
    for number in 3..1000 {
        recovery.on_sent(start(), number, 40, Vec::new());
    }
    assert_eq!(recovery.untracked.len(), 0, "no sample to come, nothing to remember");
}

#[test]
fn bookkeeping_is_bounded_and_keeps_places_for_probes() {
    let mut recovery = sending([]);
    let mut number = 0;
    while !recovery.is_full() {
        number += 1;
        recovery.on_sent(start(), number, 1, vec![SentFrame::Ping]);
    }
    let mut now = start();
    let mut probes = 0;
    for _ in 0..1000 {
        now = recovery.next_timeout(Duration::ZERO).unwrap();
        recovery.on_timeout(now, Duration::ZERO);
        while recovery.probe_owed() {
            number += 1;
            probes += 1;
            recovery.on_sent(now, number, 1, vec![SentFrame::Ping]);
        }
    }
    assert_eq!(probes, PROBES_RESERVED);
    assert_eq!(number as usize, SENT_PACKETS_MAX);
    assert!(now > start());
}
