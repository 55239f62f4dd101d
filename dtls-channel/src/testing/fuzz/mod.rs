//! What a fuzzer runs. Each body takes any bytes, panics when a rule is broken, and is shared by
//! the fuzzer, the replay of the corpus and random tests; `docs/fuzzing.md` has the rules.
//!
//! Handshakes draw on the system's randomness, so a script is repeated exactly only in what the
//! network does, not in the bytes of keys and signatures.
#![expect(clippy::expect_used, reason = "a rule that is broken ends the run by a panic")]

mod association;
mod certificate;
mod endpoint;
mod handshake;
mod identity;
mod reassembly;
mod record;
pub mod seeds;
mod session;

pub use association::association;
pub use certificate::certificate;
pub use endpoint::endpoint;
pub use handshake::handshake;
pub use reassembly::reassembly;
pub use record::record;
pub use session::session;

use arbitrary::Unstructured;

/// The next byte; zero when the input is used up.
fn byte(input: &mut Unstructured<'_>) -> u8 {
    input.arbitrary().unwrap_or(0)
}

/// The next two bytes as a number; zero when the input is used up.
fn word(input: &mut Unstructured<'_>) -> u16 {
    u16::from_be_bytes([byte(input), byte(input)])
}

/// The next bytes: as many as are asked for, or all there are.
fn bytes<'a>(input: &mut Unstructured<'a>, count: usize) -> &'a [u8] {
    input.bytes(count.min(input.len())).unwrap_or(&[])
}
