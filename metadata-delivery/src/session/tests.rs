use super::*;
use crate::limits::{ACK_RANGES_MAX, REASON_BYTES_MAX};
use crate::testing::{body, name, start};
use crate::wire::frames;
use crate::{NamePolicy, refusal};

mod ecn;

const MS: Duration = Duration::from_millis(1);

fn session() -> Session {
    Session::new(start(), SessionConfig::default())
}

/// Every packet that is due, numbered from `number` on.
fn transmit(session: &mut Session, now: Instant, number: &mut u64) -> Vec<(u64, Vec<u8>)> {
    let mut packets = Vec::new();
    let mut out = Vec::new();
    while session.poll_transmit(now, *number, &mut out) {
        packets.push((*number, out.clone()));
        *number += 1;
    }
    packets
}

/// What a peer would send.
fn packet(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.write(&mut out));
    out
}

fn document(text: &str, version: u64, length: usize) -> Document {
    Document { name: name(text), version, body: body(version, length) }
}

#[test]
fn an_idle_session_takes_about_a_kibibyte() {
    println!("{} bytes", size_of::<Session>());
    assert!(size_of::<Session>() <= 1696, "{} bytes", size_of::<Session>());
}

#[test]
fn the_first_packet_says_hello_and_carries_a_small_document() {
    let mut session = session();
    session.offer(start(), document("hello", 1, 300)).unwrap();
    let packets = transmit(&mut session, start(), &mut 1);
    let [(_, first)] = &packets[..] else { panic!("{} packets", packets.len()) };
    let kinds: Vec<_> = frames(first).map(Result::unwrap).collect();
    assert!(
        matches!(kinds[..], [Frame::Hello(_), Frame::Offer(_), Frame::Data { offset: 0, .. }]),
        "{kinds:?}"
    );
}

#[test]
fn a_path_is_not_far_because_its_end_was_busy() {
    let config = SessionConfig { initial_rtt: 12 * MS, ..SessionConfig::default() };
    let (mut far, mut near) =
        (Session::new(start(), config.clone()), Session::new(start(), config));
    near.may_be_as_near_as(start(), 6 * MS);
    assert!(far.is_far() && !near.is_far());
    // Hello waits for what it can go with.
    assert_eq!(transmit(&mut far, start(), &mut 1).len(), 1);
    assert_eq!(transmit(&mut near, start(), &mut 1).len(), 0);
    assert_eq!(near.recovery.rtt().smoothed(), 12 * MS, "what was measured stays");
}

#[test]
fn a_side_that_is_late_to_look_tells_its_peer() {
    let told = |lag_max| {
        let mut session = Session::new(start(), SessionConfig { lag_max, ..Default::default() });
        session.offer(start(), document("hello", 1, 300)).unwrap();
        let packets = transmit(&mut session, start(), &mut 1);
        frames(&packets[0].1).find_map(|frame| match frame {
            Ok(Frame::Hello(hello)) => Some(hello.ack_delay_max_us),
            _ => None,
        })
    };
    assert_eq!(told(Duration::ZERO), Some(10_000));
    assert_eq!(told(15 * MS), Some(40_000));
}

