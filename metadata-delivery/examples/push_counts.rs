//! Pushes of a small document between two idle sessions, over and over, for `benches/counts`, which counts the
//! instructions of one of them.
//!
//! ```text
//! push_counts push-server|push-agent TIMES
//! ```
//!
//! What counts runs inside [`counted`]: everything that the shell around a session asks of it from the offer of a
//! document of three packets until both ends have nothing more to say.

#![expect(clippy::expect_used, reason = "a measurement that cannot be made has failed")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metadata_delivery::message::metadata_name;
use metadata_delivery::{Event, Form, Session, SessionConfig};

const BODY_BYTES: usize = 3_000;
const STEP: Duration = Duration::from_micros(100);
const PAUSE: Duration = Duration::from_secs(1);

/// What is counted: the tool looks for this name.
#[inline(never)]
fn counted<R>(work: impl FnOnce() -> R) -> R {
    black_box(work())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let at_server = match arguments.first().map(String::as_str) {
        Some("push-server") => true,
        Some("push-agent") => false,
        _ => return usage(),
    };
    let Some(times) = arguments.get(1).and_then(|text| text.parse().ok()) else { return usage() };
    let now = Instant::now();
    let mut server = End::new(now, at_server);
    let mut agent = End::new(now, !at_server);
    // The first has the greeting in it.
    (server.counts, agent.counts) = (false, false);
    push(&mut server, &mut agent, now, 1);
    (server.counts, agent.counts) = (at_server, !at_server);
    for n in 1..=times {
        push(&mut server, &mut agent, now + PAUSE * n, u64::from(n) + 1);
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: push_counts push-server|push-agent TIMES");
    ExitCode::from(64)
}

/// One push, up to the last acknowledgement.
fn push(server: &mut End, agent: &mut End, begin: Instant, version: u64) {
    let mut body = vec![0; BODY_BYTES];
    body[..8].copy_from_slice(&version.to_be_bytes());
    let form = Form::plain(Bytes::from(body));
    let name = metadata_name();
    let mut now = begin;
    server.work(|session| {
        session.offer_form(now, name, version, form).expect("the offer is taken");
    });
    let mut to_agent = server.turn(now);
    while !to_agent.is_empty() {
        now += STEP;
        agent.take(now, &to_agent);
        let mut to_server = agent.turn(now);
        if let Some(Event::Received(document)) = agent.event.take() {
            now += STEP;
            agent.work(|session| session.stored(now, &document.name, document.version));
            to_server.extend(agent.turn(now));
        }
        now += STEP;
        server.take(now, &to_server);
        to_agent = server.turn(now);
    }
    assert!(matches!(server.event.take(), Some(Event::Stored { version: v, .. }) if v == version));
}

/// A session and what its shell keeps.
struct End {
    session: Session,
    counts: bool,
    number: u64,
    event: Option<Event>,
    packet: Vec<u8>,
}

impl End {
    fn new(now: Instant, counts: bool) -> Self {
        let initial_rtt = 2 * STEP;
        let session = Session::new(now, SessionConfig { initial_rtt, ..SessionConfig::default() });
        Self { session, counts, number: 1, event: None, packet: Vec::new() }
    }

    fn work<R>(&mut self, work: impl FnOnce(&mut Session) -> R) -> R {
        let session = &mut self.session;
        if self.counts { counted(|| work(session)) } else { work(session) }
    }

    fn take(&mut self, now: Instant, packets: &[(u64, Vec<u8>)]) {
        for (number, packet) in packets {
            self.work(|session| session.handle_packet(now, *number, packet))
                .expect("an honest peer");
        }
    }

    /// Events out, packets out, the timer set.
    fn turn(&mut self, now: Instant) -> Vec<(u64, Vec<u8>)> {
        while let Some(event) = self.work(Session::poll_event) {
            self.event = Some(event);
        }
        let mut packets = Vec::new();
        let mut packet = std::mem::take(&mut self.packet);
        loop {
            let number = self.number;
            if !self.work(|session| session.poll_transmit(now, number, &mut packet)) {
                break;
            }
            packets.push((number, packet.clone()));
            self.number += 1;
        }
        self.packet = packet;
        black_box(self.work(|session| session.next_timeout()));
        packets
    }
}
