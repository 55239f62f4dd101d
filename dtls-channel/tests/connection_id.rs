//! Connection ids (RFC 9146) and the return routability check (RFC 9853) between whole endpoints. The
//! clauses are in `docs/rfc9146.md`; what one side says wrongly is in `src/conn/path/tests.rs`.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{config, opens_under_mask};
use dtls_channel::testing::forge::records;
use dtls_channel::testing::{LinkConfig, Net, Side};
use dtls_channel::{
    AddressChange, AssociationId, CipherSuite, Config, ConnectionId, ConnectionIdMode,
    ConnectionIds, DropCause, Endpoint, EndpointConfig, Event, Path, TicketKeys,
};

const MINUTE: Duration = Duration::from_secs(60);
const TLS12_CID: u8 = 25;
/// An id of the endpoint's begins behind type, version, epoch and sequence number.
const ID_AT: std::ops::Range<usize> = 11..19;

fn with_mode(mode: &ConnectionIdMode) -> Config {
    config().with_connection_id(mode.clone())
}

fn given(id: &[u8]) -> ConnectionIdMode {
    ConnectionIdMode::Given(ConnectionId::new(id).unwrap())
}

fn connected(server: Config, client: Config) -> Net {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(server));
    net.keep_transcript();
    net.connect(Arc::new(client));
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{}", net.transcript());
    net
}

fn id_of(net: &Net, side: Side) -> AssociationId {
    net.events.iter().find(|e| e.1 == side).unwrap().2
}

/// What both sides agreed on, and the ids by which they are called.
fn agreed(net: &mut Net) -> [(AssociationId, Option<ConnectionIds>); 2] {
    [Side::Client, Side::Server].map(|side| {
        let mut of_side = net.events.iter().filter(|e| e.1 == side);
        let Some((_, _, id, Event::Established(e))) = of_side.next() else { panic!("not open") };
        (*id, e.connection_id.clone())
    })
}

fn open() -> (Net, AssociationId, AssociationId) {
    let mut net = connected(config(), config());
    let (client, server) = (id_of(&net, Side::Client), id_of(&net, Side::Server));
    net.events.clear();
    (net, client, server)
}

/// A message each way arrives.
fn carries(net: &mut Net, client: AssociationId, server: AssociationId) {
    net.events.clear();
    net.client.send(client, b"up").unwrap();
    net.server.send(server, b"down").unwrap();
    let both = net.run_until(MINUTE, |n| n.events.len() >= 2);
    assert!(both, "{:?}\n{:?}\n{:?}", net.events, net.server.stats(), net.client.stats());
    for (_, side, _, event) in net.events.drain(..) {
        let Event::Message { data, .. } = event else { panic!("{event:?}") };
        assert_eq!(data, if side == Side::Server { &b"up"[..] } else { b"down" });
    }
}

/// The one datagram that waits at an endpoint.
fn only_datagram(endpoint: &mut Endpoint) -> Vec<u8> {
    let (transmit, bytes) = endpoint.outbox().front().unwrap();
    assert!(transmit.segment_size.is_none());
    let datagram = bytes.to_vec();
    endpoint.outbox().pop();
    assert!(endpoint.outbox().is_empty());
    datagram
}

fn message_of(net: &mut Net, client: AssociationId, content: &[u8]) -> Vec<u8> {
    net.client.send(client, content).unwrap();
    only_datagram(&mut net.client)
}

fn at(port: u16) -> Path {
    SocketAddr::from(([203, 0, 113, 9], port)).into()
}

fn clients_path() -> Path {
    SocketAddr::from(([198, 51, 100, 1], 50_000)).into()
}