#[test]
fn the_longest_frames_get_through_the_smallest_packets() {
    let config = SessionConfig { payload_max: 1, ..SessionConfig::default() };
    let mut session = Session::new(start(), config);
    let mut number = 1;
    transmit(&mut session, start(), &mut number);
    let long = "n".repeat(crate::NAME_BYTES_MAX);
    let mut received = packet(&[]);
    Frame::Offer(crate::wire::Offer {
        transfer: 0,
        version: 1,
        base: None,
        encoding: 0,
        plain_length: 0,
        encoded_length: 0,
        sha256: crate::message::Hex32::sha256_of(b"").0,
        name: &long,
    })
    .write(&mut received);
    // Far apart, so that the ACK is as long as it gets.
    for n in 0..ACK_RANGES_MAX as u64 {
        session.handle_packet(start(), n * 100_000, &packet(&[Frame::Ping])).unwrap();
    }
    session.handle_packet(start(), 100_000_000, &received).unwrap();
    assert!(matches!(session.poll_event(), Some(Event::Received(_))));
    session.refuse(start(), &name(&long), 1, u16::MAX, &"r".repeat(2 * REASON_BYTES_MAX));
    session.offer(start(), document(&long, 1 << 61, 100)).unwrap();
    let packets = transmit(&mut session, start(), &mut number);
    assert!(packets.iter().all(|(_, packet)| packet.len() <= PAYLOAD_BYTES_MIN));
    let all: Vec<_> =
        packets.iter().flat_map(|(_, packet)| frames(packet)).map(Result::unwrap).collect();
    assert!(all.iter().any(|frame| matches!(frame, Frame::Refused { reason, .. }
        if reason.len() == REASON_BYTES_MAX)));
    assert!(all.iter().any(|frame| matches!(frame, Frame::Data { bytes, .. }
        if bytes.len() == 100)));
    assert!(all.iter().any(|frame| matches!(frame, Frame::Ack(_))));
}

#[test]
fn a_packet_that_comes_twice_is_handled_once() {
    let mut session = session();
    let ping = packet(&[Frame::Ping]);
    session.handle_packet(start(), 7, &ping).unwrap();
    session.handle_packet(start(), 7, &ping).unwrap();
    assert_eq!(session.stats().packets_received, 1);
    assert_eq!(session.stats().packets_duplicate, 1);
}

#[test]
fn a_packet_without_room_is_not_acknowledged_and_may_come_again() {
    let mut session = session();
    let mut number = 1;
    transmit(&mut session, start(), &mut number);
    let length = 10_000;
    let offer = crate::wire::Offer {
        transfer: 0,
        version: 1,
        base: None,
        encoding: 0,
        plain_length: length,
        encoded_length: length,
        sha256: crate::message::Hex32::sha256_of(&vec![7; length as usize]).0,
        name: "a",
    };
    session.handle_packet(start(), 1, &packet(&[Frame::Offer(offer)])).unwrap();
    let piece = |offset| packet(&[Frame::Data { transfer: 0, offset, bytes: &[7] }]);
    let mut taken = 1;
    while session.stats().packets_without_room == 0 {
        session.handle_packet(start(), taken + 1, &piece(2 * taken)).unwrap();
        taken += 1;
        assert!(taken < 2000, "no limit is reached");
    }
    let refused = taken;
    let largest_acked = |packets: &[(u64, Vec<u8>)]| {
        let acks = packets.iter().flat_map(|(_, packet)| frames(packet)).map(Result::unwrap);
        acks.filter_map(|frame| match frame {
            Frame::Ack(ack) => Some(ack.largest),
            _ => None,
        })
        .max()
    };
    let packets = transmit(&mut session, start(), &mut number);
    assert_eq!(largest_acked(&packets), Some(refused - 1));
    // What the first gap held back makes room.
    let whole = [7; 5000];
    let fill = packet(&[Frame::Data { transfer: 0, offset: 0, bytes: &whole }]);
    session.handle_packet(start(), refused + 1, &fill).unwrap();
    session.handle_packet(start(), refused, &piece(2 * (refused - 1))).unwrap();
    let packets = transmit(&mut session, start(), &mut number);
    assert_eq!(largest_acked(&packets), Some(refused + 1));
    assert_eq!(session.stats().packets_without_room, 1);
    assert_eq!(session.stats().packets_duplicate, 0);
}

#[test]
fn an_acknowledgement_is_not_acknowledged() {
    let mut session = session();
    let mut number = 1;
    assert_eq!(transmit(&mut session, start(), &mut number).len(), 1);
    let mut ack = Vec::new();
    wire::write_ack(&mut ack, 100, 0, None, [(1, 1)].into_iter());
    session.handle_packet(start() + 40 * MS, 1, &ack).unwrap();
    assert_eq!(session.stats().rtt, Some(40 * MS));
    session.handle_timeout(start() + 10_000 * MS);
    assert_eq!(transmit(&mut session, start() + 10_000 * MS, &mut number).len(), 0);
    assert_eq!(session.next_timeout(), None);
}

