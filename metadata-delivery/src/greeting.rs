//! HELLO both ways: what we accept, what the peer accepts.

use std::time::{Duration, Instant};

use crate::PacketError;
use crate::ack::ACK_DELAY_MAX;
use crate::form;
use crate::limits::{EARLY_DOCUMENT_BYTES_MAX, REPAIR_SYMBOLS_MAX};
use crate::outbound::PeerLimits;
use crate::session::SessionConfig;
use crate::wire::{ABILITY_ECN, ENCODINGS_RAW, Hello, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};

/// A peer that claims a longer delay than this for its acknowledgements is not believed.
const PEER_ACK_DELAY_MAX: Duration = Duration::from_secs(1);

/// Our HELLO on its way, and the peer's once it came.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// Ours, told to the peer.
    abilities: u64,
    generation: u64,
    /// Until then it is in every packet that carries anything.
    acked: bool,
    /// Whether a packet has to be sent for it alone.
    due: bool,
    /// When it will have to be, unless something is sent before.
    due_at: Option<Instant>,
    peer: Option<Hello>,
}

impl Greeting {
    /// `abilities`: as in HELLO.
    pub(crate) fn new(abilities: u64) -> Self {
        Self { abilities, generation: 0, acked: false, due: true, due_at: None, peer: None }
    }

    /// Our limits have changed: say so.
    pub(crate) fn renew(&mut self) {
        self.generation += 1;
        self.acked = false;
        self.due = true;
    }

    /// What it can go with is close: until then it needs no packet of its own.
    pub(crate) fn wait(&mut self, until: Instant) {
        self.due = false;
        self.due_at = Some(until);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.due_at.take_if(|at| *at <= now).is_some() {
            self.due = true;
        }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.due
    }

    /// The HELLO to put into a packet, unless the peer has it.
    pub(crate) fn hello(&self, config: &SessionConfig) -> Option<Hello> {
        let limits = &config.limits;
        let ack_delay_max =
            config.lag_max.saturating_mul(2).saturating_add(ACK_DELAY_MAX).min(PEER_ACK_DELAY_MAX);
        (!self.acked).then(|| Hello {
            version_max: PROTOCOL_VERSION_MAX,
            version_min: PROTOCOL_VERSION_MIN,
            generation: self.generation,
            ack_delay_max_us: ack_delay_max.as_micros() as u64,
            document_bytes_max: limits.document_bytes_max as u64,
            inbound_bytes_max: limits.inbound_bytes_max as u64,
            inbound_transfers_max: limits.inbound_transfers_max as u64,
            encodings: form::encodings(limits.compressed),
            repair_symbols_max: REPAIR_SYMBOLS_MAX as u64,
            abilities: self.abilities,
        })
    }

    pub(crate) fn sent(&mut self) {
        self.due = false;
        self.due_at = None;
    }

    pub(crate) fn acked(&mut self, generation: u64) {
        if generation == self.generation {
            self.acked = true;
            self.due = false;
        }
    }

    pub(crate) fn lost(&mut self, generation: u64) {
        if generation == self.generation && !self.acked {
            self.due = true;
        }
    }

    /// Takes in the peer's HELLO. An older generation is late and says nothing new.
    pub(crate) fn on_hello(&mut self, hello: Hello) -> Result<(), PacketError> {
        if hello.version_min > PROTOCOL_VERSION_MAX || hello.version_max < PROTOCOL_VERSION_MIN {
            return Err(PacketError::ProtocolVersion {
                peer_min: hello.version_min,
                peer_max: hello.version_max,
                own_min: PROTOCOL_VERSION_MIN,
                own_max: PROTOCOL_VERSION_MAX,
            });
        }
        match &self.peer {
            Some(known) if hello.generation < known.generation => {}
            Some(known) if hello.generation == known.generation && hello != *known => {
                return Err(PacketError::HelloChanged { generation: hello.generation });
            }
            _ => self.peer = Some(hello),
        }
        Ok(())
    }

