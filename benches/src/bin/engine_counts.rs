//! One operation of the engine over and over, for `benches/counts`, which counts its instructions.
//!
//! ```text
//! engine_counts OPERATION TIMES
//! ```
//!
//! What counts runs inside [`counted`]; all else is preparation.

#![expect(clippy::expect_used, reason = "a measurement that cannot be made has failed")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use channel_benches::{identity, ours};
use dtls_channel::{
    AssociationId, Config, ConnectionIdMode, Endpoint, EndpointConfig, Event, Path, Session,
    TicketKeys,
};

const OPERATIONS: [&str; 12] = [
    "handshake-client",
    "handshake-server",
    "resumed-client",
    "resumed-server",
    "seal-128",
    "seal-1200",
    "open-128",
    "open-1200",
    "find-by-address",
    "find-again",
    "find-by-id",
    "stray",
];
const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 4_433);
const CLIENT: ([u8; 4], u16) = ([198, 51, 100, 1], 50_000);
const ANOTHER: ([u8; 4], u16) = ([198, 51, 100, 2], 50_000);
/// Others at the server while a record's association is looked for.
const OTHERS: u16 = 100;

/// What is counted: the tool looks for this name.
#[inline(never)]
fn counted<R>(work: impl FnOnce() -> R) -> R {
    std::hint::black_box(work())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let known = |what: &&String| OPERATIONS.contains(&what.as_str());
    let operation = arguments.first().filter(known);
    let times = arguments.get(1).and_then(|text| text.parse().ok());
    let (Some(operation), Some(times)) = (operation, times) else {
        eprintln!("usage: engine_counts OPERATION TIMES; operations: {}", OPERATIONS.join(" "));
        return ExitCode::from(64);
    };
    run(operation, times);
    ExitCode::SUCCESS
}

fn run(operation: &str, times: usize) {
    let mut bench = Bench::new(operation == "find-by-id");
    match operation {
        "handshake-client" => (0..times).for_each(|_| bench.handshake(None, true, false)),
        "handshake-server" => (0..times).for_each(|_| bench.handshake(None, false, true)),
        "resumed-client" | "resumed-server" => {
            let session = bench.session();
            let at_client = operation == "resumed-client";
            for _ in 0..times {
                bench.handshake(Some(&session), at_client, !at_client);
            }
        }
        "seal-128" => bench.seal(&[7; 128], times),
        "seal-1200" => bench.seal(&[7; 1_200], times),
        "open-128" => bench.receive(&[7; 128], times),
        "open-1200" => bench.receive(&[7; 1_200], times),
        "stray" => bench.stray(times),
        _ => bench.find(times, operation != "find-again"),
    }
}

struct Bench {
    client: Endpoint,
    server: Endpoint,
    config: Arc<Config>,
    now: Instant,
}

/// An association's two ends.
struct Open {
    client: AssociationId,
    server: AssociationId,
    session: Option<Session>,
}

impl Bench {
    fn new(with_ids: bool) -> Self {
        let (at_client, at_server) = (identity(), identity());
        let now = Instant::now();
        let mode = if with_ids { ConnectionIdMode::ByRole } else { ConnectionIdMode::Off };
        let keys = Arc::new(TicketKeys::random().expect("randomness"));
        let serving = ours::config(&at_server, None)
            .with_connection_id(mode.clone())
            .with_ticket_keys(keys, Duration::from_secs(3_600));
        let config = ours::config(&at_client, Some(&at_server)).with_connection_id(mode);
        let endpoint = |server| {
            let config = EndpointConfig { server, ..EndpointConfig::default() };
            Endpoint::new(now, config).expect("randomness")
        };
        Self {
            client: endpoint(None),
            server: endpoint(Some(Arc::new(serving))),
            config: Arc::new(config),
            now,
        }
    }

    fn open(
        &mut self,
        config: Arc<Config>,
        session: Option<&Session>,
        from: SocketAddr,
        (at_client, at_server): (bool, bool),
    ) -> Open {
        let (client, now) = (&mut self.client, self.now);
        let session = session.cloned();
        let id = counted_if(at_client, || match session {
            None => client.connect(now, SERVER.into(), config),
            Some(session) => client.resume(now, SERVER.into(), config, session),
        });
        while pass(&mut self.client, &mut self.server, from, now, at_server)
            | pass(&mut self.server, &mut self.client, SERVER.into(), now, at_client)
        {}
        let session = match self.client.poll_event() {
            Some((_, Event::Established(established))) => established.session,
            other => panic!("{other:?}"),
        };
        let server = self.server.poll_event().expect("open").0;
        Open { client: id.expect("room"), server, session }
    }

