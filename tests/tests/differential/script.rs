//! What one run does to whatever two implementations it is given: all of it follows from a seed.

use std::time::Duration;

use dtls_channel::testing::{LinkConfig, Rng};
use dtls_channel::{CipherSuite, Group};

/// The two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Kinds of long-term keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum KeyKind {
    P256,
    P384,
    Ed25519,
}

impl KeyKind {
    pub(crate) const ALL: [Self; 3] = [Self::P256, Self::P384, Self::Ed25519];

    /// The group with the key's curve, if it is one for key exchange too.
    pub(crate) fn curve(self) -> Option<Group> {
        match self {
            Self::P256 => Some(Group::P256),
            Self::P384 => Some(Group::P384),
            Self::Ed25519 => None,
        }
    }
}

/// What becomes of a datagram with a message in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives.
    Arrives,
    /// It is lost.
    Lost,
    /// It arrives this often, one copy after the other.
    Repeated(u8),
    /// It arrives after this many steps.
    Late(u8),
    /// It arrives, and once more after this many steps.
    Replayed(u8),
    /// What arrives differs in one bit.
    Bent(u64),
    /// What arrives is shorter by this many bytes.
    Cut(u8),
    /// Before it arrive records that anybody can make, in clear.
    Forged,
}

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) from: Side,
    pub(crate) message: Vec<u8>,
    pub(crate) fate: Fate,
}

/// What one end is set to.
#[derive(Debug, Clone)]
pub(crate) struct Choices {
    pub(crate) suites: Vec<CipherSuite>,
    pub(crate) groups: Vec<Group>,
    pub(crate) key: KeyKind,
    pub(crate) mtu: usize,
    /// False if it wants another certificate than the one it will see.
    pub(crate) pins_the_peer: bool,
    /// False if it has no extended master secret; of ours and dimpl it always does.
    pub(crate) has_ems: bool,
}

/// A whole run.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) client: Choices,
    pub(crate) server: Choices,
    /// During the handshake, each way.
    pub(crate) link: LinkConfig,
    pub(crate) steps: Vec<Step>,
    pub(crate) closes: Side,
}

fn chance(rng: &mut Rng, percent: u64) -> bool {
    rng.below(100) < percent
}

/// Some of `all`, at least one, in any order. All of them in every second case.
fn some<T: Copy>(rng: &mut Rng, all: &[T]) -> Vec<T> {
    let mut list = all.to_vec();
    for i in (1..list.len()).rev() {
        list.swap(i, rng.below(i as u64 + 1) as usize);
    }
    if chance(rng, 50) {
        list.truncate(1 + rng.below(all.len() as u64) as usize);
    }
    list
}

impl Choices {
    fn random(rng: &mut Rng) -> Self {
        Self {
            suites: some(rng, &CipherSuite::ALL),
            groups: some(rng, &Group::ALL),
            key: match rng.below(10) {
                0..6 => KeyKind::P256,
                6..8 => KeyKind::P384,
                _ => KeyKind::Ed25519,
            },
            // From where every flight is in many pieces to where each is one datagram.
            mtu: 256 + rng.below(1_145) as usize,
            pins_the_peer: !chance(rng, 3),
            has_ems: !chance(rng, 5),
        }
    }
}

impl Fate {
    fn random(rng: &mut Rng) -> Self {
        match rng.below(100) {
            0..40 => Self::Arrives,
            40..55 => Self::Lost,
            55..63 => Self::Repeated(2 + rng.below(3) as u8),
            63..74 => Self::Late(1 + rng.below(8) as u8),
            // Beyond a window of 64 now and then.
            74..82 => Self::Replayed(1 + rng.below(90) as u8),
            82..89 => Self::Bent(rng.next_u64()),
            89..94 => Self::Cut(1 + rng.below(40) as u8),
            _ => Self::Forged,
        }
    }
}

impl Script {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let (mut client, mut server) = (Choices::random(rng), Choices::random(rng));
        // A client's list is one of curves of certificates too, and ours always has both. OpenSSL as
        // server wants the curve of the client's key in its own.
        if chance(rng, 90) {
            let theirs = client.key.curve();
            let more = |curve: &Group| *curve != Group::X25519;
            for (groups, more) in [
                (&mut client.groups, Group::ALL.into_iter().filter(more).collect()),
                (&mut server.groups, Vec::from_iter(theirs)),
            ] {
                let missing = more.into_iter().filter(|curve| !groups.contains(curve));
                let missing: Vec<_> = missing.collect();
                groups.extend(missing);
            }
        }
        let percent = |rng: &mut Rng, most: u64| rng.below(most + 1) as f64 / 100.0;
        // A third of the links is perfect.
        let bad = !chance(rng, 33);
        let most = |percent: u64| if bad { percent } else { 0 };
        let link = LinkConfig {
            delay: Duration::from_millis(1 + rng.below(60)),
            jitter: Duration::from_millis(rng.below(most(20) + 1)),
            loss: percent(rng, most(20)),
            duplicate: percent(rng, most(15)),
            reorder: percent(rng, most(15)),
            ..LinkConfig::default()
        };
        // Messages fit the smaller of the two sizes: some implementations send nothing larger. Ours
        // goes down to 820 bytes where a handshake's datagrams are lost again and again.
        let room = client.mtu.min(server.mtu).min(820) - 80;
        let count = if chance(rng, 10) { 60 + rng.below(80) } else { rng.below(20) };
        let steps = (0..count)
            .map(|n| {
                let mut message = format!("message {n} ").into_bytes();
                let length = message.len() + rng.below((room - message.len()) as u64) as usize;
                while message.len() < length {
                    message.push(rng.next_u64() as u8);
                }
                let from = if chance(rng, 50) { Side::Client } else { Side::Server };
                Step { from, message, fate: Fate::random(rng) }
            })
            .collect();
        let closes = if chance(rng, 50) { Side::Client } else { Side::Server };
        Self { seed, client, server, link, steps, closes }
    }

    pub(crate) fn choices(&self, side: Side) -> &Choices {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }
}
