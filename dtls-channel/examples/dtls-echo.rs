//! Echo client and server over DTLS 1.2, to try the engine against other implementations.
//!
//! ```text
//! dtls-echo client HOST PORT CERT KEY     sends each line of stdin and prints its echo
//! dtls-echo server PORT CERT KEY          prints READY, echoes one association
//! ```
//!
//! `CERT` and `KEY` are PEM files, the key in PKCS#8; port 0 takes a free one. Exit status: 0 after
//! an orderly end, 1 on failure, 64 for wrong usage. One line on stderr for each association, which
//! begins with `PEER`, says what was agreed.
//!
//! | variable | meaning |
//! |---|---|
//! | `PEER_CERT` | the other side's certificate file: any other peer is refused |
//! | `SUITE` | the only cipher suite, IANA's name without `TLS_` |
//! | `MTU` | largest datagram sent, in bytes of UDP payload |
//! | `KEYLOG` | file to which secrets are appended for Wireshark; only its owner may read it |
//! | `CID` | the connection id to read on the peer's records, in hexadecimal, `-` for an empty one; the peer's address is then followed even if the peer cannot be asked there. Unset: as the daemons do |
//! | `RESUME` | `1`: the client opens, closes, and resumes for its lines; the server gives tickets and serves two associations |
//! | `TIMEOUT` | seconds after which to give up; 10 unless set |

#![expect(clippy::disallowed_methods, reason = "a program with real sockets reads the real clock")]

use std::error::Error;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufRead as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dtls_channel::testing::AcceptAnyone;
use dtls_channel::{
    AddressChange, AssociationId, CipherSuite, CloseReason, Config, ConnectionId, ConnectionIdMode,
    Credentials, Driver, EndpointConfig, Established, Event, KeyLog, MTU_DEFAULT, PeerRefused,
    PeerVerifier, SendError, Session, TicketKeys,
};
use ring::digest::{SHA256, digest};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::sync::mpsc;

const USAGE: &str = "usage: dtls-echo client HOST PORT CERT KEY\n       \
                     dtls-echo server PORT CERT KEY\n\
                     environment: PEER_CERT, SUITE, MTU, KEYLOG, CID, RESUME, TIMEOUT";
const TIMEOUT_S_DEFAULT: u64 = 10;
/// wolfSSL takes a ticket without one for outdated.
const TICKET_LIFETIME: Duration = Duration::from_secs(3_600);
/// A line whose echo does not come is sent again after this.
const RESEND: Duration = Duration::from_millis(300);
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["client", host, port, certificate, key] => client(host, port, certificate, key),
        ["server", port, certificate, key] => server(port, certificate, key),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn client(
    host: &str,
    port: &str,
    certificate: &str,
    key: &str,
) -> Result<(), Box<dyn Error>> {
    let remote = (host, port.parse()?)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| format!("{host} has no address"))?;
    let config = Arc::new(config(certificate, key)?);
    let deadline = deadline()?;
    let mut session = None;
    if resumes()? {
        let (mut driver, id, first) = open(remote, config.clone(), None, deadline).await?;
        session = first.session;
        driver.close(Instant::now(), id);
        driver.flush();
    }
    let (mut driver, id, _) = open(remote, config, session, deadline).await?;

    let mut lines = stdin_lines();
    let mut awaited: Option<Vec<u8>> = None;
    let mut resend = deadline;
    loop {
        tokio::select! {
            waited = driver.wait(Some(resend.min(deadline))) => waited?,
            line = lines.recv(), if awaited.is_none() => match line {
                Some(line) => {
                    awaited = Some(line);
                    resend = Instant::now();
                }
                None => break,
            },
        }
        let now = Instant::now();
        if let Some(line) = &awaited
            && resend <= now
        {
            driver.send(now, id, line)?;
            resend = now + RESEND;
        }
        while let Some((_, event)) = driver.poll_event() {
            match event {
                // Anything else is the late echo of a line that was answered twice.
                Event::Message { data, .. } if awaited.as_deref() == Some(&data[..]) => {
                    std::io::stdout().write_all(&data)?;
                    awaited = None;
                    resend = deadline;
                }
                Event::Closed(reason) => return Err(reason.into()),
                _ => {}
            }
        }
        check(deadline, "an echo")?;
    }
    driver.close(Instant::now(), id);
    driver.flush();
    Ok(())
}

