//! dimpl on aws-lc-rs, measured as the programs in C are: see ../README.md for the commands.

use std::io::{self, BufRead, ErrorKind, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use dimpl::crypto::{Dtls12CipherSuite, NamedGroup};
use dimpl::{Config, Dtls, DtlsCertificate, Output};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const MTU: usize = 1_400;
/// Turns of both ends after which a handshake has failed.
const TURNS_MAX: usize = 64;

type Error = Box<dyn std::error::Error>;

struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Identity {
    fn read(certificate: &str, key: &str) -> Result<Self, Error> {
        let certificate = CertificateDer::from_pem_file(Path::new(certificate))?.to_vec();
        let key = PrivateKeyDer::from_pem_file(Path::new(key))?.secret_der().to_vec();
        Ok(Self { certificate, key })
    }
}

/// One end: what it said and has not been taken, and what it was told.
struct End {
    dtls: Dtls,
    out: Vec<Vec<u8>>,
    is_open: bool,
    messages: usize,
    wants: Vec<u8>,
}

impl End {
    fn new(config: &Arc<Config>, own: &Identity, peer: &Identity, is_client: bool) -> Result<Self, Error> {
        let certificate =
            DtlsCertificate { certificate: own.certificate.clone(), private_key: own.key.clone() };
        let now = Instant::now();
        let mut dtls = Dtls::new_12(config.clone(), certificate, now);
        dtls.set_active(is_client);
        dtls.handle_timeout(now)?;
        let wants = peer.certificate.clone();
        Ok(Self { dtls, out: Vec::new(), is_open: false, messages: 0, wants })
    }

    fn drain(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 2 * MTU];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) => self.out.push(datagram.to_vec()),
                Output::Connected => self.is_open = true,
                Output::PeerCert(der) if der != self.wants => return Err("not pinned".into()),
                Output::ApplicationData(data) => self.messages += usize::from(!data.is_empty()),
                Output::Timeout(_) => return Ok(()),
                _ => {}
            }
        }
    }

    fn take(&mut self, datagram: &[u8]) -> Result<(), Error> {
        self.dtls.handle_packet(datagram)?;
        self.drain()
    }

    /// Sends what waits.
    fn flush(&mut self, send: impl Fn(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        for datagram in self.out.drain(..) {
            send(&datagram)?;
        }
        Ok(())
    }
}

struct Bench {
    config: Arc<Config>,
    client: Identity,
    server: Identity,
    stream: Option<(Pair, UdpSocket, UdpSocket)>,
    crowd: Option<(UdpSocket, Vec<(End, UdpSocket)>)>,
}

struct Pair {
    client: End,
    server: End,
}

impl Pair {
    fn pass(&mut self) -> Result<(), Error> {
        for datagram in std::mem::take(&mut self.client.out) {
            self.server.take(&datagram)?;
        }
        for datagram in std::mem::take(&mut self.server.out) {
            self.client.take(&datagram)?;
        }
        Ok(())
    }
}

impl Bench {
    fn handshake(&self) -> Result<Pair, Error> {
        let mut pair = Pair {
            client: End::new(&self.config, &self.client, &self.server, true)?,
            server: End::new(&self.config, &self.server, &self.client, false)?,
        };
        pair.client.drain()?;
        pair.server.drain()?;
        for _ in 0..TURNS_MAX {
            pair.pass()?;
            if pair.client.is_open && pair.server.is_open {
                return Ok(pair);
            }
        }
        Err("the handshake does not come to an end".into())
    }

    fn handshakes(&self, count: usize) -> Result<Duration, Error> {
        let before = cpu();
        for _ in 0..count {
            let mut pair = self.handshake()?;
            pair.client.dtls.close()?;
            pair.client.drain()?;
            pair.pass()?;
            pair.pass()?;
        }
        Ok(cpu() - before)
    }

    fn records(&mut self, count: usize, burst: usize, bytes: usize) -> Result<Duration, Error> {
        if self.stream.is_none() {
            let (a, b) = (loopback_socket()?, loopback_socket()?);
            a.connect(b.local_addr()?)?;
            b.connect(a.local_addr()?)?;
            self.stream = Some((self.handshake()?, a, b));
        }
        let Some((pair, client, server)) = &mut self.stream else { unreachable!() };
        let (message, mut buffer) = (vec![7; bytes], [0; 2 * MTU]);
        pair.client.messages = 0;
        let before = cpu();
        let mut sent = 0;
        while sent < count {
            let now = burst.min(count - sent);
            for _ in 0..now {
                pair.server.dtls.send_application_data(&message)?;
                pair.server.drain()?;
                pair.server.flush(|datagram| server.send(datagram))?;
            }
            for _ in 0..now {
                let length = client.recv(&mut buffer)?;
                pair.client.take(&buffer[..length])?;
            }
            sent += now;
        }
        let took = cpu() - before;
        if pair.client.messages != count {
            return Err(format!("{} of {count} records", pair.client.messages).into());
        }
        Ok(took)
    }

