//! One endpoint of ours alone on a virtual clock, at the mercy of a test.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use dtls_channel::testing::{Heard, LinkConfig, Net, Rogue, Side};
use dtls_channel::{
    AssociationId, CloseReason, Config, Credentials, DropCause, Endpoint, EndpointConfig, Event,
    Path,
};

use crate::common::{config, identity};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// Handshake message types (RFC 5246 §7.4).
pub(crate) const HELLO_REQUEST: u8 = 0;
pub(crate) const CLIENT_HELLO: u8 = 1;
pub(crate) const SERVER_HELLO: u8 = 2;
pub(crate) const HELLO_VERIFY_REQUEST: u8 = 3;
pub(crate) const CERTIFICATE: u8 = 11;
pub(crate) const SERVER_KEY_EXCHANGE: u8 = 12;
pub(crate) const CERTIFICATE_REQUEST: u8 = 13;
pub(crate) const SERVER_HELLO_DONE: u8 = 14;
pub(crate) const CERTIFICATE_VERIFY: u8 = 15;
pub(crate) const CLIENT_KEY_EXCHANGE: u8 = 16;
pub(crate) const FINISHED: u8 = 20;
/// Record types (RFC 5246 §6.2.1).
pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

/// Where the rogue is, unless it pretends.
pub(crate) fn rogues_address() -> SocketAddr {
    ([203, 0, 113, 7], 40_000).into()
}

/// Where the victim connects to.
pub(crate) fn servers_address() -> SocketAddr {
    ([192, 0, 2, 1], 4_433).into()
}

/// The path on which the simulated client's datagrams arrive in a [`Net`].
pub(crate) fn clients_path() -> Path {
    SocketAddr::from(([198, 51, 100, 1], 50_000)).into()
}

/// One rogue's identity.
pub(crate) fn credentials() -> Credentials {
    static ONE: LazyLock<Credentials> = LazyLock::new(|| identity(&rcgen::PKCS_ECDSA_P256_SHA256));
    ONE.clone()
}

/// Another's.
pub(crate) fn other_credentials() -> Credentials {
    identity(&rcgen::PKCS_ECDSA_P256_SHA256)
}

/// An endpoint of ours and what came of it.
pub(crate) struct Victim {
    pub(crate) endpoint: Endpoint,
    pub(crate) now: Instant,
    pub(crate) events: Vec<(AssociationId, Event)>,
    /// Where datagrams come from unless said otherwise.
    pub(crate) peer: SocketAddr,
}

impl Victim {
    pub(crate) fn server() -> Self {
        Self::server_with(config())
    }

    pub(crate) fn server_with(config: Config) -> Self {
        Self::with(EndpointConfig { server: Some(Arc::new(config)), ..EndpointConfig::default() })
    }

    pub(crate) fn with(config: EndpointConfig) -> Self {
        let now = Net::new(0, &LinkConfig::default(), Arc::new(crate::common::config())).now();
        let endpoint = Endpoint::new(now, config).unwrap();
        Self { endpoint, now, events: Vec::new(), peer: rogues_address() }
    }

    /// A client that connects, with its hello.
    pub(crate) fn client(config: Config) -> (Self, AssociationId, Vec<u8>) {
        let mut this = Self::with(EndpointConfig::default());
        this.peer = servers_address();
        let id = this.endpoint.connect(this.now, this.peer, Arc::new(config)).unwrap();
        let hello = this.answers().remove(0);
        (this, id, hello)
    }

    /// What it wants to send, datagram by datagram.
    pub(crate) fn answers(&mut self) -> Vec<Vec<u8>> {
        while let Some(event) = self.endpoint.poll_event() {
            self.events.push(event);
        }
        let mut out = Vec::new();
        while let Some((transmit, bytes)) = self.endpoint.outbox().front() {
            let size = transmit.segment_size.unwrap_or(bytes.len());
            out.extend(bytes.chunks(size).map(<[u8]>::to_vec));
            self.endpoint.outbox().pop();
        }
        out
    }

    pub(crate) fn hit_from(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.endpoint.handle_datagram(self.now, from.into(), &mut datagram.to_vec());
        self.answers()
    }

    pub(crate) fn hit(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.hit_from(self.peer, datagram)
    }

    /// Lets time pass, with everything that is due in it; what was sent.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Vec<u8>> {
        let end = self.now + time;
        let mut sent = Vec::new();
        while let Some(at) = self.endpoint.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.endpoint.handle_timeout(self.now);
            sent.extend(self.answers());
        }
        self.now = end;
        sent
    }

    pub(crate) fn drops(&self, cause: DropCause) -> u64 {
        self.endpoint.stats().drops.get(cause)
    }

    pub(crate) fn all_drops(&self) -> u64 {
        self.endpoint.stats().drops.total()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.events.iter().any(|(_, e)| matches!(e, Event::Established(_)))
    }

    pub(crate) fn closed(&self) -> Option<&CloseReason> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    /// The messages that were delivered to the application.
    pub(crate) fn messages(&self) -> Vec<&[u8]> {
        self.events
            .iter()
            .filter_map(|(_, event)| match event {
                Event::Message { data, .. } => Some(&data[..]),
                _ => None,
            })
            .collect()
    }
}

/// Hears all of it.
pub(crate) fn hear(rogue: &mut Rogue, datagrams: &[Vec<u8>]) -> Vec<Heard> {
    datagrams.iter().flat_map(|datagram| rogue.hear(datagram)).collect()
}

/// The description of the first alert heard.
pub(crate) fn alert(heard: &[Heard]) -> Option<u8> {
    heard.iter().find(|h| h.content_type == ALERT).map(|h| h.body[1])
}

