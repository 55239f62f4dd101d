//! A flight whose records arrive in every order, with every choice of them lost: both ends open all
//! the same, at the latest with the first resend, and nothing is acted on twice.
//!
//! Five records come in 120 orders, and 32 choices of them may be lost. Where a lost record stood in
//! the order makes no difference, so that is 326 different arrivals: every sequence of distinct
//! records, from none to all five.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::identity;
use dtls_channel::testing::{LinkConfig, Net};
use dtls_channel::{
    AssociationId, Config, Connection, Credentials, Event, PeerRefused, PeerVerifier, Phase, Sink,
    Timers,
};

/// A flight, in records: the server's ServerHello, Certificate, ServerKeyExchange,
/// CertificateRequest, ServerHelloDone; the client's Certificate, ClientKeyExchange,
/// CertificateVerify, ChangeCipherSpec, Finished.
const RECORDS: usize = 5;
/// The client's record that may be lost: the change of keys is read off the records that follow.
const CHANGE_CIPHER_SPEC: usize = 3;
const HEADER_LEN: usize = 13;

/// Takes every peer, and counts how often it was asked.
#[derive(Default)]
struct Counting(AtomicU32);

impl PeerVerifier for Counting {
    fn verify(&self, _: &[u8]) -> Result<(), PeerRefused> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

struct End {
    conn: Connection,
    sink: Sink,
    verifier: Arc<Counting>,
}

/// Two ends without a network, on a virtual clock.
struct Pair {
    start: Instant,
    now: Instant,
    client: End,
    server: End,
}

fn datagrams(sink: &mut Sink) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((transmit, bytes)) = sink.outbox.front() {
        let size = transmit.segment_size.unwrap_or(bytes.len());
        out.extend(bytes.chunks(size).map(<[u8]>::to_vec));
        sink.outbox.pop();
    }
    out
}

/// One datagram for each record of those that wait.
fn records(sink: &mut Sink) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for datagram in datagrams(sink) {
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            // Those of type tls12_cid have the server's connection id before their length.
            let id_length = if rest[0] == 25 { 8 } else { 0 };
            let length = u16::from_be_bytes([rest[11 + id_length], rest[12 + id_length]]);
            let (record, after) = rest.split_at(HEADER_LEN + id_length + usize::from(length));
            out.push(record.to_vec());
            rest = after;
        }
    }
    out
}

impl End {
    fn take(&mut self, now: Instant, mut datagram: Vec<u8>) {
        self.conn.handle_datagram(now, &mut datagram, &mut self.sink);
    }
}

impl Pair {
    fn new(now: Instant, [client, server]: [&Credentials; 2]) -> Self {
        let (id, path) = (AssociationId::STANDALONE, SocketAddr::from(([127, 0, 0, 1], 1)).into());
        let configured = |credentials: &Credentials| {
            let verifier = Arc::new(Counting::default());
            (Arc::new(Config::new(credentials.clone(), verifier.clone())), verifier)
        };
        let (config, verifier) = configured(server);
        let mut sink = Sink::default();
        let conn = Connection::server_without_cookie(now, id, path, config, &mut sink);
        let server = End { conn, sink, verifier };
        let (config, verifier) = configured(client);
        let mut sink = Sink::default();
        let conn = Connection::client(now, id, path, config, &mut sink).unwrap();
        let client = End { conn, sink, verifier };
        Self { start: now, now, client, server }
    }

    /// Takes everything to the other side at once, until nobody has anything to say.
    fn pass(&mut self) {
        loop {
            let (up, down) = (datagrams(&mut self.client.sink), datagrams(&mut self.server.sink));
            if up.is_empty() && down.is_empty() {
                return;
            }
            up.into_iter().for_each(|datagram| self.server.take(self.now, datagram));
            down.into_iter().for_each(|datagram| self.client.take(self.now, datagram));
        }
    }

    fn are_open(&self) -> bool {
        [&self.client, &self.server].iter().all(|end| end.conn.phase() == Phase::Open)
    }

    /// Goes on without further losses, and says how long it took.
    fn open(&mut self) -> Duration {
        self.pass();
        while !self.are_open() {
            let ends = [&self.client, &self.server];
            let next = ends.iter().filter_map(|end| end.conn.next_timeout()).min_by_key(|t| t.0);
            self.now = next.unwrap().0;
            assert!(self.now < self.start + Timers::default().give_up, "not opened");
            self.client.conn.handle_timeout(self.now, &mut self.client.sink);
            self.server.conn.handle_timeout(self.now, &mut self.server.sink);
            self.pass();
        }
        self.now - self.start
    }

