//! Command lines as Python's `argparse` takes them: wrong usage ends with 2, long options may be
//! abbreviated (each command's `infer_long_args`).

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// What `argparse` exits with when the command line is wrong.
pub const EXIT_USAGE: u8 = 2;

/// Reads a command line that begins with the program's name.
///
/// # Errors
/// With what to exit: help was asked for and printed, or the command line is wrong and that was said.
pub fn parse<P: Parser>(arguments: &[OsString]) -> Result<P, ExitCode> {
    P::try_parse_from(arguments).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
    })
}
