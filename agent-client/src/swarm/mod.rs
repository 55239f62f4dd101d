//! `agent-client swarm`: many agents in one process, to see what a deployment of that size takes.
//!
//! What the server sees of each is what it sees of a real agent: a key, a UDP socket and a DTLS association
//! of its own, resumed by ticket when it comes back, the same session, timers and pauses. No hook runs. A
//! document is confirmed once it is in the log that all agents of the swarm share and that log is synced
//! to the disk; one sync may serve many agents. With `--results` each deployment that was not in the
//! agent's document before is answered with a result at once.
//!
//! | module | what | pure |
//! |---|---|---|
//! | `fleet` | all agents: link, channel, session of each; bytes and time in, bytes and actions out | yes |
//! | `report` | counts, times and their percentiles | yes |
//! | `results` | what is answered to a document's deployments | yes |
//! | `keys` | the agents' keys in a file, and their pins for the server | – |
//! | `log` | the documents' log, written by one thread | – |
//! | `heard` | until when everything was heard, so that timers wait for what waits in the kernel | yes |
//! | `sockets` | a socket for each agent, runs of datagrams | – |
//! | `shell` | signals, the loop | – |
//! | `cli` | the command | – |

pub mod cli;
mod fleet;
mod heard;
mod keys;
mod log;
mod report;
mod results;
mod shell;
mod sockets;
#[cfg(test)]
mod tests;

/// The most agents of one swarm: each takes a file descriptor and a few KiB.
const AGENTS_MAX: u32 = 1_000_000;
