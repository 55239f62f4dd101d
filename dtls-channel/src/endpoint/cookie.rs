use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ring::hmac;

use super::hello::Prefix;
use crate::crypto::{NoRandom, random, same};

/// How long a secret makes new cookies; as long again it still verifies them.
const SECRET_LIFETIME: Duration = Duration::from_secs(60);
/// Generation and two tags; with it a HelloVerifyRequest is shorter than any ClientHello.
const COOKIE_LEN: usize = 32;
const ADDRESS_TAG: std::ops::Range<usize> = 1..16;
const OFFER_TAG: std::ops::Range<usize> = 16..32;
const OFFER_TAG_LEN: usize = 16;

/// Makes and verifies cookies without remembering any (RFC 6347 §4.2.1).
///
/// A cookie is a generation byte, a tag over address, port, version and random, and a tag over all
/// that and the offer: cipher suites and compression methods. The second is zero if the hello it
/// answers came in pieces, as the first piece is all there is then; the first tag covers which of
/// the two it is.
///
/// Left out are the extensions, which may change (wolfSSL brings them in another order when it
/// resumes), and the session id, which may not but does: Mbed TLS makes a new one for each hello
/// with a ticket, and it means nothing to a server without a session cache.
#[derive(Debug)]
pub(super) struct CookieJar {
    current: hmac::Key,
    previous: hmac::Key,
    generation: u8,
    rotate_at: Instant,
}

impl CookieJar {
    pub(super) fn new(now: Instant) -> Result<Self, NoRandom> {
        let key = || random::<32>().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, &secret));
        Ok(Self {
            current: key()?,
            previous: key()?,
            generation: 0,
            rotate_at: now + SECRET_LIFETIME,
        })
    }

    /// Without randomness the old secret goes on: worse than a new one, better than none.
    fn rotate(&mut self, now: Instant) {
        while now >= self.rotate_at {
            let Ok(secret) = random::<32>() else { return };
            let fresh = hmac::Key::new(hmac::HMAC_SHA256, &secret);
            self.previous = std::mem::replace(&mut self.current, fresh);
            self.generation = self.generation.wrapping_add(1);
            self.rotate_at += SECRET_LIFETIME;
            if now >= self.rotate_at + SECRET_LIFETIME {
                // Idle for long: both secrets must go, but not one rotation per idle minute.
                self.rotate_at = now;
            }
        }
    }

    pub(super) fn make(
        &mut self,
        now: Instant,
        from: SocketAddr,
        prefix: &Prefix,
        offer: Option<&[u8]>,
    ) -> [u8; COOKIE_LEN] {
        self.rotate(now);
        let mut cookie = [0; COOKIE_LEN];
        cookie[0] = self.generation;
        let covers = if offer.is_some() { Covers::AddressAndMore } else { Covers::Address };
        let tag = tag(&self.current, from, prefix, covers);
        cookie[ADDRESS_TAG].copy_from_slice(&tag.as_ref()[..ADDRESS_TAG.len()]);
        if let Some(offer) = offer {
            let tag = self::tag(&self.current, from, prefix, Covers::Offer(offer));
            cookie[OFFER_TAG].copy_from_slice(&tag.as_ref()[..OFFER_TAG.len()]);
        }
        cookie
    }

    /// True if `prefix` carries a cookie that we made for it. `offer` is `None` while the hello is
    /// still incomplete; it must be verified again with it.
    pub(super) fn verify(
        &mut self,
        now: Instant,
        from: SocketAddr,
        prefix: &Prefix,
        offer: Option<&[u8]>,
    ) -> bool {
        self.rotate(now);
        let Ok(cookie) = <&[u8; COOKIE_LEN]>::try_from(&*prefix.cookie) else { return false };
        let key = match self.generation.wrapping_sub(cookie[0]) {
            0 => &self.current,
            1 => &self.previous,
            _ => return false,
        };
        let has_more = cookie[OFFER_TAG] != [0; OFFER_TAG_LEN];
        let covers = if has_more { Covers::AddressAndMore } else { Covers::Address };
        let expected = tag(key, from, prefix, covers);
        let address_good = same(&cookie[ADDRESS_TAG], &expected.as_ref()[..ADDRESS_TAG.len()]);
        let offer_good = match offer {
            Some(offer) if has_more => {
                let expected = tag(key, from, prefix, Covers::Offer(offer));
                same(&cookie[OFFER_TAG], &expected.as_ref()[..OFFER_TAG.len()])
            }
            _ => true,
        };
        address_good && offer_good
    }
}

