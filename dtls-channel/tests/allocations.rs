//! Records cost no allocation once buffers have grown to what the traffic needs.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "sockets are driven by the real clock")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use dtls_channel::{AssociationId, Config, Driver, Endpoint, EndpointConfig, Event};

use common::config;

const MESSAGE: [u8; 1_100] = [7; 1_100];
/// As many records as are sealed before the other end reads.
const BURST: usize = 32;
/// Buffers grow and pieces of shared storage come round again.
const WARM_UP: usize = 150;
const BURSTS: usize = 300;
/// For what comes over loopback.
const PATIENCE: Duration = Duration::from_secs(10);

fn shared() -> Arc<Config> {
    Arc::new(config())
}

fn serving() -> EndpointConfig {
    EndpointConfig { server: Some(shared()), ..EndpointConfig::default() }
}

/// Two endpoints in memory.
struct Pair {
    client: Endpoint,
    server: Endpoint,
    now: Instant,
    buffer: Vec<u8>,
}

impl Pair {
    fn pass(&mut self) {
        let (at_client, at_server) = ([127, 0, 0, 1], [127, 0, 0, 2]);
        loop {
            let (now, buffer) = (self.now, &mut self.buffer);
            let any = pass(&mut self.client, &mut self.server, now, at_client, buffer)
                | pass(&mut self.server, &mut self.client, now, at_server, buffer);
            if !any {
                return;
            }
        }
    }
}

fn pass(
    from: &mut Endpoint,
    to: &mut Endpoint,
    now: Instant,
    address: [u8; 4],
    buffer: &mut Vec<u8>,
) -> bool {
    let mut any = false;
    while let Some((transmit, bytes)) = from.outbox().front() {
        any = true;
        let segment = transmit.segment_size.unwrap_or(bytes.len());
        buffer.clear();
        buffer.extend_from_slice(bytes);
        from.outbox().pop();
        for datagram in buffer.chunks_mut(segment) {
            to.handle_datagram(now, SocketAddr::from((address, 9)).into(), datagram);
        }
    }
    any
}

#[test]
fn an_endpoint_seals_and_opens_records_without_an_allocation() {
    let now = Instant::now();
    let mut pair = Pair {
        client: Endpoint::new(now, EndpointConfig::default()).unwrap(),
        server: Endpoint::new(now, serving()).unwrap(),
        now,
        buffer: Vec::new(),
    };
    let to_server = pair.client.connect(now, ([127, 0, 0, 2], 9).into(), shared()).unwrap();
    pair.pass();
    let Some((to_client, Event::Established(_))) = pair.server.poll_event() else { panic!() };
    let mut received = 0;
    let mut burst = |pair: &mut Pair| {
        for _ in 0..BURST {
            pair.server.send(to_client, &MESSAGE).unwrap();
            pair.client.send(to_server, &MESSAGE[..100]).unwrap();
        }
        pair.pass();
        for endpoint in [&mut pair.client, &mut pair.server] {
            while let Some((_, event)) = endpoint.poll_event() {
                received += usize::from(matches!(event, Event::Message { .. }));
            }
        }
    };
    (0..WARM_UP).for_each(|_| burst(&mut pair));
    let memory = measure(|| (0..BURSTS).for_each(|_| burst(&mut pair)));
    assert_eq!(received, 2 * BURST * (WARM_UP + BURSTS));
    assert_eq!(memory.count_total, 0, "{memory:?}");
}

/// Two drivers on loopback.
struct Drivers {
    client: Driver,
    server: Driver,
    to_client: AssociationId,
    to_server: AssociationId,
}

impl Drivers {
    async fn connected() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Driver::bind(loopback, serving()).unwrap();
        let mut client = Driver::bind(loopback, EndpointConfig::default()).unwrap();
        let remote = server.local_addr().unwrap();
        let to_server = client.connect(Instant::now(), remote, shared()).unwrap();
        let mut open = (None, false);
        while open.0.is_none() || !open.1 {
            tokio::select! {
                done = client.wait(None) => done.unwrap(),
                done = server.wait(None) => done.unwrap(),
            }
            while let Some((id, event)) = server.poll_event() {
                open.0 = matches!(event, Event::Established(_)).then_some(id).or(open.0);
            }
            while let Some((_, event)) = client.poll_event() {
                open.1 |= matches!(event, Event::Established(_));
            }
        }
        Self { client, server, to_client: open.0.unwrap(), to_server }
    }

    /// Records both ways, all of them awaited; how many came.
    async fn burst(&mut self) -> usize {
        let now = Instant::now();
        for _ in 0..BURST {
            self.server.send(now, self.to_client, &MESSAGE).unwrap();
            self.client.send(now, self.to_server, &MESSAGE[..100]).unwrap();
        }
        self.server.flush();
        self.client.flush();
        take(&mut self.client, BURST).await + take(&mut self.server, BURST).await
    }
}

/// Takes messages until there were `count`.
async fn take(driver: &mut Driver, count: usize) -> usize {
    let (mut received, deadline) = (0, Instant::now() + PATIENCE);
    while received < count {
        driver.wait(Some(deadline)).await.unwrap();
        assert!(Instant::now() < deadline, "{received} of {count} came");
        while let Some((_, event)) = driver.poll_event() {
            received += usize::from(matches!(event, Event::Message { .. }));
        }
    }
    received
}

#[test]
fn a_driver_sends_and_receives_records_without_an_allocation() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut drivers = runtime.block_on(Drivers::connected());
    let mut bursts = |count: usize| {
        runtime.block_on(async {
            for _ in 0..count {
                assert_eq!(drivers.burst().await, 2 * BURST);
            }
        });
    };
    bursts(WARM_UP);
    // The runtime makes a list when a task first yields, once each time that it is entered.
    let entered = measure(|| bursts(WARM_UP));
    let memory = measure(|| bursts(BURSTS));
    assert!(entered.count_total <= 1, "{entered:?}");
    assert_eq!(memory.count_total, entered.count_total, "{memory:?}");
}

#[test]
fn a_driver_sends_a_record_to_each_of_many_peers_without_an_allocation() {
    const PEERS: usize = 100;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let (mut server, mut clients, open) = runtime.block_on(async {
        let mut server = Driver::bind(loopback, serving()).unwrap();
        let remote = server.local_addr().unwrap();
        let (mut clients, mut open) = (Vec::new(), Vec::new());
        for _ in 0..PEERS {
            let mut client = Driver::bind(loopback, EndpointConfig::default()).unwrap();
            client.connect(Instant::now(), remote, shared()).unwrap();
            while open.len() == clients.len() {
                tokio::select! {
                    done = client.wait(None) => done.unwrap(),
                    done = server.wait(None) => done.unwrap(),
                }
                while let Some((id, event)) = server.poll_event() {
                    assert!(matches!(event, Event::Established(_)), "{event:?}");
                    open.push(id);
                }
            }
            clients.push(client);
        }
        (server, clients, open)
    });
    let mut push = || {
        for id in &open {
            server.send(Instant::now(), *id, &MESSAGE).unwrap();
        }
        server.flush();
        assert_eq!((server.send_errors(), server.has_room()), (0, true));
    };
    push();
    let memory = measure(&mut push);
    assert_eq!(memory.count_total, 0, "{memory:?}");
    runtime.block_on(async {
        for client in &mut clients {
            assert_eq!(take(client, 2).await, 2);
        }
    });
}
