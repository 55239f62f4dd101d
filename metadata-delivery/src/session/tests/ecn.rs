//! Congestion marks, and peers that tell lies about them.

use super::*;
use crate::ecn::EcnCounts;

fn with_ecn(limits: Limits) -> Session {
    Session::new(start(), SessionConfig { ecn: true, limits, ..SessionConfig::default() })
}

/// A session that has much to send to a peer whose HELLO says this of its abilities.
struct Sender {
    session: Session,
    now: Instant,
    number: u64,
    peer_number: u64,
    /// Numbers of the packets that were marked, and of all.
    marked: Vec<u64>,
    sent: Vec<u64>,
}

impl Sender {
    fn new(abilities: u64) -> Self {
        let mut session = with_ecn(Limits::default());
        let mut number = 1;
        transmit(&mut session, start(), &mut number);
        let hello = Greeting::new(abilities).hello(&SessionConfig::default()).unwrap();
        session.handle_packet(start(), 1, &packet(&[Frame::Hello(hello)])).unwrap();
        session.offer(start(), document("a", 1, 1 << 20)).unwrap();
        let (marked, sent) = (Vec::new(), (1..number).collect());
        let mut this = Self { session, now: start(), number, peer_number: 2, marked, sent };
        this.transmit();
        this
    }

    fn transmit(&mut self) {
        let mut out = Vec::new();
        while self.session.poll_transmit(self.now, self.number, &mut out) {
            match self.session.packet_ecn() {
                Ecn::NotEct => {}
                Ecn::Ect0 => self.marked.push(self.number),
                other => panic!("{other:?}"),
            }
            self.sent.push(self.number);
            self.number += 1;
        }
    }

    /// A round trip later everything sent is acknowledged, with these counts; what was sent then.
    fn acked(&mut self, counts: Option<EcnCounts>) -> usize {
        self.now += 50 * MS;
        let mut ack = Vec::new();
        let all = std::iter::once((1, self.number - 1));
        wire::write_ack(&mut ack, 100, 0, counts, all).unwrap();
        self.session.handle_packet(self.now, self.peer_number, &ack).unwrap();
        self.peer_number += 1;
        self.sent.clear();
        self.transmit();
        // What the pacer holds back.
        while self.session.next_timeout().is_some_and(|at| at < self.now + 40 * MS) {
            self.now = self.now.max(self.session.next_timeout().unwrap());
            self.session.handle_timeout(self.now);
            self.transmit();
        }
        self.sent.len()
    }

    fn honest(&self) -> EcnCounts {
        EcnCounts { ect0: self.marked.len() as u64, ..EcnCounts::default() }
    }
}

#[test]
fn nothing_is_marked_for_a_peer_of_an_older_release_or_without_being_asked_to() {
    let mut sender = Sender::new(0);
    assert!(sender.acked(None) > 0);
    assert!(sender.marked.is_empty());
    let mut silent = session();
    let mut number = 1;
    transmit(&mut silent, start(), &mut number);
    let hello = Greeting::new(ABILITY_ECN).hello(&SessionConfig::default()).unwrap();
    silent.handle_packet(start(), 1, &packet(&[Frame::Hello(hello)])).unwrap();
    silent.offer(start(), document("a", 1, 10_000)).unwrap();
    assert!(!transmit(&mut silent, start(), &mut number).is_empty());
    assert_eq!(silent.stats().packets_marked, 0);
}

#[test]
fn an_honest_peer_has_all_but_the_first_round_trips_packets_marked() {
    let mut sender = Sender::new(ABILITY_ECN);
    assert_eq!(sender.marked.len(), 9, "the first window, but for the HELLO");
    for _ in 0..5 {
        let before = sender.marked.len();
        let counts = sender.honest();
        let sent = sender.acked(Some(counts));
        assert_eq!(sender.marked.len() - before, sent);
    }
    let stats = sender.session.stats();
    assert!(stats.ecn_capable && stats.packets_marked == sender.marked.len() as u64, "{stats:?}");
}