/// What a tag covers beside address and prefix.
#[derive(Debug, Clone, Copy)]
enum Covers<'a> {
    /// Nothing, and no other tag follows.
    Address,
    /// Nothing, and a tag over the offer follows.
    AddressAndMore,
    Offer(&'a [u8]),
}

fn tag(key: &hmac::Key, from: SocketAddr, prefix: &Prefix, covers: Covers<'_>) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    match from.ip() {
        IpAddr::V4(ip) => context.update(&ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => context.update(&ip.octets()),
    }
    context.update(&from.port().to_be_bytes());
    context.update(&prefix.version.to_be_bytes());
    context.update(&prefix.random);
    let (kind, offer) = match covers {
        Covers::Address => (0, &[][..]),
        Covers::AddressAndMore => (1, &[][..]),
        Covers::Offer(offer) => (2, offer),
    };
    context.update(&[kind]);
    context.update(offer);
    context.sign()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
mod tests {
    use super::*;

    fn prefix(cookie: &[u8]) -> Prefix {
        Prefix { version: 0xfefd, random: [1; 32], cookie: cookie.to_vec() }
    }

    #[test]
    fn a_cookie_is_good_for_its_address_random_and_offer_only() {
        let now = Instant::now();
        let mut jar = CookieJar::new(now).unwrap();
        let from: SocketAddr = ([127, 0, 0, 1], 4_000).into();
        let cookie = jar.make(now, from, &prefix(&[]), Some(b"offer"));
        let good = prefix(&cookie);
        assert!(jar.verify(now, from, &good, Some(b"offer")));
        assert!(jar.verify(now, from, &good, None), "a first piece");
        assert!(!jar.verify(now, from, &good, Some(b"other")));
        assert!(!jar.verify(now, ([127, 0, 0, 1], 4_001).into(), &good, Some(b"offer")));
        assert!(!jar.verify(now, ([127, 0, 0, 2], 4_000).into(), &good, Some(b"offer")));
        let other_random = Prefix { random: [2; 32], ..prefix(&cookie) };
        assert!(!jar.verify(now, from, &other_random, Some(b"offer")));
        for i in 1..COOKIE_LEN {
            let mut bent = cookie;
            bent[i] ^= 1;
            assert!(!jar.verify(now, from, &prefix(&bent), Some(b"offer")), "byte {i}");
        }
        let mut stripped = cookie;
        stripped[OFFER_TAG].fill(0);
        assert!(!jar.verify(now, from, &prefix(&stripped), Some(b"other")), "offer tag removed");
        let in_pieces = jar.make(now, from, &prefix(&[]), None);
        assert!(jar.verify(now, from, &prefix(&in_pieces), Some(b"offer")));
        assert!(!jar.verify(now, from, &prefix(&[]), Some(b"offer")));
        assert!(!jar.verify(now, from, &prefix(&cookie[..31]), Some(b"offer")));
    }

    #[test]
    fn a_cookie_outlives_one_rotation_and_not_two() {
        let now = Instant::now();
        let mut jar = CookieJar::new(now).unwrap();
        let from: SocketAddr = ([127, 0, 0, 1], 4_000).into();
        let cookie = jar.make(now, from, &prefix(&[]), None);
        let late = now + SECRET_LIFETIME + Duration::from_secs(1);
        assert!(jar.verify(late, from, &prefix(&cookie), None));
        assert!(!jar.verify(late + SECRET_LIFETIME, from, &prefix(&cookie), None));
        let mut idle = CookieJar::new(now).unwrap();
        let cookie = idle.make(now, from, &prefix(&[]), None);
        let much_later = now + SECRET_LIFETIME * 256;
        assert!(!idle.verify(much_later, from, &prefix(&cookie), None));
    }
}
