//! What stands before the messaging service, as HAProxy does in a cloud: passes bytes on, and notes when a
//! request came.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::SystemTime;

/// A request as it came: when, and its first line.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) at: SystemTime,
    pub(crate) line: String,
}

/// Listens at one address and passes everything to another.
pub(crate) struct Front {
    address: SocketAddr,
    came: Arc<Mutex<Vec<Came>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Front {
    pub(crate) fn start(address: SocketAddr, target: SocketAddr) -> Self {
        let listener =
            TcpListener::bind(address).expect("the address that Keystone's catalogue has");
        let (came, ending) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (notes, end) = (Arc::clone(&came), ending.clone());
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(client), notes) = (connection, Arc::clone(&notes)) else { continue };
                std::thread::spawn(move || pass(client, target, &notes));
            }
        });
        Self { address, came, ending, thread: Some(thread) }
    }

    /// The posts to queues of this name, in their order.
    pub(crate) fn posts(&self, queue: &str) -> Vec<Came> {
        self.beginning(&format!("POST /v2/queues/{queue}/messages "))
    }

    /// What was put into the object store, in its order.
    pub(crate) fn puts(&self) -> Vec<Came> {
        self.beginning("PUT /v1/AUTH_")
    }

    fn beginning(&self, wanted: &str) -> Vec<Came> {
        let came = self.came.lock().unwrap();
        came.iter().filter(|came| came.line.starts_with(wanted)).cloned().collect()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the front ends");
        }
    }
}

fn pass(client: TcpStream, target: SocketAddr, notes: &Mutex<Vec<Came>>) {
    let Ok(server) = TcpStream::connect(target) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let (mut client, mut server) = (client, server);
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let bytes = &buffer[..length];
        if let Some(line) = request_line(bytes) {
            notes.lock().unwrap().push(Came { at: SystemTime::now(), line });
        }
        if server.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = back.join();
}

/// Heat writes the head of a request in one piece.
fn request_line(bytes: &[u8]) -> Option<String> {
    let is_request =
        [&b"POST /"[..], b"GET /", b"PUT /", b"DELETE /"].iter().any(|m| bytes.starts_with(m));
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    is_request.then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
}