#[test]
fn each_side_reads_on_records_the_id_it_asked_for() {
    use ConnectionIdMode::{ByRole, Empty, Made, Off};

    let long = given(&[0xcd; 255]);
    // By mode of client and server: the lengths of the ids on records to either.
    let cases = [
        (Off, Off, None),
        (Off, ByRole, None),
        (ByRole, Off, None),
        (ByRole, ByRole, Some((0, 8))),
        (Made, ByRole, Some((8, 8))),
        (Made, Empty, Some((8, 0))),
        (Empty, Empty, Some((0, 0))),
        (given(b"me"), given(b"you, server"), Some((2, 11))),
        (long.clone(), long, Some((255, 255))),
    ];
    for (client, server, expected) in cases {
        for suite in CipherSuite::ALL {
            let mut net = connected(with_mode(&server), with_mode(&client).with_suites(&[suite]));
            let [(client_id, at_client), (server_id, at_server)] = agreed(&mut net);
            let lengths = at_client.as_ref().map(|ids| (ids.ours.len(), ids.theirs.len()));
            assert_eq!(lengths, expected, "{client:?} {server:?}");
            if let (Some(at_client), Some(at_server)) = (at_client, at_server) {
                assert_eq!(
                    (&at_client.ours, &at_client.theirs),
                    (&at_server.theirs, &at_server.ours)
                );
                assert!(at_client.return_routability && at_server.return_routability);
            }
            for _ in 0..3 {
                carries(&mut net, client_id, server_id);
            }
            let drops = (net.client.stats().drops, net.server.stats().drops);
            assert_eq!((drops.0.total(), drops.1.total()), (0, 0), "{drops:?}");
        }
    }
}

#[test]
fn protected_records_carry_the_id_from_finished_on_and_clear_ones_never_do() {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    net.connect(Arc::new(config()));
    let mut to_server = Vec::new();
    while !net.both_open() {
        net.collect();
        let at = net.next_due().unwrap();
        while let Some(datagram) = net.up.pop(at) {
            to_server.extend(records(&datagram));
            net.server.handle_datagram(at, clients_path(), &mut datagram.clone());
        }
        net.advance_to(at);
    }
    let [(client, ids), _] = agreed(&mut net);
    let theirs = ids.unwrap().theirs;
    let data = message_of(&mut net, client, b"data");
    to_server.extend(records(&data));
    assert_eq!((data[0], &data[ID_AT]), (TLS12_CID, theirs.as_bytes()));
    // One more for the id, one for the type.
    assert_eq!(data.len(), 13 + 8 + 8 + 4 + 1 + 16);
    let protected: Vec<_> = to_server.iter().filter(|r| r.epoch > 0).collect();
    assert_eq!(protected.len(), 2);
    assert!(protected.iter().all(|r| r.content_type == TLS12_CID && r.id == theirs.as_bytes()));
    assert!(to_server.iter().all(|r| (r.epoch > 0) == (r.content_type == TLS12_CID)));
}

#[test]
fn ids_are_agreed_on_anew_when_a_session_is_resumed() {
    let keys = Arc::new(TicketKeys::random().unwrap());
    let server = config().with_ticket_keys(keys, Duration::from_secs(3_600));
    let asking = Arc::new(config().asking_for_tickets());
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(server));
    net.connect(asking.clone());
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    let [(_, first), _] = agreed(&mut net);
    let session = net.events.drain(..).find_map(|(_, side, _, event)| match event {
        Event::Established(e) if side == Side::Client => e.session,
        _ => None,
    });
    let (now, address) = (net.now(), net.server_address());
    net.rebind();
    net.client.resume(now, address, asking, session.unwrap()).unwrap();
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    assert!(matches!(&net.events[0].3, Event::Established(e) if e.resumed));
    let [(client, second), (server, _)] = agreed(&mut net);
    assert_ne!(first.unwrap().theirs, second.unwrap().theirs);
    carries(&mut net, client, server);
}

#[test]
fn every_loss_of_the_first_eight_datagrams_only_costs_time_with_ids_both_ways() {
    let made = || Arc::new(with_mode(&ConnectionIdMode::Made));
    let (server, client) = (made(), made());
    for mask in 0u32..256 {
        let mut net = Net::new(1, &LinkConfig::default(), server.clone());
        net.connect(client.clone());
        let mut net = opens_under_mask(net, mask);
        let [(client, _), (server, _)] = agreed(&mut net);
        carries(&mut net, client, server);
    }
}

#[test]
fn flights_in_pieces_and_out_of_order_open_with_ids_both_ways() {
    let link = LinkConfig {
        loss: 0.15,
        duplicate: 0.1,
        reorder: 0.3,
        jitter: Duration::from_millis(30),
        ..LinkConfig::default()
    };
    let made = || Arc::new(with_mode(&ConnectionIdMode::Made).with_mtu(256));
    let (server, client) = (made(), made());
    for seed in 0..60 {
        let mut net = Net::new(seed, &link, server.clone());
        net.connect(client.clone());
        assert!(net.run_until(MINUTE, |n| n.both_open()), "seed {seed}");
        let wrong = |e: &Endpoint| e.stats().drops.get(DropCause::WrongConnectionId);
        assert_eq!((wrong(&net.client), wrong(&net.server)), (0, 0), "seed {seed}");
    }
}

