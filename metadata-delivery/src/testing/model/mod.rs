//! The model check: an agent and its server go through whatever a seed decides, and nothing may be lost, stale,
//! duplicated or corrupted.
//!
//! Both ends are sessions with an application behind them that behaves as the real ones do: it writes to a disk,
//! which takes a while and survives a restart, says *stored* only then, and offers again after each reconnect
//! what was not answered. A ledger that never forgets holds everything that was ever offered; each event is held
//! against it.
//!
//! Decided by the seed: documents of up to 256 KiB as they are, compressed or as deltas, some to a base that the
//! agent does not hold; results, signals and progress the other way; newer versions in the middle of older ones;
//! losses alone and in bursts, duplicates, reordering, narrow and slow paths; outages; other addresses, with another
//! path behind them or none; restarts of either program, with what was being written lost; goodbyes.
//! In the end the path calms down, and everything has to be where it belongs.

mod agent;
mod path;
mod server;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::{Document, Name};
use world::World;

/// After the last disturbance, everything is to be where it belongs by then.
const CALM_MAX: Duration = Duration::from_secs(600);

/// What runs have been through, to see that they are worth something.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    /// Versions of the metadata document pushed.
    pub pushes: u64,
    /// Versions that the agent has made durable; newer ones took the place of the others.
    pub applied: u64,
    /// Versions that the agent's application has refused.
    pub refused: u64,
    /// Results and signals offered by the agent.
    pub results: u64,
    /// Results, signals and versions that came once more, as their confirmation was lost with its session, and were
    /// recognised.
    pub recognised: u64,
    /// Sessions established.
    pub sessions: u64,
    /// Restarts of the agent and of the server.
    pub restarts: u64,
    /// Changes of the agent's address.
    pub moves: u64,
    /// Times that nothing passed.
    pub outages: u64,
    /// Transfers given up for a newer version.
    pub superseded: u64,
    /// Documents sent compressed or as deltas.
    pub encoded: u64,
    /// Those of them that the agent could not read.
    pub unread: u64,
    /// Documents of which symbols of the erasure code have supplied a part.
    pub repaired: u64,
    /// Datagrams lost, at random or for want of room.
    pub lost: u64,
    /// Virtual time, in milliseconds.
    pub milliseconds: u64,
}

impl Covered {
    /// Adds what another run has been through.
    pub fn add(&mut self, other: &Self) {
        let Self {
            pushes,
            applied,
            refused,
            results,
            recognised,
            sessions,
            restarts,
            moves,
            outages,
            superseded,
            encoded,
            unread,
            repaired,
            lost,
            milliseconds,
        } = other;
        self.pushes += pushes;
        self.applied += applied;
        self.refused += refused;
        self.results += results;
        self.recognised += recognised;
        self.sessions += sessions;
        self.restarts += restarts;
        self.moves += moves;
        self.outages += outages;
        self.superseded += superseded;
        self.encoded += encoded;
        self.unread += unread;
        self.repaired += repaired;
        self.lost += lost;
        self.milliseconds += milliseconds;
    }
}

/// One run, wholly decided by its seed.
///
/// # Panics
/// When a rule is broken; the seed is then printed.
#[must_use]
pub fn run(seed: u64) -> Covered {
    let _told = Told(seed);
    let mut world = World::new(seed);
    world.disturb();
    world.calm_down(CALM_MAX);
    world.covered()
}

/// Names the seed, whatever it is that fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("model check: seed {} has failed", self.0);
        }
    }
}

/// Everything that was ever offered, by name and version. The two ends use different names.
#[derive(Debug, Default)]
struct Ledger(BTreeMap<(Name, u64), Bytes>);

impl Ledger {
    fn note(&mut self, document: &Document) {
        let before =
            self.0.insert((document.name.clone(), document.version), document.body.clone());
        assert!(before.is_none(), "the model offers {} twice", document.name);
    }

    /// Holds a document that was received against it.
    fn check(&self, document: &Document) {
        let Document { name, version, body } = document;
        let offered = self.0.get(&(name.clone(), *version));
        assert!(offered.is_some(), "{name} v{version} was received and never offered");
        assert!(offered == Some(body), "{name} v{version} is corrupted");
    }
}