    fn fan_out(&mut self, peers: usize, bytes: usize) -> Result<Duration, Error> {
        if self.crowd.is_none() {
            let limit = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
            let mut all = Vec::new();
            for _ in 0..peers {
                let socket = loopback_socket()?;
                socket.set_nonblocking(true)?;
                all.push((self.handshake()?.server, socket));
            }
            self.crowd = Some((loopback_socket()?, all));
        }
        let Some((server, crowd)) = &mut self.crowd else { unreachable!() };
        let (message, mut buffer) = (vec![7; bytes], [0; 2 * MTU]);
        let addresses = crowd.iter().map(|(_, socket)| socket.local_addr()).collect::<io::Result<Vec<_>>>()?;
        let before = cpu();
        for ((end, _), address) in crowd.iter_mut().zip(addresses) {
            end.dtls.send_application_data(&message)?;
            end.drain()?;
            end.flush(|datagram| server.send_to(datagram, address))?;
        }
        let took = cpu() - before;
        for (_, socket) in crowd {
            let length = socket.recv(&mut buffer).map_err(|e| match e.kind() {
                ErrorKind::WouldBlock => "a record is missing".into(),
                _ => Error::from(e),
            })?;
            if length < bytes {
                return Err("a record is short".into());
            }
        }
        Ok(took)
    }

    /// Heap of Rust, without what aws-lc allocates in C; resident bytes with it.
    fn idle(&self, count: usize) -> Result<String, Error> {
        drop(self.handshake()?);
        let mut kept = Vec::with_capacity(count);
        kept.resize_with(count, || None);
        let before = resident()?;
        let mut failed = None;
        let heap = measure(|| {
            for slot in &mut kept {
                match self.handshake() {
                    Ok(pair) => *slot = Some(Box::new(pair.server)),
                    Err(error) => failed = Some(error),
                }
            }
        });
        let resident = resident()?.saturating_sub(before);
        failed.map_or_else(|| Ok(format!("{} {resident}", heap.bytes_current)), Err)
    }

    fn command(&mut self, line: &str) -> Result<String, Error> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).ok_or("too few numbers").map(|word| word.parse::<usize>());
        let took = match *words.first().ok_or("no command")? {
            "version" => return Ok("dimpl 0.9.0 on aws-lc-rs".into()),
            "resumed" => return Ok("none: dimpl has no resumption".into()),
            "idle" => return self.idle(number(1)??),
            "handshakes" => self.handshakes(number(1)??)?,
            "records" => self.records(number(1)??, number(2)??, number(3)??)?,
            "fanout" => self.fan_out(number(1)??, number(2)??)?,
            other => return Err(format!("no such command: {other}").into()),
        };
        Ok(took.as_nanos().to_string())
    }
}

/// A socket at a free port of loopback, at an address of this process's own: one address has no ports
/// for everybody.
fn loopback_socket() -> io::Result<UdpSocket> {
    let [.., high, low] = std::process::id().to_be_bytes();
    UdpSocket::bind((Ipv4Addr::new(127, high, low, 1), 0))
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn resident() -> Result<usize, Error> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = text.split_whitespace().nth(1).ok_or("no resident pages")?.parse()?;
    Ok(pages * rustix::param::page_size())
}

fn run(client: Identity, server: Identity) -> Result<(), Error> {
    let config = Config::builder()
        .mtu(MTU)
        .dtls12_cipher_suites(&[Dtls12CipherSuite::ECDHE_ECDSA_AES128_GCM_SHA256])
        .kx_groups(&[NamedGroup::Secp256r1])
        .build()?;
    let mut bench = Bench { config: Arc::new(config), client, server, stream: None, crowd: None };
    for line in io::stdin().lock().lines() {
        println!("{}", bench.command(&line?)?);
        io::stdout().flush()?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [client_cert, client_key, server_cert, server_key] = &arguments[..] else {
        eprintln!("usage: dimpl-bench CLIENT_CERT CLIENT_KEY SERVER_CERT SERVER_KEY");
        return ExitCode::from(64);
    };
    let result = Identity::read(client_cert, client_key)
        .and_then(|client| Ok((client, Identity::read(server_cert, server_key)?)))
        .and_then(|(client, server)| run(client, server));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
