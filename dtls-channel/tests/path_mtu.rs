//! Paths that drop larger datagrams without a word.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::config;
use dtls_channel::testing::{AcceptAnyone, LinkConfig, Net, Side, credentials};
use dtls_channel::{Config, Event, SendError};

const MINUTE: Duration = Duration::from_secs(60);

/// With a certificate so long that a flight of either side fills a datagram of 1,200 bytes.
fn wordy() -> Arc<Config> {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = (0..24).map(|n| format!("a-long-name-of-the-host-{n}.test")).collect();
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let credentials = credentials(certificate.der(), &key.serialize_der());
    Arc::new(Config::new(credentials, Arc::new(AcceptAnyone)))
}

#[test]
fn every_flight_of_either_side_falls_back_to_datagrams_that_get_through() {
    let narrow = || LinkConfig { mtu: 830, ..LinkConfig::default() };
    for (up, down) in [(true, false), (false, true), (true, true)] {
        let config = wordy();
        let mut net = Net::new(1, &LinkConfig::default(), config.clone());
        if up {
            net.up.reconfigure(narrow());
        }
        if down {
            net.down.reconfigure(narrow());
        }
        let client = net.connect(config);
        assert!(net.run_until(MINUTE, |n| n.both_open()), "{up} {down}: {:?}", net.server.stats());
        // Three resends, after 0.4, 1.2 and 2.8 s at the latest, and then smaller: for each side.
        assert!(net.elapsed() < Duration::from_secs(6), "{up} {down}: {:?}", net.elapsed());
        assert_eq!(net.up.stats().oversized > 0, up);
        assert_eq!(net.down.stats().oversized > 0, down);
        // What a side has learned holds for what it sends afterwards.
        let server = net.events.iter().find(|e| e.1 == Side::Server).unwrap().2;
        assert_eq!(net.client.message_size_max(client) < 820, up);
        assert_eq!(net.server.message_size_max(server) < 820, down);
    }
}

#[test]
fn a_probe_goes_out_alone_above_the_path_mtu_and_leaves_it_as_it_is() {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    let id = net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    net.events.clear();
    let fits = net.client.message_size_max(id);
    let probe = net.client.message_size_for(id, 1_400);
    assert_eq!(probe, fits + 200);
    assert!(matches!(net.client.send(id, &vec![1; probe]), Err(SendError::TooLarge { .. })));
    for size in [fits, probe, fits, fits] {
        net.client.send_on_path(id, &vec![1; size], fits).unwrap();
    }
    let mut runs = Vec::new();
    while let Some((transmit, bytes)) = net.client.outbox().front() {
        runs.push(transmit.length);
        let datagram = bytes.to_vec();
        let size = transmit.segment_size.unwrap_or(datagram.len());
        let now = net.now();
        for datagram in datagram.chunks(size) {
            net.up.push(now, datagram.to_vec());
        }
        net.client.outbox().pop();
    }
    assert_eq!(runs, [1_200, 1_400, 2_400]);
    assert_eq!(net.client.message_size_max(id), fits);
    assert!(net.run_until(MINUTE, |n| n.events.len() == 4));
    assert!(net.events.iter().all(|e| matches!(e.3, Event::Message { .. })));
    // It has arrived: from here on it is no probe.
    net.client.send_on_path(id, &vec![1; probe], probe).unwrap();
    assert_eq!(net.client.message_size_max(id), probe);
    let limit = net.client.message_size_for(id, dtls_channel::MTU_MAX);
    let sent = net.client.send_on_path(id, &vec![1; limit + 1], probe);
    assert_eq!(sent, Err(SendError::TooLarge { length: limit + 1, limit }));
}
