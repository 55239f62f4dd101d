//! A genuine handshake in lock-step, of which every state and every message is kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DATA, Symbol};
use crate::config::{Config, ConnectionIdMode};
use crate::conn::handshake::Role;
use crate::conn::{Admitted, Connection, State, transitions};
use crate::crypto::{CipherSuite, TrafficKey};
use crate::event::{AssociationId, Path, Phase};
use crate::handshake::messages::HelloVerifyRequest;
use crate::handshake::{Message, fragments, write_fragment};
use crate::outbox::Sink;
use crate::record::{CONTENT_BYTES_MAX, ConnectionId, Records, WriteKeys, plaintext};
use crate::resumption::TicketKeys;
use crate::wire::ids::VERSION_1_2;
use crate::wire::{ContentType, HandshakeType};

/// Which handshake it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Full,
    /// After a HelloVerifyRequest.
    WithCookie,
    /// At whose end the server gives a ticket.
    WithTicket,
    Resumed,
}

impl Kind {
    /// What a client waits for.
    pub(super) fn clients_order(self) -> &'static [HandshakeType] {
        match self {
            Self::Full | Self::WithCookie => &[
                HandshakeType::SERVER_HELLO,
                HandshakeType::CERTIFICATE,
                HandshakeType::SERVER_KEY_EXCHANGE,
                HandshakeType::CERTIFICATE_REQUEST,
                HandshakeType::SERVER_HELLO_DONE,
                HandshakeType::FINISHED,
            ],
            Self::WithTicket => &[
                HandshakeType::SERVER_HELLO,
                HandshakeType::CERTIFICATE,
                HandshakeType::SERVER_KEY_EXCHANGE,
                HandshakeType::CERTIFICATE_REQUEST,
                HandshakeType::SERVER_HELLO_DONE,
                HandshakeType::NEW_SESSION_TICKET,
                HandshakeType::FINISHED,
            ],
            Self::Resumed => &[HandshakeType::SERVER_HELLO, HandshakeType::FINISHED],
        }
    }

    /// What a server waits for.
    pub(super) fn servers_order(self) -> &'static [HandshakeType] {
        match self {
            Self::Full | Self::WithCookie | Self::WithTicket => &[
                HandshakeType::CLIENT_HELLO,
                HandshakeType::CERTIFICATE,
                HandshakeType::CLIENT_KEY_EXCHANGE,
                HandshakeType::CERTIFICATE_VERIFY,
                HandshakeType::FINISHED,
            ],
            Self::Resumed => &[HandshakeType::CLIENT_HELLO, HandshakeType::FINISHED],
        }
    }
}

/// Any: whoever gets it only repeats it.
const COOKIE: &[u8] = &[0xc0; 16];
/// Far above the numbers of records that the engine has seen before.
const FIRST_SEQUENCE: u64 = 20;
/// So that no message is cut.
const MTU: usize = 4_096;

/// Type to number, if it has one in this handshake, and body.
type Words = HashMap<HandshakeType, (Option<u16>, Vec<u8>)>;

/// What one side says, in any order.
pub(super) struct Voice {
    words: Words,
    keys: Option<WriteKeys>,
    /// Records already made.
    made: RefCell<HashMap<(Symbol, u16, u64), Vec<u8>>>,
}

impl Voice {
    fn new(words: Words, keys: Option<WriteKeys>) -> Self {
        Self { words, keys, made: RefCell::default() }
    }

    /// True if it has the keys that its peer has.
    pub(super) fn is_authentic(&self) -> bool {
        self.keys.is_some()
    }

    /// As a server speaks to `client`, which has its keys, waits for Finished, and knows what will be
    /// in it.
    pub(super) fn under_keys_of(&self, client: &Connection) -> Self {
        let State::Handshake(handshake) = &client.state else { panic!("no handshake") };
        let (Role::Client(state), Some(keys)) = (&handshake.role, &handshake.core.read) else {
            panic!("no client with keys");
        };
        let mut words = self.words.clone();
        let number = Some(handshake.core.incoming.next_seq());
        words.insert(HandshakeType::FINISHED, (number, state.expected().unwrap().to_vec()));
        Self::new(words, Some(keys.peers_write_keys()))
    }

    /// The number that a message has in the genuine handshake.
    pub(super) fn number(&self, kind: HandshakeType) -> Option<u16> {
        self.words.get(&kind).and_then(|(number, _)| *number)
    }

