//! Every state with every message: which one goes on, and how the others end. The snapshot is the
//! picture of the state machines.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use super::handshake::Handshake;
use super::{Admitted, Connection};
use crate::config::Config;
use crate::crypto::Credentials;
use crate::error::CloseReason;
use crate::event::{AssociationId, Event, Phase};
use crate::handshake::{Message, fragments, write_fragment};
use crate::outbox::Sink;
use crate::record::{Records, plaintext};
use crate::resumption::{Session, TicketKeys};
use crate::testing::AcceptAnyone;
use crate::wire::ids::VERSION_1_2;
use crate::wire::{ContentType, HandshakeType};

pub(super) const KINDS: [HandshakeType; 12] = [
    HandshakeType::HELLO_REQUEST,
    HandshakeType::CLIENT_HELLO,
    HandshakeType::SERVER_HELLO,
    HandshakeType::HELLO_VERIFY_REQUEST,
    HandshakeType::NEW_SESSION_TICKET,
    HandshakeType::CERTIFICATE,
    HandshakeType::SERVER_KEY_EXCHANGE,
    HandshakeType::CERTIFICATE_REQUEST,
    HandshakeType::SERVER_HELLO_DONE,
    HandshakeType::CERTIFICATE_VERIFY,
    HandshakeType::CLIENT_KEY_EXCHANGE,
    HandshakeType::FINISHED,
];

pub(super) fn config() -> Arc<Config> {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    let credentials =
        Credentials::from_der(certificate.der().to_vec(), &key.serialize_der()).unwrap();
    Arc::new(Config::new(credentials, Arc::new(AcceptAnyone)))
}

/// A client and a server without a network, fed one handshake message at a time.
struct Pair {
    now: Instant,
    client: Connection,
    server: Option<Connection>,
    client_sink: Sink,
    server_sink: Sink,
    config: Arc<Config>,
}

fn id() -> AssociationId {
    AssociationId { index: 0, generation: 1 }
}

fn path() -> crate::event::Path {
    std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into()
}

/// The datagrams that wait in a sink.
pub(super) fn drain(sink: &mut Sink) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((transmit, bytes)) = sink.outbox.front() {
        let size = transmit.segment_size.unwrap_or(bytes.len());
        out.extend(bytes.chunks(size).map(<[u8]>::to_vec));
        sink.outbox.pop();
    }
    out
}

/// The records of some datagrams, one datagram each.
pub(super) fn records(datagrams: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for mut datagram in datagrams {
        out.extend(Records::new(&mut datagram).map(|r| r.to_bytes()));
    }
    out
}

impl Pair {
    fn new(config: &Arc<Config>) -> Self {
        Self::with(config, None)
    }

    fn with(config: &Arc<Config>, session: Option<Session>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
        let now = Instant::now();
        let mut sink = Sink::default();
        let client = match session {
            None => Connection::client(now, id(), path(), config.clone(), &mut sink),
            Some(s) => Connection::resume(now, id(), path(), config.clone(), s, &mut sink),
        };
        let (client, client_sink) = (client.unwrap(), sink);
        let server_sink = Sink::default();
        Self { now, client, server: None, client_sink, server_sink, config: config.clone() }
    }

    /// Hands the client's hello to a new server, as an endpoint does after the cookie.
    fn begin_server(&mut self) {
        let hello = drain(&mut self.client_sink).remove(0);
        let mut copy = hello;
        let record = Records::new(&mut copy).next().unwrap();
        let fragment = fragments(record.body).next().unwrap().unwrap();
        let hello = Message::build(fragment.kind, 0, |w| w.extend_from_slice(fragment.body));
        let (config, sink) = (self.config.clone(), &mut self.server_sink);
        let admitted = Admitted { hello, record_sequence: 0, opened: None };
        self.server =
            Some(Connection::server(self.now, id(), path(), config, None, admitted, sink));
    }
}

impl Pair {
    /// Hands over `count` records of the server's flight that waits.
    fn hand_to_client(&mut self, count: usize) {
        for mut record in records(drain(&mut self.server_sink)).into_iter().take(count) {
            self.client.handle_datagram(self.now, &mut record, &mut self.client_sink);
        }
    }

    fn hand_to_server(&mut self, count: usize) {
        let server = self.server.as_mut().unwrap();
        for mut record in records(drain(&mut self.client_sink)).into_iter().take(count) {
            server.handle_datagram(self.now, &mut record, &mut self.server_sink);
        }
    }
}

/// What a full handshake leaves behind.
pub(super) fn session(config: &Arc<Config>) -> Session {
    let mut pair = Pair::new(config);
    pair.begin_server();
    pair.hand_to_client(5);
    pair.hand_to_server(5);
    pair.hand_to_client(3);
    match pair.client_sink.poll_event() {
        Some((_, Event::Established(established))) => established.session.unwrap(),
        other => panic!("{other:?}"),
    }
}

fn state_name(conn: &Connection) -> String {
    match &conn.state {
        super::State::Handshake(handshake) => handshake.state_name().into(),
        super::State::Open(_) => "Open".into(),
        super::State::Closed => "Closed".into(),
    }
}

impl Handshake {
    pub(super) fn state_name(&self) -> &'static str {
        match &self.role {
            super::handshake::Role::Client(state) => state.expects(),
            super::handshake::Role::Server(state) => state.expects(),
            super::handshake::Role::Moving => "Failed",
        }
    }

    fn next_in(&self) -> u16 {
        self.core.incoming.next_seq()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Client,
    Server,
    /// Begun without a hello, so it waits for that first.
    ServerWithoutCookie,
    /// Has said everything, and has been promised a ticket.
    ClientPromisedATicket,
    ResumingClient,
    ResumingServer,
}

