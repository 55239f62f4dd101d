//! The same documents over real sockets: our driver and sessions at both ends, each connection through a path of its
//! own, many side by side.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtls_channel::testing::{AcceptAnyone, LinkConfig};
use dtls_channel::{
    AssociationId, Config, Credentials, Driver, EndpointConfig, Event as ChannelEvent,
};
use metadata_delivery::testing::{body, name};
use metadata_delivery::{Document, Event, Session, SessionConfig};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::engine::{
    EARLIER_BYTES, EARLIER_DOCUMENTS, EARLIER_SPACING, Engine, LIMIT, Past, Times, measure,
};
use crate::paths::Paths;
use crate::table::Cell;

/// Connections begin this long after each other.
const SPACING: Duration = Duration::from_millis(20);
/// So many small documents on the virtual link, where they cost nothing.
const VIRTUAL_RUNS: u64 = 1_000;
const SMALL_BYTES_MAX: usize = 64 << 10;
/// UDP payload on a path of 1,500 bytes.
const DATAGRAM_BYTES_MAX: usize = 1_472;
/// A path has heard by then that it is to lose.
const MOMENT: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);

/// What all connections of a cell do.
#[derive(Clone, Copy)]
struct Plan {
    past: Past,
    bytes: usize,
    /// The first seed of the cell's bodies and paths.
    seed: u64,
}

/// What the end that pushes knows of its path and of the other end.
struct Server {
    paths: Arc<Paths>,
    nth: usize,
    agent_is_open: oneshot::Receiver<()>,
    begin: oneshot::Sender<()>,
    arrived: oneshot::Receiver<Instant>,
    /// Goes when all is over.
    _over: oneshot::Sender<()>,
}

/// The same of the other end.
struct Agent {
    is_open: oneshot::Sender<()>,
    begins: oneshot::Receiver<()>,
    arrives: oneshot::Sender<Instant>,
    over: oneshot::Receiver<()>,
}

struct End {
    driver: Driver,
    id: AssociationId,
    session: Session,
    packet: Vec<u8>,
}

impl End {
    /// Waits for the handshake's end; then, when `ready` says so, a session begins.
    async fn open(mut driver: Driver, ready: impl Future<Output = ()>) -> Self {
        let (id, event) = loop {
            driver.wait(None).await.expect("the socket works");
            if let Some(event) = driver.poll_event() {
                break event;
            }
        };
        let ChannelEvent::Established(established) = event else { panic!("{event:?}") };
        driver.flush();
        ready.await;
        let default = SessionConfig::default();
        let config = SessionConfig {
            payload_max: driver.message_size_max(id),
            payload_search_max: Some(driver.message_size_for(id, DATAGRAM_BYTES_MAX)),
            initial_rtt: established.round_trip.unwrap_or(default.initial_rtt),
            ..default
        };
        let session = Session::new(Instant::now(), config);
        Self { driver, id, session, packet: Vec::new() }
    }

    /// The session's next event, or `None` once it is so late.
    async fn next(&mut self, until: Instant) -> Option<Event> {
        loop {
            let event = self.session.poll_event();
            if let Some(Event::Received(document)) = &event {
                self.session.stored(Instant::now(), &document.name, document.version);
            }
            self.transmit();
            let now = Instant::now();
            if event.is_some() || now >= until {
                return event;
            }
            let wake = self.session.next_timeout().map_or(until, |at| at.min(until));
            self.driver.wait(Some(wake)).await.expect("the socket works");
            let now = Instant::now();
            while let Some((_, event)) = self.driver.poll_event() {
                if let ChannelEvent::Message { sequence, data, .. } = event {
                    self.session.handle_packet(now, sequence, &data).expect("an honest peer");
                }
            }
            if self.session.next_timeout().is_some_and(|at| at <= now) {
                self.session.handle_timeout(now);
            }
        }
    }

    fn transmit(&mut self) {
        while self.driver.has_room()
            && let Some(number) = self.driver.next_sequence(self.id)
            && self.session.poll_transmit(Instant::now(), number, &mut self.packet)
        {
            let fits = self.session.payload_max();
            let sent = self.driver.send_on_path(Instant::now(), self.id, &self.packet, fits);
            sent.expect("room");
        }
        self.driver.flush();
    }

    async fn idle(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while self.next(until).await.is_some() {}
    }

    /// Pushes the nth document. When it was confirmed, if it was.
    async fn push(&mut self, nth: u64, body: Bytes) -> Option<Instant> {
        let name = name(&format!("document/{nth}"));
        let began = Instant::now();
        self.session.offer(began, Document { name, version: 1, body }).expect("it is taken");
        match self.next(began + LIMIT).await? {
            Event::Stored { .. } => Some(Instant::now()),
            other => panic!("{other:?}"),
        }
    }
}

fn earlier(past: Past) -> u64 {
    if past == Past::InUse { EARLIER_DOCUMENTS } else { 0 }
}

/// The end that pushes.
async fn serve(driver: Driver, plan: Plan, wires: Server) -> Times {
    let Server { paths, nth, agent_is_open, begin, arrived, _over } = wires;
    let ready = async {
        agent_is_open.await.expect("an agent");
        paths.begin(nth);
        tokio::time::sleep(MOMENT).await;
        begin.send(()).expect("an agent");
    };
    let mut end = End::open(driver, ready).await;
    end.idle(SECOND).await;
    for nth in 1..=earlier(plan.past) {
        end.push(nth, Bytes::from(vec![0; EARLIER_BYTES])).await.expect("not in a minute");
        end.idle(EARLIER_SPACING).await;
    }
    let (began, sent) = (Instant::now(), paths.sent(nth));
    let measured = body(plan.seed + nth as u64, plan.bytes);
    let confirmed = end.push(EARLIER_DOCUMENTS + 1, measured).await;
    let sent = paths.sent(nth) - sent;
    let arrived = if confirmed.is_some() { arrived.await.ok() } else { None };
    Times {
        delivered: arrived.map(|at| at - began),
        confirmed: confirmed.map(|at| at - began),
        sent_ratio: sent as f64 / plan.bytes as f64,
    }
}

