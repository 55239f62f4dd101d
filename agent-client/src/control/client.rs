//! The asking side of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::message::{Answer, Question, Reply, Request, SCHEMA};

/// Longest answer, in bytes: a plan that names every deployment of a large document.
pub const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// How long the agent may take for an answer; more than it gives itself.
const ANSWER_MS_MAX: u64 = 15_000;

/// Asks the agent that listens at `path`.
///
/// # Errors
/// Nobody listens there, or does not answer, or answers something else.
pub fn ask(path: &Path, question: &Question) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path)?;
    let wait = Some(Duration::from_millis(ANSWER_MS_MAX));
    stream.set_write_timeout(wait)?;
    stream.set_read_timeout(wait)?;
    let mut line = serde_json::to_vec(&Request { schema: SCHEMA, question: question.clone() })?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // It hung up early, and may have said why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    let mut line = Vec::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the agent hung up"));
    }
    let reply: Reply =
        serde_json::from_slice(&line).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(reply.answer)
}
