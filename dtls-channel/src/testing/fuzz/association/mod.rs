//! Both ends of an association, and everything a network and an attacker on it can do.

mod end;
mod operation;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};

use self::end::End;
use self::operation::{Choice, Operation, Side};
use super::byte;
use super::identity::Identity;
use super::session::ticket_keys;
use crate::config::{ClientCertificate, Config, ConnectionIdMode, MTU_MIN};
use crate::crypto::{CipherSuite, Group};
use crate::error::CloseReason;
use crate::event::Phase;
use crate::record::{ConnectionId, Records};
use crate::resumption::Session;
use crate::testing::AcceptAnyone;

/// Two connections under a script. Whatever the script does, nothing is delivered that was not sent,
/// nothing twice, both ends agree on what they agreed on, memory and answers are bounded, no nonce
/// comes twice, and timers lead to an end. As long as it only loses, repeats, reorders and delays,
/// both ends open once the network is well again, unless they have waited too long for that.
///
/// Layout: settings 2; then operations, see `operation.rs`.
///
/// # Panics
/// When a rule is broken.
pub fn association(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let mut world = World::new([byte(&mut input), byte(&mut input)]);
    while let (false, Ok(operation)) = (input.is_empty(), Operation::arbitrary(&mut input)) {
        world.apply(operation);
    }
    world.heal();
}

/// Datagrams on the way, or kept for a replay, each way.
const BAG_DATAGRAMS_MAX: usize = 64;
/// Rounds after which two ends that exchange datagrams without any passing of time must be quiet.
const ROUNDS_MAX: usize = 50;
/// Timers that may run before a handshake has ended, however it ends.
const TIMERS_MAX: usize = 400;
/// An association that is younger has time for several resends yet, whatever has happened.
const YOUNG: Duration = Duration::from_secs(40);

struct World {
    now: Instant,
    began_at: Instant,
    configs: [Arc<Config>; 2],
    ends: [End; 2],
    /// On the way, by sender, with the association that it belongs to.
    bags: [VecDeque<(u32, Vec<u8>)>; 2],
    /// Delivered before, by sender.
    history: [VecDeque<(u32, Vec<u8>)>; 2],
    /// Counts the associations.
    generation: u32,
    /// What the last association left the client to begin the next with.
    session: Option<Session>,
    /// False once this association has seen something that neither end has sent to it.
    is_honest: bool,
    /// True once this association was closed on purpose.
    is_closed: bool,
}

