//! Rows 14 and 17 once more, with real sockets.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls_channel::testing::Rogue;
use dtls_channel::testing::forge::{Piece, records};
use dtls_channel::{AssociationId, Driver, DropCause, EndpointConfig, Event};

use crate::common::config;
use crate::stage::*;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn driver(config: EndpointConfig) -> Driver {
    Driver::bind("127.0.0.1:0".parse().unwrap(), config).unwrap()
}

fn stranger() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Runs both until the condition holds; what happened at the server.
#[expect(clippy::disallowed_methods, reason = "real sockets, real clock")]
async fn run(
    server: &mut Driver,
    client: &mut Driver,
    mut done: impl FnMut(&mut Driver, &mut Driver, &[Event]) -> bool,
) -> Vec<(AssociationId, Event)> {
    let end = Instant::now() + PATIENCE;
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    while !done(server, client, &at_client) {
        assert!(Instant::now() < end, "server {:?}, client {:?}", server.stats(), client.stats());
        let soon = Some(Instant::now() + Duration::from_millis(5));
        tokio::select! {
            waited = server.wait(soon) => waited.unwrap(),
            waited = client.wait(soon) => waited.unwrap(),
        }
        at_server.extend(std::iter::from_fn(|| server.poll_event()));
        at_client.extend(std::iter::from_fn(|| client.poll_event()).map(|(_, event)| event));
    }
    at_server
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "real sockets, real clock")]
async fn attack_14_hellos_from_a_second_socket_before_and_after_the_real_one_change_nothing() {
    let serving = EndpointConfig { server: Some(Arc::new(config())), ..EndpointConfig::default() };
    let (mut server, mut client) = (driver(serving), driver(EndpointConfig::default()));
    let address = server.local_addr().unwrap();
    let socket = stranger();
    // Nothing in common, so that an endpoint which believed it would give up.
    let mut rogue = Rogue::client(credentials());
    let mut hello = rogue.hello();
    hello.suites = vec![0x002f];
    let strange = rogue.say_plain(CLIENT_HELLO, &hello.body());
    socket.send_to(&strange, address).unwrap();
    run(&mut server, &mut client, |s, _, _| s.stats().cookies_sent == 1).await;
    let id = client.connect(Instant::now(), address, Arc::new(config())).unwrap();
    let mut opened = false;
    run(&mut server, &mut client, |server, _, at_client| {
        // Again and again while the real one is at it, with its cookie now.
        let mut buffer = [0; 2_048];
        while let Ok(length) = socket.recv(&mut buffer) {
            rogue.hear(&buffer[..length]);
            let mut hello = rogue.hello();
            hello.suites = vec![0x002f];
            let again = rogue.say_plain(CLIENT_HELLO, &hello.body());
            socket.send_to(&again, address).unwrap();
        }
        opened |= at_client.iter().any(|event| matches!(event, Event::Established(_)));
        opened && server.stats().handshakes_failed >= 1
    })
    .await;
    let ours = server.endpoint().associations();
    assert_eq!(ours, 1, "{:?}", server.stats());
    socket.send_to(&strange, address).unwrap();
    client.send(Instant::now(), id, b"still here").unwrap();
    let mut heard = false;
    for _ in 0..1_000 {
        let events = run(&mut server, &mut client, |_, _, _| true).await;
        heard |= events.iter().any(|(_, e)| matches!(e, Event::Message { .. }));
        let soon = Some(Instant::now() + Duration::from_millis(10));
        client.flush();
        server.wait(soon).await.unwrap();
        while let Some((_, event)) = server.poll_event() {
            heard |= matches!(event, Event::Message { .. });
        }
        if heard {
            break;
        }
    }
    assert!(heard, "{:?}", server.stats());
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "real sockets, real clock")]
async fn attack_17_a_socket_that_repeats_its_hello_a_thousand_times_stops_nobody() {
    let serving = EndpointConfig { server: Some(Arc::new(config())), ..EndpointConfig::default() };
    let (mut server, mut client) = (driver(serving), driver(EndpointConfig::default()));
    let address = server.local_addr().unwrap();
    let socket = stranger();
    let mut rogue = Rogue::client(credentials());
    let hello = rogue.hello().body();
    let first = rogue.say_plain(CLIENT_HELLO, &hello);
    let (mut sent, mut bytes_in, mut with_cookie) = (0, 0, None);
    let mut opened = false;
    run(&mut server, &mut client, |server, client, at_client| {
        let mut buffer = [0; 2_048];
        while let Ok(length) = socket.recv(&mut buffer) {
            bytes_in += length as u64;
            if with_cookie.is_none()
                && records(&buffer[..length])[0].body[0] == HELLO_VERIFY_REQUEST
            {
                rogue.hear(&buffer[..length]);
                let hello = rogue.hello().body();
                with_cookie = Some(Piece::whole(CLIENT_HELLO, 1, &hello).datagram(1));
            }
        }
        // A few at a time, so that the kernel drops none.
        for _ in 0..50.min(2_000 - sent) {
            let hello = if sent < 1_000 { Some(&first) } else { with_cookie.as_ref() };
            let Some(hello) = hello else { break };
            sent += socket.send_to(hello, address).map_or(0, |_| 1);
        }
        if sent == 1_500 {
            client.connect(Instant::now(), address, Arc::new(config())).unwrap();
        }
        opened |= at_client.iter().any(|event| matches!(event, Event::Established(_)));
        opened && sent == 2_000 && server.stats().datagrams_in >= 2_003
    })
    .await;
    let stats = *server.stats();
    assert_eq!(stats.handshakes_started, 2, "{stats:?}");
    assert!(stats.cookies_sent <= 1_001 && stats.drops.get(DropCause::BadCookie) == 0, "{stats:?}");
    assert_eq!((server.endpoint().associations(), server.endpoint().half_open()), (2, 1));
    assert!(stats.bytes_out < stats.bytes_in && bytes_in <= stats.bytes_out, "{stats:?}");
}
