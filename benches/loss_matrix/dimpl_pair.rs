//! Two `dimpl` ends on a virtual clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use certs::Identity;
use channel_benches::identity;
use dimpl::crypto::Dtls12CipherSuite;
use dimpl::{Config, ConfigBuilder, Dtls, DtlsCertificate, Output};
use dtls_channel::MTU_DEFAULT;
use dtls_channel::testing::{Link, LinkConfig};

use crate::engine::Pair;

/// More than fit into any time.
const RETRIES_WITHOUT_END: usize = 1_000;

pub(crate) struct DimplPair {
    client: Identity,
    server: Identity,
    patience: Option<Duration>,
    buffer: Vec<u8>,
}

/// One end, and the link that it sends into.
struct End {
    dtls: Dtls,
    out: Link,
    timeout: Option<Instant>,
    is_open: bool,
    has_failed: bool,
}

impl DimplPair {
    /// With its defaults, or with as many retries as fit into `patience`.
    pub(crate) fn new(patience: Option<Duration>) -> Self {
        Self { client: identity(), server: identity(), patience, buffer: vec![0; 4_096] }
    }

    fn config(&self, seed: u64) -> Arc<Config> {
        let suites = [Dtls12CipherSuite::ECDHE_ECDSA_AES128_GCM_SHA256];
        let patient = |config: ConfigBuilder| match self.patience {
            Some(time) => config.flight_retries(RETRIES_WITHOUT_END).handshake_timeout(time),
            None => config,
        };
        let config = Config::builder().mtu(MTU_DEFAULT).dtls12_cipher_suites(&suites);
        Arc::new(patient(config.dangerously_set_rng_seed(seed)).build().expect("a configuration"))
    }

    fn end(&self, own: &Identity, seed: u64, link: &LinkConfig, now: Instant) -> End {
        let certificate = DtlsCertificate {
            certificate: own.certificate_der().to_vec(),
            private_key: own.pkcs8().to_vec(),
        };
        End {
            dtls: Dtls::new_12(self.config(seed), certificate, now),
            out: Link::new(seed, link.clone()),
            timeout: None,
            is_open: false,
            has_failed: false,
        }
    }
}

impl End {
    /// Takes what it has to say.
    fn drain(&mut self, now: Instant, buffer: &mut [u8]) {
        loop {
            match self.dtls.poll_output(buffer) {
                Output::Packet(datagram) => self.out.push(now, datagram.to_vec()),
                Output::Timeout(at) => {
                    self.timeout = Some(at);
                    return;
                }
                Output::Connected => self.is_open = true,
                _ => {}
            }
        }
    }

    /// Does what is due, with what has come from the other end.
    fn advance(&mut self, now: Instant, from: &mut Link, buffer: &mut [u8]) {
        let mut result = self.dtls.handle_timeout(now);
        self.drain(now, buffer);
        while let Some(datagram) = from.pop(now) {
            result = result.and_then(|()| self.dtls.handle_packet(&datagram));
            self.drain(now, buffer);
        }
        self.has_failed |= result.is_err();
    }
}

impl Pair for DimplPair {
    fn handshake(&mut self, seed: u64, link: &LinkConfig, limit: Duration) -> Option<Duration> {
        let start = Instant::now();
        let mut now = start;
        let mut client = self.end(&self.client, 2 * seed, link, now);
        let mut server = self.end(&self.server, 2 * seed + 1, link, now);
        client.dtls.set_active(true);
        loop {
            client.advance(now, &mut server.out, &mut self.buffer);
            server.advance(now, &mut client.out, &mut self.buffer);
            if client.is_open && server.is_open {
                return Some(now - start);
            }
            if client.has_failed || server.has_failed {
                return None;
            }
            let due =
                [client.timeout, server.timeout, client.out.next_due(), server.out.next_due()];
            let next = due.into_iter().flatten().filter(|at| *at > now).min();
            now = next.filter(|at| *at <= start + limit)?;
        }
    }
}
