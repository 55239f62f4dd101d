//! Every pair and triple of records in every state of both roles, each time in a fresh copy of that
//! state: what a learner of state machines (DTLS-Fuzzer, USENIX Security 2020) would try.
//!
//! The records are those of a genuine handshake, made in lock-step with a genuine peer and under its
//! keys, so that only their order can be wrong. The [`model`] says after each record in which state
//! the engine must be, what it must have counted, and how many messages it may have delivered.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod model;
mod session;

use std::rc::Rc;
use std::time::Instant;

use model::Model;
use session::{Kind, Session, Voice};

use super::open::{FATAL, WARNING};
use super::transitions;
use super::{Connection, State};
use crate::event::{Event, Phase};
use crate::outbox::Sink;
use crate::stats::DropCause;
use crate::wire::{AlertDescription, HandshakeType};

/// How long a sequence of records is.
const RECORDS: usize = 3;
/// What the application data records hold.
const DATA: &[u8] = b"not before both Finished";

/// A record that the peer, or somebody in its name, can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Symbol {
    Handshake {
        kind: HandshakeType,
        sealed: bool,
    },
    ChangeCipherSpec {
        sealed: bool,
    },
    Alert {
        level: u8,
        what: AlertDescription,
        sealed: bool,
    },
    Data {
        sealed: bool,
    },
    /// Under the right key, but of an epoch that never comes.
    DataOfNextEpoch,
    /// Of the right epoch, under another key.
    ForgedData,
}

/// No such types.
const UNKNOWN_KINDS: [HandshakeType; 2] = [HandshakeType(25), HandshakeType(255)];

fn symbols() -> Vec<Symbol> {
    let mut symbols = vec![Symbol::DataOfNextEpoch, Symbol::ForgedData];
    for sealed in [false, true] {
        let kinds = transitions::KINDS.into_iter().chain(UNKNOWN_KINDS);
        symbols.extend(kinds.map(|kind| Symbol::Handshake { kind, sealed }));
        symbols.extend([Symbol::ChangeCipherSpec { sealed }, Symbol::Data { sealed }]);
        let alerts = [
            (WARNING, AlertDescription::USER_CANCELED),
            (WARNING, AlertDescription::CLOSE_NOTIFY),
            (FATAL, AlertDescription::HANDSHAKE_FAILURE),
        ];
        symbols.extend(alerts.map(|(level, what)| Symbol::Alert { level, what, sealed }));
    }
    symbols
}

/// Which `message_seq` a handshake message comes with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Numbers {
    /// That of the genuine handshake, so that a wrong order is a reordering; what has no place in
    /// it takes the number that is due.
    Genuine,
    /// The one that is due, so that only the order is wrong.
    Due,
}

/// A state, what the model says of it, and the peer who speaks to it.
#[derive(Clone)]
struct Node {
    conn: Connection,
    model: Model,
    voice: Rc<Voice>,
}

struct Walk {
    now: Instant,
    numbers: Numbers,
    symbols: Vec<Symbol>,
    /// What is missing where the walk begins.
    required: &'static [HandshakeType],
    sequences: usize,
    opened: usize,
}

impl Walk {
    /// All sequences of records that begin with `path`, which has led to `node`.
    fn from(&mut self, node: &Node, path: &mut Vec<Symbol>) {
        for nth in 0..self.symbols.len() {
            let mut next = node.clone();
            path.push(self.symbols[nth]);
            self.feed(&mut next, path);
            match next.conn.phase() {
                _ if path.len() == RECORDS => {}
                Phase::Closed => self.nothing_revives(&mut next, path),
                Phase::Handshaking | Phase::Open => self.from(&next, path),
            }
            path.pop();
        }
    }

    /// What is closed has no state left, so one copy will do.
    fn nothing_revives(&mut self, node: &mut Node, path: &mut Vec<Symbol>) {
        for nth in 0..self.symbols.len() {
            path.push(self.symbols[nth]);
            self.feed(node, path);
            path.pop();
        }
    }

    fn feed(&mut self, node: &mut Node, path: &[Symbol]) {
        let symbol = path[path.len() - 1];
        let number = match (symbol, self.numbers) {
            (Symbol::Handshake { kind, .. }, Numbers::Genuine) => node.voice.number(kind),
            _ => None,
        };
        let number = number.unwrap_or_else(|| node.model.next());
        let mut datagram = node.voice.record(symbol, number, path.len() as u64);
        let (was_open, delivered) = (node.model.is_open(), node.model.delivered());
        let drops = node.model.feed(symbol, number, node.voice.is_authentic());
        let mut sink = Sink::default();
        node.conn.handle_datagram(self.now, &mut datagram, &mut sink);
        self.sequences += 1;

        let state = state_name(&node.conn);
        assert_eq!(state, node.model.state(), "{:?}: {path:?}", self.numbers);
        let counted = |cause: &DropCause| sink.stats.drops.get(*cause);
        assert!(
            sink.stats.drops.total() == drops.len() as u64 && drops.iter().all(|c| counted(c) >= 1),
            "{:?}: {path:?}: {:?} instead of {drops:?}",
            self.numbers,
            sink.stats.drops,
        );
        let (mut established, mut messages, mut closed) = (0, 0, 0);
        while let Some((_, event)) = sink.poll_event() {
            match event {
                Event::Established(_) => established += 1,
                Event::Message { data, .. } => {
                    assert_eq!(&data[..], DATA);
                    messages += 1;
                }
                Event::Closed(_) => closed += 1,
                Event::PathChanged { .. } => panic!("there is one path: {path:?}"),
            }
        }
        let opens = !was_open && node.model.is_open();
        assert_eq!(established, u32::from(opens), "{path:?}");
        assert_eq!(messages, node.model.delivered() - delivered, "{path:?}");
        assert_eq!(closed, u32::from(state == "Closed" && drops != [DropCause::Closed]));
        assert!(messages == 0 || node.conn.phase() == Phase::Open, "{path:?}");
        if opens {
            self.opened += 1;
            // Whatever the model says: without all of these nothing may open.
            assert!(self.required.iter().all(|kind| {
                let sealed = *kind == HandshakeType::FINISHED;
                path.contains(&Symbol::Handshake { kind: *kind, sealed })
            }));
        }
        let is_client = node.model.is_client();
        if is_client && node.model.has_fresh_keys() && !node.voice.is_authentic() {
            // It has chosen its keys just now, so there was no genuine server for them.
            node.voice = Rc::new(node.voice.under_keys_of(&node.conn));
            node.model.set_converged();
        }
    }
}

