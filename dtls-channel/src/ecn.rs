/// What the IP header of a datagram says about congestion (RFC 3168 §5, RFC 8311): the two lowest bits of IPv4's
/// TOS field, or of IPv6's traffic class.
///
/// Nothing protects it: whoever forwards a datagram can write another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The sender does not understand marks: full queues drop its datagrams. Also where the socket does not tell.
    #[default]
    NotEct = 0b00,
    /// The sender understands marks, and may be one for whom they are set early (RFC 9331).
    Ect1 = 0b01,
    /// The sender understands marks.
    Ect0 = 0b10,
    /// Congestion experienced: a queue on the way would rather have dropped it.
    Ce = 0b11,
}

impl Ecn {
    /// By the two lowest bits; the others say nothing about congestion.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_lowest_bits_say_it_and_no_others() {
        for bits in 0..=u8::MAX {
            assert_eq!(Ecn::from_bits(bits).bits(), bits & 3);
        }
        assert_eq!(Ecn::from_bits(0b10), Ecn::Ect0, "RFC 3168, figure 1");
    }
}
