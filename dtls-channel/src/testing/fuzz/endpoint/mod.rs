//! A server's endpoint before many addresses: honest clients, strangers, and addresses that
//! somebody else writes.

mod client;
mod operation;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};

use self::client::{Client, exported};
use self::operation::{Operation, split_hello};
use super::identity::Identity;
use super::session::ticket_keys;
use crate::config::Config;
use crate::endpoint::{Endpoint, EndpointConfig};
use crate::event::{AssociationId, Event, Phase};
use crate::record::HEADER_LEN;
use crate::testing::AcceptAnyone;

/// One server under a script. Nothing is kept of an address that has not heard an answer, and it is
/// sent no more than came from it, or three times that to learn whether a client has moved there;
/// unless a session began at its host, which may be resumed without a cookie. Caps hold, tables agree
/// with each other, nothing is delivered that no client sent, nothing twice; and when all is over,
/// the next client gets through.
///
/// Layout: operations, see `operation.rs`.
///
/// # Panics
/// When a rule is broken.
pub fn endpoint(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let mut world = World::new();
    while let (false, Ok(operation)) = (input.is_empty(), Operation::arbitrary(&mut input)) {
        world.apply(operation);
    }
    world.heal();
}

const CLIENTS: usize = 5;
/// The first of them are the clients'; the last ones never hear an answer.
const ADDRESSES: usize = 10;
const DEAF: usize = 3;
/// One after the heal.
const FRESH: usize = ADDRESSES;
const ASSOCIATIONS_MAX: usize = 6;
const HALF_OPEN_MAX: usize = 3;
const BAG_DATAGRAMS_MAX: usize = 48;
const ROUNDS_MAX: usize = 60;
/// How often a client says something until the server must have followed it, and when.
const MOVES_MAX: usize = 6;
const MOVE_INTERVAL: Duration = Duration::from_secs(20);
/// Longer than any handshake lasts.
const HANDSHAKE_MAX: Duration = Duration::from_secs(400);

struct World {
    now: Instant,
    server: Endpoint,
    client_config: Arc<Config>,
    clients: [Option<Client>; CLIENTS],
    /// Where each client is.
    places: [usize; CLIENTS],
    /// On the way to the server: (sender's address, datagram).
    up: VecDeque<(usize, Vec<u8>)>,
    /// On the way from the server: (address, datagram).
    down: VecDeque<(usize, Vec<u8>)>,
    traffic: [Traffic; ADDRESSES + 1],
    associations: BTreeMap<AssociationId, Association>,
    /// Where sessions began.
    session_hosts: BTreeSet<IpAddr>,
    /// What the server has ever agreed on with anybody, and the clients.
    agreed: BTreeSet<[u8; 16]>,
    clients_agreed: BTreeSet<[u8; 16]>,
    /// Counts the clients, so that each says something else.
    born: u32,
}

#[derive(Default)]
struct Traffic {
    /// What may be sent there, by what came from there, and what was.
    allowance: usize,
    bytes_out: usize,
    /// True once anything from the server was delivered there.
    has_heard: bool,
}

/// The server's side of one.
#[derive(Default)]
struct Association {
    /// Once it is open, what it agreed on.
    agreed: Option<[u8; 16]>,
    is_over: bool,
    received: BTreeSet<u64>,
}

/// Each has its port in common with some others, and its IP address with one.
fn address(place: usize) -> SocketAddr {
    ([10, 0, 0, (place / 2) as u8], 1_000 + (place % 2) as u16).into()
}

fn place(address: SocketAddr) -> usize {
    (0..=ADDRESSES).find(|place| self::address(*place) == address).expect("an address of ours")
}

fn server_address() -> SocketAddr {
    ([192, 0, 2, 1], 4_433).into()
}

