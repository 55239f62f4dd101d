//! The driver on real sockets, loopback only.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::disallowed_methods, reason = "real sockets, real clock")]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{config, config_with};
use dtls_channel::{
    AssociationId, CloseReason, Driver, EndpointConfig, Event, PeerRefused, PeerVerifier,
    TicketKeys,
};

const LOOPBACK: &str = "127.0.0.1:0";

fn server() -> Driver {
    let serving = EndpointConfig { server: Some(Arc::new(config())), ..EndpointConfig::default() };
    Driver::bind(LOOPBACK.parse().unwrap(), serving).unwrap()
}

fn client() -> Driver {
    Driver::bind(LOOPBACK.parse().unwrap(), EndpointConfig::default()).unwrap()
}

/// Runs both until `done`, which sees every event; fails after ten seconds.
async fn run(
    server: &mut Driver,
    client: &mut Driver,
    mut done: impl FnMut(&mut Driver, &mut Driver, bool, AssociationId, Event) -> bool,
) {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        let from_server = tokio::select! {
            r = server.wait(Some(end)) => { r.unwrap(); true }
            r = client.wait(Some(end)) => { r.unwrap(); false }
        };
        let mut driver = if from_server { server.poll_event() } else { client.poll_event() };
        while let Some((id, event)) = driver {
            if done(server, client, from_server, id, event) {
                return;
            }
            driver = if from_server { server.poll_event() } else { client.poll_event() };
        }
    }
    panic!("not done: server {:?}, client {:?}", server.stats(), client.stats());
}

#[tokio::test]
async fn who_does_not_want_to_sleep_gets_what_waits_in_the_kernel() {
    let (mut server, mut client) = (server(), client());
    let address = server.local_addr().unwrap();
    let id = client.connect(Instant::now(), address, Arc::new(config())).unwrap();
    let mut open = 0;
    run(&mut server, &mut client, |_, _, _, _, event| {
        open += usize::from(matches!(event, Event::Established(_)));
        open == 2
    })
    .await;
    // The runtime, which this task does not leave, has not heard of any of these.
    for _ in 0..10 {
        while server.poll_event().is_some() {}
        let sent_at = Instant::now();
        client.send(sent_at, id, b"here").unwrap();
        client.flush();
        server.wait(Some(sent_at)).await.unwrap();
        assert!(matches!(server.poll_event(), Some((_, Event::Message { .. }))));
        assert!(server.heard_until() > sent_at);
    }
}

#[tokio::test]
async fn what_a_client_says_at_once_goes_with_the_end_of_its_handshake() {
    let keys = Arc::new(TicketKeys::random().unwrap());
    let serving = config().with_ticket_keys(keys, Duration::from_secs(60));
    let serving = EndpointConfig { server: Some(Arc::new(serving)), ..EndpointConfig::default() };
    let mut server = Driver::bind(LOOPBACK.parse().unwrap(), serving).unwrap();
    let (mut client, config) = (client(), Arc::new(config().asking_for_tickets()));
    client.hold_last_flight(true);
    let (now, address) = (Instant::now(), server.local_addr().unwrap());
    client.connect(now, address, config.clone()).unwrap();
    let (mut session, mut open) = (None, 0);
    run(&mut server, &mut client, |_, _, _, _, event| {
        if let Event::Established(established) = event {
            session = established.session.or_else(|| session.take());
            open += 1;
        }
        open == 2
    })
    .await;

    let before = *server.stats();
    client.resume(now, address, config, session.unwrap()).unwrap();
    run(&mut server, &mut client, |_, client, from_server, id, event| match event {
        Event::Established(_) if !from_server => {
            client.send(now, id, b"at once").unwrap();
            false
        }
        Event::Message { data, .. } => *data == *b"at once",
        _ => false,
    })
    .await;
    let after = server.stats();
    assert_eq!(after.datagrams_in - before.datagrams_in, 2, "the hello, and everything else");
    assert_eq!(after.handshakes_resumed, 1);
}

#[tokio::test]
async fn the_end_of_a_handshake_waits_for_nobody_unless_asked_to() {
    let (mut server, mut client) = (server(), client());
    let (now, address) = (Instant::now(), server.local_addr().unwrap());
    client.connect(now, address, Arc::new(config())).unwrap();
    run(&mut server, &mut client, |_, _, from_server, _, event| {
        from_server && matches!(event, Event::Established(_))
    })
    .await;
    // Nobody asks the server to do anything any more.
    client.wait(Some(now + Duration::from_secs(10))).await.unwrap();
    assert!(matches!(client.poll_event(), Some((_, Event::Established(_)))));
}

