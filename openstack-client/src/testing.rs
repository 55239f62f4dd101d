//! A small HTTP server on loopback, for tests: records what it was asked and answers by a function.

#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// As it was written.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As long as `Content-Length` said.
    pub body: Vec<u8>,
}

impl Asked {
    /// The first header of this name, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    ///
    /// # Panics
    /// It is no UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Beside `Content-Length`, which is not sent beside `Transfer-Encoding`.
    pub headers: Vec<(String, String)>,
    /// Not sent to HEAD.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer without headers of its own.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;
/// Puts TLS around a connection, for instance.
type Wrap = dyn Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + Sync;

/// A connection.
pub trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// The server; it ends when dropped.
pub struct HttpServer {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Starts one that answers with `handler`, on a thread for each connection.
    ///
    /// # Panics
    /// Loopback has no port left.
    pub fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_wrapped(handler, |stream| Some(Box::new(stream)))
    }

    /// As [`Self::start`]; `wrap` makes of each connection what is served, or nothing.
    ///
    /// # Panics
    /// Loopback has no port left.
    pub fn start_wrapped(
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let ending = Arc::new(AtomicBool::new(false));
        let (handler, wrap): (Arc<Handler>, Arc<Wrap>) = (Arc::new(handler), Arc::new(wrap));
        let (list, end) = (Arc::clone(&asked), Arc::clone(&ending));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (list, handler, wrap) = (list.clone(), handler.clone(), wrap.clone());
                let Ok(stream) = stream else { continue };
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(15)));
                    if let Some(stream) = wrap(stream) {
                        let _ = serve(stream, &list, &*handler);
                    }
                });
            }
        });
        Self { address, asked, ending, thread: Some(thread) }
    }

    /// The URL of a path that begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything that was asked until now.
    ///
    /// # Panics
    /// A handler has panicked.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One request, one answer, and the connection is closed.
fn serve(
    stream: Box<dyn Stream>,
    list: &Mutex<Vec<Asked>>,
    handler: &Handler,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked { method, target, headers, body: Vec::new() };
    let length = asked.header("content-length").map_or(0, |text| text.parse().unwrap());
    asked.body.resize(length, 0);
    stream.read_exact(&mut asked.body)?;
    list.lock().unwrap().push(asked.clone());
    let answer = handler(&asked);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !answer.headers.iter().any(|(name, _)| name == "Transfer-Encoding") {
        head += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    let stream = stream.get_mut();
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if asked.method != "HEAD" {
        stream.write_all(&answer.body)?;
    }
    stream.flush()
}
