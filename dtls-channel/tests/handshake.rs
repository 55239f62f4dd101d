//! Handshakes between our own client and server on a virtual network.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{config, config_with, identity, opens_under_mask};
use dtls_channel::testing::{LinkConfig, Net, Side};
use dtls_channel::{
    AlertDescription, AssociationId, CipherSuite, ClientCertificate, CloseReason, Config,
    Connection, ConnectionIdMode, Event, Group, Mismatch, PeerRefused, PeerVerifier, Sink, Timers,
};

const MINUTE: Duration = Duration::from_secs(60);

fn net(seed: u64, link: &LinkConfig, server: Config, client: Config) -> Net {
    let mut net = Net::new(seed, link, Arc::new(server));
    net.keep_transcript();
    net.connect(Arc::new(client));
    net
}

fn close_reason(net: &Net, side: Side) -> Option<&CloseReason> {
    net.events.iter().find_map(|(_, s, _, event)| match event {
        Event::Closed(reason) if *s == side => Some(reason),
        _ => None,
    })
}

#[test]
fn every_suite_and_group_opens_and_carries_messages_both_ways() {
    for suite in CipherSuite::ALL {
        for group in Group::ALL {
            let client = config().with_suites(&[suite]).with_groups(&[group]);
            let server = config().with_groups(&[group]);
            let mut net = net(1, &LinkConfig::default(), server, client);
            assert!(net.run_until(MINUTE, |n| n.both_open()), "{}", net.transcript());
            let (mut exported, mut ids) = (Vec::new(), Vec::new());
            for (_, side, id, event) in net.events.drain(..) {
                let Event::Established(e) = event else { panic!("{event:?}") };
                assert_eq!(
                    (e.suite, e.group, e.extended_master_secret),
                    (suite, Some(group), true)
                );
                assert_eq!(e.incoming, side == Side::Server);
                assert_eq!(e.round_trip, Some(Duration::from_millis(40)));
                let mut key = [0; 40];
                e.exporter.export("EXPORTER-test", b"context", &mut key);
                exported.push(key);
                ids.push((side, id));
            }
            assert_eq!(exported[0], exported[1]);
            for (side, id) in ids {
                let endpoint = match side {
                    Side::Client => &mut net.client,
                    Side::Server => &mut net.server,
                };
                let number = endpoint.next_sequence(id).unwrap();
                assert_eq!(endpoint.send(id, format!("{side:?}").as_bytes()), Ok(number));
            }
            assert!(net.run_until(MINUTE, |n| n.events.len() == 2));
            for (_, side, _, event) in &net.events {
                let Event::Message { data, .. } = event else { panic!("{event:?}") };
                assert_ne!(data.as_ref(), format!("{side:?}").as_bytes());
            }
        }
    }
}

#[test]
fn p384_and_ed25519_certificates_work_on_either_side() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let other =
            || Config::new(identity(algorithm), Arc::new(dtls_channel::testing::AcceptAnyone));
        for (server, client) in [(config(), other()), (other(), config()), (other(), other())] {
            let mut net = net(1, &LinkConfig::default(), server, client);
            assert!(net.run_until(MINUTE, |n| n.both_open()), "{}", net.transcript());
        }
    }
}

#[test]
fn a_handshake_takes_three_round_trips_and_six_datagrams() {
    let mut net = net(1, &LinkConfig::default(), config(), config());
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    assert_eq!(net.elapsed(), Duration::from_millis(120));
    // Sizes of signatures vary, numbers and order do not.
    insta::assert_snapshot!(net.transcript());
}

#[test]
fn small_datagrams_are_never_exceeded_and_the_handshake_opens() {
    for mtu in [228, 256, 512] {
        let link = LinkConfig { mtu: mtu.max(240), ..LinkConfig::default() };
        let mut net = net(1, &link, config().with_mtu(mtu), config().with_mtu(mtu));
        assert!(net.run_until(MINUTE, |n| n.both_open()), "{}", net.transcript());
        assert_eq!(net.up.stats().oversized + net.down.stats().oversized, 0);
    }
}

#[test]
fn the_loss_of_any_one_or_two_datagrams_only_costs_time() {
    for mask in 0u32..256 {
        if mask.count_ones() > 2 {
            continue;
        }
        opens_under_mask(net(1, &LinkConfig::default(), config(), config()), mask);
    }
}