#[test]
fn a_packet_that_the_channel_could_not_send_goes_again_under_its_number() {
    let mut session = session();
    session.offer(start(), document("hello", 1, 300)).unwrap();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    assert!(session.poll_transmit(start(), 5, &mut first));
    assert!(session.poll_transmit(start(), 5, &mut second));
    assert_eq!(first, second);
    assert_eq!(session.stats().in_flight_bytes, first.len());
    assert!(!session.poll_transmit(start(), 6, &mut second));
}

#[test]
fn an_acknowledgement_is_repeated_with_other_frames_until_one_has_arrived() {
    let mut session = session();
    let mut number = 1;
    let has_ack = |(_, packet): &(u64, Vec<u8>)| {
        frames(packet).any(|frame| matches!(frame, Ok(Frame::Ack(_))))
    };
    transmit(&mut session, start(), &mut number);
    for n in 0..50 {
        session.handle_packet(start(), 10 * n, &packet(&[Frame::Ping])).unwrap();
    }
    assert!(transmit(&mut session, start(), &mut number).iter().any(has_ack));
    session.offer(start(), document("a", 1, 100)).unwrap();
    let repeated = transmit(&mut session, start(), &mut number);
    assert!(has_ack(&repeated[0]), "the first may be lost");
    assert!(repeated[0].1.len() < 300, "{} bytes", repeated[0].1.len());
    let mut ack = Vec::new();
    wire::write_ack(&mut ack, 100, 0, None, [(1, number - 1)].into_iter());
    session.handle_packet(start(), 1000, &ack).unwrap();
    session.offer(start(), document("a", 2, 100)).unwrap();
    let packets = transmit(&mut session, start(), &mut number);
    assert!(!packets.is_empty() && !packets.iter().any(has_ack));
}

#[test]
fn faults_of_the_peer_are_errors_with_the_code_to_close_with() {
    let mut session = session();
    let mut ack = Vec::new();
    wire::write_ack(&mut ack, 100, 0, None, [(9, 9)].into_iter());
    let fault = session.handle_packet(start(), 1, &ack).unwrap_err();
    assert_eq!(fault, PacketError::AckOfUnsent { acked: 9, largest_sent: None });
    assert_eq!(fault.close_code(), CloseCode::PeerFault);
    let stored = packet(&[Frame::Stored { transfer: 0, quiet: false }]);
    let fault = session.handle_packet(start(), 2, &stored).unwrap_err();
    assert_eq!(fault, PacketError::UnknownTransfer { transfer: 0 });
    let future = wire::Hello {
        version_max: 9,
        version_min: 8,
        generation: 0,
        ack_delay_max_us: 0,
        document_bytes_max: 0,
        inbound_bytes_max: 0,
        inbound_transfers_max: 0,
        encodings: 1,
        repair_symbols_max: 0,
        abilities: 0,
    };
    let fault = session.handle_packet(start(), 3, &packet(&[Frame::Hello(future)])).unwrap_err();
    assert_eq!(fault.close_code(), CloseCode::ProtocolVersion);
}

