//! Packets as large as the path carries, on paths that drop larger ones without a word.

use std::time::Duration;

use dtls_channel::testing::LinkConfig;
use metadata_delivery::SessionConfig;
use metadata_delivery::testing::{End::Server, Pair, bottleneck, document, lossy, name};

/// IPv4 and UDP headers, and what DTLS adds to a packet.
const HEADERS: usize = 20 + 8 + 37;
/// The simulator's own header in front of each packet.
const NUMBER: usize = 8;
const LIMIT: Duration = Duration::from_secs(60);

/// What packets may have on a path of this MTU.
fn payload(mtu: usize) -> usize {
    mtu - HEADERS
}

fn on_path(mtu: usize, link: LinkConfig) -> LinkConfig {
    LinkConfig { mtu: payload(mtu) + NUMBER, ..link }
}

/// Both ends begin with what fits 1,200-byte datagrams and look for more, up to those of 1,500.
fn pair(seed: u64, link: LinkConfig) -> Pair {
    let config = SessionConfig {
        payload_max: 1_200 - 37,
        payload_search_max: Some(payload(1_500)),
        ..SessionConfig::default()
    };
    Pair::with(seed, link, [config.clone(), config])
}

/// Brings a document across; answers with the packet size at its end.
fn transfer(pair: &mut Pair, version: u64, bytes: usize) -> usize {
    pair.offer(Server, document("metadata", version, bytes));
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &name("metadata"), version));
    pair.side(Server).session.payload_max()
}

#[test]
fn a_transfer_finds_what_the_path_carries() {
    for (mtu, least) in [(1_500, payload(1_500)), (1_400, payload(1_400) - 16), (1_280, 1_200 - 37)]
    {
        let mut pair = pair(1, on_path(mtu, bottleneck(0.0)));
        let found = transfer(&mut pair, 1, 1 << 20);
        assert!((least..=payload(mtu)).contains(&found), "{found} on a path of {mtu}");
        let stats = pair.side(Server).session.stats();
        println!(
            "MTU {mtu}: {found} bytes a packet after {} probes, {:?}, {} lost",
            stats.mtu_probes_sent,
            pair.elapsed(),
            stats.packets_lost
        );
    }
}

#[test]
fn a_path_narrower_than_the_handshake_believed_is_found_out() {
    let mut pair = pair(1, on_path(900, bottleneck(0.0)));
    let found = transfer(&mut pair, 1, 200_000);
    assert!((768..=payload(900)).contains(&found), "{found}");
    println!("MTU 900: {found} bytes a packet after {:?}", pair.elapsed());
}

#[test]
fn a_path_that_becomes_narrower_in_a_transfer_holds_it_up_for_little_more_than_a_second() {
    let whole = |narrow: Option<usize>| {
        let mut pair = pair(3, on_path(1_500, bottleneck(0.0)));
        transfer(&mut pair, 1, 100_000);
        assert_eq!(pair.side(Server).session.payload_max(), payload(1_500));
        let began = pair.elapsed();
        pair.offer(Server, document("metadata", 2, 1 << 20));
        pair.run_for(Duration::from_millis(150));
        if let Some(mtu) = narrow {
            pair.links[1].reconfigure(on_path(mtu, bottleneck(0.0)));
        }
        pair.run_until(LIMIT, |pair| pair.is_stored(Server, &name("metadata"), 2));
        (pair.elapsed() - began, pair.side(Server).session.payload_max())
    };
    let (undisturbed, _) = whole(None);
    for mtu in [1_400, 1_280, 900] {
        let (took, found) = whole(Some(mtu));
        println!("1,500 to {mtu}: {took:?} instead of {undisturbed:?}, {found} bytes a packet");
        assert!(found <= payload(mtu), "{found} on a path of {mtu}");
        assert!(
            took < undisturbed + Duration::from_secs(4),
            "{took:?}, undisturbed {undisturbed:?}"
        );
    }
}

#[test]
fn lost_probes_delay_the_search_and_never_lead_it_astray() {
    let mut found_all = 0;
    for seed in 0..40 {
        let mut pair = pair(seed, on_path(1_500, lossy(0.2)));
        let found = transfer(&mut pair, 1, 300_000);
        assert!(found <= payload(1_500));
        found_all += u32::from(found == payload(1_500));
    }
    println!("{found_all} of 40 found all of it at 20 % loss");
    // Three probes of one size are lost once in 125; a fall by chance is rarer.
    assert!(found_all >= 36, "{found_all} of 40");
}

#[test]
fn what_probes_cost_is_no_congestion() {
    let window = |mtu| {
        let mut pair = pair(1, on_path(mtu, bottleneck(0.0)));
        transfer(&mut pair, 1, 50_000);
        let stats = pair.side(Server).session.stats();
        (stats.packets_lost, stats.mtu_probes_sent)
    };
    assert_eq!(window(1_500), (0, 1));
    let (lost, probes) = window(1_280);
    assert!(lost == 0 && probes > 1, "{lost} lost, {probes} probes");
}

#[test]
fn idle_sessions_and_small_documents_are_not_probed() {
    let mut pair = pair(1, on_path(1_500, lossy(0.0)));
    transfer(&mut pair, 1, 900);
    pair.run_for(Duration::from_secs(2_000));
    assert_eq!(pair.side(Server).session.stats().mtu_probes_sent, 0);
}