impl World {
    fn new() -> Self {
        #[allow(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
        let now = Instant::now();
        let server = Config::new(Identity::Server.credentials(), Arc::new(AcceptAnyone))
            .with_ticket_keys(Arc::new(ticket_keys()), Duration::from_secs(3_600));
        let config = EndpointConfig {
            server: Some(Arc::new(server)),
            associations_max: ASSOCIATIONS_MAX,
            half_open_max: HALF_OPEN_MAX,
            ..EndpointConfig::default()
        };
        let client = Config::new(Identity::Client.credentials(), Arc::new(AcceptAnyone))
            .asking_for_tickets();
        Self {
            now,
            server: Endpoint::new(now, config).expect("randomness"),
            client_config: Arc::new(client),
            clients: Default::default(),
            places: std::array::from_fn(|n| n),
            up: VecDeque::new(),
            down: VecDeque::new(),
            traffic: Default::default(),
            associations: BTreeMap::new(),
            session_hosts: BTreeSet::new(),
            agreed: BTreeSet::new(),
            clients_agreed: BTreeSet::new(),
            born: 0,
        }
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Connect(client) => self.connect(client % CLIENTS),
            Operation::Up(choice) => {
                if let Some((from, datagram)) = take(&mut self.up, choice) {
                    self.reach_server(from, datagram);
                }
            }
            Operation::Down(choice) => {
                if let Some((to, datagram)) = take(&mut self.down, choice) {
                    self.reach_client(to, datagram);
                }
            }
            Operation::Exchange => self.exchange(),
            Operation::Repeat(choice) => {
                if let Some((from, datagram)) = copy(&self.up, choice) {
                    self.reach_server(from, datagram);
                }
            }
            Operation::Spoof(choice, from) => {
                if let Some((_, datagram)) = copy(&self.up, choice) {
                    self.reach_server(from % ADDRESSES, datagram);
                }
            }
            Operation::Bend { choice, from, at, flip } => {
                if let Some((own, mut datagram)) = copy(&self.up, choice) {
                    let at = usize::from(at) % datagram.len();
                    datagram[at] ^= flip.max(1);
                    let spoofed = from & 0x80 != 0;
                    let from = usize::from(from & 0x7f) % ADDRESSES;
                    self.reach_server(if spoofed { from } else { own }, datagram);
                }
            }
            Operation::Split(choice, size) => {
                if let Some((from, datagram)) = take(&mut self.up, choice) {
                    let pieces = split_hello(&datagram, size).into_iter();
                    self.up.extend(pieces.map(|piece| (from, piece)));
                }
            }
            Operation::Lose(choice) => {
                // Of both directions, one counter.
                let which = usize::from(choice) % (self.up.len() + self.down.len()).max(1);
                match which.checked_sub(self.up.len()) {
                    None => drop(self.up.remove(which)),
                    Some(which) => drop(self.down.remove(which)),
                }
            }
            Operation::Raw(from, datagram) => self.reach_server(from % ADDRESSES, datagram),
            Operation::Advance(duration) => self.advance(duration),
            Operation::NextTimer => self.next_timer(),
            Operation::ClientSends(client, length) => {
                if let Some(client) = &mut self.clients[client % CLIENTS] {
                    client.send(length);
                }
            }
            Operation::ServerSends(choice, length) => {
                if let Some(id) = self.open_association(choice) {
                    let limit = self.server.message_size_max(id);
                    let sent = self.server.send(id, &vec![0xee; length]);
                    assert_eq!(sent.is_ok(), length <= limit, "{sent:?}");
                }
            }
            Operation::ClientCloses(client) => {
                if let Some(client) = &mut self.clients[client % CLIENTS] {
                    client.close();
                }
            }
            Operation::ServerCloses(choice) => {
                if let Some(id) = self.open_association(choice) {
                    self.server.close(id);
                }
            }
            Operation::Move(client, place) => {
                self.places[client % CLIENTS] = place % (ADDRESSES - DEAF);
            }
        }
        self.settle();
    }

    fn connect(&mut self, client: usize) {
        let before = self.clients[client].take();
        let session = before.and_then(|client| client.session);
        self.born += 1;
        let config = self.client_config.clone();
        let fresh = Client::new(self.now, self.born, config, session);
        self.clients[client] = Some(fresh);
    }

    /// A datagram reaches the server. Before an address has heard anything it can have no cookie, so
    /// it gets no more than it sent.
    fn reach_server(&mut self, from: usize, mut datagram: Vec<u8>) {
        // RFC 9853 allows a check of an address three times what came from there.
        let is_protected = has_protected_record(&datagram);
        let allowance = datagram.len() * if is_protected { 3 } else { 1 };
        self.traffic[from].allowance += allowance;
        let before = self.server.stats().bytes_out;
        let path = address(from).into();
        self.server.handle_datagram(self.now, path, &mut datagram);
        let answered = (self.server.stats().bytes_out - before) as usize;
        if !self.traffic[from].has_heard && !is_protected {
            assert!(answered <= allowance, "{answered} bytes in answer to {allowance}");
        }
        self.settle();
    }

    /// A datagram reaches whoever is at an address, or nobody.
    fn reach_client(&mut self, to: usize, datagram: Vec<u8>) {
        let now = self.now;
        for (client, _) in self.clients.iter_mut().zip(self.places).filter(|(_, at)| *at == to) {
            if let Some(client) = client {
                self.traffic[to].has_heard = true;
                client.handle_datagram(now, datagram.clone());
            }
        }
        self.settle();
    }

    fn open_association(&self, choice: u8) -> Option<AssociationId> {
        let open: Vec<_> =
            self.associations.iter().filter(|(_, a)| a.agreed.is_some() && !a.is_over).collect();
        let at = usize::from(choice).checked_rem(open.len())?;
        Some(*open[at].0)
    }

    fn exchange(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.up.is_empty() && self.down.is_empty() {
                return;
            }
            for _ in 0..self.up.len() {
                self.apply(Operation::Up(0));
            }
            for _ in 0..self.down.len() {
                self.apply(Operation::Down(0));
            }
        }
        panic!("server and clients answer each other for ever");
    }

    fn next_timeout(&self) -> Option<Instant> {
        let clients = self.clients.iter().flatten().filter_map(Client::next_timeout);
        clients.chain(self.server.next_timeout()).min()
    }

    fn next_timer(&mut self) {
        if let Some(at) = self.next_timeout() {
            self.now = self.now.max(at);
            self.server.handle_timeout(self.now);
            let next = self.server.next_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a timer that does not move");
            for client in self.clients.iter_mut().flatten() {
                client.handle_timeout(self.now);
            }
            self.settle();
        }
    }

    fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.next_timeout().is_some_and(|at| at <= end) {
            self.next_timer();
        }
        self.now = end;
    }

    /// Moves what was sent into the bags, holds events against what was sent, checks the rules.
    fn settle(&mut self) {
        while let Some((transmit, bytes)) = self.server.outbox().front() {
            let to = place(transmit.destination);
            self.traffic[to].bytes_out += bytes.len();
            let size = transmit.segment_size.unwrap_or(bytes.len());
            self.down.extend(bytes.chunks(size).map(|datagram| (to, datagram.to_vec())));
            self.server.outbox().pop();
        }
        for (client, place) in self.clients.iter_mut().zip(self.places) {
            if let Some(client) = client {
                self.up.extend(client.take_datagrams().into_iter().map(|d| (place, d)));
                client.take_events();
            }
        }
        for bag in [&mut self.up, &mut self.down] {
            bag.drain(..bag.len().saturating_sub(BAG_DATAGRAMS_MAX));
        }
        let opened = self.clients.iter().flatten().filter_map(|client| client.agreed);
        self.clients_agreed.extend(opened);
        self.take_events();
        for client in self.clients.iter().flatten() {
            assert!(
                client.resumed || client.agreed.is_none_or(|agreed| self.agreed.contains(&agreed)),
                "a client opened with somebody who is not the server"
            );
        }
        self.server.check_tables();
        let unproved = |(at, traffic): &(usize, &Traffic)| {
            !traffic.has_heard && !self.session_hosts.contains(&address(*at).ip())
        };
        for (at, traffic) in self.traffic.iter().enumerate().filter(unproved) {
            assert!(traffic.bytes_out <= traffic.allowance, "more for {at} than from it");
            assert!(!self.server.remembers(address(at)), "{at} has no cookie");
        }
    }

    fn take_events(&mut self) {
        while let Some((id, event)) = self.server.poll_event() {
            let association = self.associations.entry(id).or_default();
            assert!(!association.is_over, "{event:?} behind the end of {id}");
            match event {
                Event::Established(established) => {
                    assert!(established.incoming);
                    let exported = exported(&established);
                    assert!(
                        !established.resumed || self.clients_agreed.contains(&exported),
                        "resumed with somebody who is no client"
                    );
                    assert_eq!(association.agreed.replace(exported), None, "opened twice");
                    self.agreed.insert(exported);
                    if !established.resumed {
                        assert!(self.traffic[place(established.remote)].has_heard);
                        self.session_hosts.insert(established.remote.ip());
                    }
                }
                Event::Message { sequence, data, .. } => {
                    assert!(association.agreed.is_some(), "a message before {id} is open");
                    assert!(association.received.insert(sequence), "{sequence} came twice");
                    let sent = self.clients.iter().flatten().any(|c| c.has_sent(sequence, &data));
                    // Of a client that is gone nothing is known any more but its mark.
                    assert!(sent || client::is_marked(&data, self.born), "{data:02x?} of nobody");
                }
                Event::PathChanged { new, .. } => {
                    assert!(association.agreed.is_some(), "{id} moves before it is open");
                    assert!(self.traffic[place(new)].has_heard, "{new} was not asked");
                }
                Event::Closed(_) => association.is_over = true,
            }
        }
    }

    /// The network is well from here on.
    fn heal(&mut self) {
        (self.up, self.down) = Default::default();
        self.exchange();
        self.advance(HANDSHAKE_MAX);
        self.reach_everybody();
        self.let_the_next_one_in();
    }

    /// Whatever was forged and wherever clients have gone: what is open carries messages both ways,
    /// a while after the client has shown itself.
    fn reach_everybody(&mut self) {
        for _ in 0..MOVES_MAX {
            (0..CLIENTS).for_each(|client| self.apply(Operation::ClientSends(client, 1)));
            let end = self.now + MOVE_INTERVAL;
            self.exchange();
            while self.next_timeout().is_some_and(|at| at <= end) {
                self.next_timer();
                self.exchange();
            }
            self.now = end;
        }
        for client in 0..CLIENTS {
            let Some((agreed, heard)) = self.open_client(client) else { continue };
            let mut open = self.associations.iter().filter(|(_, a)| !a.is_over);
            let Some((&id, association)) = open.find(|(_, a)| a.agreed == Some(agreed)) else {
                continue;
            };
            let said = association.received.len();
            assert!(self.server.send(id, &[0xee]).is_ok(), "{id} cannot send");
            self.apply(Operation::ClientSends(client, 1));
            self.exchange();
            assert_eq!(self.associations[&id].received.len(), said + 1, "{id} hears nothing");
            let now = self.open_client(client).map(|(_, heard)| heard);
            assert_eq!(now, Some(heard + 1), "the client of {id} hears nothing");
        }
    }

    fn open_client(&self, client: usize) -> Option<([u8; 16], usize)> {
        let client = self.clients[client].as_ref().filter(|c| c.phase() == Phase::Open)?;
        client.agreed.map(|agreed| (agreed, client.heard))
    }

    /// When all that was under way has ended, the next client opens.
    fn let_the_next_one_in(&mut self) {
        self.clients = Default::default();
        (self.up, self.down) = Default::default();
        assert_eq!(self.server.half_open(), 0, "a handshake that does not end");
        while self.server.associations() >= ASSOCIATIONS_MAX {
            self.apply(Operation::ServerCloses(0));
        }
        self.down.clear();
        self.places[0] = FRESH;
        self.connect(0);
        self.settle();
        self.exchange();
        let client = self.clients[0].as_ref().map(Client::phase);
        assert_eq!(client, Some(Phase::Open), "{:?}", self.server.stats());
        let heard: usize = self.associations.values().map(|a| a.received.len()).sum();
        self.apply(Operation::ClientSends(0, 9));
        self.exchange();
        let now_heard: usize = self.associations.values().map(|a| a.received.len()).sum();
        assert_eq!(now_heard, heard + 1, "lost on a good network");
    }
}

/// Whether any record of a datagram is of an epoch with keys, such as Finished behind ChangeCipherSpec.
fn has_protected_record(mut datagram: &[u8]) -> bool {
    while let Some((header, rest)) = datagram.split_at_checked(HEADER_LEN) {
        if header[3..5] != [0, 0] {
            return true;
        }
        let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        datagram = rest.get(length..).unwrap_or_default();
    }
    false
}

fn take(bag: &mut VecDeque<(usize, Vec<u8>)>, choice: u8) -> Option<(usize, Vec<u8>)> {
    let at = usize::from(choice).checked_rem(bag.len())?;
    bag.remove(at)
}

fn copy(bag: &VecDeque<(usize, Vec<u8>)>, choice: u8) -> Option<(usize, Vec<u8>)> {
    let at = usize::from(choice).checked_rem(bag.len())?;
    bag.get(at).cloned()
}