struct Nobody;

impl PeerVerifier for Nobody {
    fn verify(&self, _certificate_der: &[u8]) -> Result<(), PeerRefused> {
        Err(PeerRefused("nobody will do".into()))
    }
}

#[tokio::test]
async fn a_peer_is_told_of_the_end_though_its_application_does_nothing_more() {
    let (mut server, mut client) = (server(), client());
    client.hold_last_flight(true);
    let (now, address) = (Instant::now(), server.local_addr().unwrap());
    client.connect(now, address, Arc::new(config_with(Arc::new(Nobody)))).unwrap();
    run(&mut server, &mut client, |_, _, from_server, _, event| {
        !from_server && matches!(event, Event::Closed(CloseReason::PeerRefused(_)))
    })
    .await;
    // Nobody asks the client to do anything any more, and two hellos and its alert have arrived all the same.
    let end = now + Duration::from_secs(10);
    while server.stats().datagrams_in < 3 {
        server.wait(Some(end)).await.unwrap();
        assert!(Instant::now() < end, "{:?}", server.stats());
    }
}

#[tokio::test]
async fn many_clients_echo_their_bursts_through_one_socket() {
    const PEERS: usize = 20;
    const BURST: usize = 50;
    let mut server = server();
    let address = server.local_addr().unwrap();
    let config = Arc::new(config());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..PEERS {
        let config = config.clone();
        clients.spawn(async move {
            let mut client = client();
            client.connect(Instant::now(), address, config).unwrap();
            let mut echoed = HashSet::new();
            while echoed.len() < BURST {
                client.wait(None).await.unwrap();
                while let Some((id, event)) = client.poll_event() {
                    match event {
                        Event::Established(_) => {
                            for n in 0..BURST {
                                let message = [&[n as u8][..], &[7; 900]].concat();
                                client.send(Instant::now(), id, &message).unwrap();
                            }
                        }
                        Event::Message { data, .. } => {
                            assert_eq!(data.len(), 901);
                            assert!(echoed.insert(data[0]), "delivered twice");
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        });
    }
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        tokio::select! {
            waited = server.wait(Some(end)) => waited.unwrap(),
            done = clients.join_next() => match done {
                Some(done) => done.unwrap(),
                None => break,
            },
        }
        while let Some((id, event)) = server.poll_event() {
            if let Event::Message { data, .. } = event {
                server.send(Instant::now(), id, &data).unwrap();
            }
        }
        assert!(Instant::now() < end, "{:?}", server.stats());
    }
    assert_eq!(server.endpoint().associations(), PEERS);
}

#[tokio::test]
async fn an_answer_leaves_from_the_address_that_was_asked() {
    let serving = EndpointConfig { server: Some(Arc::new(config())), ..EndpointConfig::default() };
    let mut server = Driver::bind("0.0.0.0:0".parse().unwrap(), serving).unwrap();
    let mut client = client();
    let address = ([127, 0, 0, 99], server.local_addr().unwrap().port()).into();
    client.connect(Instant::now(), address, Arc::new(config())).unwrap();
    run(&mut server, &mut client, |_, _, at_server, _, event| {
        matches!(event, Event::Established(_)) && !at_server
    })
    .await;
}

#[tokio::test]
async fn shutting_down_tells_every_peer() {
    let (mut server, mut client) = (server(), client());
    let address = server.local_addr().unwrap();
    client.connect(Instant::now(), address, Arc::new(config())).unwrap();
    run(&mut server, &mut client, |server, _, at_server, _, event| match event {
        Event::Established(_) if at_server => {
            server.shutdown(Instant::now());
            false
        }
        Event::Closed(reason) if !at_server => {
            assert_eq!(reason, CloseReason::CloseNotify);
            true
        }
        _ => false,
    })
    .await;
}

#[tokio::test]
async fn a_port_in_use_is_reported() {
    let server = server();
    let address = server.local_addr().unwrap();
    let error = Driver::bind(address, EndpointConfig::default()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn waiting_ends_at_the_time_given_and_can_be_cancelled() {
    let mut client = client();
    client.wait(Some(Instant::now() + Duration::from_millis(5))).await.unwrap();
    let cancelled = tokio::time::timeout(Duration::from_millis(5), client.wait(None)).await;
    assert!(cancelled.is_err());
    client.wait(Some(Instant::now())).await.unwrap();
}

#[tokio::test]
async fn nothing_is_sent_that_the_network_may_fragment() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let driver = Driver::bind(address.parse().unwrap(), EndpointConfig::default()).unwrap();
        assert!(!driver.may_fragment(), "{address}: the path MTU cannot be found");
    }
}