#[test]
fn at_thirty_percent_loss_with_reordering_and_duplicates_handshakes_open_within_a_minute() {
    let link = LinkConfig {
        loss: 0.3,
        duplicate: 0.1,
        reorder: 0.1,
        jitter: Duration::from_millis(5),
        ..LinkConfig::default()
    };
    let (server, client) = (Arc::new(config()), Arc::new(config()));
    let mut opened = 0;
    for seed in 0..300 {
        let mut net = Net::new(seed, &link, server.clone());
        net.connect(client.clone());
        opened += u32::from(net.run_until(MINUTE, |n| n.both_open()));
    }
    // The model says 99.9 %; one in three hundred is within its chance.
    assert!(opened >= 298, "{opened} of 300");
}

#[test]
fn the_server_repeats_its_finished_for_a_client_that_did_not_get_it() {
    let mut net = net(1, &LinkConfig::default(), config(), config());
    assert!(net.run_until(MINUTE, |n| n.established(Side::Server) == 1));
    net.collect();
    net.down.clear();
    assert_eq!(net.established(Side::Client), 0);
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{}", net.transcript());
    assert_eq!(net.server.stats().flights_resent, 1);
}

#[derive(Debug)]
struct Refuse;
impl PeerVerifier for Refuse {
    fn verify(&self, _: &[u8]) -> Result<(), PeerRefused> {
        Err(PeerRefused("not this one".into()))
    }
}

struct RefuseAsUnknown;
impl PeerVerifier for RefuseAsUnknown {
    fn verify(&self, _: &[u8]) -> Result<(), PeerRefused> {
        Err(PeerRefused("not this one".into()))
    }

    fn alert(&self) -> AlertDescription {
        AlertDescription::CERTIFICATE_UNKNOWN
    }
}

#[test]
fn a_refused_peer_is_told_what_the_verifier_wants_it_to_be_told() {
    let alert = |refusing: Config, other: Config, server_refuses: bool| {
        let (server, client) = if server_refuses { (refusing, other) } else { (other, refusing) };
        let told = if server_refuses { Side::Client } else { Side::Server };
        let mut net = net(1, &LinkConfig::default(), server, client);
        net.run_until(MINUTE * 2, |n| n.events.len() == 2);
        close_reason(&net, told).cloned()
    };
    for server_refuses in [false, true] {
        let told = |verifier| alert(config_with(verifier), config(), server_refuses);
        let bad = CloseReason::PeerAlert(AlertDescription::BAD_CERTIFICATE);
        assert_eq!(told(Arc::new(Refuse)), Some(bad));
        let unknown = CloseReason::PeerAlert(AlertDescription::CERTIFICATE_UNKNOWN);
        assert_eq!(told(Arc::new(RefuseAsUnknown)), Some(unknown));
    }
}

#[test]
fn a_refused_certificate_opens_neither_side() {
    let refused = CloseReason::PeerRefused(PeerRefused("not this one".into()));
    // The client refuses: it says so and the server's half-open association ends.
    let mut first = net(1, &LinkConfig::default(), config(), config_with(Arc::new(Refuse)));
    first.run_until(MINUTE * 2, |n| n.events.len() == 2);
    assert_eq!(close_reason(&first, Side::Client), Some(&refused));
    assert!(matches!(close_reason(&first, Side::Server), Some(CloseReason::PeerAlert(_))));
    assert_eq!(first.client.associations() + first.server.associations(), 0);
    // The server refuses: its alert is protected, as the client's keys are up.
    let mut second = net(1, &LinkConfig::default(), config_with(Arc::new(Refuse)), config());
    second.run_until(MINUTE * 2, |n| n.events.len() == 2);
    assert_eq!(close_reason(&second, Side::Server), Some(&refused));
    assert!(
        matches!(close_reason(&second, Side::Client), Some(CloseReason::PeerAlert(_))),
        "{}\n{:?}",
        second.transcript(),
        second.events
    );
}

#[test]
fn nothing_in_common_is_reported_on_both_sides() {
    let client = config().with_suites(&[CipherSuite::Aes128GcmSha256]);
    let server = config().with_suites(&[CipherSuite::Aes256GcmSha384]);
    let mut net = net(1, &LinkConfig::default(), server, client);
    net.run_until(MINUTE * 2, |n| close_reason(n, Side::Client).is_some());
    let expected = CloseReason::Mismatch(Mismatch::Suite);
    assert_eq!(close_reason(&net, Side::Server), Some(&expected));
    assert!(matches!(close_reason(&net, Side::Client), Some(CloseReason::PeerAlert(_))));
    // No better than an alert that anybody could forge, so it was given its grace.
    assert!(net.elapsed() < Duration::from_secs(12));
}

