//! The `metadata-server` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    metadata_server::cli::main()
}
