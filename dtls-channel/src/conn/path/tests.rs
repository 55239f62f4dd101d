//! Two open associations without a handshake, so that what one says can be wrong.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::open::Open;
use super::*;
use crate::crypto::{CipherSuite, TrafficKey};
use crate::event::{AssociationId, Event};
use crate::outbox::Sink;
use crate::record::{CONTENT_BYTES_MAX, ConnectionId, ReadKeys, Records, WriteKeys};
use crate::wire::ContentType;

const HOME: u16 = 1_000;
const AWAY: u16 = 2_000;
const ELSEWHERE: u16 = 3_000;
const ROUND_TRIP: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_millis(300);

fn at(port: u16) -> Path {
    SocketAddr::from(([192, 0, 2, 7], port)).into()
}

/// The side that follows, its peer's keys, and a clock.
struct Watcher {
    now: Instant,
    open: Open,
    path: Path,
    sink: Sink,
    peer: WriteKeys,
    peers_read: ReadKeys,
}

/// A datagram that was sent: to which port, of which type, what.
type Sent = (u16, ContentType, Vec<u8>);

impl Watcher {
    fn new(address_change: AddressChange, return_routability: bool) -> Self {
        Self::with_peers_id(address_change, return_routability, &[])
    }

    #[expect(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
    fn with_peers_id(change: AddressChange, return_routability: bool, peers_id: &[u8]) -> Self {
        let key = |n: u8| TrafficKey::new(CipherSuite::Aes128GcmSha256, &[n; 16], &[n; 4]);
        let own_id = ConnectionId::from([9; 8]);
        let peers_id = ConnectionId::new(peers_id).unwrap();
        let rules =
            PathRules { address_change: change, return_routability, round_trip: Some(ROUND_TRIP) };
        let write = WriteKeys::new(key(1), peers_id.clone(), CONTENT_BYTES_MAX);
        let read = ReadKeys::new(key(2), own_id.clone(), 64, CONTENT_BYTES_MAX);
        Self {
            now: Instant::now(),
            open: Open::new(write, read, 1_200, rules, None, None),
            path: at(HOME),
            sink: Sink::default(),
            peer: WriteKeys::new(key(2), own_id, CONTENT_BYTES_MAX),
            peers_read: ReadKeys::new(key(1), peers_id, 64, CONTENT_BYTES_MAX),
        }
    }

    /// A record of the peer.
    fn record(&mut self, kind: ContentType, content: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        self.peer.seal(kind, content, &mut record).unwrap();
        record
    }

    fn take(&mut self, port: u16, mut record: Vec<u8>) -> Result<(), DropCause> {
        let record = Records::with_id_length(&mut record, 8).next().unwrap();
        let id = AssociationId::STANDALONE;
        let (now, from) = (self.now, at(port));
        self.open.handle_record(now, from, &mut self.path, record, id, &mut self.sink).map(drop)
    }

    /// A message of the peer arrives from `port`.
    fn hear(&mut self, port: u16) {
        let record = self.record(ContentType::APPLICATION_DATA, b"hello");
        self.take(port, record).unwrap();
        assert!(matches!(self.next_event(), Some(Event::Message { .. })), "delivered in any case");
    }

    /// A message of the check arrives from `port`.
    fn hear_path_message(&mut self, port: u16, content: &[u8]) -> Result<(), DropCause> {
        let record = self.record(ContentType::RETURN_ROUTABILITY_CHECK, content);
        self.take(port, record)
    }

    fn next_event(&mut self) -> Option<Event> {
        self.sink.poll_event().map(|(_, event)| event)
    }

    /// What was sent since, decrypted by the peer.
    fn sent(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        while let Some((transmit, bytes)) = self.sink.outbox.front() {
            let size = transmit.segment_size.unwrap_or(bytes.len());
            let port = transmit.destination.port();
            for datagram in bytes.to_vec().chunks_mut(size) {
                let id_length = self.peers_read.id().len();
                let record = Records::with_id_length(datagram, id_length).next().unwrap();
                let opened = self.peers_read.open(record).unwrap();
                sent.push((port, opened.content_type, opened.content.to_vec()));
            }
            self.sink.outbox.pop();
        }
        sent
    }

    /// The challenges sent since: to which port, and the answer that would be right.
    fn challenges(&mut self) -> Vec<(u16, Vec<u8>)> {
        let challenge = |(port, kind, content): Sent| {
            assert_eq!((kind, content[0]), (ContentType::RETURN_ROUTABILITY_CHECK, 0));
            (port, super::answer(&content).unwrap().to_vec())
        };
        self.sent().into_iter().map(challenge).collect()
    }