/// One side of a handshake, waiting for the `nth` message of its peer's flight.
fn waiting(config: &Arc<Config>, who: Who, nth: usize) -> (Instant, Connection, Sink) {
    let mut pair = Pair::new(config);
    if who == Who::ServerWithoutCookie {
        let (now, config, mut sink) = (pair.now, config.clone(), pair.server_sink);
        let server = Connection::server_without_cookie(now, id(), path(), config, &mut sink);
        return (now, server, sink);
    }
    if matches!(who, Who::ResumingClient | Who::ResumingServer) {
        pair = Pair::with(config, Some(session(config)));
    }
    pair.begin_server();
    match who {
        Who::Client | Who::ResumingClient => pair.hand_to_client(nth),
        Who::Server | Who::ResumingServer => {
            pair.hand_to_client(usize::MAX);
            pair.hand_to_server(nth);
        }
        Who::ClientPromisedATicket => {
            pair.hand_to_client(usize::MAX);
            pair.hand_to_server(usize::MAX);
            pair.hand_to_client(nth);
        }
        Who::ServerWithoutCookie => unreachable!("returned above"),
    }
    match who {
        Who::Server | Who::ResumingServer => (pair.now, pair.server.unwrap(), pair.server_sink),
        _ => (pair.now, pair.client, pair.client_sink),
    }
}

#[test]
fn each_state_takes_its_own_message_and_no_other() {
    let config = config();
    let mut picture = String::new();
    let keys = Arc::new(TicketKeys::random().unwrap());
    let resuming = Config::clone(&config).with_ticket_keys(keys, std::time::Duration::ZERO);
    let resuming = Arc::new(resuming.asking_for_tickets());
    let sides = [
        ("client", Who::Client, 6, &config),
        ("server", Who::Server, 4, &config),
        ("server without cookie", Who::ServerWithoutCookie, 1, &config),
        ("client that was promised a ticket", Who::ClientPromisedATicket, 2, &resuming),
        ("resuming client", Who::ResumingClient, 2, &resuming),
        ("resuming server", Who::ResumingServer, 1, &resuming),
    ];
    for (role, who, states, config) in sides {
        for nth in 0..states {
            let (_, conn, _) = waiting(config, who, nth);
            writeln!(picture, "{role} awaits {}", state_name(&conn)).unwrap();
            for kind in KINDS {
                let (now, mut conn, mut sink) = waiting(config, who, nth);
                drain(&mut sink);
                while sink.poll_event().is_some() {}
                let seq = match &conn.state {
                    super::State::Handshake(handshake) => handshake.next_in(),
                    _ => unreachable!("still in the handshake"),
                };
                // An empty body: the right message fails on its content, a wrong one on its kind.
                let message = Message::build(kind, seq, |_| {});
                let (mut body, mut datagram) = (Vec::new(), Vec::new());
                write_fragment(&mut body, &message, 0, 0);
                plaintext(&mut datagram, ContentType::HANDSHAKE, VERSION_1_2, &mut 90, &body);
                conn.handle_datagram(now, &mut datagram, &mut sink);
                let outcome = match sink.poll_event() {
                    Some((_, Event::Closed(reason))) => format!("closed: {reason}"),
                    Some((_, event)) => format!("{event:?}"),
                    None if sink.stats.drops.total() > 0 => {
                        format!("dropped {:?}", sink.stats.drops)
                    }
                    None => format!("awaits {}", state_name(&conn)),
                };
                assert_ne!(conn.phase(), Phase::Open, "{role} {nth} {kind:?}");
                writeln!(picture, "    {kind:?} -> {outcome}").unwrap();
            }
        }
    }
    insta::assert_snapshot!(picture);
}

#[test]
fn any_record_left_out_of_the_peers_flight_keeps_the_association_from_opening() {
    let config = config();
    for left_out in 0..5 {
        let mut pair = Pair::new(&config);
        pair.begin_server();
        let mut server = pair.server.take().unwrap();
        for mut record in records(drain(&mut pair.server_sink)) {
            pair.client.handle_datagram(pair.now, &mut record, &mut pair.client_sink);
        }
        // Certificate, ClientKeyExchange, CertificateVerify, ChangeCipherSpec, Finished.
        for (n, mut record) in records(drain(&mut pair.client_sink)).into_iter().enumerate() {
            if n != left_out {
                server.handle_datagram(pair.now, &mut record, &mut pair.server_sink);
            }
        }
        // The change of cipher is read off the records' epoch, so its loss alone does no harm.
        let expected = if left_out == 3 { Phase::Open } else { Phase::Handshaking };
        assert_eq!(server.phase(), expected, "without record {left_out}");
    }
}

/// The runner's `TrailingMessageData-ClientFinished` and `WrongMessageType-ClientFinished`.
#[test]
fn an_alert_is_protected_only_after_our_own_change_of_keys() {
    let config = config();
    // All of the client's flight but Finished.
    let (_, mut server, mut to_client) = waiting(&config, Who::Server, 4);
    drain(&mut to_client);
    assert_eq!(state_name(&server), "Finished");
    server.close(CloseReason::Local, &mut to_client);
    assert_eq!(drain(&mut to_client)[0][..5], [21, 0xfe, 0xfd, 0, 0], "epoch 0");
    // The client's Finished was the first record under its keys.
    let (_, mut client, mut to_server) = waiting(&config, Who::Client, 5);
    drain(&mut to_server);
    assert_eq!(state_name(&client), "Finished");
    client.close(CloseReason::Local, &mut to_server);
    assert_eq!(drain(&mut to_server)[0][..5], [21, 0xfe, 0xfd, 0, 1], "epoch 1");
}
