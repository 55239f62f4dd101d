use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, MTU_MAX, MTU_MIN};
use crate::conn::{Connection, EARLY_BYTES_MAX};
use crate::crypto::CipherSuite;
use crate::error::CloseReason;
use crate::event::{AssociationId, Established, Event, Phase, TimerKind};
use crate::handshake::ASSOCIATION_REASSEMBLY_BYTES_MAX;
use crate::outbox::Sink;
use crate::record::Records;
use crate::resumption::Session;

/// What one datagram or timer may make an end send: the longest flight, in small pieces.
const ANSWER_BYTES_MAX: u64 = 8 * 1024;

/// What both ends must see the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    suite: CipherSuite,
    pub(super) resumed: bool,
    extended_master_secret: bool,
    exported: [u8; 16],
}

/// One end with what it has said and heard.
pub(super) struct End {
    conn: Connection,
    sink: Sink,
    config: Arc<Config>,
    /// Kept here, as a closed end has forgotten it.
    id_length: usize,
    began_at: Instant,
    mtu: usize,
    /// What the application sent, by record number.
    pub(super) sent: BTreeMap<u64, Vec<u8>>,
    received: BTreeSet<u64>,
    pub(super) agreed: Option<Agreed>,
    pub(super) closed: Option<CloseReason>,
    pub(super) session: Option<Session>,
    /// Numbers of records that were sent: (epoch, sequence).
    numbers: BTreeSet<(u16, u64)>,
}

impl End {
    pub(super) fn client(now: Instant, config: Arc<Config>, session: Option<Session>) -> Self {
        let mut sink = Sink::default();
        let (id, path) = (AssociationId::STANDALONE, address().into());
        let conn = match session {
            None => Connection::client(now, id, path, config.clone(), &mut sink),
            Some(session) => Connection::resume(now, id, path, config.clone(), session, &mut sink),
        };
        Self::new(now, conn.expect("randomness"), sink, config)
    }

    pub(super) fn server(now: Instant, config: Arc<Config>) -> Self {
        let mut sink = Sink::default();
        let (id, path) = (AssociationId::STANDALONE, address().into());
        let conn = Connection::server_without_cookie(now, id, path, config.clone(), &mut sink);
        Self::new(now, conn, sink, config)
    }