/// An open association on a socket of its own.
async fn open(
    remote: SocketAddr,
    config: Arc<Config>,
    session: Option<Session>,
    deadline: Instant,
) -> Result<(Driver, AssociationId, Established), Box<dyn Error>> {
    let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let mut driver = Driver::bind(any.parse()?, EndpointConfig::default())?;
    let now = Instant::now();
    let id = match session {
        None => driver.connect(now, remote, config)?,
        Some(session) => driver.resume(now, remote, config, session)?,
    };
    loop {
        driver.wait(Some(deadline)).await?;
        match driver.poll_event() {
            Some((_, Event::Established(established))) => {
                report(&established);
                return Ok((driver, id, *established));
            }
            Some((_, Event::Closed(reason))) => return Err(reason.into()),
            _ => check(deadline, "the handshake")?,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn server(port: &str, certificate: &str, key: &str) -> Result<(), Box<dyn Error>> {
    let serving = Some(Arc::new(config(certificate, key)?));
    let address = ([127, 0, 0, 1], port.parse()?).into();
    let mut driver =
        Driver::bind(address, EndpointConfig { server: serving, ..EndpointConfig::default() })
            .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let deadline = deadline()?;
    eprintln!("listening on {}", driver.local_addr()?);
    println!("READY");

    let mut to_serve = if resumes()? { 2 } else { 1 };
    let mut peer: Option<AssociationId> = None;
    loop {
        driver.wait(Some(deadline)).await?;
        while let Some((id, event)) = driver.poll_event() {
            match event {
                Event::Established(established) => {
                    report(&established);
                    peer = Some(id);
                }
                Event::Message { data, .. } => match driver.send(Instant::now(), id, &data) {
                    // Said goodbye right after its message: it does not wait for the echo.
                    Ok(_) | Err(SendError::Closed) => {}
                    Err(error) => return Err(error.into()),
                },
                Event::Closed(CloseReason::CloseNotify) => {
                    driver.flush();
                    to_serve -= 1;
                    if to_serve == 0 {
                        return Ok(());
                    }
                    peer = None;
                }
                // A client that starts over from the same port is not the end.
                Event::Closed(CloseReason::Superseded) => {}
                Event::Closed(reason) => return Err(reason.into()),
                _ => {}
            }
        }
        check(deadline, if peer.is_some() { "the client's goodbye" } else { "a client" })?;
    }
}

/// Lines of stdin with their ends, read on a thread of its own: stdin cannot be polled.
fn stdin_lines() -> mpsc::UnboundedReceiver<Vec<u8>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match stdin.read_until(b'\n', &mut line) {
                Ok(1..) if sender.send(line).is_ok() => {}
                _ => return,
            }
        }
    });
    receiver
}

fn report(established: &Established) {
    eprintln!(
        "PEER version=DTLSv1.2 suite={} group={} ems={} cid={} resumed={}",
        established.suite.name(),
        established.group.map_or_else(|| "none".into(), |group| format!("{group:?}")),
        yes_or_no(established.extended_master_secret),
        yes_or_no(established.connection_id.is_some()),
        yes_or_no(established.resumed),
    );
}

fn yes_or_no(what: bool) -> &'static str {
    if what { "yes" } else { "no" }
}