/// Lets the client's message through and waits for what it leads to.
fn until_moved(net: &mut Net) -> bool {
    let moved = |n: &mut Net| n.events.iter().any(|e| matches!(e.3, Event::PathChanged { .. }));
    net.run_until(Duration::from_secs(5), moved)
}

#[test]
fn a_client_behind_a_nat_that_forgot_it_goes_on_without_another_handshake() {
    let (mut net, client, server) = open();
    let before = net.server.stats().handshakes_started;
    let old = net.server.remote(server).unwrap();
    net.rebind();
    let start = net.now();
    net.client.send(client, b"from elsewhere").unwrap();
    assert!(until_moved(&mut net), "{}", net.transcript());
    // Three round trips for the old address, one for the new one, half a one to get there.
    assert_eq!(net.now() - start, Duration::from_millis(3 * 40 + 40 + 20));
    let new = net.server.remote(server).unwrap();
    let mut events = net.events.drain(..);
    assert!(matches!(events.next().unwrap().3, Event::Message { .. }), "delivered at once");
    let Some((_, Side::Server, id, Event::PathChanged { old: from, new: to })) = events.next()
    else {
        panic!("no event")
    };
    assert_eq!((id, from, to), (server, old, new));
    drop(events);
    assert_ne!(old, new);
    carries(&mut net, client, server);
    let stats = net.server.stats();
    assert_eq!((stats.handshakes_started, stats.path_changes), (before, 1));
    assert_eq!((stats.path_checks, stats.path_checks_failed), (1, 0));
    // And again, as often as it likes.
    for n in 0..5 {
        net.rebind();
        net.client.send(client, b"from elsewhere again").unwrap();
        assert!(until_moved(&mut net), "{n}: {}", net.transcript());
        carries(&mut net, client, server);
    }
    assert_eq!(net.server.associations(), 1);
}

#[test]
fn what_is_sent_before_the_new_address_has_answered_goes_to_the_old_one() {
    let (mut net, client, server) = open();
    let record = message_of(&mut net, client, b"x");
    let now = net.now();
    net.server.handle_datagram(now, at(7), &mut record.clone());
    for _ in 0..3 {
        net.server.send(server, &[0; 1_000]).unwrap();
    }
    while let Some((transmit, _)) = net.server.outbox().front() {
        assert_eq!(transmit.destination, clients_path().remote);
        net.server.outbox().pop();
    }
}

#[test]
fn a_client_on_a_lossy_link_is_followed_too() {
    let link = LinkConfig { loss: 0.3, ..LinkConfig::default() };
    let (server, client) = (Arc::new(config()), Arc::new(config()));
    for seed in 0..20 {
        let mut net = Net::new(seed, &link, server.clone());
        net.connect(client.clone());
        assert!(net.run_until(MINUTE * 2, |n| n.both_open()));
        let id = id_of(&net, Side::Client);
        net.rebind();
        // An application that has something to say says it again.
        let moved = (0..20).any(|_| {
            net.client.send(id, b"still here").unwrap();
            net.run_until(Duration::from_secs(1), |n| n.server.stats().path_changes > 0)
        });
        assert!(moved, "seed {seed}: {:?}", net.server.stats());
    }
}

#[test]
fn a_client_that_moves_before_it_has_the_servers_finished_still_opens() {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    net.keep_transcript();
    net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.established(Side::Server) == 1));
    net.collect();
    net.down.clear();
    net.rebind();
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{}", net.transcript());
    assert_eq!(net.server.stats().path_changes, 1);
}

/// Somebody who sees the client's records sends a copy from his own address, and it arrives first.
#[test]
fn attack_25_a_copy_that_wins_the_race_moves_nothing_while_the_peer_is_at_home() {
    let (mut net, client, server) = open();
    let home = net.server.remote(server);
    for _ in 0..20 {
        let record = message_of(&mut net, client, b"raced");
        let now = net.now();
        net.server.handle_datagram(now, at(666), &mut record.clone());
        // The original comes later, and is old by then.
        net.up.push(now, record);
        net.run_until(Duration::from_millis(500), |_| false);
        assert_eq!(net.server.remote(server), home);
    }
    let stats = net.server.stats();
    assert_eq!((stats.path_checks, stats.path_checks_failed, stats.path_changes), (20, 20, 0));
    assert_eq!(stats.drops.get(DropCause::Replayed), 20);
    assert!(!net.transcript().contains("666"));
    carries(&mut net, client, server);
}