#[test]
fn close_is_said_five_times_within_a_second_unless_acknowledged() {
    let mut session = session();
    let mut number = 1;
    transmit(&mut session, start(), &mut number);
    session.offer(start(), document("a", 1, 100)).unwrap();
    session.close(start(), CloseCode::PinMismatch, "expected\nthis");
    session.close(start(), CloseCode::Internal, "the first close stands");
    assert_eq!(session.offer(start(), document("b", 1, 1)), Err(OfferError::Closed));
    let mut copies = 0;
    let mut now = start();
    loop {
        for (_, packet) in transmit(&mut session, now, &mut number) {
            let frames: Vec<_> = frames(&packet).map(Result::unwrap).collect();
            assert_eq!(frames, [Frame::Close { code: 17, reason: "expected this" }]);
            copies += 1;
        }
        let Some(next) = session.next_timeout() else { break };
        now = next;
        session.handle_timeout(now);
    }
    assert!(session.is_closed());
    assert_eq!(copies, CLOSE_COPIES_MAX);
    assert!(now - start() <= 1000 * MS);
    assert_eq!(session.stats().outbound_bytes, 0);
}

#[test]
fn an_acknowledged_close_is_over_and_the_peer_hears_it_once() {
    let (mut a, mut b) = (session(), session());
    let (mut number_a, mut number_b) = (1, 1);
    transmit(&mut a, start(), &mut number_a);
    a.close(start(), CloseCode::Shutdown, "");
    for (number, packet) in transmit(&mut a, start(), &mut number_a) {
        b.handle_packet(start(), number, &packet).unwrap();
    }
    assert_eq!(
        b.poll_event(),
        Some(Event::PeerClosed { code: CloseCode::Shutdown, reason: String::new() })
    );
    assert_eq!(b.poll_event(), None);
    assert!(b.is_closed());
    assert_eq!(b.next_timeout(), None);
    let last = transmit(&mut b, start(), &mut number_b);
    assert_eq!(last.len(), 1, "only the acknowledgement");
    a.handle_packet(start(), last[0].0, &last[0].1).unwrap();
    assert!(a.is_closed());
    assert_eq!(transmit(&mut a, start(), &mut number_a).len(), 0);
}

#[test]
fn after_the_end_nothing_is_received() {
    let mut session = session();
    session.close(start(), CloseCode::Shutdown, "");
    let offer = crate::wire::Offer {
        transfer: 0,
        version: 1,
        base: None,
        encoding: 0,
        plain_length: 0,
        encoded_length: 0,
        sha256: crate::message::Hex32::sha256_of(b"").0,
        name: "a",
    };
    session.handle_packet(start(), 1, &packet(&[Frame::Offer(offer)])).unwrap();
    assert_eq!(session.poll_event(), None);
}

#[test]
fn a_silent_peer_is_lost_after_the_timeout_and_not_before() {
    let config =
        SessionConfig { peer_timeout: Duration::from_secs(20), ..SessionConfig::default() };
    let mut session = Session::new(start(), config);
    let mut number = 1;
    let mut now = start();
    while !session.is_closed() {
        transmit(&mut session, now, &mut number);
        now = session.next_timeout().unwrap();
        session.handle_timeout(now);
    }
    assert_eq!(now - start(), Duration::from_secs(20));
    assert_eq!(session.poll_event(), Some(Event::PeerLost));
    assert_eq!(session.next_timeout(), None);
    assert_eq!(transmit(&mut session, now, &mut number).len(), 0);
    // A second apart, from the ninth on 2, 3, 3 …, two each: the path is not flooded.
    assert!(number < 40, "{number} packets");
}

#[test]
fn the_window_holds_back_what_does_not_fit() {
    let mut session = session();
    let told = wire::Hello {
        version_max: 1,
        version_min: 1,
        generation: 0,
        ack_delay_max_us: 0,
        document_bytes_max: 1 << 30,
        inbound_bytes_max: 1 << 30,
        inbound_transfers_max: 4,
        encodings: 1,
        repair_symbols_max: 0,
        abilities: 0,
    };
    session.handle_packet(start(), 1, &packet(&[Frame::Hello(told)])).unwrap();
    session.offer(start(), document("a", 1, 1 << 20)).unwrap();
    let packets = transmit(&mut session, start(), &mut 1);
    assert_eq!(packets.len(), 10);
    let stats = session.stats();
    assert!(stats.in_flight_bytes <= stats.window_bytes);
}