    /// A datagram of one record, as the `nth` of a sequence.
    pub(super) fn record(&self, symbol: Symbol, number: u16, nth: u64) -> Vec<u8> {
        let made = &mut *self.made.borrow_mut();
        made.entry((symbol, number, nth)).or_insert_with(|| self.make(symbol, number, nth)).clone()
    }

    fn make(&self, symbol: Symbol, number: u16, nth: u64) -> Vec<u8> {
        let (content_type, content) = match symbol {
            Symbol::Handshake { kind, .. } => {
                let body = self.words.get(&kind).map_or(&[0; 4][..], |(_, body)| body.as_slice());
                let message = Message::build(kind, number, |w| w.extend_from_slice(body));
                let mut content = Vec::new();
                write_fragment(&mut content, &message, 0, body.len());
                (ContentType::HANDSHAKE, content)
            }
            Symbol::ChangeCipherSpec { .. } => (ContentType::CHANGE_CIPHER_SPEC, vec![1]),
            Symbol::Alert { level, what, .. } => (ContentType::ALERT, vec![level, what.0]),
            Symbol::Data { .. } | Symbol::DataOfNextEpoch | Symbol::ForgedData => {
                (ContentType::APPLICATION_DATA, DATA.to_vec())
            }
        };
        let (mut record, mut sequence) = (Vec::new(), FIRST_SEQUENCE + nth);
        if !symbol.is_sealed() {
            plaintext(&mut record, content_type, VERSION_1_2, &mut sequence, &content);
            return record;
        }
        let keys = self.keys.clone().filter(|_| symbol != Symbol::ForgedData);
        let mut keys = keys.unwrap_or_else(|| {
            let suite = CipherSuite::Aes128GcmSha256;
            WriteKeys::new(
                TrafficKey::new(suite, &[7; 16], &[7; 4]),
                ConnectionId::EMPTY,
                CONTENT_BYTES_MAX,
            )
        });
        keys.preset_sequence(sequence);
        keys.seal(content_type, &content, &mut record).unwrap();
        if symbol == Symbol::DataOfNextEpoch {
            record[4] = 2;
        }
        record
    }
}

fn path() -> Path {
    std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into()
}

/// The unprotected handshake message of a record, if it is one.
fn message(record: &[u8]) -> Option<Message> {
    let mut copy = record.to_vec();
    let record = Records::new(&mut copy).next()?;
    if record.epoch != 0 || record.content_type != ContentType::HANDSHAKE {
        return None;
    }
    let fragment = fragments(record.body).next()?.ok().filter(|f| f.is_whole())?;
    Some(Message::build(fragment.kind, fragment.message_seq, |w| {
        w.extend_from_slice(fragment.body);
    }))
}

/// The Finished in a protected record to `conn`, if it is protected.
fn finished(conn: &Connection, record: &[u8]) -> Option<Message> {
    let mut copy = record.to_vec();
    let record = Records::new(&mut copy).next().filter(|record| record.epoch > 0)?;
    let State::Handshake(handshake) = &conn.state else { panic!("open already") };
    let mut keys = handshake.core.read.clone().unwrap();
    let opened = keys.open(record).unwrap();
    let fragment = fragments(opened.content).next().unwrap().unwrap();
    assert_eq!(fragment.kind, HandshakeType::FINISHED);
    Some(Message::build(fragment.kind, fragment.message_seq, |w| {
        w.extend_from_slice(fragment.body);
    }))
}

/// One end: all its states, and what it has said.
pub(super) struct End {
    /// By the number of messages that have come; the last is open.
    pub(super) states: Vec<Connection>,
    sink: Sink,
    said: Vec<Message>,
    finished: Option<Message>,
    keys: Option<WriteKeys>,
    /// What it can say without having said it, so without a number.
    foreign: Words,
}

impl End {
    fn new(conn: Connection, sink: Sink) -> Self {
        let (states, said) = (vec![conn], Vec::new());
        Self { states, sink, said, finished: None, keys: None, foreign: Words::new() }
    }

    /// Hands all records that wait to the other end, and keeps what that makes of them.
    fn hand_over(&mut self, now: Instant, to: &mut Self) {
        for mut record in transitions::records(transitions::drain(&mut self.sink)) {
            let mut conn = to.states.last().unwrap().clone();
            let (plain, sealed) = (message(&record), finished(&conn, &record));
            conn.handle_datagram(now, &mut record, &mut to.sink);
            if let State::Handshake(handshake) = &conn.state {
                to.keys = handshake.core.write.clone();
            }
            if plain.is_some() || sealed.is_some() {
                to.states.push(conn);
            }
            self.said.extend(plain);
            if sealed.is_some() {
                self.finished = sealed;
            }
        }
    }

