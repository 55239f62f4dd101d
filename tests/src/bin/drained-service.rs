//! A small HTTP service for the scale-in test: told to end (SIGTERM) it refuses new connections, finishes
//! the requests that are open, and only then ends.
//!
//! `drained-service DIRECTORY`: writes its port into the file `port` there; answers each request with half of
//! the body at once, and with the other half when the file `release` is there; at its end writes into the
//! file `drained` how many requests it has answered whole.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Bytes of one half of each answer's body.
const HALF_BYTES: usize = 1_000;
const REQUEST_BYTES_MAX: usize = 4_096;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory =
        directory.ok_or_else(|| io::Error::other("usage: drained-service DIRECTORY"))?;
    let mut told_to_end = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    write(&directory, "port", &listener.local_addr()?.port().to_string())?;
    let mut open = JoinSet::new();
    let mut answered = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                open.spawn(answer(accepted?.0, directory.join("release")));
            }
            Some(ended) = open.join_next() => answered += u32::from(matches!(ended, Ok(Ok(())))),
            _ = told_to_end.recv() => break,
        }
    }
    drop(listener);
    while let Some(ended) = open.join_next().await {
        answered += u32::from(matches!(ended, Ok(Ok(()))));
    }
    write(&directory, "drained", &answered.to_string())
}

async fn answer(mut stream: TcpStream, release: PathBuf) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        if stream.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let length = 2 * HALF_BYTES;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&[b'1'; HALF_BYTES]).await?;
    while !release.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stream.write_all(&[b'2'; HALF_BYTES]).await?;
    stream.shutdown().await
}

/// Whole or not at all: somebody waits for the file.
fn write(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = directory.join(format!(".{name}"));
    std::fs::write(&new, text)?;
    std::fs::rename(new, directory.join(name))
}