#[test]
fn limits_can_be_raised_and_the_peer_learns_it_with_the_next_packet() {
    let config = SessionConfig { limits: Limits::stranger(), ..SessionConfig::default() };
    let mut session = Session::new(start(), config);
    let mut number = 1;
    transmit(&mut session, start(), &mut number);
    session.set_limits(start(), Limits { names: NamePolicy::Any, ..Limits::default() });
    let packets = transmit(&mut session, start(), &mut number);
    let first = frames(&packets[0].1).next().unwrap().unwrap();
    assert!(
        matches!(first, Frame::Hello(hello) if hello.generation == 1
            && hello.document_bytes_max == 16 << 20),
        "{first:?}"
    );
}

#[test]
fn a_document_the_peer_will_not_take_is_refused_on_the_spot() {
    let mut session = session();
    let told = wire::Hello {
        version_max: 1,
        version_min: 1,
        generation: 0,
        ack_delay_max_us: 0,
        document_bytes_max: 100,
        inbound_bytes_max: 100,
        inbound_transfers_max: 1,
        encodings: 1,
        repair_symbols_max: 0,
        abilities: 0,
    };
    session.handle_packet(start(), 1, &packet(&[Frame::Hello(told)])).unwrap();
    session.offer(start(), document("a", 1, 101)).unwrap();
    transmit(&mut session, start(), &mut 1);
    assert!(matches!(
        session.poll_event(),
        Some(Event::Refused { version: 1, code: refusal::TOO_LARGE, .. })
    ));
    assert_eq!(session.stats().documents_refused, 1);
}

#[test]
fn another_path_is_learned_anew_and_what_was_under_way_goes_on() {
    let (mut session, mut peer) = (session(), session());
    let (mut number, mut answers) = (1, 1);
    let large = document("metadata", 1, 200_000);
    session.offer(start(), large.clone()).unwrap();
    let mut now = start();
    let mut received = None;
    for round in 0..40 {
        let widest = session.stats().window_bytes;
        if round == 3 {
            session.path_changed(now);
            assert!(session.stats().window_bytes < widest, "a window of its own");
        }
        let packets = transmit(&mut session, now, &mut number);
        now += MS * 10;
        for (number, bytes) in packets {
            peer.handle_packet(now, number, &bytes).unwrap();
        }
        while let Some(event) = peer.poll_event() {
            if let Event::Received(document) = event {
                received = Some(document);
            }
        }
        peer.handle_timeout(now + MS * 30);
        for (number, bytes) in transmit(&mut peer, now + MS * 30, &mut answers) {
            session.handle_packet(now + MS * 40, number, &bytes).unwrap();
        }
        now += MS * 50;
        session.handle_timeout(now);
    }
    assert_eq!(received, Some(large));
}

/// What the peer would answer to these packets, by number.
fn acknowledge(session: &mut Session, now: Instant, number: u64, largest: u64) {
    let mut ack = Vec::new();
    wire::write_ack(&mut ack, 100, 0, None, std::iter::once((1, largest)));
    session.handle_packet(now, number, &ack).unwrap();
}

/// Packets, by when they were sent, until `until`.
fn sent_by(
    session: &mut Session,
    mut now: Instant,
    until: Instant,
    number: &mut u64,
) -> Vec<Duration> {
    let mut sent = Vec::new();
    while now <= until {
        sent.extend(transmit(session, now, number).iter().map(|_| now - start()));
        let Some(next) = session.next_timeout() else { break };
        now = next.max(now);
        session.handle_timeout(now);
    }
    sent
}

fn on_a_round_trip_of_60_ms() -> Session {
    let initial_rtt = 60 * MS;
    Session::new(start(), SessionConfig { initial_rtt, ..SessionConfig::default() })
}