    /// Exchanges messages; what each side has seen must be one opening and one message.
    fn check(&mut self) {
        self.client.conn.send(b"up", &mut self.client.sink).unwrap();
        self.server.conn.send(b"down", &mut self.server.sink).unwrap();
        self.pass();
        for (end, expected) in [(&mut self.client, "down"), (&mut self.server, "up")] {
            assert!(matches!(end.sink.poll_event(), Some((_, Event::Established(_)))));
            match end.sink.poll_event() {
                Some((_, Event::Message { data, .. })) => assert_eq!(data, expected),
                other => panic!("{other:?}"),
            }
            assert!(!end.sink.has_events());
            assert_eq!(
                end.verifier.0.load(Ordering::Relaxed),
                1,
                "checked the peer more than once"
            );
            assert_eq!(end.sink.stats.handshakes_completed, 1);
            assert_eq!(end.sink.stats.handshakes_failed, 0);
        }
    }
}

/// Every sequence of distinct records.
fn arrivals() -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = vec![vec![]];
    let mut nth = 0;
    while nth < all.len() {
        let shorter = all[nth].clone();
        let others = (0..RECORDS).filter(|record| !shorter.contains(record));
        all.extend(others.map(|record| [&shorter[..], &[record]].concat()));
        nth += 1;
    }
    all
}

#[test]
fn there_are_326_arrivals() {
    let (all, orders) = (arrivals(), |n| arrivals().iter().filter(|a| a.len() == n).count());
    assert_eq!(all.len(), 1 + 5 + 20 + 60 + 120 + 120);
    assert_eq!((orders(0), orders(4), orders(5)), (1, 120, 120));
}

fn start() -> (Instant, [Credentials; 2]) {
    let identity = || identity(&rcgen::PKCS_ECDSA_P256_SHA256);
    let server = Arc::new(common::config());
    (Net::new(0, &LinkConfig::default(), server).now(), [identity(), identity()])
}

/// Without the loss of a record that is needed no time passes; with it, one wait for a resend.
fn expected_time(arrival: &[usize], needed: impl Fn(usize) -> bool) -> Duration {
    let lost = (0..RECORDS).any(|record| needed(record) && !arrival.contains(&record));
    if lost { Timers::default().first_resend } else { Duration::ZERO }
}

#[test]
fn the_servers_flight_may_arrive_in_any_order_with_any_losses() {
    let (now, [client, server]) = start();
    for arrival in arrivals() {
        let mut pair = Pair::new(now, [&client, &server]);
        for hello in datagrams(&mut pair.client.sink) {
            pair.server.take(now, hello);
        }
        let flight = records(&mut pair.server.sink);
        assert_eq!(flight.len(), RECORDS);
        for record in &arrival {
            pair.client.take(now, flight[*record].clone());
        }
        assert_eq!(pair.open(), expected_time(&arrival, |_| true), "{arrival:?}");
        pair.check();
    }
}

#[test]
fn the_clients_flight_may_arrive_in_any_order_with_any_losses() {
    let (now, [client, server]) = start();
    for arrival in arrivals() {
        let mut pair = Pair::new(now, [&client, &server]);
        for hello in datagrams(&mut pair.client.sink) {
            pair.server.take(now, hello);
        }
        for datagram in datagrams(&mut pair.server.sink) {
            pair.client.take(now, datagram);
        }
        let flight = records(&mut pair.client.sink);
        assert_eq!(flight.len(), RECORDS);
        for record in &arrival {
            pair.server.take(now, flight[*record].clone());
        }
        let needed = |record| record != CHANGE_CIPHER_SPEC;
        assert_eq!(pair.open(), expected_time(&arrival, needed), "{arrival:?}");
        pair.check();
    }
}

/// As above, with each record that arrives arriving again after all the others.
#[test]
fn records_that_arrive_twice_are_acted_on_once() {
    let (now, [client, server]) = start();
    for arrival in arrivals() {
        let mut pair = Pair::new(now, [&client, &server]);
        for hello in datagrams(&mut pair.client.sink) {
            pair.server.take(now, hello.clone());
            pair.server.take(now, hello);
        }
        let flight = records(&mut pair.server.sink);
        for record in arrival.iter().chain(&arrival) {
            pair.client.take(now, flight[*record].clone());
        }
        let time = expected_time(&arrival, |_| true);
        if time.is_zero() {
            let flight = records(&mut pair.client.sink);
            for record in arrival.iter().chain(&arrival) {
                pair.server.take(now, flight[*record].clone());
            }
        }
        assert_eq!(pair.open(), time, "{arrival:?}");
        pair.check();
    }
}
