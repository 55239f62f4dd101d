//! Explicit congestion notification (RFC 3168, RFC 8311): what the IP header of a packet said, how many packets said
//! what, and whether ours say anything.

mod marking;

pub(crate) use marking::Marking;

/// What the IP header of a packet says about congestion (RFC 3168 §5).
///
/// Nothing protects it: whoever forwards a packet can write another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// Nothing: the sender does not understand marks, or the channel does not tell.
    #[default]
    NotEct = 0b00,
    /// The sender understands marks, and may be one for whom they are set early (RFC 9331).
    Ect1 = 0b01,
    /// The sender understands marks.
    Ect0 = 0b10,
    /// Congestion experienced.
    Ce = 0b11,
}

impl Ecn {
    /// By the two lowest bits of IPv4's TOS field or IPv6's traffic class; the others say nothing about congestion.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The two bits, 0 to 3.
    #[must_use]
    pub fn bits(self) -> u8 {
        self as u8
    }
}

/// How many packets came with each codepoint, duplicates apart, since the session began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EcnCounts {
    pub(crate) ect0: u64,
    pub(crate) ect1: u64,
    pub(crate) ce: u64,
}

impl EcnCounts {
    /// Counts a packet.
    pub(crate) fn add(&mut self, ecn: Ecn) {
        match ecn {
            Ecn::NotEct => {}
            Ecn::Ect0 => self.ect0 += 1,
            Ecn::Ect1 => self.ect1 += 1,
            Ecn::Ce => self.ce += 1,
        }
    }

    /// The counts, if any packet was counted.
    pub(crate) fn told(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }

    /// How many of the packets that were sent as ECT(0) are counted.
    fn of_ect0(self) -> u64 {
        self.ect0.saturating_add(self.ce)
    }

    /// By how much each has risen; `None` if one has fallen.
    fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            ect0: self.ect0.checked_sub(before.ect0)?,
            ect1: self.ect1.checked_sub(before.ect1)?,
            ce: self.ce.checked_sub(before.ce)?,
        })
    }
}