#[test]
fn an_unanswered_packet_is_repeated_every_third_of_a_round_trip_for_four_of_them() {
    let mut session = on_a_round_trip_of_60_ms();
    session.offer(start(), document("a", 1, 500)).unwrap();
    let sent = sent_by(&mut session, start(), start() + 290 * MS, &mut 1);
    let expected: Vec<Duration> = (0..=12).map(|n| 20 * MS * n).collect();
    // Ten packets fill the first window; from then on one leaves when one must be gone.
    assert_eq!(sent[..4], expected[..4]);
    assert!(sent.len() <= 13 && *sent.last().unwrap() <= 240 * MS, "{sent:?}");
    let later = sent_by(&mut session, start() + 290 * MS, start() + 2_000 * MS, &mut 100);
    assert!(later.len() <= 2 * 12, "two at each probe timeout: {later:?}");
}

#[test]
fn a_busy_peer_on_a_fast_path_is_not_sent_copies_every_fraction_of_a_millisecond() {
    let initial_rtt = MS / 5;
    let config = SessionConfig { initial_rtt, ..SessionConfig::default() };
    let mut session = Session::new(start(), config);
    session.offer(start(), document("a", 1, 500)).unwrap();
    let sent = sent_by(&mut session, start(), start() + 9 * MS, &mut 1);
    assert_eq!(sent, [Duration::ZERO]);
    let sent = sent_by(&mut session, start() + 9 * MS, start() + 200 * MS, &mut 2);
    assert!(sent.len() <= 12 + 2 * 8, "copies for 120 ms, then probes: {sent:?}");
}

#[test]
fn what_is_acknowledged_is_not_repeated() {
    let mut session = on_a_round_trip_of_60_ms();
    session.offer(start(), document("a", 1, 500)).unwrap();
    let mut number = 1;
    let sent = sent_by(&mut session, start(), start() + 39 * MS, &mut number);
    assert_eq!(sent.len(), 2);
    acknowledge(&mut session, start() + 39 * MS, 1, 1);
    let sent = sent_by(&mut session, start() + 39 * MS, start() + 3_000 * MS, &mut number);
    // The copy in flight is still asked for, with nothing but a PING in it.
    assert_eq!(session.stats().data_bytes_resent, 500, "{sent:?}");
}

#[test]
fn a_path_that_is_known_to_lose_nothing_sees_no_packet_twice() {
    let mut session = on_a_round_trip_of_60_ms();
    let mut number = 1;
    let mut now = start();
    for version in 1..=80 {
        session.offer(now, document("a", version, 500)).unwrap();
        transmit(&mut session, now, &mut number);
        now += 10 * MS;
        acknowledge(&mut session, now, version, number - 1);
    }
    session.offer(now, document("a", 81, 500)).unwrap();
    transmit(&mut session, now, &mut number);
    let sent = sent_by(&mut session, now, now + 10 * MS, &mut number);
    assert!(sent.is_empty(), "{sent:?}");
}

/// What a peer says that puts so many symbols together.
fn reads_repairs(repair_symbols_max: u64) -> wire::Hello {
    wire::Hello {
        version_max: 1,
        version_min: 1,
        generation: 0,
        ack_delay_max_us: 0,
        document_bytes_max: 1 << 30,
        inbound_bytes_max: 1 << 30,
        inbound_transfers_max: 4,
        encodings: 1,
        repair_symbols_max,
        abilities: 0,
    }
}

/// How many DATA and REPAIR frames leave at once for a document of four packets.
fn symbols_for(repair_symbols_max: u64) -> (usize, usize) {
    let mut session = session();
    let hello = Frame::Hello(reads_repairs(repair_symbols_max));
    session.handle_packet(start(), 1, &packet(&[hello])).unwrap();
    session.offer(start(), document("a", 1, 4000)).unwrap();
    let packets = transmit(&mut session, start(), &mut 1);
    let frames: Vec<_> =
        packets.iter().flat_map(|(_, packet)| frames(packet).map(Result::unwrap)).collect();
    let data = frames.iter().filter(|frame| matches!(frame, Frame::Data { .. })).count();
    (data, frames.iter().filter(|frame| matches!(frame, Frame::Repair { .. })).count())
}

