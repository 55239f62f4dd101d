//! The control socket: how an operator's commands reach the running agent.
//!
//! `STATE_DIR/control.sock`, mode 0600 in a directory of mode 0700. A client sends one question as a line of
//! JSON ([`message`]) and gets one as answer. Only root and the agent's own user are answered; the kernel
//! says who they are, and that name goes into what they caused.
//!
//! A thread of its own serves the clients. It asks the pipeline by its channel and waits; the pipeline never
//! waits for a client. Everything is bounded: clients, bytes of a question, and how long reading it,
//! answering it and writing the answer may take.

pub mod client;
pub mod message;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use self::message::{Answer, Question, Refusal, RefusalCode, Reply, Request, SCHEMA};
use crate::pipeline::Command;

/// Clients served at the same time; one more is told to come back.
pub const CLIENTS_MAX: usize = 8;
/// Longest question, in bytes: a signal of the largest size, of which JSON in JSON makes twice as much.
pub const QUESTION_BYTES_MAX: usize = 160 << 10;
/// How long a client may take for its question, or for taking the answer.
const CLIENT_MS_MAX: u64 = 5_000;
/// How long the pipeline may take for an answer: it may be waiting for a slow disk.
const ANSWER_MS_MAX: u64 = 10_000;
/// Pause after the system refused to accept a client, such as for want of file descriptors.
const ACCEPT_PAUSE_MS: u64 = 100;

/// A question on its way to the pipeline.
#[derive(Debug)]
pub struct Ask {
    /// What is asked.
    pub question: Question,
    /// Who asks, such as `user root (uid 0)`.
    pub asked_by: String,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// The socket and the thread that serves it; both are gone when this is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Serves questions at `path`. The caller has the state directory's lock: a socket that is there was
    /// left by an agent that was killed, and is replaced.
    ///
    /// # Errors
    /// The socket cannot be made, such as when its path is longer than the system allows (107 bytes).
    pub fn start(path: &Path, commands: mpsc::UnboundedSender<Command>) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("control".into()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = serve(listener, commands) => {}
                    _ = stopped => {}
                }
            });
            // Clients in the middle of an answer are cut off.
            runtime.shutdown_background();
        })?;
        Ok(Self { path: path.to_owned(), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(
    listener: std::os::unix::net::UnixListener,
    commands: mpsc::UnboundedSender<Command>,
) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the control socket is of no use"),
    };
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "control client not accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let text = format!("{CLIENTS_MAX} others ask this agent at the moment");
            let refusal = Refusal::new(RefusalCode::Busy, text, "again in a moment");
            // What does not fit into the socket's buffer at once is not waited for.
            let _ = stream.try_write(&Reply::from(Answer::Refused(refusal)).line());
            continue;
        };
        let commands = commands.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &commands).await {
                tracing::debug!(%error, "control client gone");
            }
            drop(place);
        });
    }
}

/// One client, from its question to the answer.
async fn converse(stream: UnixStream, commands: &mpsc::UnboundedSender<Command>) -> io::Result<()> {
    let asker = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.into_split();
    let request = within(CLIENT_MS_MAX, read_line(BufReader::new(reader))).await??;
    let us = rustix::process::geteuid().as_raw();
    let question = if is_allowed(asker, us) {
        understand(&request)
    } else {
        Err(Refusal::new(
            RefusalCode::NotAllowed,
            format!("uid {asker} may not ask this agent, only root and uid {us} may"),
            "as root",
        ))
    };
    let question = match question {
        Ok(question) => question,
        Err(refusal) => return write(&mut writer, Answer::Refused(refusal)).await,
    };
    let (answer, answered) = oneshot::channel();
    let asked_by = user(asker);
    // A pipeline that has ended drops the question, and with it the place for the answer.
    let _ = commands.send(Command::Ask(Ask { question, asked_by, answer }));
    let answered = timeout(Duration::from_millis(ANSWER_MS_MAX), answered).await;
    let answer = match answered {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => busy("the agent is stopping".into()),
        Err(_) => busy(format!("the agent has not answered within {ANSWER_MS_MAX} ms")),
    };
    write(&mut writer, answer).await
}

fn busy(text: String) -> Answer {
    Answer::Refused(Refusal::new(RefusalCode::Busy, text, "agent-client status"))
}

async fn read_line(reader: impl AsyncBufRead + Unpin) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(QUESTION_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).await?;
    Ok(line)
}

async fn write(writer: &mut (impl AsyncWriteExt + Unpin), answer: Answer) -> io::Result<()> {
    within(CLIENT_MS_MAX, writer.write_all(&Reply::from(answer).line())).await?
}

async fn within<T>(ms: u64, what: impl Future<Output = T>) -> io::Result<T> {
    timeout(Duration::from_millis(ms), what)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client takes too long"))
}

/// Whether `asker` may ask an agent that runs as `us`.
fn is_allowed(asker: u32, us: u32) -> bool {
    asker == 0 || asker == us
}

/// The question in a line.
fn understand(line: &[u8]) -> Result<Question, Refusal> {
    let bad = |text: String| {
        Refusal::new(RefusalCode::BadQuestion, text, "the agent-client of the same release")
    };
    if line.len() > QUESTION_BYTES_MAX {
        return Err(bad(format!("the question has more than {QUESTION_BYTES_MAX} bytes")));
    }
    match serde_json::from_slice::<Request>(line) {
        Ok(Request { schema: SCHEMA, question }) => Ok(question),
        Ok(Request { schema, .. }) => Err(bad(format!(
            "the question is of schema {schema}, this agent ({}) speaks schema {SCHEMA}",
            crate::SOFTWARE
        ))),
        Err(error) => {
            Err(bad(format!("the question is not understood by {}: {error}", crate::SOFTWARE)))
        }
    }
}

/// A user for people: `user root (uid 0)`.
pub fn user(uid: u32) -> String {
    match nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("user {} (uid {uid})", user.name),
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests;
