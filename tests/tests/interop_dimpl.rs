//! Our engine against the `dimpl` crate, in both roles, in memory on a virtual clock: with every
//! suite and datagram size, and over links that lose a fifth of all datagrams.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::crypto::Dtls12CipherSuite;
use dimpl::{Dtls, DtlsCertificate, Output};
use dtls_channel::testing::{Link, LinkConfig};
use dtls_channel::{
    AssociationId, CipherSuite, CloseReason, Config, Endpoint, EndpointConfig, Event,
};
use system_tests::{PemIdentity, lines, suites_and_mtus};

/// Where each end sees the other.
const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 4_433);
/// Virtual time that a step may take.
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    Client,
    Server,
}

/// Our endpoint and a `dimpl` peer, joined by a link each way.
struct Pair {
    ours: Endpoint,
    id: Option<AssociationId>,
    theirs: Dtls,
    to_them: Link,
    to_us: Link,
    now: Instant,
    their_timeout: Option<Instant>,
    buffer: Vec<u8>,
    seen: Seen,
}

/// What the two ends have reported.
#[derive(Debug, Default)]
struct Seen {
    our_suite: Option<CipherSuite>,
    our_peer: Option<Vec<u8>>,
    our_messages: Vec<Vec<u8>>,
    our_end: Option<CloseReason>,
    their_peer: Option<Vec<u8>>,
    they_are_connected: bool,
    their_messages: Vec<Vec<u8>>,
    their_end: bool,
    their_error: Option<dimpl::Error>,
}

impl Pair {
    fn new(
        our_role: Role,
        config: Config,
        theirs: &PemIdentity,
        their_config: dimpl::Config,
        seed: u64,
        link: &LinkConfig,
    ) -> Self {
        let now = Instant::now();
        let config = Arc::new(config);
        let server = (our_role == Role::Server).then(|| config.clone());
        let mut ours =
            Endpoint::new(now, EndpointConfig { server, ..EndpointConfig::default() }).unwrap();
        let certificate = DtlsCertificate {
            certificate: theirs.certificate().to_vec(),
            private_key: theirs.pkcs8().to_vec(),
        };
        let mut theirs = Dtls::new_12(Arc::new(their_config), certificate, now);
        let id = match our_role {
            Role::Client => Some(ours.connect(now, PEER.into(), config).unwrap()),
            Role::Server => {
                theirs.set_active(true);
                None
            }
        };
        theirs.handle_timeout(now).unwrap();
        Self {
            ours,
            id,
            theirs,
            to_them: Link::new(2 * seed, link.clone()),
            to_us: Link::new(2 * seed + 1, link.clone()),
            now,
            their_timeout: None,
            buffer: vec![0; 4_096],
            seen: Seen::default(),
        }
    }