impl World {
    fn new(settings: [u8; 2]) -> Self {
        #[allow(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
        let now = Instant::now();
        let configs = configs(settings).map(Arc::new);
        let ends =
            [End::client(now, configs[0].clone(), None), End::server(now, configs[1].clone())];
        let mut this = Self {
            now,
            began_at: now,
            configs,
            ends,
            bags: Default::default(),
            history: Default::default(),
            generation: 0,
            session: None,
            is_honest: true,
            is_closed: false,
        };
        this.collect();
        this
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Deliver(side, choice) => {
                if let Some((generation, datagram)) = self.take(side.other(), choice) {
                    self.remember(side.other(), generation, &datagram);
                    self.deliver(side, generation, datagram);
                }
            }
            Operation::DeliverAll(side) => self.deliver_all(side),
            Operation::Exchange => self.exchange(),
            Operation::Duplicate(side, choice) => {
                if let Some((generation, datagram)) = self.copy(side.other(), choice) {
                    self.deliver(side, generation, datagram);
                }
            }
            Operation::Lose(side, choice) => drop(self.take(side, choice)),
            Operation::Replay(side, Choice(choice)) => {
                let history = &self.history[side.other().index()];
                if let Some(at) = usize::from(choice).checked_rem(history.len()) {
                    let (generation, datagram) = history[at].clone();
                    self.deliver(side, generation, datagram);
                }
            }
            Operation::OneRecord(side, choice, record) => {
                if let Some((generation, mut datagram)) = self.copy(side.other(), choice) {
                    let id_length = self.ends[side.index()].id_length();
                    let records = Records::with_id_length(&mut datagram, id_length);
                    let records: Vec<_> = records.map(|record| record.to_bytes()).collect();
                    if let Some(at) = usize::from(record.0).checked_rem(records.len()) {
                        self.deliver(side, generation, records[at].clone());
                    }
                }
            }
            Operation::Bend { to, choice, at, flip } => {
                if let Some((_, mut datagram)) = self.copy(to.other(), choice) {
                    let at = usize::from(at) % datagram.len();
                    datagram[at] ^= flip.max(1);
                    self.forge(to, datagram);
                }
            }
            Operation::Truncate { to, choice, at } => {
                if let Some((generation, mut datagram)) = self.copy(to.other(), choice) {
                    datagram.truncate(usize::from(at) % datagram.len());
                    // What is left are records of the sender and a rest that is none.
                    self.deliver(to, generation, datagram);
                }
            }
            Operation::Forge(to, datagram) => self.forge(to, datagram),
            Operation::Advance(duration) => self.advance(duration),
            Operation::NextTimer => self.next_timer(),
            Operation::Send(side, length) => {
                self.ends[side.index()].send(length);
                self.collect();
            }
            Operation::SetPathMtu(side, bytes) => self.ends[side.index()].set_path_mtu(bytes),
            Operation::Close(side) => {
                self.is_closed = true;
                self.ends[side.index()].close();
                self.collect();
            }
            Operation::BeginAnew => self.begin_anew(),
        }
    }

    fn take(&mut self, sender: Side, Choice(choice): Choice) -> Option<(u32, Vec<u8>)> {
        let bag = &mut self.bags[sender.index()];
        let at = usize::from(choice).checked_rem(bag.len())?;
        bag.remove(at)
    }

    fn copy(&self, sender: Side, Choice(choice): Choice) -> Option<(u32, Vec<u8>)> {
        let bag = &self.bags[sender.index()];
        let at = usize::from(choice).checked_rem(bag.len())?;
        bag.get(at).cloned()
    }

    fn remember(&mut self, sender: Side, generation: u32, datagram: &[u8]) {
        let history = &mut self.history[sender.index()];
        history.push_back((generation, datagram.to_vec()));
        if history.len() > BAG_DATAGRAMS_MAX {
            history.pop_front();
        }
    }

    /// A datagram of the peer; one of an earlier association is as good as a forged one.
    fn deliver(&mut self, to: Side, generation: u32, datagram: Vec<u8>) {
        self.is_honest &= generation == self.generation;
        let now = self.now;
        self.ends[to.index()].handle_datagram(now, datagram);
        self.collect();
    }

    fn forge(&mut self, to: Side, datagram: Vec<u8>) {
        self.is_honest = false;
        let now = self.now;
        self.ends[to.index()].handle_datagram(now, datagram);
        self.collect();
    }

    fn deliver_all(&mut self, to: Side) {
        for _ in 0..self.bags[to.other().index()].len() {
            self.apply(Operation::Deliver(to, Choice(0)));
        }
    }

    fn exchange(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.bags.iter().all(VecDeque::is_empty) {
                return;
            }
            self.deliver_all(Side::Server);
            self.deliver_all(Side::Client);
        }
        panic!("both ends answer each other for ever");
    }

    /// What the ends have sent goes into the bags, and what they know is compared.
    fn collect(&mut self) {
        for side in [Side::Client, Side::Server] {
            let id_length = self.ends[side.other().index()].id_length();
            let bag = &mut self.bags[side.index()];
            for datagram in self.ends[side.index()].take_datagrams(id_length) {
                bag.push_back((self.generation, datagram));
                if bag.len() > BAG_DATAGRAMS_MAX {
                    bag.pop_front();
                }
            }
        }
        let [client, server] = &mut self.ends;
        client.take_events(&server.sent);
        server.take_events(&client.sent);
        if let Some(session) = client.session.take() {
            self.session = Some(session);
        }
        match (&client.agreed, &server.agreed) {
            (Some(ours), Some(theirs)) => assert_eq!(ours, theirs, "the ends disagree"),
            // Whoever sends the last flight opens first, and no other can open alone.
            (Some(agreed), None) => assert!(agreed.resumed, "the client opened alone"),
            (None, Some(agreed)) => assert!(!agreed.resumed, "the server opened alone"),
            (None, None) => {}
        }
        for (end, other) in [(&*client, &*server), (&*server, &*client)] {
            if matches!(end.closed, Some(CloseReason::CloseNotify)) {
                assert!(other.closed.is_some(), "a goodbye that nobody said");
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.ends.iter().filter_map(End::next_timeout).min()
    }

    fn next_timer(&mut self) {
        if let Some(at) = self.next_timeout() {
            self.now = self.now.max(at);
            self.handle_timeouts();
        }
    }

    fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.handle_timeouts();
        }
        self.now = end;
    }

    fn handle_timeouts(&mut self) {
        let now = self.now;
        self.ends.iter_mut().for_each(|end| end.handle_timeout(now));
        self.collect();
    }

    /// Both ends forget the association and begin another, with the session if there is one.
    fn begin_anew(&mut self) {
        let (now, [client, server]) = (self.now, self.configs.clone());
        self.generation += 1;
        self.ends = [End::client(now, client, self.session.take()), End::server(now, server)];
        (self.is_honest, self.is_closed, self.began_at) = (true, false, now);
        self.collect();
    }

    /// From here on nothing is lost or forged.
    fn heal(&mut self) {
        let is_young = self.now - self.began_at < YOUNG;
        // What an earlier association has left behind does not arrive any more.
        for bag in &mut self.bags {
            bag.retain(|(generation, _)| *generation == self.generation);
        }
        self.exchange();
        for _ in 0..TIMERS_MAX {
            if self.next_timeout().is_none() {
                break;
            }
            self.next_timer();
            self.exchange();
        }
        let phases = self.ends.each_ref().map(End::phase);
        assert!(!phases.contains(&Phase::Handshaking), "a handshake that does not end");
        if !self.is_honest || self.is_closed {
            return;
        }
        for end in &self.ends {
            let reason = end.closed.as_ref();
            assert!(
                reason.is_none_or(|reason| *reason == CloseReason::TimedOut),
                "a network that only loses ended it: {reason:?}"
            );
        }
        if phases == [Phase::Open; 2] {
            for side in [Side::Client, Side::Server] {
                let peer = side.other().index();
                let before = self.ends[peer].received_count();
                assert!(self.ends[side.index()].send(5), "{side:?} cannot send");
                self.collect();
                self.exchange();
                assert_eq!(self.ends[peer].received_count(), before + 1, "lost on a good network");
            }
        } else {
            let timed_out = |end: &End| end.closed == Some(CloseReason::TimedOut);
            assert!(!is_young && self.ends.iter().any(timed_out), "{phases:?} without a reason");
        }
    }
}

