//! CPU time of a mutual handshake, both ends: our engine, full and resumed, `webrtc-dtls` and the
//! ring floor, in alternation, so that a busy neighbour troubles all alike.
//!
//! ```text
//! cargo run --release -p channel-benches --bin handshake_cpu [ROUNDS]
//! ```

use std::process::ExitCode;
use std::time::Duration;

use channel_benches::{cpu, floor, ours, webrtc};

const ROUNDS_DEFAULT: usize = 101;
/// Handshakes in a row before the next one's turn.
const HANDSHAKES_PER_TURN: u32 = 10;

type Contestant<'a> = (&'static str, Box<dyn FnMut() + 'a>);

fn main() -> ExitCode {
    let rounds = match std::env::args().nth(1).map(|text| text.parse()) {
        None => ROUNDS_DEFAULT,
        Some(Ok(rounds @ 1..)) => rounds,
        Some(_) => {
            eprintln!("usage: handshake_cpu [ROUNDS], at least 1; {ROUNDS_DEFAULT} unless given");
            return ExitCode::from(64);
        }
    };
    let floor = floor::Floor::new();
    let (mut ours, mut resuming) = (ours::Pair::new(), ours::Pair::new());
    let session = resuming.session();
    let webrtc = webrtc::Pair::new();
    let mut contestants: [Contestant<'_>; 4] = [
        ("ring floor", Box::new(|| floor.handshake())),
        (
            "dtls-channel",
            Box::new(|| {
                let open = ours.handshake();
                ours.close(open);
            }),
        ),
        (
            "resumed",
            Box::new(|| {
                let open = resuming.resumed_handshake(&session);
                resuming.close(open);
            }),
        ),
        ("webrtc-dtls", Box::new(|| webrtc.close(webrtc.handshake()))),
    ];
    let mut samples: [Vec<Duration>; 4] = Default::default();
    for _ in 0..rounds {
        for ((_, handshake), samples) in contestants.iter_mut().zip(&mut samples) {
            let turn = cpu::time(|| (0..HANDSHAKES_PER_TURN).for_each(|_| handshake()));
            samples.push(turn / HANDSHAKES_PER_TURN);
        }
    }
    let medians = samples.map(|samples| cpu::median(samples).as_secs_f64() * 1e6);
    println!("{:<14} {:>10} {:>10}", "both ends", "µs CPU", "x floor");
    for ((name, _), median) in contestants.iter().zip(medians) {
        println!("{name:<14} {median:>10.0} {:>10.2}", median / medians[0]);
    }
    println!("webrtc-dtls / dtls-channel: {:.2}", medians[3] / medians[1]);
    println!("dtls-channel / resumed: {:.2}", medians[1] / medians[2]);
    ExitCode::SUCCESS
}