#[test]
fn a_server_that_is_not_there_is_given_up_after_the_time_set() {
    let link = LinkConfig { loss: 1.0, ..LinkConfig::default() };
    let timers = Timers { give_up: Duration::from_secs(10), ..Timers::default() };
    let mut net = net(1, &link, config(), config().with_timers(timers));
    assert!(net.run_until(MINUTE, |n| !n.events.is_empty()));
    assert_eq!(close_reason(&net, Side::Client), Some(&CloseReason::TimedOut));
    assert_eq!(net.elapsed(), Duration::from_secs(10));
    assert_eq!(net.up.stats().pushed, 5, "at 0, 0.4, 1.2, 2.8 and 6 s");
}

#[test]
fn each_new_flight_has_the_whole_time_and_the_handshake_no_more_than_its_own() {
    let seconds = Duration::from_secs;
    // Each flight gets through 9 s after it was first sent: three of them take longer than 10 s.
    let end = |in_all: u64| {
        let timers = Timers {
            first_resend: seconds(9),
            resend_cap: seconds(9),
            give_up: seconds(10),
            give_up_in_all: seconds(in_all),
            ..Timers::default()
        };
        let client = config().with_timers(timers);
        // The server never repeats a flight by itself.
        let server = config().with_timers(Timers { first_resend: MINUTE, ..timers });
        let mut net = net(1, &LinkConfig::default(), server, client);
        let mut seen = 0;
        net.run_until(MINUTE * 2, |n| {
            // The first copy of each of the client's flights is lost.
            if n.up.stats().pushed > seen {
                seen = n.up.stats().pushed;
                if seen % 2 == 1 {
                    n.up.clear();
                }
            }
            !n.events.is_empty()
        });
        (net.elapsed().as_secs(), close_reason(&net, Side::Client).cloned())
    };
    assert_eq!(end(60), (27, None));
    assert_eq!(end(20), (20, Some(CloseReason::TimedOut)));
}

#[test]
fn a_handshake_under_way_follows_the_datagram_size_it_is_told() {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    let id = net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.server.half_open() == 1));
    net.client.set_path_mtu(id, 300);
    net.up.reconfigure(LinkConfig { mtu: 300, ..LinkConfig::default() });
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    assert_eq!((net.up.stats().oversized, net.client.stats().flights_resent), (0, 0));
    assert!((200..300).contains(&net.client.message_size_max(id)));
    net.client.set_path_mtu(id, 1_400);
    assert!((1_300..1_400).contains(&net.client.message_size_max(id)));
}

#[test]
fn a_handshake_under_way_follows_the_resend_time_it_is_told() {
    let (mut sink, path) = (Sink::default(), ([127, 0, 0, 1], 1));
    let path = std::net::SocketAddr::from(path).into();
    let begin = Net::new(0, &LinkConfig::default(), Arc::new(config())).now();
    let id = AssociationId::STANDALONE;
    let mut client = Connection::client(begin, id, path, Arc::new(config()), &mut sink).unwrap();
    let due = |client: &Connection| client.next_timeout().unwrap().0 - begin;
    let ms = Duration::from_millis;
    assert_eq!(due(&client), ms(400));
    client.set_first_resend(ms(100));
    assert_eq!(due(&client), ms(100), "counted from when the flight was sent");
    client.handle_timeout(begin + ms(100), &mut sink);
    assert_eq!(due(&client), ms(100 + 200));
    client.set_first_resend(ms(500));
    assert_eq!(due(&client), ms(100 + 1_000), "doubled once, as before");
    client.set_first_resend(Duration::ZERO);
    assert_eq!(due(&client), ms(100 + 2 * 10), "never a flood");
    client.set_first_resend(Duration::MAX);
    assert_eq!(due(&client), MINUTE, "the end of the handshake stays where it was");
}

#[test]
fn an_alert_of_the_applications_choice_ends_both_sides() {
    for first in [Side::Client, Side::Server] {
        let mut net = net(3, &LinkConfig::default(), config(), config());
        assert!(net.run_until(MINUTE, |n| n.both_open()), "{}", net.transcript());
        let id = net.events.iter().find(|event| event.1 == first).unwrap().2;
        let endpoint = if first == Side::Client { &mut net.client } else { &mut net.server };
        endpoint.close_with_alert(id, AlertDescription::ACCESS_DENIED);
        let other = if first == Side::Client { Side::Server } else { Side::Client };
        assert!(net.run_until(MINUTE, |n| close_reason(n, other).is_some()));
        assert_eq!(close_reason(&net, first), Some(&CloseReason::Local));
        let told = CloseReason::PeerAlert(AlertDescription::ACCESS_DENIED);
        assert_eq!(close_reason(&net, other), Some(&told));
    }
}

