//! What an idle association takes at a server: every byte of the heap counted by the allocator, tables
//! of the endpoint included, and the process's resident memory. Then what other libraries' take, by
//! what `benches/peers` says of each.
//!
//! ```text
//! cargo run --release -p channel-benches --bin engine_memory [ASSOCIATIONS]
//! ```

#![expect(clippy::expect_used, reason = "a measurement that cannot be made has failed")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use channel_benches::peer::{self, Home, Peer};
use channel_benches::{identity, ours};
use dtls_channel::{Config, Endpoint, EndpointConfig, Event, Path};

const ASSOCIATIONS_DEFAULT: usize = 100_000;
/// Some take 10 ms for a handshake, some 90 kB.
const PEERS_ASSOCIATIONS: usize = 500;
/// As long as an endpoint keeps the flight that ended a handshake.
const LAST_FLIGHT: Duration = Duration::from_secs(241);

fn main() -> ExitCode {
    let count = match std::env::args().nth(1).map(|text| text.parse()) {
        None => ASSOCIATIONS_DEFAULT,
        Some(Ok(count @ 1..)) => count,
        Some(_) => {
            eprintln!("usage: engine_memory [ASSOCIATIONS]; {ASSOCIATIONS_DEFAULT} unless given");
            return ExitCode::from(64);
        }
    };
    println!("{count} associations on one endpoint, server, bytes for each");
    println!("{:<44} {:>8} {:>10} {:>10}", "", "heap", "allocated", "resident");
    idle(count);
    println!();
    println!("{PEERS_ASSOCIATIONS} associations of others, sockets and tables not included");
    let home = Home::new();
    for name in peer::NAMES {
        match of_peer(&home, name) {
            Ok(row) => println!("{row}"),
            Err(reason) => println!("{name}: not measured: {reason}"),
        }
    }
    ExitCode::SUCCESS
}

fn of_peer(home: &Home, name: &str) -> Result<String, String> {
    let mut peer = Peer::start(home, name)?;
    let answer = peer.ask(&format!("idle {PEERS_ASSOCIATIONS}"))?;
    let numbers: Vec<usize> = answer.split(' ').filter_map(|word| word.parse().ok()).collect();
    let &[heap, resident] = &numbers[..] else { return Err(format!("it answered {answer:?}")) };
    let [heap, resident] = [heap, resident].map(|bytes| bytes / PEERS_ASSOCIATIONS);
    Ok(format!("{:<44} {heap:>8} {:>10} {resident:>10}", peer.version, ""))
}

fn idle(count: usize) {
    let (at_client, at_server) = (identity(), identity());
    let serving = Some(Arc::new(ours::config(&at_server, None)));
    let config = Arc::new(ours::config(&at_client, Some(&at_server)));
    let now = Instant::now();
    let serving = EndpointConfig { server: serving, ..EndpointConfig::default() };
    let mut server = Endpoint::new(now, serving).expect("randomness");
    // What is needed once is there before the count begins.
    open(&mut server, &config, now, 0);
    let before = resident_bytes();
    let mut memory = measure(|| {
        for n in 1..=count {
            if n % 5_000 == 0 {
                eprint!("\r{n} of {count} ");
            }
            open(&mut server, &config, now, n);
        }
    });
    eprintln!();
    let row = |what: &str, heap: i64, allocations: i64| {
        let each = |bytes: i64| bytes as f64 / count as f64;
        let resident = resident_bytes().saturating_sub(before);
        println!(
            "{what:<44} {:>8.0} {:>10.2} {:>10.0}   {} MiB in all",
            each(heap),
            each(allocations),
            resident as f64 / count as f64,
            resident >> 20
        );
    };
    row("just opened, last flight kept", memory.bytes_current, memory.count_current);
    let idle = measure(|| server.handle_timeout(now + LAST_FLIGHT));
    memory.bytes_current += idle.bytes_current;
    memory.count_current += idle.count_current;
    assert_eq!(server.associations(), count + 1);
    row("idle", memory.bytes_current, memory.count_current);
}

/// A handshake with a client that is let go of.
fn open(server: &mut Endpoint, config: &Arc<Config>, now: Instant, n: usize) {
    let [.., b, c, d] = (n as u32).to_be_bytes();
    let here = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4_433));
    let path = Path {
        remote: (Ipv4Addr::new(10, b, c, d), 40_000).into(),
        local: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
    };
    let mut client = Endpoint::new(now, EndpointConfig::default()).expect("randomness");
    client.connect(now, here, config.clone()).expect("room");
    let mut buffer = Vec::new();
    let mut is_open = false;
    while client.outbox().front().is_some() || server.outbox().front().is_some() {
        pass(&mut client, &mut buffer, |datagram| server.handle_datagram(now, path, datagram));
        pass(server, &mut buffer, |datagram| client.handle_datagram(now, here.into(), datagram));
        while let Some((_, event)) = server.poll_event() {
            is_open |= matches!(event, Event::Established(_));
        }
    }
    assert!(is_open);
}

fn pass(from: &mut Endpoint, buffer: &mut Vec<u8>, mut to: impl FnMut(&mut [u8])) {
    while let Some((transmit, bytes)) = from.outbox().front() {
        let segment = transmit.segment_size.unwrap_or(bytes.len());
        buffer.clear();
        buffer.extend_from_slice(bytes);
        from.outbox().pop();
        buffer.chunks_mut(segment).for_each(&mut to);
    }
}

fn resident_bytes() -> usize {
    let text = fs::read_to_string("/proc/self/statm").expect("statm");
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("pages") * rustix::param::page_size()
}
