//! OpenSSL, in a child process of ours that knows no socket and no clock (`openssl.c`).

use std::cell::RefCell;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use dtls_channel::{CipherSuite, Group};

use crate::peer::{EXPORTER_LABEL, End, Peer, Seen, Setup};
use crate::script::Side;

const SOURCE: &str = include_str!("openssl.c");
/// Its clock begins some time after the epoch: OpenSSL takes zero for "no timer".
const CLOCK_START: Duration = Duration::from_secs(1_000_000);

/// The child, which holds a client and a server.
pub(crate) struct OpenSsl {
    child: Child,
    to_child: BufWriter<ChildStdin>,
    from_child: BufReader<ChildStdout>,
    started: Instant,
}

impl OpenSsl {
    /// Builds the program in `directory` and starts it.
    pub(crate) fn start(directory: &Path, now: Instant) -> Rc<RefCell<Self>> {
        let (source, program) = (directory.join("openssl.c"), directory.join("openssl-peer"));
        std::fs::write(&source, SOURCE).unwrap();
        let compiled = Command::new("cc")
            .args(["-std=gnu11", "-O1", "-Wall", "-o"])
            .args([&program, &source])
            .args(["-lssl", "-lcrypto"])
            .output()
            .expect("a C compiler");
        assert!(
            compiled.status.success(),
            "cannot build the OpenSSL peer, so nothing was compared; \
             install it: sudo apt-get install libssl-dev\n{}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        let mut child = Command::new(&program)
            .arg(EXPORTER_LABEL)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to_child = BufWriter::new(child.stdin.take().unwrap());
        let from_child = BufReader::new(child.stdout.take().unwrap());
        Rc::new(RefCell::new(Self { child, to_child, from_child, started: now }))
    }

    fn command(&mut self, now: Instant, session: u8, command: u8, payload: &[u8]) {
        let clock = CLOCK_START + (now - self.started);
        let mut head = vec![command, session];
        head.extend((clock.as_micros() as u64).to_le_bytes());
        head.extend((payload.len() as u32).to_le_bytes());
        self.to_child.write_all(&head).unwrap();
        self.to_child.write_all(payload).unwrap();
        self.to_child.flush().unwrap();
    }

    /// One frame of the answer: its kind and content.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.from_child.read_exact(&mut head).expect("the OpenSSL peer lives");
        let [kind, length @ ..] = head;
        let mut content = vec![0; u32::from_le_bytes(length) as usize];
        self.from_child.read_exact(&mut content).unwrap();
        (kind, content)
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the child's two sessions.
pub(crate) struct OpenSslPeer {
    process: Rc<RefCell<OpenSsl>>,
    session: u8,
    timeout: Option<Instant>,
    datagrams: Vec<Vec<u8>>,
    seen: Seen,
}

fn suite(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::Aes128GcmSha256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::Aes256GcmSha384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::Chacha20Poly1305Sha256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
    }
}

fn group(group: Group) -> &'static str {
    match group {
        Group::P256 => "P-256",
        Group::X25519 => "X25519",
        Group::P384 => "P-384",
    }
}

impl OpenSslPeer {
    pub(crate) fn new(now: Instant, setup: &Setup, process: &Rc<RefCell<OpenSsl>>) -> Self {
        let session = u8::from(setup.side == Side::Server);
        let mut this = Self {
            process: process.clone(),
            session,
            timeout: None,
            datagrams: Vec::new(),
            seen: Seen::default(),
        };
        let suites: Vec<_> = setup.suites.iter().copied().map(suite).collect();
        let groups: Vec<_> = setup.groups.iter().copied().map(group).collect();
        let role = if setup.side == Side::Server { "server" } else { "client" };
        let text = format!(
            "role={role}\nsuites={}\ngroups={}\nidentity={}\npinned={}\nmtu={}\nems={}\n",
            suites.join(":"),
            groups.join(":"),
            setup.identity.file.display(),
            setup.pinned.file.display(),
            setup.mtu,
            u8::from(setup.has_ems),
        );
        this.command(now, b'N', text.as_bytes());
        this
    }

    fn command(&mut self, now: Instant, command: u8, payload: &[u8]) {
        let mut process = self.process.borrow_mut();
        process.command(now, self.session, command, payload);
        self.timeout = None;
        loop {
            let (kind, content) = process.frame();
            match kind {
                b'd' => self.datagrams.push(content),
                b'o' => {
                    let (ems, rest) = content.split_first().unwrap();
                    let (exported, certificate) = rest.split_first_chunk::<32>().unwrap();
                    self.seen.is_open = true;
                    self.seen.extended_master_secret = Some(*ems == 1);
                    self.seen.exported = Some(*exported);
                    self.seen.peer_certificate = Some(certificate.to_vec());
                }
                b'r' => self.seen.messages.push(content),
                b'c' => {
                    self.seen.end.get_or_insert(End::PeerClosed);
                }
                b'e' => {
                    let reason = String::from_utf8_lossy(&content).into_owned();
                    self.seen.end.get_or_insert(End::Failed(reason));
                }
                b't' => {
                    let left = u64::from_le_bytes(content.try_into().unwrap());
                    self.timeout = Some(now + Duration::from_micros(left));
                }
                b'.' => return,
                other => panic!("the OpenSSL peer said {other}"),
            }
        }
    }

    /// Asks for another handshake on the open association.
    pub(crate) fn renegotiate(&mut self, now: Instant) {
        self.command(now, b'R', &[]);
    }
}

impl Peer for OpenSslPeer {
    fn receive(&mut self, now: Instant, datagram: Vec<u8>) {
        self.command(now, b'D', &datagram);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.command(now, b'K', &[]);
    }

    fn send(&mut self, now: Instant, message: &[u8]) {
        self.command(now, b'W', message);
    }

    fn close(&mut self, now: Instant) {
        self.command(now, b'X', &[]);
        self.seen.end.get_or_insert(End::Closed);
    }

    fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.datagrams)
    }

    fn seen(&self) -> &Seen {
        &self.seen
    }
}