    fn handshake(&mut self, session: Option<&Session>, at_client: bool, at_server: bool) {
        let config = self.config.clone();
        let open = self.open(config, session, CLIENT.into(), (at_client, at_server));
        self.close(open.client);
    }

    fn close(&mut self, id: AssociationId) {
        self.client.close(id);
        let now = self.now;
        while pass(&mut self.client, &mut self.server, CLIENT.into(), now, false)
            | pass(&mut self.server, &mut self.client, SERVER.into(), now, false)
        {}
        while self.client.poll_event().is_some() || self.server.poll_event().is_some() {}
    }

    fn session(&mut self) -> Session {
        let config = Arc::new(Config::clone(&self.config).asking_for_tickets());
        let open = self.open(config, None, CLIENT.into(), (false, false));
        self.close(open.client);
        open.session.expect("the server gives tickets")
    }

    fn opened(&mut self) -> Open {
        self.open(self.config.clone(), None, CLIENT.into(), (false, false))
    }

    fn seal(&mut self, message: &[u8], times: usize) {
        let open = self.opened();
        for _ in 0..times {
            counted(|| self.server.send(open.server, message)).expect("open, and fits");
            self.server.outbox().pop();
        }
    }

    /// From datagram to message.
    fn receive(&mut self, message: &[u8], times: usize) {
        let open = self.opened();
        for _ in 0..times {
            self.client.send(open.client, message).expect("open, and fits");
            let mut datagram = self.client.outbox().front().expect("sealed").1.to_vec();
            self.client.outbox().pop();
            let (server, now) = (&mut self.server, self.now);
            counted(|| server.handle_datagram(now, SocketAddr::from(CLIENT).into(), &mut datagram));
            let event = self.server.poll_event();
            assert!(matches!(event, Some((_, Event::Message { .. }))), "{event:?}");
        }
    }

    /// Replays, each dropped as soon as its association is found; alternating with those of another client, or not.
    fn find(&mut self, times: usize, alternates: bool) {
        for n in 0..OTHERS {
            let from = SocketAddr::from(([203, 0, 113, 1], 1_024 + n));
            let other = self.open(self.config.clone(), None, from, (false, false));
            self.client.close(other.client);
            while self.client.outbox().front().is_some() {
                self.client.outbox().pop();
            }
            while self.client.poll_event().is_some() {}
        }
        let [one, other] = [CLIENT, ANOTHER].map(|from| self.said_before(from.into()));
        for _ in 0..times {
            let (server, now) = (&mut self.server, self.now);
            if alternates {
                server.handle_datagram(now, other.0, &mut other.1.clone());
            }
            let mut datagram = one.1.clone();
            counted(|| server.handle_datagram(now, one.0, &mut datagram));
        }
        let replayed = self.server.stats().drops.get(dtls_channel::DropCause::Replayed);
        assert_eq!(replayed, if alternates { 2 * times } else { times } as u64);
    }

    /// A datagram of a client that is connected, which the server has had.
    fn said_before(&mut self, from: SocketAddr) -> (Path, Vec<u8>) {
        let open = self.open(self.config.clone(), None, from, (false, false));
        self.client.send(open.client, b"said before").expect("open");
        let said = self.client.outbox().front().expect("sealed").1.to_vec();
        self.client.outbox().pop();
        self.server.handle_datagram(self.now, from.into(), &mut said.clone());
        assert!(matches!(self.server.poll_event(), Some((_, Event::Message { .. }))));
        (from.into(), said)
    }

    fn stray(&mut self, times: usize) {
        for _ in 0..times {
            let mut datagram = [23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 2, 1, 2];
            let (server, now) = (&mut self.server, self.now);
            counted(|| server.handle_datagram(now, SocketAddr::from(CLIENT).into(), &mut datagram));
        }
    }
}

fn counted_if<R>(counts: bool, work: impl FnOnce() -> R) -> R {
    if counts { counted(work) } else { work() }
}

fn pass(
    from: &mut Endpoint,
    to: &mut Endpoint,
    address: SocketAddr,
    now: Instant,
    counts: bool,
) -> bool {
    let mut any = false;
    while let Some((transmit, bytes)) = from.outbox().front() {
        any = true;
        let segment = transmit.segment_size.unwrap_or(bytes.len());
        let mut bytes = bytes.to_vec();
        from.outbox().pop();
        for datagram in bytes.chunks_mut(segment) {
            counted_if(counts, || to.handle_datagram(now, address.into(), datagram));
        }
    }
    any
}