    fn only_challenge(&mut self) -> (u16, Vec<u8>) {
        let mut challenges = self.challenges();
        assert_eq!(challenges.len(), 1, "{challenges:?}");
        challenges.remove(0)
    }

    /// Goes on to the next timer; false if there is none.
    fn tick(&mut self) -> bool {
        let Some((at, _)) = self.open.next_timeout() else { return false };
        self.now = at.max(self.now);
        self.open.handle_timeout(self.now, self.path, &mut self.sink);
        true
    }

    /// Lets the check go on to where the new address is asked; the right answer.
    fn until_new_is_asked(&mut self) -> Vec<u8> {
        loop {
            for (port, answer) in self.challenges() {
                if port != self.path.remote.port() {
                    return answer;
                }
            }
            assert!(self.tick(), "nobody asked");
        }
    }

    fn is_at(&self, port: u16) -> bool {
        self.path == at(port)
    }
}

fn checking() -> Watcher {
    let mut watcher = Watcher::new(AddressChange::AfterReturnRoutability, true);
    watcher.hear(HOME);
    assert_eq!((watcher.sent(), watcher.open.next_timeout()), (vec![], None));
    watcher.hear(AWAY);
    watcher
}

#[test]
fn both_addresses_are_asked_three_times_at_growing_intervals_and_then_nothing_has_changed() {
    let mut watcher = checking();
    let start = watcher.now;
    let mut asked = Vec::new();
    let mut cookies = std::collections::HashSet::new();
    loop {
        for (port, answer) in watcher.challenges() {
            asked.push((port, (watcher.now - start).as_millis()));
            assert!(cookies.insert(answer), "each challenge has a cookie of its own");
        }
        if !watcher.tick() {
            break;
        }
    }
    let home = [(HOME, 0), (HOME, 100), (HOME, 200)];
    let away = [(AWAY, 300), (AWAY, 400), (AWAY, 600)];
    assert_eq!(asked, [home, away].concat());
    assert_eq!((watcher.now - start).as_millis(), 1_000);
    let stats = watcher.sink.stats;
    assert_eq!((stats.path_checks, stats.path_challenges, stats.path_checks_failed), (1, 6, 1));
    assert!(watcher.is_at(HOME) && stats.path_changes == 0);
    // The next newer record begins another check.
    watcher.hear(AWAY);
    assert_eq!(watcher.sink.stats.path_checks, 2);
}

#[test]
fn an_answer_from_the_new_address_moves_the_association_and_says_so() {
    let mut watcher = checking();
    let answer = watcher.until_new_is_asked();
    assert!(watcher.is_at(HOME));
    watcher.hear_path_message(AWAY, &answer).unwrap();
    assert!(watcher.is_at(AWAY));
    let Some(Event::PathChanged { old, new }) = watcher.next_event() else { panic!("no event") };
    assert_eq!((old.port(), new.port()), (HOME, AWAY));
    assert_eq!((watcher.open.next_timeout(), watcher.sink.stats.path_changes), (None, 1));
    // Nothing that comes late from there moves it back.
    assert_eq!(watcher.hear_path_message(HOME, &answer), Err(DropCause::BadPathMessage));
    assert!(watcher.is_at(AWAY));
}

#[test]
fn an_answer_to_the_last_of_the_challenges_counts_as_well() {
    let mut watcher = checking();
    watcher.until_new_is_asked();
    watcher.tick();
    watcher.tick();
    let (port, answer) = watcher.challenges().pop().unwrap();
    watcher.hear_path_message(port, &answer).unwrap();
    assert!(watcher.is_at(AWAY));
}

#[test]
fn wrong_answers_and_right_ones_from_the_wrong_place_move_nothing() {
    let mut watcher = checking();
    let answer = watcher.until_new_is_asked();
    let bad = Err(DropCause::BadPathMessage);
    for i in 1..9 {
        let mut wrong = answer.clone();
        wrong[i] ^= 1;
        assert_eq!(watcher.hear_path_message(AWAY, &wrong), bad, "byte {i}");
    }
    assert_eq!(watcher.hear_path_message(AWAY, &[1, 0, 0, 0, 0, 0, 0, 0, 0]), bad, "not sent yet");
    assert_eq!(watcher.hear_path_message(ELSEWHERE, &answer), bad);
    assert_eq!(watcher.hear_path_message(AWAY, &answer[..8]), bad, "too short");
    assert_eq!(watcher.hear_path_message(AWAY, &[&answer[..], &[0]].concat()), bad, "too long");
    assert_eq!(watcher.hear_path_message(AWAY, &[]), bad);
    let mut drop = answer.clone();
    drop[0] = 2;
    assert_eq!(watcher.hear_path_message(AWAY, &drop), bad, "only the old path is dropped");
    assert!(watcher.is_at(HOME) && watcher.next_event().is_none());
    watcher.hear_path_message(AWAY, &answer).unwrap();
    assert!(watcher.is_at(AWAY), "none of them ended the check");
}