    /// Takes what both ends have to say.
    fn drain(&mut self) {
        while let Some((transmit, bytes)) = self.ours.outbox().front() {
            for datagram in bytes.chunks(transmit.segment_size.unwrap_or(bytes.len())) {
                self.to_them.push(self.now, datagram.to_vec());
            }
            self.ours.outbox().pop();
        }
        while let Some((id, event)) = self.ours.poll_event() {
            match event {
                Event::Established(established) => {
                    self.id = Some(id);
                    self.seen.our_suite = Some(established.suite);
                    self.seen.our_peer = established.peer_certificate.clone();
                }
                Event::Message { data, .. } => self.seen.our_messages.push(data.to_vec()),
                Event::Closed(reason) => self.seen.our_end = Some(reason),
                other => panic!("{other:?}"),
            }
        }
        loop {
            match self.theirs.poll_output(&mut self.buffer) {
                Output::Packet(datagram) => self.to_us.push(self.now, datagram.to_vec()),
                Output::Timeout(at) => {
                    self.their_timeout = Some(at);
                    break;
                }
                Output::Connected => self.seen.they_are_connected = true,
                Output::PeerCert(der) => self.seen.their_peer = Some(der.to_vec()),
                Output::ApplicationData(data) => self.seen.their_messages.push(data.to_vec()),
                Output::CloseNotify => self.seen.their_end = true,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Goes on until `done` holds.
    fn run_until(&mut self, what: &str, done: impl Fn(&Seen) -> bool) {
        let end = self.now + LIMIT;
        loop {
            self.drain();
            if done(&self.seen) {
                return;
            }
            assert!(self.seen.their_error.is_none(), "{what}: {:?}", self.seen);
            let due = [
                self.to_them.next_due(),
                self.to_us.next_due(),
                self.ours.next_timeout(),
                self.their_timeout,
            ];
            let next = due.into_iter().flatten().min().filter(|at| *at <= end);
            let Some(next) = next else { panic!("{what}: not in time: {:?}", self.seen) };
            self.now = self.now.max(next);
            let mut result = self.theirs.handle_timeout(self.now);
            while let Some(datagram) = self.to_them.pop(self.now) {
                result = result.and_then(|()| self.theirs.handle_packet(&datagram));
                self.drain();
            }
            self.seen.their_error = result.err();
            while let Some(mut datagram) = self.to_us.pop(self.now) {
                let path = SocketAddr::from(PEER).into();
                self.ours.handle_datagram(self.now, path, &mut datagram);
            }
            self.ours.handle_timeout(self.now);
        }
    }

    fn open(&mut self) {
        self.run_until("the handshake", |seen| seen.our_suite.is_some() && seen.they_are_connected);
    }

    /// Sends a message both ways and waits for both.
    fn exchange(&mut self, message: &[u8]) {
        self.seen.our_messages.clear();
        self.seen.their_messages.clear();
        self.ours.send(self.id.unwrap(), message).unwrap();
        self.theirs.send_application_data(message).unwrap();
        self.run_until("the messages", |seen| {
            seen.our_messages == [message] && seen.their_messages == [message]
        });
    }
}

fn their_suite(suite: CipherSuite) -> Dtls12CipherSuite {
    match suite {
        CipherSuite::Aes128GcmSha256 => Dtls12CipherSuite::ECDHE_ECDSA_AES128_GCM_SHA256,
        CipherSuite::Aes256GcmSha384 => Dtls12CipherSuite::ECDHE_ECDSA_AES256_GCM_SHA384,
        CipherSuite::Chacha20Poly1305Sha256 => {
            Dtls12CipherSuite::ECDHE_ECDSA_CHACHA20_POLY1305_SHA256
        }
    }
}

fn every_suite_and_datagram_size(our_role: Role) {
    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    for (suite, mtu) in suites_and_mtus() {
        eprintln!("{suite:?}, MTU {mtu}");
        let config = dimpl::Config::builder().mtu(mtu).dtls12_cipher_suites(&[their_suite(suite)]);
        let mut pair = Pair::new(
            our_role,
            ours.config(&theirs).with_mtu(mtu),
            &theirs,
            config.build().unwrap(),
            1,
            &LinkConfig { mtu, ..LinkConfig::default() },
        );
        pair.open();
        assert_eq!(pair.seen.our_suite, Some(suite));
        assert_eq!(pair.seen.our_peer.as_deref(), Some(theirs.certificate()));
        assert_eq!(pair.seen.their_peer.as_deref(), Some(ours.certificate()));
        for line in lines(mtu) {
            pair.exchange(line.as_bytes());
        }
        match our_role {
            Role::Client => {
                pair.ours.close(pair.id.unwrap());
                pair.run_until("our goodbye", |seen| seen.their_end && seen.our_end.is_some());
                assert_eq!(pair.seen.our_end, Some(CloseReason::Local));
            }
            Role::Server => {
                pair.theirs.close().unwrap();
                pair.run_until("their goodbye", |seen| seen.our_end.is_some());
                assert_eq!(pair.seen.our_end, Some(CloseReason::CloseNotify));
            }
        }
        assert_eq!(pair.to_them.stats().oversized + pair.to_us.stats().oversized, 0);
    }
}

#[test]
fn dimpl_clients_talk_to_us_with_every_suite_and_datagram_size() {
    every_suite_and_datagram_size(Role::Server);
}

#[test]
fn dimpl_servers_talk_to_us_with_every_suite_and_datagram_size() {
    every_suite_and_datagram_size(Role::Client);
}

#[test]
fn handshakes_with_dimpl_survive_loss_duplicates_and_reordering() {
    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    let link = LinkConfig {
        loss: 0.2,
        duplicate: 0.1,
        reorder: 0.1,
        jitter: Duration::from_millis(5),
        ..LinkConfig::default()
    };
    for our_role in [Role::Client, Role::Server] {
        for seed in 0..25 {
            eprintln!("{our_role:?}, seed {seed}");
            // Its usual four retries are not always enough.
            let config = dimpl::Config::builder()
                .mtu(512)
                .flight_retries(10)
                .handshake_timeout(LIMIT)
                .build()
                .unwrap();
            let our_config = ours.config(&theirs).with_mtu(512);
            Pair::new(our_role, our_config, &theirs, config, seed, &link).open();
        }
    }
}

#[test]
fn a_dimpl_peer_with_another_certificate_is_refused_in_either_role() {
    let (ours, theirs, stranger) = (PemIdentity::new(), PemIdentity::new(), PemIdentity::new());
    for our_role in [Role::Client, Role::Server] {
        let config = dimpl::Config::builder().build().unwrap();
        let link = LinkConfig::default();
        let mut pair = Pair::new(our_role, ours.config(&theirs), &stranger, config, 1, &link);
        pair.run_until("the refusal", |seen| seen.our_end.is_some());
        assert!(matches!(pair.seen.our_end, Some(CloseReason::PeerRefused(_))));
        assert_eq!(pair.seen.our_suite, None);
    }
}
