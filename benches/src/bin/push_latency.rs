//! How long a push takes on loopback: from the HTTP request, and from its acceptance, to the first
//! instruction of the hook. Server and agent are the real programs, one agent, one document with
//! one script at a time.
//!
//! ```text
//! cargo run --release -p channel-benches --bin push_latency [PUSHES]
//! ```
//!
//! State is where `TMPDIR` says; what that file system needs to make a write durable is measured in
//! the same run, since a push waits for several such writes.

#![expect(clippy::expect_used, reason = "a measurement that cannot be made has failed")]

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use system_tests::documents::{document, script};
use system_tests::{Agent, PATIENCE, Server};

const PUSHES_DEFAULT: usize = 200;
const AGENT: &str = "vm";

fn main() -> ExitCode {
    let pushes = match std::env::args().nth(1).map(|text| text.parse()) {
        None => PUSHES_DEFAULT,
        Some(Ok(pushes @ 1..)) => pushes,
        Some(_) => {
            eprintln!("usage: push_latency [PUSHES], at least 1; {PUSHES_DEFAULT} unless given");
            return ExitCode::from(64);
        }
    };
    let server = Server::start();
    let agent = Agent::start(&server, AGENT);
    let pipe = agent.directory().join("pipe");
    let starts = listen(&pipe);

    let (mut from_request, mut from_answer) = (Vec::new(), Vec::new());
    let (mut appended, mut replaced) = (Vec::new(), Vec::new());
    for push in 0..pushes {
        // In between, so that the same neighbours disturb all of it.
        appended.push(append(agent.directory()));
        replaced.push(replace(agent.directory()));
        // The shell's own printf: the first instruction, and no further program.
        let says = format!("#!/bin/sh\nprintf . > {}\n", pipe.display());
        let body = document(&[script(&format!("push-{push}"), &says)]).to_string();
        let requested = Instant::now();
        let reply = server.put(AGENT, body.as_bytes()).expect("an answer");
        let answered = Instant::now();
        assert_eq!(reply.status, 201, "{reply}");
        let started = starts.recv_timeout(PATIENCE).expect("the script says so");
        from_request.push(started - requested);
        // The push begins when the document is durable, and may overtake the answer.
        from_answer.push(started.saturating_duration_since(answered));
        let version = reply.json()["version"].as_u64().expect("a version");
        server.wait_until_applied(AGENT, version);
    }
    println!("{:<48} {:>9} {:>9} {:>9}", format!("{pushes} pushes"), "median", "p99", "worst");
    show("PUT sent -> first instruction of the hook", from_request);
    show("PUT answered -> first instruction", from_answer);
    show("for comparison: append 4 KiB, fdatasync", appended);
    show("for comparison: new file, fsync, rename, fsync", replaced);
    ExitCode::SUCCESS
}

/// A named pipe that tells when somebody has written to it.
fn listen(pipe: &Path) -> mpsc::Receiver<Instant> {
    mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    // With a writer of our own it never ends.
    let mut reader = OpenOptions::new().read(true).write(true).open(pipe).expect("opened");
    let (sender, starts) = mpsc::channel();
    std::thread::spawn(move || {
        let mut byte = [0];
        while reader.read_exact(&mut byte).is_ok() && sender.send(Instant::now()).is_ok() {}
    });
    starts
}

/// What a journal does.
fn append(directory: &Path) -> Duration {
    let path = directory.join("append");
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("opened");
    let begin = Instant::now();
    file.write_all(&[7; 4_096]).expect("written");
    file.sync_data().expect("durable");
    begin.elapsed()
}

/// What keeping a document does.
fn replace(directory: &Path) -> Duration {
    let begin = Instant::now();
    let mut file = File::create(directory.join("new")).expect("created");
    file.write_all(&[7; 4_096]).expect("written");
    file.sync_all().expect("durable");
    std::fs::rename(directory.join("new"), directory.join("replaced")).expect("renamed");
    File::open(directory).and_then(|directory| directory.sync_all()).expect("durable");
    begin.elapsed()
}

fn show(what: &str, mut samples: Vec<Duration>) {
    samples.sort_unstable();
    let at = |part: usize| samples[(samples.len() * part / 100).min(samples.len() - 1)];
    let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    println!("{what:<44} {:>9} {:>9} {:>9}", ms(at(50)), ms(at(99)), ms(at(100)));
}