#[test]
fn what_the_peer_says_at_the_old_address_settles_it() {
    let mut watcher = checking();
    let (port, answer) = watcher.only_challenge();
    assert_eq!(port, HOME);
    watcher.hear_path_message(HOME, &answer).unwrap();
    // And no other check begins until an answer from elsewhere could have been late.
    for _ in 0..3 {
        watcher.hear(AWAY);
        assert_eq!(watcher.challenges(), []);
    }
    assert_eq!((watcher.sink.stats.path_checks_failed, watcher.sink.stats.path_checks), (1, 1));
    assert_eq!(watcher.open.next_timeout().map(|(at, _)| at), Some(watcher.now + PATIENCE));
    assert!(watcher.tick() && watcher.is_at(HOME) && watcher.open.next_timeout().is_none());
}

#[test]
fn an_answer_from_the_old_address_that_comes_late_still_stops_the_move() {
    let mut watcher = checking();
    let (_, old_answer) = watcher.only_challenge();
    let new_answer = watcher.until_new_is_asked();
    watcher.hear_path_message(HOME, &old_answer).unwrap();
    let bad = Err(DropCause::BadPathMessage);
    assert_eq!(watcher.hear_path_message(AWAY, &new_answer), bad);
    assert!(watcher.is_at(HOME));
}

#[test]
fn the_old_addresss_answer_does_not_stand_for_the_new_one() {
    let mut watcher = checking();
    let (_, old_answer) = watcher.only_challenge();
    // Whoever has it passed on to the new address shows that the old one is alive.
    watcher.hear_path_message(AWAY, &old_answer).unwrap();
    assert!(watcher.is_at(HOME) && watcher.next_event().is_none());
    assert_eq!(watcher.sink.stats.path_checks_failed, 1);
}

#[test]
fn a_newer_record_from_the_old_address_ends_the_check() {
    let mut watcher = checking();
    watcher.hear(HOME);
    assert_eq!(watcher.sink.stats.path_checks_failed, 1);
    watcher.challenges();
    while watcher.tick() {
        assert_eq!(watcher.challenges(), []);
    }
    assert!(watcher.is_at(HOME));
}

#[test]
fn a_peer_that_has_dropped_its_old_path_is_asked_at_the_new_one_at_once() {
    let mut watcher = checking();
    let (_, mut drop) = watcher.only_challenge();
    drop[0] = 2;
    watcher.hear_path_message(HOME, &drop).unwrap();
    let (port, answer) = watcher.only_challenge();
    assert_eq!(port, AWAY);
    watcher.hear_path_message(HOME, &drop).unwrap();
    watcher.hear_path_message(AWAY, &answer).unwrap();
    assert!(watcher.is_at(AWAY));
}

#[test]
fn the_newest_of_several_new_addresses_is_asked() {
    let mut watcher = checking();
    watcher.hear(ELSEWHERE);
    let answer = watcher.until_new_is_asked();
    // Once one is being asked, others have to wait.
    watcher.hear(AWAY);
    assert_eq!(watcher.hear_path_message(AWAY, &answer), Err(DropCause::BadPathMessage));
    watcher.hear_path_message(ELSEWHERE, &answer).unwrap();
    assert!(watcher.is_at(ELSEWHERE));
    assert_eq!(watcher.sink.stats.path_checks, 1);
}

#[test]
fn an_older_record_from_elsewhere_begins_nothing() {
    for (change, checks) in
        [(AddressChange::AfterReturnRoutability, true), (AddressChange::AfterNewestRecord, false)]
    {
        let mut watcher = Watcher::new(change, checks);
        let late = watcher.record(ContentType::APPLICATION_DATA, b"late");
        watcher.hear(HOME);
        watcher.take(AWAY, late.clone()).unwrap();
        assert!(
            matches!(watcher.next_event(), Some(Event::Message { data, .. }) if data == "late")
        );
        assert_eq!(watcher.take(ELSEWHERE, late), Err(DropCause::Replayed));
        assert!(watcher.is_at(HOME) && watcher.sent().is_empty());
        assert_eq!(watcher.sink.stats.path_changes_ignored, 1);
    }
}