/// The end that takes documents, until all is over.
async fn take(driver: Driver, plan: Plan, wires: Agent) {
    let Agent { is_open, begins, arrives, mut over } = wires;
    let ready = async {
        is_open.send(()).expect("a server");
        begins.await.expect("a server");
    };
    let mut end = End::open(driver, ready).await;
    let (mut left, mut arrives) = (earlier(plan.past), Some(arrives));
    loop {
        tokio::select! {
            event = end.next(Instant::now() + LIMIT) => match event {
                Some(Event::Received(_)) if left > 0 => left -= 1,
                Some(Event::Received(_)) => {
                    // A server that has lost its patience does not listen.
                    let _ = arrives.take().map(|arrives| arrives.send(Instant::now()));
                }
                _ => {}
            },
            _ = &mut over => return,
        }
    }
}

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = socket.local_addr().expect("its address");
    (socket, address)
}

fn config() -> Arc<Config> {
    let identity = channel_benches::identity();
    let certificate = identity.certificate_der().to_vec();
    let credentials = Credentials::from_der(certificate, identity.pkcs8());
    Arc::new(Config::new(credentials.expect("our own identity"), Arc::new(AcceptAnyone)))
}

/// One cell: so many connections side by side. Also how late the relay was.
fn cell(plan: Plan, link: &LinkConfig, runs: u64) -> (Vec<Times>, Vec<Duration>) {
    let link = LinkConfig { mtu: DATAGRAM_BYTES_MAX, ..link.clone() };
    let sockets: Vec<_> = (0..runs).map(|_| (socket(), socket())).collect();
    let ends: Vec<_> = sockets.iter().map(|(agent, server)| [agent.1, server.1]).collect();
    let paths = Arc::new(Paths::new(&ends, plan.seed, &link));
    let (mut servers, mut agents) = (Vec::new(), Vec::new());
    for (nth, ((agent, _), (server, _))) in sockets.into_iter().enumerate() {
        let (is_open, agent_is_open) = oneshot::channel();
        let (begin, begins) = oneshot::channel();
        let (arrives, arrived) = oneshot::channel();
        let (_over, over) = oneshot::channel();
        let paths = paths.clone();
        agents.push((agent, paths.addresses[nth], Agent { is_open, begins, arrives, over }));
        servers.push((server, Server { paths, nth, agent_is_open, begin, arrived, _over }));
    }
    let agents = std::thread::spawn(move || {
        let config = config();
        on_one_thread(async move {
            let agents = (0..).zip(agents);
            let started = agents.map(|(nth, (socket, server, wires))| {
                let config = config.clone();
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(SPACING * nth).await;
                    let driver = Driver::from_socket(socket, EndpointConfig::default());
                    let mut driver = driver.expect("a driver");
                    driver.connect(Instant::now(), server, config).expect("room");
                    take(driver, plan, wires).await;
                })
            });
            for agent in started.collect::<Vec<_>>() {
                agent.await.expect("no panic");
            }
        });
    });
    let config = config();
    let times = on_one_thread(async move {
        let started = servers.into_iter().map(|(socket, wires)| {
            let config = EndpointConfig { server: Some(config.clone()), ..Default::default() };
            let driver = Driver::from_socket(socket, config).expect("a driver");
            tokio::task::spawn_local(serve(driver, plan, wires))
        });
        let mut times = Vec::new();
        for server in started.collect::<Vec<_>>() {
            times.push(server.await.expect("no panic"));
        }
        times
    });
    agents.join().expect("no panic");
    let paths = Arc::into_inner(paths).expect("all are done");
    (times, paths.end())
}

fn on_one_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), work)
}

/// A cell of small documents, or of large ones, beside what the virtual link says.
pub(crate) fn pair(past: Past, link: &LinkConfig, bytes: usize, runs: u64) -> [Cell; 2] {
    let virtual_runs = if bytes > SMALL_BYTES_MAX { runs } else { VIRTUAL_RUNS };
    let virtually: Vec<_> =
        (0..virtual_runs).map(|seed| measure(Engine::Ours, past, link, seed, bytes)).collect();
    let began = (Instant::now(), channel_benches::cpu::used());
    let (really, mut late) = cell(Plan { past, bytes, seed: 0 }, link, runs);
    let took = began.0.elapsed();
    late.sort_unstable();
    let at = |part: f64| late.get((late.len() as f64 * part) as usize).copied();
    eprintln!(
        "  the relay was late by {:?} (p50), {:?} (p99), {:?} (worst); {:.0} % of a processor",
        at(0.5).unwrap_or_default(),
        at(0.99).unwrap_or_default(),
        late.last().copied().unwrap_or_default(),
        (channel_benches::cpu::used() - began.1).as_secs_f64() / took.as_secs_f64() * 100.0,
    );
    [Cell::new(&virtually), Cell::new(&really)]
}

/// Names of the two, as the tables have them.
pub(crate) const NAMES: [&str; 2] = ["virtual link", "sockets"];