    fn words<'a>(&self, messages: impl IntoIterator<Item = &'a Message>) -> Words {
        let own = |m: &Message| (m.kind, (Some(m.message_seq), m.body().to_vec()));
        self.foreign.clone().into_iter().chain(messages.into_iter().map(own)).collect()
    }

    /// As it speaks once it has its keys.
    pub(super) fn voice(&self) -> Rc<Voice> {
        let words = self.words(self.said.iter().chain(&self.finished));
        Rc::new(Voice::new(words, self.keys.clone()))
    }

    /// As it speaks before.
    pub(super) fn voice_without_keys(&self) -> Rc<Voice> {
        Rc::new(Voice::new(self.words(&self.said), None))
    }
}

/// A handshake between two ends, from hello to open.
pub(super) struct Session {
    pub(super) now: Instant,
    pub(super) client: End,
    pub(super) server: End,
    /// A server that waits for a hello.
    pub(super) without_cookie: Connection,
    /// The number of the server's first message.
    pub(super) first_number: u16,
}

/// What has no place in a handshake between us, but is well-formed.
fn strangers() -> Words {
    let mut request = Vec::new();
    HelloVerifyRequest { cookie: COOKIE }.write(&mut request);
    let ticket = [&[0, 0, 1, 0, 0, 4][..], b"none"].concat();
    let strangers = [
        (HandshakeType::HELLO_REQUEST, vec![]),
        (HandshakeType::HELLO_VERIFY_REQUEST, request),
        (HandshakeType::NEW_SESSION_TICKET, ticket),
    ];
    strangers.map(|(kind, body)| (kind, (None, body))).into()
}

fn config(kind: Kind) -> Arc<Config> {
    // The model reads the types of records, which ids hide.
    let config = Arc::unwrap_or_clone(transitions::config())
        .with_mtu(MTU)
        .with_connection_id(ConnectionIdMode::Off);
    Arc::new(match kind {
        Kind::Full | Kind::WithCookie => config,
        Kind::WithTicket | Kind::Resumed => {
            let keys = Arc::new(TicketKeys::random().unwrap());
            config.with_ticket_keys(keys, Duration::ZERO).asking_for_tickets()
        }
    })
}

impl Session {
    pub(super) fn new(kind: Kind) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
        let now = Instant::now();
        let (config, id, mut sink) = (config(kind), AssociationId::STANDALONE, Sink::default());
        let client = match kind {
            Kind::Resumed => {
                let session = transitions::session(&config);
                Connection::resume(now, id, path(), config.clone(), session, &mut sink)
            }
            _ => Connection::client(now, id, path(), config.clone(), &mut sink),
        };
        let mut client = client.unwrap();
        if kind == Kind::WithCookie {
            let kind = HandshakeType::HELLO_VERIFY_REQUEST;
            let symbol = Symbol::Handshake { kind, sealed: false };
            let mut request = Voice::new(strangers(), None).record(symbol, 0, 0);
            client.handle_datagram(now, &mut request, &mut sink);
        }
        let hello = message(transitions::drain(&mut sink).last().unwrap()).unwrap();
        let first_number = hello.message_seq;
        assert_eq!(first_number > 0, kind == Kind::WithCookie);
        let mut client = End::new(client, sink);
        client.said.push(hello.clone());

        let mut sink = Sink::default();
        let admitted = Admitted { hello, record_sequence: 0, opened: None };
        let server = Connection::server(now, id, path(), config.clone(), None, admitted, &mut sink);
        let mut server = End::new(server, sink);
        if let State::Handshake(handshake) = &server.states[0].state {
            server.keys = handshake.core.write.clone();
        }
        server.hand_over(now, &mut client);
        client.hand_over(now, &mut server);
        server.hand_over(now, &mut client);
        for end in [&client, &server] {
            assert_eq!(end.states.last().unwrap().phase(), Phase::Open);
        }
        // Each can also say what the other said.
        let numberless = |m: &Message| (m.kind, (None, m.body().to_vec()));
        client.foreign =
            strangers().into_iter().chain(server.said.iter().map(numberless)).collect();
        server.foreign =
            strangers().into_iter().chain(client.said.iter().map(numberless)).collect();
        let without_cookie =
            Connection::server_without_cookie(now, id, path(), config, &mut Sink::default());
        Self { now, client, server, without_cookie, first_number }
    }
}