    fn new(now: Instant, conn: Connection, sink: Sink, config: Arc<Config>) -> Self {
        Self {
            id_length: conn.own_connection_id().len(),
            conn,
            sink,
            mtu: config.mtu,
            config,
            began_at: now,
            sent: BTreeMap::new(),
            received: BTreeSet::new(),
            agreed: None,
            closed: None,
            session: None,
            numbers: BTreeSet::new(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.conn.phase()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.conn.next_timeout().map(|(at, _)| at)
    }

    pub(super) fn received_count(&self) -> usize {
        self.received.len()
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, mut datagram: Vec<u8>) {
        let (before, was_closed) = (self.sink.stats.bytes_out, self.phase() == Phase::Closed);
        let used = self.conn.handle_datagram(now, &mut datagram, &mut self.sink);
        let answered = self.sink.stats.bytes_out - before;
        assert!(answered <= ANSWER_BYTES_MAX, "{answered} bytes at once");
        assert!(!was_closed || (!used && answered == 0), "a closed end acts");
        self.check();
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let before = self.sink.stats.bytes_out;
        self.conn.handle_timeout(now, &mut self.sink);
        let sent = self.sink.stats.bytes_out - before;
        assert!(sent <= ANSWER_BYTES_MAX, "{sent} bytes at once");
        if let Some((next, kind)) = self.conn.next_timeout() {
            assert!(next > now, "{kind:?} is due again at once");
        }
        self.check();
    }

    /// True if a message of `length` bytes was sent.
    pub(super) fn send(&mut self, length: usize) -> bool {
        let number = self.sent.len() as u8;
        let message = vec![number.wrapping_add(1); length];
        let expected = self.conn.next_sequence();
        let limit = self.conn.message_size_max();
        let sent = self.conn.send(&message, &mut self.sink);
        assert_eq!(sent.is_ok(), self.phase() == Phase::Open && length <= limit, "{sent:?}");
        if let Ok(sequence) = sent {
            assert_eq!(Some(sequence), expected);
            self.sent.insert(sequence, message);
        }
        self.check();
        sent.is_ok()
    }

    pub(super) fn set_path_mtu(&mut self, bytes: usize) {
        self.mtu = self.mtu.max(bytes.clamp(MTU_MIN, MTU_MAX));
        self.conn.set_path_mtu(bytes);
    }

    pub(super) fn close(&mut self) {
        self.conn.close(CloseReason::Local, &mut self.sink);
        assert_eq!(self.phase(), Phase::Closed);
        self.check();
    }

    /// Rules that hold at any time.
    fn check(&self) {
        match self.phase() {
            Phase::Handshaking => {
                let (next, _) = self.conn.next_timeout().expect("a handshake has a timer");
                let last = self.began_at + self.config.timers.give_up_in_all;
                assert!(next <= last, "a handshake without end");
            }
            Phase::Open => {
                let kind = self.conn.next_timeout().map(|(_, kind)| kind);
                assert!(
                    !matches!(
                        kind,
                        Some(
                            TimerKind::FlightResend
                                | TimerKind::HandshakeGiveUp
                                | TimerKind::AlertGrace
                        )
                    ),
                    "{kind:?}"
                );
            }
            Phase::Closed => assert_eq!(self.conn.next_timeout(), None),
        }
        let [incoming, early] = self.conn.held_bytes();
        assert!(incoming <= ASSOCIATION_REASSEMBLY_BYTES_MAX, "{incoming} bytes of pieces");
        assert!(early <= EARLY_BYTES_MAX, "{early} bytes of early records");
    }

    /// Length of what the peer puts on its records once both have agreed on it.
    pub(super) fn id_length(&self) -> usize {
        self.id_length
    }

    /// What was sent. `id_length` is the peer's.
    pub(super) fn take_datagrams(&mut self, id_length: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some((transmit, bytes)) = self.sink.outbox.front() {
            let size = transmit.segment_size.unwrap_or(bytes.len());
            all.extend(bytes.chunks(size).map(<[u8]>::to_vec));
            self.sink.outbox.pop();
        }
        for datagram in &all {
            self.check_datagram(datagram.clone(), id_length);
        }
        all
    }

    fn check_datagram(&mut self, mut datagram: Vec<u8>, id_length: usize) {
        let length = datagram.len();
        assert!(length <= self.mtu, "{length} bytes, more than {}", self.mtu);
        let mut records = Records::with_id_length(&mut datagram, id_length);
        for record in records.by_ref() {
            let number = (record.epoch, record.sequence);
            assert!(self.numbers.insert(number), "record number {number:?} was used twice");
        }
        assert!(!records.has_rest(), "a datagram that is not made of records");
    }

    /// Takes what happened and holds it against what the peer has sent.
    pub(super) fn take_events(&mut self, sent: &BTreeMap<u64, Vec<u8>>) {
        while let Some((_, event)) = self.sink.poll_event() {
            assert!(self.closed.is_none(), "{event:?} behind the end");
            match event {
                Event::Established(established) => {
                    assert!(self.agreed.is_none(), "opened twice");
                    self.open(*established);
                }
                Event::Message { sequence, data, .. } => {
                    assert!(self.agreed.is_some(), "a message before the handshake is over");
                    assert!(self.received.insert(sequence), "message {sequence} came twice");
                    assert_eq!(
                        sent.get(&sequence).map(Vec::as_slice),
                        Some(&data[..]),
                        "message {sequence} was not sent"
                    );
                }
                Event::PathChanged { .. } => panic!("there is one path"),
                Event::Closed(reason) => self.closed = Some(reason),
            }
        }
        assert_eq!(self.closed.is_some(), self.phase() == Phase::Closed);
        assert!(self.agreed.is_some() || self.phase() != Phase::Open);
    }

    fn open(&mut self, established: Established) {
        let mut exported = [0; 16];
        established.exporter.export("EXPORTER-fuzz", b"context", &mut exported);
        self.agreed = Some(Agreed {
            suite: established.suite,
            resumed: established.resumed,
            extended_master_secret: established.extended_master_secret,
            exported,
        });
        assert!(established.round_trip.is_none_or(|time| time <= Duration::from_secs(120)));
        self.session = established.session;
    }
}

/// Neither end looks at it.
fn address() -> SocketAddr {
    ([192, 0, 2, 1], 4_433).into()
}