/// Settings that go together, so that only the network can keep the ends from opening.
fn configs([first, second]: [u8; 2]) -> [Config; 2] {
    let pick = |bits: u8| usize::from(bits);
    let client = [Identity::Client, Identity::Client, Identity::Ed25519, Identity::P384];
    let server = [Identity::Server, Identity::Server, Identity::Ed25519, Identity::P384];
    let suites = CipherSuite::ALL;
    let groups = [Group::P256, Group::X25519, Group::P384];
    let modes = [
        ClientCertificate::Required,
        ClientCertificate::Required,
        ClientCertificate::Optional,
        ClientCertificate::Never,
    ];
    let config = |identity: Identity| {
        let config = Config::new(identity.credentials(), Arc::new(AcceptAnyone))
            .with_suites(&suites[pick(first >> 4 & 3) % 3..])
            .with_groups(&groups[pick(first >> 6) % 3..])
            .with_client_certificate(modes[pick(second >> 6)]);
        match second & 3 {
            0 => config,
            1 => config.with_mtu(MTU_MIN),
            2 => config.with_mtu(500).with_replay_window(128),
            _ => config.with_record_size_limit(300),
        }
    };
    let mut ends = [config(client[pick(first & 3)]), config(server[pick(first >> 2 & 3)])];
    let given = ConnectionIdMode::Given(ConnectionId::new(b"given").unwrap_or_default());
    let ids = match second >> 4 & 3 {
        0 => [ConnectionIdMode::Off, ConnectionIdMode::ByRole],
        1 => [ConnectionIdMode::ByRole, ConnectionIdMode::ByRole],
        2 => [ConnectionIdMode::Made, ConnectionIdMode::Made],
        _ => [given, ConnectionIdMode::Empty],
    };
    for (end, id) in ends.iter_mut().zip(ids) {
        *end = end.clone().with_connection_id(id);
    }
    if second & 4 != 0 {
        ends[0] = ends[0].clone().asking_for_tickets();
    }
    if second & 8 != 0 {
        let lifetime = Duration::from_secs(3_600);
        ends[1] = ends[1].clone().with_ticket_keys(Arc::new(ticket_keys()), lifetime);
    }
    ends
}
