//! Turns, medians, ratios.

use std::io::Write as _;
use std::time::Duration;

use channel_benches::cpu;
use channel_benches::peer::Peer;

/// One that takes part.
pub(crate) enum Contestant<'a> {
    /// In this process: does one of what is counted.
    Once(Box<dyn FnMut() + 'a>),
    /// In this process: does a whole turn, and says what it took.
    Turn(Box<dyn FnMut() -> Duration + 'a>),
    /// In a process of its own.
    Peer(Peer, String),
}

impl<'a> Contestant<'a> {
    pub(crate) fn here(once: impl FnMut() + 'a) -> Self {
        Self::Once(Box::new(once))
    }

    pub(crate) fn timed(turn: impl FnMut() -> Duration + 'a) -> Self {
        Self::Turn(Box::new(turn))
    }
}

/// CPU time of the same work by each contestant.
pub(crate) struct Table<'a> {
    what: String,
    per_turn: u32,
    rows: Vec<(String, Contestant<'a>, Vec<Duration>)>,
    skipped: Vec<(String, String)>,
}

impl<'a> Table<'a> {
    /// A turn is `per_turn` of what is counted.
    pub(crate) fn new(what: &str, per_turn: u32) -> Self {
        Self { what: what.into(), per_turn, rows: Vec::new(), skipped: Vec::new() }
    }

    /// The first is what the others are compared with.
    pub(crate) fn add(&mut self, name: &str, contestant: Contestant<'a>) {
        self.rows.push((name.into(), contestant, Vec::new()));
    }

    pub(crate) fn add_peer(&mut self, peer: Peer, command: String) {
        let name = peer.version.clone();
        self.rows.push((name, Contestant::Peer(peer, command), Vec::new()));
    }

    /// One that cannot be measured, and why.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        self.skipped.push((name.into(), reason.into()));
    }

    /// Everyone's turns, one after the other, then the table.
    pub(crate) fn run(mut self, rounds: usize) {
        // The first turn of each is not counted: associations are set up, caches are cold.
        for round in 0..=rounds {
            eprint!("\r{}: round {round} of {rounds} ", self.what);
            let _ = std::io::stderr().flush();
            let mut failed = Vec::new();
            for (at, (name, contestant, samples)) in self.rows.iter_mut().enumerate() {
                let took = match contestant {
                    Contestant::Once(once) => {
                        Ok(cpu::time(|| (0..self.per_turn).for_each(|_| once())))
                    }
                    Contestant::Turn(turn) => Ok(turn()),
                    Contestant::Peer(peer, command) => peer.measure(command),
                };
                match took {
                    Ok(took) if round > 0 => samples.push(took / self.per_turn),
                    Ok(_) => {}
                    Err(reason) => failed.push((at, (name.clone(), reason))),
                }
            }
            for (at, skipped) in failed.into_iter().rev() {
                self.rows.remove(at);
                self.skipped.push(skipped);
            }
        }
        eprintln!();
        self.print(rounds);
    }

    fn print(self, rounds: usize) {
        let medians: Vec<(String, f64)> = self
            .rows
            .into_iter()
            .map(|(name, _, samples)| (name, cpu::median(samples).as_secs_f64() * 1e6))
            .collect();
        let nothing = (String::new(), f64::NAN);
        let (floor, ours) =
            (medians.first().unwrap_or(&nothing).1, medians.get(1).unwrap_or(&nothing).1);
        println!();
        println!("{} ({rounds} turns of {}, medians)", self.what, self.per_turn);
        println!("{:<28} {:>9} {:>9} {:>9} {:>11}", "", "µs CPU", "x first", "x ours", "per CPU-s");
        for (name, median) in &medians {
            let (first, ours, rate) = (median / floor, median / ours, 1e6 / median);
            println!("{name:<28} {median:>9.2} {first:>9.2} {ours:>9.2} {rate:>11.0}");
        }
        println!("not measured: {}", self.skipped.len());
        for (name, reason) in self.skipped {
            println!("  {name}: {reason}");
        }
    }
}