/// As client, up to the server's whole flight.
pub(crate) fn greet(victim: &mut Victim, rogue: &mut Rogue) {
    let hello = rogue.hello().body();
    let first = rogue.say_plain(CLIENT_HELLO, &hello);
    let request = victim.hit(&first);
    hear(rogue, &request);
    let hello = rogue.hello().body();
    let second = rogue.say_plain(CLIENT_HELLO, &hello);
    let flight = victim.hit(&second);
    let heard = hear(rogue, &flight);
    let kinds: Vec<u8> = heard.iter().map(|h| h.message).collect();
    let due =
        [SERVER_HELLO, CERTIFICATE, SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, SERVER_HELLO_DONE];
    assert_eq!(kinds, due);
}

/// As client, everything before Finished, in datagrams of one message each.
pub(crate) fn unfinished_flight(rogue: &mut Rogue) -> Vec<Vec<u8>> {
    let body = rogue.certificate();
    let mut flight = vec![rogue.say_plain(CERTIFICATE, &body)];
    flight.extend(after_certificate(rogue));
    flight
}

/// As client, what stands between Certificate and Finished.
pub(crate) fn after_certificate(rogue: &mut Rogue) -> Vec<Vec<u8>> {
    let body = rogue.key_exchange();
    let exchange = rogue.say_plain(CLIENT_KEY_EXCHANGE, &body);
    let body = rogue.proof();
    let proof = rogue.say_plain(CERTIFICATE_VERIFY, &body);
    vec![exchange, proof, rogue.plain(CHANGE_CIPHER_SPEC, &[1])]
}

/// A faultless Finished.
pub(crate) fn finished(rogue: &mut Rogue) -> Vec<u8> {
    let body = rogue.finished();
    rogue.say_sealed(FINISHED, &body)
}

/// Delivers datagrams, whose answers are heard.
pub(crate) fn deliver(victim: &mut Victim, rogue: &mut Rogue, datagrams: &[Vec<u8>]) -> Vec<Heard> {
    datagrams
        .iter()
        .flat_map(|datagram| {
            let answers = victim.hit(datagram);
            hear(rogue, &answers)
        })
        .collect()
}

/// As client, a whole faultless handshake from where [`greet`] ends.
pub(crate) fn finish(victim: &mut Victim, rogue: &mut Rogue) {
    let mut flight = unfinished_flight(rogue);
    flight.push(finished(rogue));
    deliver(victim, rogue, &flight);
    assert!(victim.is_open(), "{:?}: {:?}", victim.events, victim.endpoint.stats());
}

/// A victim server with an open association to a rogue client.
pub(crate) fn open_server() -> (Victim, Rogue, AssociationId) {
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    greet(&mut victim, &mut rogue);
    finish(&mut victim, &mut rogue);
    let id = victim.events[0].0;
    victim.events.clear();
    (victim, rogue, id)
}

/// A victim client with its hello heard by a rogue server.
pub(crate) fn connecting() -> (Victim, Rogue, AssociationId) {
    let (victim, id, hello) = Victim::client(config());
    let mut rogue = Rogue::server(credentials());
    rogue.hear(&hello);
    (victim, rogue, id)
}

/// As server, says a flight, each message in its own datagram.
pub(crate) fn say_all(rogue: &mut Rogue, flight: &[(u8, Vec<u8>)]) -> Vec<Vec<u8>> {
    flight.iter().map(|(kind, body)| rogue.say_plain(*kind, body)).collect()
}

/// As server, a faultless handshake up to and without ChangeCipherSpec and Finished.
pub(crate) fn answer(victim: &mut Victim, rogue: &mut Rogue) {
    let flight = rogue.flight();
    let datagrams = say_all(rogue, &flight);
    deliver(victim, rogue, &datagrams);
}

/// A victim client with an open association to a rogue server.
pub(crate) fn open_client() -> (Victim, Rogue, AssociationId) {
    let (mut victim, mut rogue, id) = connecting();
    answer(&mut victim, &mut rogue);
    let finished = finished(&mut rogue);
    victim.hit(&finished);
    assert!(victim.is_open(), "{:?}: {:?}", victim.events, victim.endpoint.stats());
    victim.events.clear();
    (victim, rogue, id)
}

/// The association works in both directions.
pub(crate) fn carries(victim: &mut Victim, rogue: &mut Rogue, id: AssociationId) {
    victim.events.clear();
    let data = rogue.seal(DATA, b"still here");
    victim.hit(&data);
    assert_eq!(victim.messages(), [b"still here"], "{:?}", victim.endpoint.stats());
    victim.endpoint.send(id, b"here too").unwrap();
    let answers = victim.answers();
    assert_eq!(hear(rogue, &answers)[0].body, b"here too");
}

/// A pair of ours that is open, with the ids at the client and at the server.
pub(crate) fn open_pair() -> (Net, AssociationId, AssociationId) {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    let id = |net: &Net, side| net.events.iter().find(|e| e.1 == side).unwrap().2;
    let (client, server) = (id(&net, Side::Client), id(&net, Side::Server));
    net.events.clear();
    (net, client, server)
}

/// The pair's client still gets a message through.
pub(crate) fn pair_carries(net: &mut Net, client: AssociationId) {
    net.events.clear();
    net.client.send(client, b"still here").unwrap();
    assert!(net.run_until(MINUTE, |n| !n.events.is_empty()), "{:?}", net.server.stats());
    assert!(matches!(&net.events[0].3, Event::Message { data, .. } if data == "still here"));
}
