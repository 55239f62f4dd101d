//! Project Wycheproof's vectors through what the handshake and the record layer call, not through
//! ring itself: what counts is that nothing on the way loosens or breaks what ring checks.
//!
//! Every set says how many of its vectors ran and which do not apply, and why; the numbers are
//! asserted, so that a vector cannot drop out unseen.

mod agreement;
mod records;
mod signatures;

/// How many vectors of a set did what.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    accepted: usize,
    refused: usize,
    not_applicable: usize,
}
