//! Peers that are crates, as programs that keep the convention of `tests/interop/README.md`.

mod dimpl;
mod webrtc;

use std::io::{BufRead as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// What makes this program a peer.
pub(crate) const ARGUMENT: &str = "--as-peer";

const RESEND: Duration = Duration::from_millis(300);
const TIMEOUT_S_DEFAULT: u64 = 10;
const EXIT_USAGE: u8 = 64;

/// Command line and environment.
struct Options {
    /// None at a server.
    server: Option<SocketAddr>,
    port: u16,
    certificate: Vec<u8>,
    key: Vec<u8>,
    pinned: Option<Vec<u8>>,
    suite: Option<String>,
    mtu: usize,
    ems: bool,
}

/// One association.
trait Session {
    fn write(&mut self, message: &[u8]);
    fn read(&mut self, patience: Duration) -> Read;
    fn close(self);
}

enum Read {
    Message(Vec<u8>),
    Nothing,
    Closed,
}

/// Runs the peer that the first argument names.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some((peer, arguments)) = arguments.split_first() else {
        return ExitCode::from(EXIT_USAGE);
    };
    if arguments == ["version"] {
        println!("{peer} {}", locked_version(peer));
        return ExitCode::SUCCESS;
    }
    let timeout = variable("TIMEOUT").map_or(TIMEOUT_S_DEFAULT, |s| s.parse().unwrap());
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(timeout));
        eprintln!("error: TIMEOUT passed");
        std::process::exit(1);
    });
    let (server, port, certificate, key) = match arguments[..] {
        ["client", host, port, certificate, key] => {
            (Some(format!("{host}:{port}").parse().unwrap()), 0, certificate, key)
        }
        ["server", port, certificate, key] => (None, port.parse().unwrap(), certificate, key),
        _ => return ExitCode::from(EXIT_USAGE),
    };
    for name in ["CID", "RESUME", "KEYLOG", "RENEGOTIATION_INFO"] {
        if variable(name).is_some() {
            eprintln!("error: {name} is set, which this library does not have");
            return ExitCode::from(EXIT_USAGE);
        }
    }
    let options = Options {
        server,
        port,
        certificate: read_certificate(certificate),
        key: PrivatePkcs8KeyDer::from_pem_file(key).unwrap().secret_pkcs8_der().to_vec(),
        pinned: variable("PEER_CERT").map(|path| read_certificate(&path)),
        suite: variable("SUITE"),
        mtu: variable("MTU").map_or(1_200, |bytes| bytes.parse().unwrap()),
        ems: variable("EMS").as_deref() != Some("0"),
    };
    match *peer {
        "dimpl" => run(&options, dimpl::open),
        "webrtc-dtls" => run(&options, webrtc::open),
        _ => return ExitCode::from(EXIT_USAGE),
    }
    ExitCode::SUCCESS
}

fn run<S: Session>(options: &Options, open: fn(&Options, UdpSocket) -> S) {
    let socket = UdpSocket::bind(("127.0.0.1", options.port)).unwrap();
    let Some(server) = options.server else {
        eprintln!("listening on {}", socket.local_addr().unwrap());
        println!("READY");
        let (_, client) = socket.peek_from(&mut [0; 16]).unwrap();
        socket.connect(client).unwrap();
        return echo(open(options, socket));
    };
    socket.connect(server).unwrap();
    ask(open(options, socket));
}

fn ask(mut session: impl Session) {
    for line in std::io::stdin().lock().lines() {
        let line = format!("{}\n", line.unwrap());
        let mut resend = Instant::now();
        loop {
            if Instant::now() >= resend {
                session.write(line.as_bytes());
                resend = Instant::now() + RESEND;
            }
            match session.read(resend.saturating_duration_since(Instant::now())) {
                Read::Message(echo) if echo == line.as_bytes() => break,
                Read::Message(_) | Read::Nothing => {}
                Read::Closed => fail("closed by the server"),
            }
        }
        print!("{line}");
        std::io::stdout().flush().unwrap();
    }
    session.close();
}

fn echo(mut session: impl Session) {
    loop {
        match session.read(RESEND) {
            Read::Message(message) => session.write(&message),
            Read::Nothing => {}
            Read::Closed => return session.close(),
        }
    }
}

fn report(suite: &str) {
    eprintln!("PEER version=DTLSv1.2 suite={suite} group=- ems=- cid=no resumed=no");
}

fn fail(why: impl std::fmt::Display) -> ! {
    eprintln!("error: {why}");
    std::process::exit(1)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read_certificate(path: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

/// The version of a crate that this program was built with.
fn locked_version(name: &str) -> &'static str {
    let lock = include_str!("../../../../Cargo.lock");
    let entry = lock.split("[[package]]").find(|e| e.contains(&format!("name = \"{name}\"\n")));
    let version = entry.and_then(|entry| entry.split("version = \"").nth(1)?.split('"').next());
    version.expect("Cargo.lock has it")
}
