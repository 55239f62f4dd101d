//! The crate `dimpl`.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::crypto::Dtls12CipherSuite;
use dimpl::{Config, Dtls, DtlsCertificate, Output};

use super::{Options, Read, Session, fail, report};

const DATAGRAM_BYTES_MAX: usize = 65_535;

pub(super) struct Dimpl {
    dtls: Dtls,
    socket: UdpSocket,
    pinned: Option<Vec<u8>>,
    connected: bool,
    verified: bool,
    received: VecDeque<Vec<u8>>,
    closed: bool,
}

fn suites() -> [(Dtls12CipherSuite, &'static str); 3] {
    [
        (Dtls12CipherSuite::ECDHE_ECDSA_AES128_GCM_SHA256, "ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        (Dtls12CipherSuite::ECDHE_ECDSA_AES256_GCM_SHA384, "ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (
            Dtls12CipherSuite::ECDHE_ECDSA_CHACHA20_POLY1305_SHA256,
            "ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        ),
    ]
}

/// Handshakes.
pub(super) fn open(options: &Options, socket: UdpSocket) -> Dimpl {
    let wanted = |name: &str| options.suite.as_deref().is_none_or(|suite| suite == name);
    let suites: Vec<_> =
        suites().into_iter().filter(|(_, name)| wanted(name)).map(|(suite, _)| suite).collect();
    // Its usual four retries are not always enough on a bad network.
    let config = Config::builder()
        .mtu(options.mtu)
        .dtls12_cipher_suites(&suites)
        .flight_retries(10)
        .handshake_timeout(Duration::from_secs(120))
        .build();
    let certificate = DtlsCertificate {
        certificate: options.certificate.clone(),
        private_key: options.key.clone(),
    };
    let now = Instant::now();
    let mut dtls =
        Dtls::new_12(Arc::new(config.unwrap_or_else(|error| fail(error))), certificate, now);
    if options.server.is_some() {
        dtls.set_active(true);
    }
    dtls.handle_timeout(now).unwrap_or_else(|error| fail(error));
    let mut session = Dimpl {
        dtls,
        socket,
        pinned: options.pinned.clone(),
        connected: false,
        verified: false,
        received: VecDeque::new(),
        closed: false,
    };
    while !session.connected {
        session.turn(Duration::from_secs(1));
    }
    if session.pinned.is_some() && !session.verified {
        fail("connected without the peer's certificate");
    }
    // It does not tell what was agreed: known where only one was allowed.
    report(options.suite.as_deref().unwrap_or("-"));
    session
}

impl Dimpl {
    /// Sends what there is, then takes one datagram or lets a timer run off.
    fn turn(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        let timeout = self.drain();
        let wake = timeout.map_or(end, |at| at.min(end));
        // Zero would mean for ever.
        let wait = wake.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(wait)).unwrap_or_else(|error| fail(error));
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        match self.socket.recv(&mut datagram) {
            Ok(length) => {
                let handled = self.dtls.handle_packet(&datagram[..length]);
                handled.unwrap_or_else(|error| fail(error));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => fail(error),
        }
        self.dtls.handle_timeout(Instant::now()).unwrap_or_else(|error| fail(error));
        self.drain();
    }

    fn drain(&mut self) -> Option<Instant> {
        let mut buffer = vec![0; 4_096];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) => {
                    // Refused where the other program has gone already.
                    let _ = self.socket.send(datagram);
                }
                Output::Timeout(at) => return Some(at),
                Output::Connected => self.connected = true,
                Output::PeerCert(der) => {
                    if self.pinned.as_deref().is_some_and(|pinned| pinned != der) {
                        fail("the peer's certificate is not the one in PEER_CERT");
                    }
                    self.verified = true;
                }
                Output::ApplicationData(data) => self.received.push_back(data.to_vec()),
                Output::CloseNotify => self.closed = true,
                _ => {}
            }
        }
    }
}

impl Session for Dimpl {
    fn write(&mut self, message: &[u8]) {
        self.dtls.send_application_data(message).unwrap_or_else(|error| fail(error));
        self.drain();
    }

    fn read(&mut self, patience: Duration) -> Read {
        if self.received.is_empty() && !self.closed {
            self.turn(patience);
        }
        match self.received.pop_front() {
            Some(message) => Read::Message(message),
            None if self.closed => Read::Closed,
            None => Read::Nothing,
        }
    }

    fn close(mut self) {
        let _ = self.dtls.close();
        self.drain();
    }
}