/// As above, but the peer's own address is dead, so nobody speaks for it.
#[test]
fn attack_25_a_copy_draws_little_and_moves_nothing_as_its_sender_cannot_answer() {
    let (mut net, client, server) = open();
    let record = message_of(&mut net, client, b"raced");
    let now = net.now();
    net.server.handle_datagram(now, at(666), &mut record.clone());
    let mut to_stranger = 0;
    loop {
        while let Some((transmit, bytes)) = net.server.outbox().front() {
            if transmit.destination == at(666).remote {
                to_stranger += bytes.len();
            }
            net.server.outbox().pop();
        }
        let Some(due) = net.server.next_timeout() else { break };
        net.server.handle_timeout(due);
    }
    assert!(to_stranger > 0 && to_stranger <= 3 * record.len(), "{to_stranger}");
    assert_eq!(net.server.remote(server), Some(clients_path().remote));
    assert_eq!(net.server.stats().path_checks_failed, 1);
}

#[test]
fn attack_25_old_replayed_bent_and_stripped_records_from_elsewhere_move_nothing() {
    let (mut net, client, server) = open();
    let [old, newest] = [0, 1].map(|n| message_of(&mut net, client, &[n]));
    let now = net.now();
    net.server.handle_datagram(now, clients_path(), &mut newest.clone());
    // Authentic, but older than the newest: delivered, and nothing else.
    net.server.handle_datagram(now, at(1), &mut old.clone());
    assert_eq!(net.server.stats().path_changes_ignored, 1);
    let drops = |net: &Net, cause| net.server.stats().drops.get(cause);
    for record in [&old, &newest] {
        net.server.handle_datagram(now, at(2), &mut record.clone());
    }
    assert_eq!(drops(&net, DropCause::Replayed), 2);
    let fresh = message_of(&mut net, client, b"fresh");
    for i in ID_AT.end..fresh.len() {
        let mut bent = fresh.clone();
        bent[i] ^= 1;
        net.server.handle_datagram(now, at(3), &mut bent);
    }
    // Without its id the record belongs to whom its address says.
    let mut stripped = fresh.clone();
    stripped.drain(ID_AT);
    stripped[0] = 23;
    net.server.handle_datagram(now, at(4), &mut stripped.clone());
    assert_eq!(drops(&net, DropCause::Unknown), 1);
    net.server.handle_datagram(now, clients_path(), &mut stripped);
    assert_eq!(drops(&net, DropCause::MissingConnectionId), 1);
    // With another id of the same slot.
    let mut renamed = fresh.clone();
    renamed[ID_AT.end - 1] ^= 1;
    net.server.handle_datagram(now, at(5), &mut renamed.clone());
    assert_eq!(drops(&net, DropCause::Unknown), 2);
    net.server.handle_datagram(now, clients_path(), &mut renamed);
    assert_eq!(drops(&net, DropCause::WrongConnectionId), 1);
    assert!(net.server.outbox().is_empty(), "none of them draws an answer");
    let stats = *net.server.stats();
    assert_eq!((stats.path_checks, stats.path_changes), (0, 0));
    net.server.handle_datagram(now, clients_path(), &mut fresh.clone());
    carries_after_events(&mut net, client, server);
}

fn carries_after_events(net: &mut Net, client: AssociationId, server: AssociationId) {
    net.run_until(Duration::ZERO, |_| true);
    carries(net, client, server);
}

#[test]
fn a_server_that_never_follows_delivers_all_the_same() {
    let mut net = connected(config().with_address_change(AddressChange::Never), config());
    let [(client, _), (server, _)] = agreed(&mut net);
    let home = net.server.remote(server);
    net.events.clear();
    net.rebind();
    net.client.send(client, b"x").unwrap();
    assert!(!until_moved(&mut net));
    assert!(matches!(net.events[..], [(_, Side::Server, _, Event::Message { .. })]));
    assert_eq!((net.server.remote(server), net.server.stats().path_changes_ignored), (home, 1));
}

/// A client that handshakes by hand, so that many can share one address.
struct Client {
    endpoint: Endpoint,
    id: AssociationId,
    from: Path,
}

const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 4_433);