#[test]
fn a_peer_is_sent_repair_symbols_as_far_as_it_says_that_it_reads_them() {
    assert_eq!(symbols_for(0), (4, 0));
    assert_eq!(symbols_for(3), (4, 0));
    let (data, repairs) = symbols_for(4);
    assert!(data == 4 && repairs >= 3, "{repairs}");
    assert_eq!(symbols_for(u64::MAX >> 2), (data, repairs));
}

/// One side sends to the other all it has, which takes `transit`; `touch` may change or drop a packet. Returns when it
/// is there.
fn carry(
    now: Instant,
    transit: Duration,
    (from, to): (&mut Session, &mut Session),
    number: &mut u64,
    mut touch: impl FnMut(&mut Vec<u8>) -> bool,
) -> Instant {
    for (number, mut packet) in transmit(from, now, number) {
        if touch(&mut packet) {
            to.handle_packet(now + transit, number, &packet).unwrap();
        }
    }
    now + transit
}

/// A server and an agent that have said hello to each other over so long a path, and the time then.
fn acquainted(transit: Duration, numbers: &mut (u64, u64)) -> (Session, Session, Instant) {
    let (mut server, mut agent) = (session(), session());
    let mut now = start();
    for _ in 0..2 {
        now = carry(now, transit, (&mut server, &mut agent), &mut numbers.0, |_| true);
        now = carry(now, transit, (&mut agent, &mut server), &mut numbers.1, |_| true);
    }
    (server, agent, now)
}

#[test]
fn a_wrong_repair_symbol_costs_one_more_transfer_without_any() {
    let (transit, mut numbers) = (25 * MS, (1, 1));
    let (mut server, mut agent, now) = acquainted(transit, &mut numbers);
    server.offer(now, document("a", 1, 4000)).unwrap();
    // The first symbol is lost, and all repair comes changed.
    let now = carry(now, transit, (&mut server, &mut agent), &mut numbers.0, |packet| {
        let repair = frames(packet).any(|frame| matches!(frame, Ok(Frame::Repair { .. })));
        let first = frames(packet).any(|frame| matches!(frame, Ok(Frame::Data { offset: 0, .. })));
        if repair && let Some(last) = packet.last_mut() {
            *last ^= 1;
        }
        !first
    });
    assert_eq!(agent.poll_event(), None);
    assert_eq!(agent.stats().documents_repaired, 1);
    let now = carry(now, transit, (&mut agent, &mut server), &mut numbers.1, |_| true);
    assert_eq!(server.poll_event(), None, "it tries once more by itself");
    let mut repairs = 0;
    carry(now, transit, (&mut server, &mut agent), &mut numbers.0, |packet| {
        repairs += frames(packet).filter(|frame| matches!(frame, Ok(Frame::Repair { .. }))).count();
        true
    });
    assert_eq!(repairs, 0);
    assert_eq!(agent.poll_event(), Some(Event::Received(document("a", 1, 4000))));
}

/// Packets and bytes of repair that are sent of a document which nobody answers for a second.
fn sent_in_silence(transit: Duration) -> (usize, u64) {
    let mut numbers = (1, 1);
    let (mut server, _, mut now) = acquainted(transit, &mut numbers);
    server.offer(now, document("a", 1, 4000)).unwrap();
    let end = now + 1000 * MS;
    let mut packets = 0;
    while now < end {
        packets += transmit(&mut server, now, &mut numbers.0).len();
        now = server.next_timeout().unwrap().max(now + MS / 10);
        server.handle_timeout(now);
    }
    (packets, server.stats().repair_bytes_sent)
}

#[test]
fn on_a_short_path_a_busy_peer_is_asked_a_few_times_and_nothing_is_repaired_in_fear() {
    let (far, repairs) = sent_in_silence(25 * MS);
    assert!(far > 12 && repairs > 0, "{far} packets, {repairs} bytes of repair");
    // Four with the document, then those at 100, 200, 400 and 800 ms.
    let (near, repairs) = sent_in_silence(MS / 2);
    assert!(near <= 10 && repairs == 0, "{near} packets, {repairs} bytes of repair");
}