#[test]
fn a_peer_without_the_check_is_followed_only_where_that_was_asked_for() {
    use AddressChange::{AfterNewestRecord, AfterReturnRoutability, Never};

    for (change, checks, moves) in [
        (Never, false, false),
        (Never, true, false),
        (AfterReturnRoutability, false, false),
        (AfterNewestRecord, false, true),
    ] {
        let mut watcher = Watcher::new(change, checks);
        watcher.hear(HOME);
        let record = watcher.record(ContentType::APPLICATION_DATA, b"x");
        watcher.take(AWAY, record).unwrap();
        assert_eq!(watcher.is_at(AWAY), moves, "{change:?}");
        assert_eq!((watcher.sent(), watcher.open.next_timeout()), (vec![], None));
        assert_eq!(watcher.sink.stats.path_changes_ignored, u64::from(!moves));
        assert_eq!(watcher.sink.stats.path_changes, u64::from(moves));
    }
    let mut watcher = Watcher::new(AfterNewestRecord, true);
    watcher.hear(AWAY);
    assert!(watcher.is_at(HOME), "who can be asked is asked");
    assert_eq!(watcher.only_challenge().0, HOME);
}

#[test]
fn no_more_than_three_times_what_came_goes_to_an_address_that_is_not_verified() {
    let rules = AddressChange::AfterReturnRoutability;
    let mut watcher = Watcher::with_peers_id(rules, true, &[5; 255]);
    watcher.hear(AWAY);
    // 52 bytes came; a challenge with so long an id has 302.
    while watcher.tick() {
        assert!(watcher.challenges().iter().all(|(port, _)| *port == HOME));
    }
    assert_eq!(watcher.sink.stats.path_challenges, 3);
    // With more from there, of whatever age, there is room for one.
    watcher.hear(AWAY);
    watcher.hear(AWAY);
    let answer = watcher.until_new_is_asked();
    assert_eq!(watcher.challenges(), []);
    watcher.hear_path_message(AWAY, &answer).unwrap();
    assert!(watcher.is_at(AWAY));
}

#[test]
fn a_challenge_is_answered_once_and_where_it_came_from() {
    let mut watcher = Watcher::new(AddressChange::Never, true);
    let challenge = [0, 1, 2, 3, 4, 5, 6, 7, 8];
    for port in [HOME, AWAY] {
        watcher.hear_path_message(port, &challenge).unwrap();
        let kind = ContentType::RETURN_ROUTABILITY_CHECK;
        assert_eq!(watcher.sent(), [(port, kind, vec![1, 1, 2, 3, 4, 5, 6, 7, 8])]);
    }
    let bad = Err(DropCause::BadPathMessage);
    for malformed in [&[][..], &[0], &challenge[..8], &[0; 10], &[1; 9], &[2; 9]] {
        assert_eq!(watcher.hear_path_message(HOME, malformed), bad, "{malformed:?}");
    }
    // Of a later version: ignored, whatever it is.
    assert_eq!(watcher.hear_path_message(HOME, &[3]), Ok(()));
    assert_eq!(watcher.hear_path_message(HOME, &[255; 40]), Ok(()));
    assert!(watcher.sent().is_empty() && watcher.is_at(HOME));
    // With so long an id the answer would be six times as long as the question.
    let mut wordy = Watcher::with_peers_id(AddressChange::Never, true, &[5; 255]);
    assert_eq!(wordy.hear_path_message(AWAY, &challenge), Err(DropCause::NotSent));
    assert_eq!(wordy.hear_path_message(HOME, &challenge), Ok(()), "verified");
    assert_eq!(wordy.sent().len(), 1);
}

#[test]
fn without_agreement_messages_of_the_check_have_no_place() {
    let mut watcher = Watcher::new(AddressChange::AfterNewestRecord, false);
    let refused = watcher.hear_path_message(HOME, &[0; 9]);
    assert_eq!((refused, watcher.sent()), (Err(DropCause::UnexpectedRecord), vec![]));
}

/// Every record of the peer arrives from yet another address: somebody rewrites them.
#[test]
fn a_flood_of_address_changes_costs_one_check_at_a_time_and_little_for_each_address() {
    let mut watcher = Watcher::new(AddressChange::AfterReturnRoutability, true);
    let start = watcher.now;
    let mut to = std::collections::HashMap::<u16, u64>::new();
    for n in 0..10_000u16 {
        watcher.hear(10_000 + n);
        watcher.now += Duration::from_millis(1);
        watcher.open.handle_timeout(watcher.now, watcher.path, &mut watcher.sink);
        for (port, _) in watcher.challenges() {
            *to.entry(port).or_default() += 1;
        }
    }
    assert_eq!(watcher.now - start, Duration::from_secs(10));
    let stats = watcher.sink.stats;
    // A check takes a second where nobody answers.
    assert!(stats.path_checks <= 11 && stats.path_challenges <= 66, "{stats:?}");
    to.remove(&HOME);
    assert!(to.len() <= 10 && to.values().all(|n| *n <= 3), "{to:?}");
    assert!(watcher.is_at(HOME));
}