#[test]
fn a_peer_that_counts_too_little_or_backwards_or_not_at_all_gets_no_more_marks() {
    type Lie = fn(EcnCounts) -> Option<EcnCounts>;
    let lies: [(&str, Lie); 5] = [
        ("nothing", |_| None),
        ("too few", |honest| Some(EcnCounts { ect0: honest.ect0 - 1, ..honest })),
        ("falling", |_| Some(EcnCounts { ect0: 1, ect1: 0, ce: 0 })),
        ("too many", |honest| Some(EcnCounts { ce: 1, ..honest })),
        ("others", |honest| Some(EcnCounts { ect1: 1, ..honest })),
    ];
    for (what, lie) in lies {
        let mut sender = Sender::new(ABILITY_ECN);
        let counts = sender.honest();
        sender.acked(Some(counts));
        let (before, window) = (sender.marked.len(), sender.session.stats().window_bytes);
        let lie = lie(sender.honest());
        assert!(sender.acked(lie) > 0, "{what}: it goes on");
        let stats = sender.session.stats();
        assert_eq!(sender.marked.len(), before, "{what}");
        assert!(!stats.ecn_capable && stats.congestion_told == 0, "{what}: {stats:?}");
        assert!(stats.window_bytes >= window, "{what}: no reason to be slower");
    }
}

#[test]
fn a_peer_that_tells_of_congestion_again_and_again_slows_us_to_the_smallest_window_and_no_further()
{
    let mut sender = Sender::new(ABILITY_ECN);
    let counts = sender.honest();
    sender.acked(Some(counts));
    let mut counts = sender.honest();
    for _ in 0..30 {
        (counts.ect0, counts.ce) = (11, sender.marked.len() as u64 - 11);
        assert!(sender.acked(Some(counts)) >= 7);
    }
    let stats = sender.session.stats();
    assert!(stats.ecn_capable && stats.congestion_told == 30, "{stats:?}");
    assert!(stats.window_bytes >= 8 * 1_150, "{stats:?}");
}

#[test]
fn marks_that_came_are_told_in_every_acknowledgement_and_none_are_without_them() {
    let counts = |session: &mut Session, number: &mut u64| -> Vec<Option<EcnCounts>> {
        let packets = transmit(session, start(), number);
        let frames = packets.iter().flat_map(|(_, packet)| frames(packet)).map(Result::unwrap);
        frames
            .filter_map(|frame| if let Frame::Ack(ack) = frame { Some(ack.ecn) } else { None })
            .collect()
    };
    let mut session = with_ecn(Limits::default());
    let (mut number, ping) = (1, packet(&[Frame::Ping]));
    let mut incoming = 0;
    let mut receive = |session: &mut Session, ecns: &[Ecn]| {
        for ecn in ecns {
            incoming += 1;
            session.handle_marked_packet(start(), incoming, *ecn, &ping).unwrap();
        }
    };
    receive(&mut session, &[Ecn::NotEct; 2]);
    assert_eq!(counts(&mut session, &mut number), [None]);
    receive(&mut session, &[Ecn::Ect0, Ecn::Ect1]);
    let told = EcnCounts { ect0: 1, ect1: 1, ce: 0 };
    assert_eq!(counts(&mut session, &mut number), [Some(told)]);
    receive(&mut session, &[Ecn::Ce]);
    let told = EcnCounts { ce: 1, ..told };
    assert_eq!(counts(&mut session, &mut number), [Some(told)], "congestion is told at once");
    // A packet that comes twice counts once.
    session.handle_marked_packet(start(), 5, Ecn::Ce, &ping).unwrap();
    receive(&mut session, &[Ecn::NotEct; 2]);
    assert_eq!(counts(&mut session, &mut number), [Some(told)]);
    assert_eq!(session.stats().packets_congested, 1);
}