#[test]
fn no_packet_holds_two_symbols_of_one_transfer() {
    let mut session = session();
    session.handle_packet(start(), 1, &packet(&[Frame::Hello(reads_repairs(128))])).unwrap();
    for (text, length) in [("a", 50), ("b", 100), ("c", 2400)] {
        session.offer(start(), document(text, 1, length)).unwrap();
    }
    let mut symbols = std::collections::BTreeMap::new();
    for (_, packet) in transmit(&mut session, start(), &mut 1) {
        let parts: Vec<u64> = frames(&packet)
            .filter_map(|frame| match frame.unwrap() {
                Frame::Data { transfer, .. } | Frame::Repair { transfer, .. } => Some(transfer),
                _ => None,
            })
            .collect();
        let different: std::collections::BTreeSet<_> = parts.iter().collect();
        assert_eq!(different.len(), parts.len(), "{parts:?}");
        parts.iter().for_each(|transfer| *symbols.entry(*transfer).or_insert(0) += 1);
    }
    assert_eq!(symbols.len(), 3);
    assert!(symbols.values().all(|count| *count >= 2), "each is repaired: {symbols:?}");
}

#[test]
fn a_newer_version_ends_the_repair_of_the_older_one() {
    let mut session = session();
    session.handle_packet(start(), 1, &packet(&[Frame::Hello(reads_repairs(128))])).unwrap();
    // More symbols than the window has room for: some are still due.
    session.offer(start(), document("a", 1, 9000)).unwrap();
    transmit(&mut session, start(), &mut 1);
    assert!(session.unsent_bytes() > 0);
    session.offer(start(), document("a", 2, 10)).unwrap();
    assert_eq!(session.unsent_bytes(), 0, "and the new one is not open yet");
}

#[test]
fn numbers_that_make_no_sense_in_repair_are_a_fault() {
    let repair = |offset, nth, length| {
        let mut session = session();
        let (body, symbol) = (body(1, 3000), vec![0; length]);
        let offer = wire::Offer {
            transfer: 0,
            version: 1,
            encoding: 0,
            plain_length: 3000,
            encoded_length: 3000,
            sha256: crate::message::Hex32::sha256_of(&body).0,
            name: "a",
            base: None,
        };
        let frames = [
            Frame::Offer(offer),
            Frame::Repair { transfer: 7, offset: 1 << 40, nth: 1 << 40, symbol: &symbol },
            Frame::Repair { transfer: 0, offset, nth, symbol: &symbol },
            Frame::Repair { transfer: 0, offset, nth: nth / 2, symbol: &symbol },
            Frame::Repair { transfer: 0, offset: 1000, nth: 0, symbol: &[0; 1000] },
        ];
        let handled = session.handle_packet(start(), 1, &packet(&frames));
        handled.map_err(|error| error.to_string())
    };
    let misfit = |offset, nth, what| {
        Err(format!("repair symbol {nth} of transfer 0, from {offset} on, is {what}"))
    };
    assert_eq!(repair(1000, 31, 1000), Ok(()));
    assert_eq!(repair(1000, 32, 1000), misfit(1000, 32, "one too many"));
    assert_eq!(repair(3000, 0, 10), misfit(3000, 0, "beyond the limits"));
    assert_eq!(repair(0, 0, 0), misfit(0, 0, "beyond the limits"));
    assert_eq!(repair(0, 0, 20), misfit(0, 0, "beyond the limits"));
    assert_eq!(repair(0, 0, 2049), misfit(0, 0, "beyond the limits"));
    let other = "of other symbols than the one before";
    assert_eq!(repair(0, 0, 1000), misfit(1000, 0, other));
    assert_eq!(repair(1000, 0, 500), misfit(1000, 0, other));
}
