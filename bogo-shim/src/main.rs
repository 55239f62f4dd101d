//! The program that BoringSSL's protocol test runner starts once per test, with `dtls-channel`
//! inside.
//!
//! The runner is the peer: it speaks good or broken DTLS with us in frames over TCP, says how much
//! time has passed, and judges what we answered. `tests/bogo/run` builds it and runs both;
//! `docs/conformance.md` has the results.
//!
//! **Non-goal.** Anything that `dtls-channel` does not do: a flag for it ends the program with
//! [`UNIMPLEMENTED`], and the test is listed with its reason in `tests/bogo/config.json`.
//!
//! Map: `options` (flags), `frames` (the runner's framing), `exchange` (one connection), `engine`
//! (what is under test), `identity` (certificates).

mod engine;
mod exchange;
mod frames;
mod identity;
mod options;

use std::process::ExitCode;
use std::sync::Arc;

use dtls_channel::TicketKeys;
use options::{Options, ParseError};

/// The exit code by which the runner knows that a test asks for what we do not have.
const UNIMPLEMENTED: u8 = 89;

/// Why a run ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The flags ask for what the engine does not have.
    #[error("not implemented: {0}")]
    Unimplemented(String),
    /// The connection failed, as many tests want it to; or an expectation did not hold.
    #[error("connection {number} failed: {source}")]
    Exchange {
        number: usize,
        #[source]
        source: exchange::ExchangeError,
    },
}

fn run(arguments: Vec<String>) -> Result<(), Failure> {
    let options =
        Options::parse(arguments).map_err(|ParseError(what)| Failure::Unimplemented(what))?;
    let keys = TicketKeys::random().map_err(|e| Failure::Unimplemented(e.to_string()))?;
    let keys = Arc::new(keys);
    let mut session = None;
    for number in 0..=options.resume_count {
        let settings = options.settings(number);
        let config = identity::config(settings, &keys, session.as_ref());
        let config = config.map_err(Failure::Unimplemented)?;
        let resumes = number > 0 && !options.sessions_missed;
        let newer = exchange::run(&options, settings, config, session.clone(), resumes)
            .map_err(|source| Failure::Exchange { number, source })?;
        session = newer.or(session);
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "-is-handshaker-supported") {
        println!("No");
        return ExitCode::SUCCESS;
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            match failure {
                Failure::Unimplemented(_) => ExitCode::from(UNIMPLEMENTED),
                Failure::Exchange { .. } => ExitCode::FAILURE,
            }
        }
    }
}