impl Client {
    fn new(now: Instant, from: Path) -> Self {
        let mut endpoint = Endpoint::new(now, EndpointConfig::default()).unwrap();
        let id = endpoint.connect(now, SERVER.into(), Arc::new(config())).unwrap();
        Self { endpoint, id, from }
    }

    /// Sends what waits, and takes what the server has for its address.
    fn exchange(&mut self, now: Instant, server: &mut Endpoint) {
        while let Some((_, bytes)) = self.endpoint.outbox().front() {
            let mut datagram = bytes.to_vec();
            self.endpoint.outbox().pop();
            server.handle_datagram(now, self.from, &mut datagram);
        }
        while let Some((transmit, bytes)) = server.outbox().front() {
            let (to, mut datagram) = (transmit.destination, bytes.to_vec());
            server.outbox().pop();
            if to == self.from.remote {
                let from = SocketAddr::from(SERVER).into();
                self.endpoint.handle_datagram(now, from, &mut datagram);
            }
        }
    }

    fn connected(now: Instant, from: Path, server: &mut Endpoint) -> (Self, AssociationId) {
        let mut this = Self::new(now, from);
        for _ in 0..4 {
            this.exchange(now, server);
        }
        let Some((id, Event::Established(_))) = server.poll_event() else { panic!("not open") };
        assert!(matches!(this.endpoint.poll_event(), Some((_, Event::Established(_)))));
        (this, id)
    }

    fn says(&mut self, now: Instant, server: &mut Endpoint, what: &[u8]) -> Option<AssociationId> {
        self.endpoint.send(self.id, what).unwrap();
        self.exchange(now, server);
        match server.poll_event() {
            Some((id, Event::Message { data, .. })) => {
                assert_eq!(data, what);
                Some(id)
            }
            other => {
                assert!(other.is_none(), "{other:?}");
                None
            }
        }
    }

    /// Speaks from another address until the server knows.
    fn move_to(&mut self, now: &mut Instant, from: Path, server: &mut Endpoint) {
        self.from = from;
        self.endpoint.send(self.id, b"moved").unwrap();
        self.exchange(*now, server);
        while let Some(at) = server.next_timeout() {
            *now = at;
            server.handle_timeout(at);
            self.exchange(at, server);
            self.exchange(at, server);
        }
        assert_eq!(server.stats().path_checks_failed, 0);
        while let Some((_, event)) = server.poll_event() {
            assert!(matches!(event, Event::Message { .. } | Event::PathChanged { .. }));
        }
    }
}

fn server(now: Instant, associations_max: usize) -> Endpoint {
    let serving = EndpointConfig {
        server: Some(Arc::new(config())),
        associations_max,
        ..EndpointConfig::default()
    };
    Endpoint::new(now, serving).unwrap()
}

fn now() -> Instant {
    Net::new(0, &LinkConfig::default(), Arc::new(config())).now()
}

#[test]
fn clients_that_get_the_same_address_one_after_the_other_all_stay() {
    let now = now();
    let mut server = server(now, 100);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connected(now, at(9), &mut server)).collect();
    assert_eq!(server.associations(), 5);
    for (client, id) in &mut clients {
        assert_eq!(client.says(now, &mut server, b"mine"), Some(*id));
    }
    assert_eq!(server.stats().drops.total(), 0);
}

#[test]
fn an_address_that_was_left_is_free_for_others_and_can_be_shared() {
    let mut now = now();
    let mut server = server(now, 100);
    let (mut first, first_id) = Client::connected(now, at(1), &mut server);
    first.move_to(&mut now, at(2), &mut server);
    assert_eq!(server.remote(first_id), Some(at(2).remote));
    // A stranger gets the address that the first one left, and another one the one it has.
    let (mut second, second_id) = Client::connected(now, at(1), &mut server);
    let (mut third, third_id) = Client::connected(now, at(2), &mut server);
    for (client, id) in [(&mut first, first_id), (&mut second, second_id), (&mut third, third_id)] {
        assert_eq!(client.says(now, &mut server, b"mine"), Some(id));
    }
    // The one who stayed moves to where the other two are or were.
    second.move_to(&mut now, at(2), &mut server);
    for (client, id) in [(&mut first, first_id), (&mut second, second_id), (&mut third, third_id)] {
        assert_eq!(client.says(now, &mut server, b"mine"), Some(id));
    }
    assert_eq!(server.associations(), 3);
}

