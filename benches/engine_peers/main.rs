//! Our engine beside others, and beside what none can be cheaper than: CPU time of one run, in turns,
//! so that a busy neighbour troubles all alike.
//!
//! ```text
//! benches/peers/build
//! cargo run --release -p channel-benches --bin engine_peers [handshakes|records|fanout]... [--rounds N]
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`stream`] | records from one of our drivers to another, and the bare operations |
//! | [`crowd`] | one record to each of many peers, and the bare system call |
//! | [`table`] | turns, medians, ratios |

#![expect(clippy::expect_used, reason = "a measurement that cannot be made has failed")]

mod crowd;
mod stream;
mod table;

use std::process::ExitCode;

use channel_benches::peer::{self, Peer};
use channel_benches::{cpu, floor, ours, webrtc};
use table::{Contestant, Table};

const ROUNDS_DEFAULT: usize = 21;
/// Per turn.
const HANDSHAKES: u32 = 20;
const RECORDS: u32 = 5_200;
/// Records before the other end reads: what one segmented send carries.
const BURST: u32 = 52;
const RECORD_BYTES: usize = 1_200;
const CROWD: u32 = 10_000;
/// A turn of the crowd is ten thousand records: fewer turns do.
const CROWD_ROUNDS_PART: usize = 3;

const USAGE: &str = "usage: engine_peers [handshakes|records|fanout]... [--rounds N]";

fn main() -> ExitCode {
    let (mut tables, mut rounds) = (Vec::new(), ROUNDS_DEFAULT);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "handshakes" | "records" | "fanout" => tables.push(argument),
            "--rounds" => match arguments.next().map(|text| text.parse()) {
                Some(Ok(number @ 1..)) => rounds = number,
                _ => return usage(),
            },
            _ => return usage(),
        }
    }
    let is_wanted = |name: &str| tables.is_empty() || tables.iter().any(|table| table == name);
    let peers = peer::Home::new();
    if is_wanted("handshakes") {
        handshakes(&peers, rounds);
    }
    if is_wanted("records") {
        records(&peers, rounds);
    }
    if is_wanted("fanout") {
        fan_out(&peers, rounds.div_ceil(CROWD_ROUNDS_PART));
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}, N at least 1 and {ROUNDS_DEFAULT} unless given");
    ExitCode::from(64)
}

/// Both ends in memory, goodbye included.
fn handshakes(peers: &peer::Home, rounds: usize) {
    let floor = floor::Floor::new();
    let (mut ours, mut resuming) = (ours::Pair::new(), ours::Pair::new());
    let session = resuming.session();
    let webrtc = webrtc::Pair::new();
    let mut full = Table::new("mutual handshake, both ends", HANDSHAKES);
    full.add("ring floor", Contestant::here(|| floor.handshake()));
    full.add(
        "dtls-channel",
        Contestant::here(|| {
            let open = ours.handshake();
            ours.close(open);
        }),
    );
    full.add("webrtc-dtls 0.12.0", Contestant::here(|| webrtc.close(webrtc.handshake())));
    add_peers(&mut full, peers, format!("handshakes {HANDSHAKES}"));
    full.run(rounds);
    let mut resumed = Table::new("resumed handshake, both ends", HANDSHAKES);
    resumed.add("ring floor of a full one", Contestant::here(|| floor.handshake()));
    resumed.add(
        "dtls-channel",
        Contestant::here(|| {
            let open = resuming.resumed_handshake(&session);
            resuming.close(open);
        }),
    );
    resumed.skip("webrtc-dtls 0.12.0", "it has no resumption");
    add_peers(&mut resumed, peers, format!("resumed {HANDSHAKES}"));
    resumed.run(rounds);
}

/// From server to client over loopback sockets.
fn records(peers: &peer::Home, rounds: usize) {
    let mut floor = stream::Floor::new(RECORD_BYTES);
    let mut ours = stream::Stream::new(RECORD_BYTES);
    let what = format!("records of {RECORD_BYTES} bytes to one peer, both ends, sockets");
    let mut table = Table::new(&what, RECORDS);
    table.add("ring, GSO and GRO", Contestant::timed(|| cpu::time(|| floor.pass(RECORDS, BURST))));
    table.add("dtls-channel", Contestant::timed(|| cpu::time(|| ours.pass(RECORDS, BURST))));
    table.skip("webrtc-dtls 0.12.0", "see `cargo bench --bench record`, without sockets");
    add_peers(&mut table, peers, format!("records {RECORDS} {BURST} {RECORD_BYTES}"));
    table.run(rounds);
}

/// The sender alone.
fn fan_out(peers: &peer::Home, rounds: usize) {
    let mut ours = crowd::Crowd::new(CROWD, RECORD_BYTES);
    let mut raw = crowd::Raw::new(&ours);
    let what = format!("one record of {RECORD_BYTES} bytes to each of {CROWD} peers, sender");
    let mut table = Table::new(&what, CROWD);
    // Both have the same receivers.
    let receivers = ours.receivers();
    table.add("raw sendmmsg", Contestant::timed(move || raw.send(&receivers)));
    table.add("dtls-channel", Contestant::timed(move || ours.send()));
    table.skip("webrtc-dtls 0.12.0", "two tasks and a lock for each peer: see the research");
    add_peers(&mut table, peers, format!("fanout {CROWD} {RECORD_BYTES}"));
    table.run(rounds);
}

fn add_peers<'a>(table: &mut Table<'a>, home: &'a peer::Home, command: String) {
    for name in peer::NAMES {
        match Peer::start(home, name) {
            Ok(peer) => table.add_peer(peer, command.clone()),
            Err(reason) => table.skip(name, &reason),
        }
    }
}