fn state_name(conn: &Connection) -> &'static str {
    match &conn.state {
        State::Handshake(handshake) => handshake.state_name(),
        State::Open(_) => "Open",
        State::Closed => "Closed",
    }
}

/// Walks from every state in `nodes`; each that lacks no more than three messages must have been
/// opened by somebody, and no other.
fn walk(numbers: Numbers, now: Instant, nodes: Vec<Node>) {
    for node in nodes {
        let required = node.model.missing();
        let mut walk = Walk { now, numbers, symbols: symbols(), required, sequences: 0, opened: 0 };
        assert_eq!(state_name(&node.conn), node.model.state());
        walk.from(&node, &mut Vec::new());
        eprintln!(
            "{numbers:?}, from {}: {} records in sequences, {} opened",
            node.model.state(),
            walk.sequences,
            walk.opened
        );
        let has_opener = node.model.is_client() || node.voice.is_authentic();
        assert_eq!(
            walk.opened > 0,
            has_opener && (1..=RECORDS).contains(&required.len()),
            "from {}",
            node.model.state()
        );
    }
}

fn clients(numbers: Numbers, kind: Kind) {
    let session = Session::new(kind);
    let order = kind.clients_order();
    // Only those that differ from a full handshake's.
    let states = match kind {
        Kind::Full | Kind::Resumed => 0..=order.len(),
        Kind::WithCookie => 0..=0,
        Kind::WithTicket => 4..=order.len(),
    };
    let nodes = states.map(|stage| {
        // There are no keys before the client has sent its flight, unless they are resumed.
        let keys =
            kind == Kind::Resumed || order[..stage].contains(&HandshakeType::SERVER_HELLO_DONE);
        let server = &session.server;
        Node {
            conn: session.client.states[stage].clone(),
            model: Model::client(order, stage, session.first_number, kind == Kind::WithCookie),
            voice: if keys { server.voice() } else { server.voice_without_keys() },
        }
    });
    walk(numbers, session.now, nodes.collect());
}

fn servers(numbers: Numbers, kind: Kind) {
    let session = Session::new(kind);
    let order = kind.servers_order();
    let mut nodes: Vec<Node> = session
        .server
        .states
        .iter()
        .enumerate()
        .map(|(stage, conn)| Node {
            conn: conn.clone(),
            // The hello that began it is not among its messages.
            model: Model::server(&order[1..], stage, 1),
            voice: session.client.voice(),
        })
        .collect();
    nodes.push(Node {
        conn: session.without_cookie.clone(),
        model: Model::server(order, 0, 0),
        // It chooses its random when it answers, so nobody has the keys.
        voice: session.client.voice_without_keys(),
    });
    walk(numbers, session.now, nodes);
}

#[test]
fn a_client_opens_by_the_right_order_alone_whatever_is_reordered_or_thrown_in() {
    clients(Numbers::Genuine, Kind::Full);
    clients(Numbers::Genuine, Kind::WithCookie);
}

#[test]
fn a_client_opens_by_the_right_order_alone_whatever_the_numbers_pretend() {
    clients(Numbers::Due, Kind::Full);
    clients(Numbers::Due, Kind::WithCookie);
}

#[test]
fn a_client_that_gets_a_ticket_opens_by_the_right_order_alone() {
    clients(Numbers::Genuine, Kind::WithTicket);
    clients(Numbers::Due, Kind::WithTicket);
}

#[test]
fn a_client_that_resumes_opens_by_the_right_order_alone() {
    clients(Numbers::Genuine, Kind::Resumed);
    clients(Numbers::Due, Kind::Resumed);
}

#[test]
fn a_server_opens_by_the_right_order_alone_whatever_is_reordered_or_thrown_in() {
    servers(Numbers::Genuine, Kind::Full);
}

#[test]
fn a_server_opens_by_the_right_order_alone_whatever_the_numbers_pretend() {
    servers(Numbers::Due, Kind::Full);
}

#[test]
fn a_server_that_resumes_opens_by_the_right_order_alone() {
    servers(Numbers::Genuine, Kind::Resumed);
    servers(Numbers::Due, Kind::Resumed);
}
