//! The `agent-client` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_client::cli::main()
}
