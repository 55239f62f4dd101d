//! The `dimpl` crate. It exports no keys and does not say whether there is an extended master
//! secret; it requires one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::crypto::{Dtls12CipherSuite, NamedGroup};
use dimpl::{Dtls, DtlsCertificate, Output};
use dtls_channel::{CipherSuite, Group};

use crate::peer::{End, Peer, Seen, Setup};
use crate::script::Side;

/// One association.
pub(crate) struct Dimpl {
    dtls: Dtls,
    timeout: Option<Instant>,
    datagrams: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    pinned: Vec<u8>,
    seen: Seen,
}

fn suite(suite: CipherSuite) -> Dtls12CipherSuite {
    match suite {
        CipherSuite::Aes128GcmSha256 => Dtls12CipherSuite::ECDHE_ECDSA_AES128_GCM_SHA256,
        CipherSuite::Aes256GcmSha384 => Dtls12CipherSuite::ECDHE_ECDSA_AES256_GCM_SHA384,
        CipherSuite::Chacha20Poly1305Sha256 => {
            Dtls12CipherSuite::ECDHE_ECDSA_CHACHA20_POLY1305_SHA256
        }
    }
}

fn group(group: Group) -> NamedGroup {
    match group {
        Group::P256 => NamedGroup::Secp256r1,
        Group::X25519 => NamedGroup::X25519,
        Group::P384 => NamedGroup::Secp384r1,
    }
}

impl Dimpl {
    pub(crate) fn new(now: Instant, setup: &Setup) -> Self {
        let suites: Vec<_> = setup.suites.iter().copied().map(suite).collect();
        let groups: Vec<_> = setup.groups.iter().copied().map(group).collect();
        let config = dimpl::Config::builder()
            .mtu(setup.mtu)
            .dtls12_cipher_suites(&suites)
            .kx_groups(&groups)
            .flight_start_rto(Duration::from_millis(400))
            .flight_retries(20)
            .handshake_timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        let identity = DtlsCertificate {
            certificate: setup.identity.certificate.clone(),
            private_key: setup.identity.pkcs8.clone(),
        };
        let mut dtls = Dtls::new_12(Arc::new(config), identity, now);
        dtls.set_active(setup.side == Side::Client);
        let mut this = Self {
            dtls,
            timeout: None,
            datagrams: Vec::new(),
            buffer: vec![0; 4_096],
            pinned: setup.pinned.certificate.clone(),
            seen: Seen::default(),
        };
        this.handle_timeout(now);
        this
    }

    fn note(&mut self, result: Result<(), dimpl::Error>) {
        if let Err(error) = result {
            self.seen.end.get_or_insert_with(|| End::Failed(error.to_string()));
        }
        loop {
            match self.dtls.poll_output(&mut self.buffer) {
                Output::Packet(datagram) => self.datagrams.push(datagram.to_vec()),
                Output::Timeout(at) => {
                    self.timeout = Some(at);
                    return;
                }
                Output::Connected => self.seen.is_open = true,
                Output::PeerCert(der) => {
                    assert_eq!(der, self.pinned, "scripts with a wrong pin are not for this peer");
                    self.seen.peer_certificate = Some(der.to_vec());
                }
                Output::ApplicationData(data) => self.seen.messages.push(data.to_vec()),
                Output::CloseNotify => {
                    self.seen.end.get_or_insert(End::PeerClosed);
                }
                // It negotiates SRTP with its own kind unasked.
                Output::KeyingMaterial(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Peer for Dimpl {
    fn receive(&mut self, now: Instant, datagram: Vec<u8>) {
        self.handle_timeout(now);
        let result = self.dtls.handle_packet(&datagram);
        self.note(result);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.timeout.filter(|_| self.seen.end.is_none())
    }

    fn handle_timeout(&mut self, now: Instant) {
        let result = self.dtls.handle_timeout(now);
        self.note(result);
    }

    fn send(&mut self, now: Instant, message: &[u8]) {
        self.handle_timeout(now);
        let result = self.dtls.send_application_data(message);
        self.note(result.map(drop));
    }

    fn close(&mut self, _now: Instant) {
        let result = self.dtls.close();
        self.note(result);
        self.seen.end.get_or_insert(End::Closed);
    }

    fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.datagrams)
    }

    fn seen(&self) -> &Seen {
        &self.seen
    }
}