#[test]
fn close_notify_ends_both_sides() {
    let mut net = net(1, &LinkConfig::default(), config(), config());
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    let id = net.events.iter().find(|e| e.1 == Side::Client).unwrap().2;
    net.client.close(id);
    net.run_until(MINUTE, |n| n.events.len() == 4);
    assert_eq!(close_reason(&net, Side::Client), Some(&CloseReason::Local));
    assert_eq!(close_reason(&net, Side::Server), Some(&CloseReason::CloseNotify));
    assert_eq!(net.client.associations() + net.server.associations(), 0);
    assert!(net.client.next_timeout().is_none() && net.server.next_timeout().is_none());
}

#[test]
fn a_client_that_comes_back_from_the_same_address_replaces_its_old_association() {
    // Without a connection id the address is all that the old one is known by.
    let server = config().with_connection_id(ConnectionIdMode::Off);
    let mut net = net(1, &LinkConfig::default(), server, config());
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    net.events.clear();
    // The client lost everything and starts anew from the same address and port.
    net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{}", net.transcript());
    assert_eq!(close_reason(&net, Side::Server), Some(&CloseReason::Superseded));
    assert_eq!(net.server.associations(), 1);
}

#[derive(Default)]
struct Lines(std::sync::Mutex<Vec<String>>);
impl dtls_channel::KeyLog for Lines {
    fn log(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

#[test]
fn both_sides_log_the_same_secret_in_the_format_that_wireshark_reads() {
    let logs = [Arc::new(Lines::default()), Arc::new(Lines::default())];
    let server = config().with_key_log(logs[0].clone());
    let mut net = net(1, &LinkConfig::default(), server, config().with_key_log(logs[1].clone()));
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    let [server, client] = logs.map(|log| log.0.lock().unwrap().clone());
    assert_eq!(server, client);
    let [line] = &server[..] else { panic!("{server:?}") };
    let fields: Vec<&str> = line.split(' ').collect();
    assert_eq!((fields[0], fields[1].len(), fields[2].len()), ("CLIENT_RANDOM", 64, 96));
    assert!(fields[1..].iter().all(|f| f.bytes().all(|b| b.is_ascii_hexdigit())));
}

#[test]
fn two_handshakes_share_neither_randoms_nor_keys() {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..4 {
        let log = Arc::new(Lines::default());
        let client = config().with_key_log(log.clone());
        let mut net = net(1, &LinkConfig::default(), config(), client);
        assert!(net.run_until(MINUTE, |n| n.both_open()));
        let line = log.0.lock().unwrap()[0].clone();
        assert!(line.split(' ').skip(1).all(|field| seen.insert(field.to_owned())));
    }
    assert_eq!(seen.len(), 8);
}

#[test]
fn debug_output_of_a_configuration_shows_no_key() {
    let text = format!("{:?}", config());
    assert!(text.contains("key hidden"), "{text}");
}

/// What became of the server's side: the client's certificate, or why there is no association.
fn servers_view(server: ClientCertificate, client: ClientCertificate) -> Result<bool, CloseReason> {
    let (server, client) =
        (config().with_client_certificate(server), config().with_client_certificate(client));
    let mut net = net(1, &LinkConfig::default(), server, client);
    net.run_until(MINUTE, |n| n.both_open());
    if let Some(reason) = close_reason(&net, Side::Client) {
        return Err(reason.clone());
    }
    let seen = net.events.iter().find_map(|(_, side, _, event)| match event {
        Event::Established(e) if *side == Side::Server => {
            assert_eq!(e.peer_certificate.is_some(), e.peer_fingerprint.is_some());
            Some(e.peer_certificate.is_some())
        }
        _ => None,
    });
    Ok(seen.unwrap())
}

#[test]
fn without_a_client_certificate_only_sides_that_were_told_so_go_on() {
    use ClientCertificate::{Never, Optional, Required};

    assert_eq!(ClientCertificate::default(), Required);
    for client in [Required, Optional] {
        assert_eq!(servers_view(Required, client), Ok(true));
        assert_eq!(servers_view(Optional, client), Ok(true));
    }
    assert_eq!(servers_view(Never, Optional), Ok(false));
    assert_eq!(servers_view(Optional, Never), Ok(false));
    let refused = CloseReason::Mismatch(Mismatch::NoCertificateRequest);
    assert_eq!(servers_view(Never, Required), Err(refused));
    let alert = CloseReason::PeerAlert(AlertDescription::HANDSHAKE_FAILURE);
    assert_eq!(servers_view(Required, Never), Err(alert));
}

/// Hands one side's datagrams to the other.
fn hand_over(from: &mut Sink, now: std::time::Instant, to: &mut Connection, to_sink: &mut Sink) {
    while let Some((transmit, bytes)) = from.outbox.front() {
        let size = transmit.segment_size.unwrap_or(bytes.len());
        for datagram in bytes.to_vec().chunks_mut(size) {
            to.handle_datagram(now, datagram, to_sink);
        }
        from.outbox.pop();
    }
}

#[test]
fn connections_can_be_driven_without_an_endpoint_and_without_a_cookie() {
    let now = Net::new(0, &LinkConfig::default(), Arc::new(config())).now();
    let path = || std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
    let id = AssociationId::STANDALONE;
    let (mut to_server, mut to_client) = (Sink::default(), Sink::default());
    let config = Arc::new(config());
    let mut server =
        Connection::server_without_cookie(now, id, path(), config.clone(), &mut to_client);
    assert_eq!(
        server.next_timeout(),
        Some((now + MINUTE, dtls_channel::TimerKind::HandshakeGiveUp))
    );
    let mut client = Connection::client(now, id, path(), config, &mut to_server).unwrap();
    for _ in 0..2 {
        hand_over(&mut to_server, now, &mut server, &mut to_client);
        hand_over(&mut to_client, now, &mut client, &mut to_server);
    }
    for sink in [&mut to_server, &mut to_client] {
        assert!(matches!(
            sink.poll_event(),
            Some((AssociationId::STANDALONE, Event::Established(_)))
        ));
    }
}

#[test]
fn a_client_whose_address_changed_is_unknown_until_it_connects_again() {
    let server = config().with_connection_id(ConnectionIdMode::Off);
    let mut net = net(1, &LinkConfig::default(), server, config());
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    let id = net.events.iter().find(|e| e.1 == Side::Client).unwrap().2;
    net.events.clear();
    net.rebind();
    net.client.send(id, b"from elsewhere").unwrap();
    assert!(!net.run_until(MINUTE, |n| !n.events.is_empty()));
    let unknown = net.server.stats().drops.get(dtls_channel::DropCause::Unknown);
    assert_eq!((unknown, net.server.stats().cookies_sent), (1, 1));
    net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{}", net.transcript());
    assert_eq!(net.server.associations(), 2, "the old one is the application's to end");
}

/// RFC 8422 §5.1.1: a server whose certificate is on a curve that the client does not list must not
/// choose it. Our clients list those of certificates whatever the key exchange may use.
#[test]
fn certificates_on_other_curves_than_the_key_exchange_are_served() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
        for group in Group::ALL {
            let server =
                Config::new(identity(algorithm), Arc::new(dtls_channel::testing::AcceptAnyone));
            let client = config().with_groups(&[group]);
            let mut net = net(1, &LinkConfig::default(), server, client);
            assert!(net.run_until(MINUTE, |n| n.both_open()), "{group:?}: {:?}", net.events);
        }
    }
}

#[test]
fn an_endpoint_that_stops_serving_keeps_what_is_open_and_answers_no_hello() {
    let mut net = net(1, &LinkConfig::default(), config(), config());
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{}", net.transcript());
    net.server.stop_serving();
    let (_, _, open, _) = net.events.iter().find(|(_, s, _, _)| *s == Side::Server).unwrap();
    let open = *open;
    net.events.clear();
    net.connect(Arc::new(config()));
    let dropped = |n: &Net| n.server.stats().drops.iter().map(|(_, count)| count).sum::<u64>();
    assert!(net.run_until(MINUTE, |n| dropped(n) > 2));
    assert_eq!(net.server.associations(), 1);
    net.server.send(open, b"goes on").unwrap();
    let said = |n: &mut Net| n.events.iter().any(|(_, _, _, e)| matches!(e, Event::Message { .. }));
    assert!(net.run_until(MINUTE, said), "{}", net.transcript());
}