fn config(certificate: &str, key: &str) -> Result<Config, Box<dyn Error>> {
    let pem_key = read(key)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem_key)
        .map_err(|error| format!("{key} has no PKCS#8 private key in PEM: {error}"))?;
    let credentials =
        Credentials::from_der(read_certificate(certificate)?, key.secret_pkcs8_der())?;
    let verifier: Arc<dyn PeerVerifier> = match variable("PEER_CERT")? {
        Some(path) => Arc::new(Pin(read_certificate(&path)?)),
        None => Arc::new(AcceptAnyone),
    };
    let mut config = Config::new(credentials, verifier)
        .with_mtu(variable("MTU")?.map_or(Ok(MTU_DEFAULT), |bytes| bytes.parse())?);
    if resumes()? {
        config = config.asking_for_tickets();
        config = config.with_ticket_keys(Arc::new(TicketKeys::random()?), TICKET_LIFETIME);
    }
    if let Some(id) = variable("CID")? {
        let given = ConnectionIdMode::Given(connection_id(&id)?);
        let change = AddressChange::AfterNewestRecord;
        config = config.with_connection_id(given).with_address_change(change);
    }
    if let Some(name) = variable("SUITE")? {
        let suite = CipherSuite::ALL
            .into_iter()
            .find(|suite| suite.name() == name)
            .ok_or_else(|| format!("SUITE {name} is none of {}", suite_names()))?;
        config = config.with_suites(&[suite]);
    }
    if let Some(path) = variable("KEYLOG")? {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| format!("cannot open KEYLOG {path}: {error}"))?;
        // The mode above is for a new file only.
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(|error| format!("cannot keep KEYLOG {path} from others: {error}"))?;
        config = config.with_key_log(Arc::new(KeyLogFile(Mutex::new(file))));
    }
    Ok(config)
}

fn connection_id(text: &str) -> Result<ConnectionId, String> {
    let digits = if text == "-" { "" } else { text };
    let bytes = data_encoding::HEXLOWER_PERMISSIVE
        .decode(digits.as_bytes())
        .map_err(|error| format!("CID {text} is no hexadecimal: {error}"))?;
    ConnectionId::new(&bytes).ok_or_else(|| format!("CID has {} bytes, more than 255", bytes.len()))
}

fn resumes() -> Result<bool, Box<dyn Error>> {
    match variable("RESUME")?.as_deref() {
        None | Some("0" | "") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(format!("RESUME is 1 or 0, not {other}").into()),
    }
}

fn suite_names() -> String {
    CipherSuite::ALL.map(CipherSuite::name).join(", ")
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))
}

fn read_certificate(path: &str) -> Result<Vec<u8>, String> {
    CertificateDer::from_pem_slice(&read(path)?)
        .map(|der| der.to_vec())
        .map_err(|error| format!("{path} has no certificate in PEM: {error}"))
}

fn variable(name: &str) -> Result<Option<String>, Box<dyn Error>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("{name}: {error}").into()),
    }
}

fn deadline() -> Result<Instant, Box<dyn Error>> {
    let seconds = variable("TIMEOUT")?.map_or(Ok(TIMEOUT_S_DEFAULT), |s| s.parse())?;
    Ok(Instant::now() + Duration::from_secs(seconds))
}

fn check(deadline: Instant, what: &str) -> Result<(), String> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(format!("waited for {what} until TIMEOUT passed"))
}

/// Wants exactly one certificate.
struct Pin(Vec<u8>);

impl PeerVerifier for Pin {
    fn verify(&self, certificate_der: &[u8]) -> Result<(), PeerRefused> {
        if certificate_der == self.0 {
            return Ok(());
        }
        Err(PeerRefused("its certificate is not the one in PEER_CERT".into()))
    }

    fn verify_resumed(&self, fingerprint: &[u8; 32]) -> Result<(), PeerRefused> {
        if digest(&SHA256, &self.0).as_ref() == fingerprint {
            return Ok(());
        }
        Err(PeerRefused("the session's certificate is not the one in PEER_CERT".into()))
    }
}

struct KeyLogFile(Mutex<File>);

impl KeyLog for KeyLogFile {
    fn log(&self, line: &str) {
        // A log that cannot be written must not end the association.
        if let Ok(mut file) = self.0.lock() {
            let _ = writeln!(file, "{line}");
        }
    }
}
