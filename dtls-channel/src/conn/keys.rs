//! The keys of a handshake, and who is told of them.

use super::handshake::Core;
use crate::crypto::{CipherSuite, MasterSecret, PremasterSecret, TrafficKey};
use crate::record::{ReadKeys, WriteKeys};

/// Both directions' traffic keys.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct KeyPair {
    pub(super) client: TrafficKey,
    pub(super) server: TrafficKey,
}

impl Core {
    /// Derives the master secret and both directions' keys.
    pub(super) fn derive_keys(
        &self,
        suite: CipherSuite,
        premaster: &PremasterSecret,
        ems: bool,
    ) -> (MasterSecret, KeyPair) {
        let randoms = self.randoms();
        let master = if ems {
            MasterSecret::extended(suite, premaster, &self.transcript)
        } else {
            MasterSecret::classic(suite, premaster, &randoms)
        };
        let keys = self.traffic_keys(&master);
        (master, keys)
    }

    /// Both directions' keys under a master secret, which the key log is told.
    pub(super) fn traffic_keys(&self, master: &MasterSecret) -> KeyPair {
        if let Some(log) = &self.config.key_log {
            log.log(&key_log_line(&self.client_random, master));
        }
        let (client, server) = master.traffic_keys(&self.randoms());
        KeyPair { client, server }
    }

    /// From here on only protected messages are due.
    pub(super) fn take_up(&mut self, write: TrafficKey, read: TrafficKey) {
        self.write_under(write);
        self.read_under(read);
    }

    /// What we seal from here on is sealed under `key`.
    pub(super) fn write_under(&mut self, key: TrafficKey) {
        let id = self.ids.theirs().clone();
        self.write = Some(WriteKeys::new(key, id, self.record_limits.sent));
    }

    /// From here on only messages under `key` are due.
    pub(super) fn read_under(&mut self, key: TrafficKey) {
        let (window, limit) = (self.config.replay_window, self.record_limits.received);
        self.incoming.forget_unfinished();
        self.read = Some(ReadKeys::new(key, self.ids.own().clone(), window, limit));
    }
}

/// `CLIENT_RANDOM`, the line that every tool reads for TLS 1.2.
fn key_log_line(client_random: &[u8; 32], master: &MasterSecret) -> String {
    use std::fmt::Write;

    let mut line = String::from("CLIENT_RANDOM ");
    for (bytes, end) in [(&client_random[..], " "), (&master.as_bytes()[..], "")] {
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(line, "{byte:02x}");
        }
        line.push_str(end);
    }
    line
}