#[test]
fn at_the_limit_a_client_at_a_known_address_still_takes_the_old_ones_place() {
    let now = now();
    let mut server = server(now, 2);
    let (_, _) = Client::connected(now, at(1), &mut server);
    let (mut other, other_id) = Client::connected(now, at(2), &mut server);
    for _ in 0..5 {
        let mut again = Client::new(now, at(1));
        for _ in 0..4 {
            again.exchange(now, &mut server);
        }
        while server.poll_event().is_some() {}
        assert_eq!(server.associations(), 2);
    }
    assert_eq!(other.says(now, &mut server, b"mine"), Some(other_id));
}

#[test]
fn an_id_from_before_does_not_reach_whoever_has_the_slot_now() {
    let now = now();
    let mut server = server(now, 100);
    let (mut old, old_id) = Client::connected(now, at(1), &mut server);
    server.close(old_id);
    while server.outbox().front().is_some() {
        server.outbox().pop();
    }
    let (mut new, new_id) = Client::connected_after_close(now, at(2), &mut server);
    assert_eq!(new_id.index(), old_id.index(), "the same slot");
    assert_eq!(old.says(now, &mut server, b"anybody?"), None);
    assert_eq!(server.stats().drops.get(DropCause::Unknown), 1);
    // Even from the address of the one who has it.
    old.from = at(2);
    assert_eq!(old.says(now, &mut server, b"anybody?"), None);
    assert_eq!(server.stats().drops.get(DropCause::WrongConnectionId), 1);
    assert_eq!(new.says(now, &mut server, b"mine"), Some(new_id));
}

impl Client {
    /// As [`connected`](Self::connected), with the end of another association waiting as an event.
    fn connected_after_close(
        now: Instant,
        from: Path,
        server: &mut Endpoint,
    ) -> (Self, AssociationId) {
        assert!(matches!(server.poll_event(), Some((_, Event::Closed(_)))));
        Self::connected(now, from, server)
    }
}

#[test]
fn ids_name_their_shard_and_one_of_another_shard_is_not_known() {
    let now = now();
    let sharded = |shard| {
        let serving =
            EndpointConfig { server: Some(Arc::new(config())), shard, ..EndpointConfig::default() };
        Endpoint::new(now, serving).unwrap()
    };
    let (mut seven, mut eight) = (sharded(7), sharded(8));
    let (mut client, id) = Client::connected(now, at(1), &mut seven);
    let (_other, _) = Client::connected(now, at(1), &mut eight);
    client.endpoint.send(client.id, b"x").unwrap();
    let datagram = only_datagram(&mut client.endpoint);
    assert_eq!(datagram[ID_AT.start], 7);
    eight.handle_datagram(now, at(2), &mut datagram.clone());
    assert_eq!(eight.stats().drops.get(DropCause::Unknown), 1);
    seven.handle_datagram(now, at(2), &mut datagram.clone());
    assert!(matches!(seven.poll_event(), Some((known, Event::Message { .. })) if known == id));
}

#[test]
fn an_id_that_was_given_is_found_wherever_its_record_comes_from() {
    let server = with_mode(&given(b"\x00the server"))
        .with_address_change(AddressChange::AfterReturnRoutability);
    let mut net = connected(server, with_mode(&given(b"client")));
    let [(client, _), (server, _)] = agreed(&mut net);
    net.events.clear();
    net.rebind();
    net.client.send(client, b"from elsewhere").unwrap();
    assert!(until_moved(&mut net), "{}", net.transcript());
    carries(&mut net, client, server);
}

/// 9 bytes on each record to the server, 9 in the client's hello.
#[test]
fn what_ids_cost_on_the_wire() {
    let size = |mode: &ConnectionIdMode| {
        let mut net = connected(config(), with_mode(mode));
        let [(client, _), (server, _)] = agreed(&mut net);
        let up = message_of(&mut net, client, &[0; 100]).len();
        net.server.send(server, &[0; 100]).unwrap();
        let down = only_datagram(&mut net.server).len();
        let mut other = Endpoint::new(net.now(), EndpointConfig::default()).unwrap();
        let config = Arc::new(with_mode(mode));
        other.connect(net.now(), net.server_address(), config).unwrap();
        (only_datagram(&mut other).len(), up, down)
    };
    let (hello, up, down) = size(&ConnectionIdMode::Off);
    assert_eq!(size(&ConnectionIdMode::ByRole), (hello + 9, up + 9, down));
    assert_eq!(size(&ConnectionIdMode::Made), (hello + 17, up + 9, down + 9));
}
