//! Sessions in a simulator: for tests and benches, behind the feature `testing`.
//!
//! [`Pair`] runs two sessions over lossy links on a virtual clock. [`fuzz`] holds bodies that a
//! fuzzer, a property test and the replay of a corpus share. [`model`] runs both with their applications through
//! whatever a seed decides.
#![expect(clippy::expect_used, reason = "a simulation that cannot go on has failed")]

pub mod fuzz;
pub mod heat;
pub mod model;
mod pair;

use std::sync::OnceLock;
use std::time::Instant;

pub use pair::{End, Habit, Pair, Side, body, bottleneck, document, lossy, name};

/// The begin of virtual time: any instant will do, and it never advances by itself.
pub fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    #[allow(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
    *START.get_or_init(Instant::now)
}
