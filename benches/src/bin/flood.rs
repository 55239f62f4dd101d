//! What floods cost: the engine alone, then the real server on loopback with real agents.
//!
//! ```text
//! cargo run --release -p channel-benches --bin flood [SAMPLES]
//! ```
//!
//! In each phase SAMPLES clients connect and a quarter as many documents are pushed, one after the
//! other, while the flood goes on. Figures are CPU time where they can be: flood, server and agents
//! share the machine.

#![expect(clippy::expect_used, reason = "a measurement that cannot be made has failed")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use channel_benches::cpu;
use dtls_channel::{Endpoint, EndpointConfig};
use ring::hmac;
use system_tests::documents::{document, script};
use system_tests::flood::{
    Flood, Hellos, Pace, Source, Usage, anybody, leave_half_open, rogue, stray,
};
use system_tests::{Agent, Node, Server};

const SAMPLES_DEFAULT: usize = 200;
const AGENT: &str = "vm";
/// Repetitions for the engine's figures.
const TURNS: u32 = 500_000;

fn main() -> ExitCode {
    let samples = match std::env::args().nth(1).map(|text| text.parse()) {
        None => SAMPLES_DEFAULT,
        Some(Ok(samples @ 4..)) => samples,
        Some(_) => {
            eprintln!("usage: flood [SAMPLES], at least 4; {SAMPLES_DEFAULT} unless given");
            return ExitCode::from(64);
        }
    };
    engine();
    let mut server = Server::start();
    let _agent = Agent::start(&server, AGENT);
    println!();
    println!(
        "{:<22} {:>8} {:>9} {:>9} {:>9} {:>9} {:>17} {:>17} {:>11}",
        "phase",
        "sent/s",
        "answered",
        "out/in",
        "CPU each",
        "RSS",
        "connect p50/p99",
        "applied p50/p99",
        "delivered"
    );
    phase(&mut server, "quiet", samples, None);
    let mut hellos = Hellos::new(1);
    let spoofed = move |number: u32, source: &mut Source| {
        source.send(hellos.next_hello(), true);
        source.send(hellos.next_hello(), true);
        source.send(&stray(number), false);
    };
    let target = server.listen;
    let flood = Flood::start(target, u32::MAX, Pace::Answered, spoofed);
    phase(&mut server, "hellos, all answered", samples, Some(flood));
    let mut hellos = Hellos::new(2);
    let full = move |_, source: &mut Source| {
        for _ in 0..8 {
            source.send(hellos.next_hello(), true);
        }
    };
    let flood = Flood::start(target, u32::MAX, Pace::Full, full);
    phase(&mut server, "hellos, unheeding", samples, Some(flood));
    let mut rogue = rogue();
    let half_open = move |_, source: &mut Source| leave_half_open(&mut rogue, source);
    let flood = Flood::start(target, u32::MAX, Pace::Answered, half_open);
    phase(&mut server, "half-open handshakes", samples, Some(flood));
    ExitCode::SUCCESS
}

/// What the engine needs for one datagram, without a socket.
fn engine() {
    let serving = EndpointConfig { server: Some(Arc::new(anybody())), ..EndpointConfig::default() };
    let now = Instant::now();
    let mut endpoint = Endpoint::new(now, serving).expect("randomness");
    let mut measure = |what: &str, datagram: &mut dyn FnMut(u32) -> Vec<u8>| {
        // A few to choose from, made before the measurement.
        let mut made: Vec<Vec<u8>> = (0..256).map(datagram).collect();
        let took = cpu::time(|| {
            for turn in 0..TURNS {
                let [_, b, c, d] = turn.to_be_bytes();
                let from = SocketAddr::from((Ipv4Addr::new(10, b, c, d), 1_024));
                endpoint.handle_datagram(now, from.into(), &mut made[turn as usize % 256]);
                while endpoint.outbox().front().is_some() {
                    endpoint.outbox().pop();
                }
            }
        });
        println!("{what:<44} {:>6.2} µs CPU", took.as_secs_f64() * 1e6 / f64::from(TURNS));
    };
    let mut hellos = Hellos::new(3);
    let mut with_cookie = {
        let mut rogue = rogue();
        rogue.cookie = vec![0; 32];
        let body = rogue.hello().body();
        move |_| dtls_channel::testing::forge::Piece::whole(1, 1, &body).datagram(1)
    };
    measure("a hello answered with a cookie", &mut |_| hellos.next_hello().to_vec());
    measure("a hello with a cookie made up", &mut with_cookie);
    measure("a stray datagram", &mut stray);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let took = cpu::time(|| {
        for _ in 0..TURNS {
            // Address and prefix; the same and the offer.
            black_box(hmac::sign(&key, black_box(&[1; 54])));
            black_box(hmac::sign(&key, black_box(&[1; 118])));
        }
    });
    let each = took.as_secs_f64() * 1e6 / f64::from(TURNS);
    println!("{:<44} {each:>6.2} µs CPU", "for comparison: two HMACs as in a cookie");
}

fn phase(server: &mut Server, what: &str, samples: usize, flood: Option<Flood>) {
    let process = server.process().id();
    let before = Usage::of(process);
    let counts = ["mds_push_latency_seconds_sum", "mds_push_latency_seconds_count"];
    let pushed = counts.map(|name| server.metric(name));
    let received = server.metric("mds_datagrams_received_total");
    let (mut connects, mut pushes) = (Vec::new(), Vec::new());
    for sample in 0..samples {
        let begun = Instant::now();
        let node = Node::connect(server.listen, anybody());
        let _ = node.established();
        connects.push(begun.elapsed());
        if sample % 4 == 0 {
            let says = script(&format!("{what} {sample}"), "#!/bin/sh\n:\n");
            let begun = Instant::now();
            let version = server.accept(AGENT, &document(&[says]));
            server.wait_until_applied(AGENT, version);
            pushes.push(begun.elapsed());
        }
    }
    let delivered = counts.map(|name| server.metric(name));
    let delivered = (delivered[0] - pushed[0]) / (delivered[1] - pushed[1]).max(1.0);
    let after = Usage::of(process);
    let after_received = server.metric("mds_datagrams_received_total");
    let (mut rate, mut answered, mut ratio, mut each) = Default::default();
    if let Some(flood) = flood {
        flood.stop();
        let tally = flood.tally();
        rate = format!("{:.0}", tally.sent as f64 / tally.took.as_secs_f64());
        answered = format!("{:.0} %", 100.0 * tally.received as f64 / tally.sent as f64);
        ratio = format!("{:.2}", tally.received_bytes as f64 / tally.sent_bytes as f64);
        // What the kernel has no room for costs the server nothing.
        let used = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        each = format!("{:.1} µs", used * 1e6 / (after_received - received));
    }
    let growth = after.resident_bytes as f64 - before.resident_bytes as f64;
    println!(
        "{what:<22} {rate:>8} {answered:>9} {ratio:>9} {each:>9} {:>9} {:>17} {:>17} {:>11}",
        format!("{:+.1} MB", growth / 1e6),
        show(connects),
        show(pushes),
        format!("{:.1} ms", delivered * 1e3),
    );
}

fn show(mut samples: Vec<Duration>) -> String {
    samples.sort_unstable();
    let at = |part: usize| samples[(samples.len() * part / 100).min(samples.len() - 1)];
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    format!("{} / {} ms", ms(at(50)), ms(at(99)))
}
