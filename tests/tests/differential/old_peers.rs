//! What only OpenSSL can be asked to do: leave out the extended master secret, and renegotiate.

use crate::openssl::OpenSslPeer;
use crate::ours::{Ours, config};
use crate::peer::{End, Peer, Seen, Setup};
use crate::run::World;
use crate::script::{Script, Side};

/// Rounds of datagrams to and fro that a handshake may take here, where nothing is lost.
const ROUNDS_MAX: usize = 20;

/// Our end and OpenSSL's, with a wire between them that loses nothing.
struct Pair {
    ours: Ours,
    theirs: OpenSslPeer,
    now: std::time::Instant,
}

impl Pair {
    fn new(world: &World, our_side: Side, is_ems_required: bool, they_have_ems: bool) -> Self {
        // Any script that opens: the choices do not matter here.
        let script = Script::new(1);
        let ours: Setup = world.setup(&script, our_side);
        let mut theirs = world.setup(&script, our_side.other());
        theirs.has_ems = they_have_ems;
        let mut config = config(&ours);
        if !is_ems_required {
            config = config.admitting_peers_without_ems();
        }
        let now = world.now();
        let mut pair = Self {
            ours: Ours::with_config(now, our_side, config),
            theirs: OpenSslPeer::new(now, &theirs, world.openssl()),
            now,
        };
        pair.exchange();
        pair
    }

    /// Carries datagrams until there are none, and returns how many were ours.
    fn exchange(&mut self) -> usize {
        let mut count = 0;
        for _ in 0..ROUNDS_MAX {
            let (up, down) = (self.ours.take_datagrams(), self.theirs.take_datagrams());
            if up.is_empty() && down.is_empty() {
                return count;
            }
            count += up.len();
            up.into_iter().for_each(|datagram| self.theirs.receive(self.now, datagram));
            down.into_iter().for_each(|datagram| self.ours.receive(self.now, datagram));
        }
        panic!("no end of datagrams");
    }

    fn seen(&self) -> [&Seen; 2] {
        [self.ours.seen(), self.theirs.seen()]
    }
}

#[test]
fn a_peer_without_extended_master_secret_is_refused_unless_a_setting_admits_it() {
    let world = World::new();
    for our_side in Side::BOTH {
        let refused = Pair::new(&world, our_side, true, false);
        let [ours, theirs] = refused.seen();
        assert!(!ours.is_open && !theirs.is_open, "{our_side:?}: {ours:?} {theirs:?}");
        let reason = "the peer does not support the extended master secret, which is required";
        assert!(
            matches!(&ours.end, Some(End::Failed(why)) if why.ends_with(reason)),
            "{our_side:?}: {ours:?}"
        );
        let told = End::Failed("sslv3 alert handshake failure".into());
        assert_eq!(theirs.end, Some(told), "{our_side:?}");

        let mut admitted = Pair::new(&world, our_side, false, false);
        let [ours, theirs] = admitted.seen();
        assert!(ours.is_open && theirs.is_open, "{our_side:?}: {ours:?} {theirs:?}");
        assert_eq!(ours.extended_master_secret, Some(false));
        assert_eq!(theirs.extended_master_secret, Some(false));
        assert_eq!(ours.exported, theirs.exported);
        admitted.ours.send(admitted.now, b"classic");
        admitted.theirs.send(admitted.now, b"as well");
        admitted.exchange();
        assert_eq!(admitted.seen()[0].messages, [b"as well"]);
        assert_eq!(admitted.seen()[1].messages, [b"classic"]);

        // The setting takes nothing from those that have it.
        let agreed = Pair::new(&world, our_side, false, true);
        assert_eq!(agreed.seen()[0].extended_master_secret, Some(true), "{our_side:?}");
    }
}

/// As server we are sent a protected ClientHello, as client a protected HelloRequest. We answer with
/// a warning; OpenSSL takes that for the end, and says so by an alert of its own.
#[test]
fn openssl_is_told_once_that_there_is_no_renegotiation() {
    let world = World::new();
    for our_side in Side::BOTH {
        let mut pair = Pair::new(&world, our_side, true, true);
        assert!(pair.seen().iter().all(|seen| seen.is_open));
        pair.theirs.renegotiate(pair.now);
        assert_eq!(pair.exchange(), 1, "{our_side:?}: one warning");
        let [ours, theirs] = pair.seen();
        assert_eq!(theirs.end, Some(End::Failed("no renegotiation".into())), "{our_side:?}");
        let told = End::Failed("the peer reported handshake_failure".into());
        assert_eq!(ours.end, Some(told), "{our_side:?}");
    }
}