    /// How long the peer may hold an acknowledgement back.
    pub(crate) fn peer_ack_delay_max(&self) -> Duration {
        self.peer.map_or(ACK_DELAY_MAX, |hello| {
            Duration::from_micros(hello.ack_delay_max_us).min(PEER_ACK_DELAY_MAX)
        })
    }

    /// Whether the peer counts the congestion marks of our packets.
    pub(crate) fn peer_counts_ecn(&self) -> bool {
        self.peer.is_some_and(|hello| hello.abilities & ABILITY_ECN != 0)
    }

    /// What the peer accepts, or the cautious assumption until it has said so.
    pub(crate) fn peer_limits(&self) -> PeerLimits {
        match &self.peer {
            Some(hello) => PeerLimits {
                document_bytes_max: hello.document_bytes_max,
                inbound_bytes_max: hello.inbound_bytes_max,
                inbound_transfers_max: hello.inbound_transfers_max,
                encodings: hello.encodings,
                repair_symbols_max: hello.repair_symbols_max,
                told: true,
            },
            None => PeerLimits {
                document_bytes_max: EARLY_DOCUMENT_BYTES_MAX,
                inbound_bytes_max: EARLY_DOCUMENT_BYTES_MAX,
                inbound_transfers_max: 1,
                encodings: ENCODINGS_RAW,
                repair_symbols_max: 0,
                told: false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(generation: u64, document_bytes_max: u64) -> Hello {
        let own = Greeting::new(0).hello(&SessionConfig::default()).unwrap();
        Hello { generation, document_bytes_max, ..own }
    }

    #[test]
    fn it_is_repeated_until_this_generation_is_acknowledged() {
        let config = SessionConfig::default();
        let mut greeting = Greeting::new(0);
        assert!(greeting.is_due());
        greeting.sent();
        assert!(!greeting.is_due());
        assert!(greeting.hello(&config).is_some(), "rides along in every packet");
        greeting.lost(0);
        assert!(greeting.is_due());
        greeting.renew();
        greeting.acked(0);
        assert_eq!(greeting.hello(&config).map(|hello| hello.generation), Some(1));
        greeting.acked(1);
        assert_eq!(greeting.hello(&config), None);
        greeting.lost(1);
        assert!(!greeting.is_due(), "an old copy was lost, another had arrived");
    }

    #[test]
    fn the_newest_generation_counts_in_whatever_order_they_come() {
        let mut greeting = Greeting::new(0);
        assert!(!greeting.peer_limits().told);
        greeting.on_hello(hello(1, 5000)).unwrap();
        greeting.on_hello(hello(0, 4096)).unwrap();
        assert_eq!(greeting.peer_limits().document_bytes_max, 5000);
        greeting.on_hello(hello(1, 5000)).unwrap();
        assert_eq!(greeting.peer_limits().document_bytes_max, 5000);
        assert_eq!(
            greeting.on_hello(hello(1, 6000)),
            Err(PacketError::HelloChanged { generation: 1 })
        );
    }

    #[test]
    fn a_neighbouring_version_is_welcome_and_a_distant_one_is_not() {
        let versions = |min, max| Hello { version_min: min, version_max: max, ..hello(0, 1) };
        assert!(Greeting::new(0).on_hello(versions(1, 2)).is_ok());
        assert!(Greeting::new(0).on_hello(versions(0, 1)).is_ok());
        assert!(Greeting::new(0).on_hello(versions(2, 3)).is_err());
        assert!(Greeting::new(0).on_hello(versions(0, 0)).is_err());
    }

    #[test]
    fn an_absurd_delay_is_not_believed() {
        let mut greeting = Greeting::new(0);
        greeting.on_hello(Hello { ack_delay_max_us: u64::MAX >> 2, ..hello(0, 1) }).unwrap();
        assert_eq!(greeting.peer_ack_delay_max(), PEER_ACK_DELAY_MAX);
    }
}
