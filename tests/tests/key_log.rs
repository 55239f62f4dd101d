//! The key log is good for what it is for, and is there only when it was asked for.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use dtls_channel::{
    AssociationId, CipherSuite, Config, ConnectionIdMode, Endpoint, EndpointConfig, Event, KeyLog,
    Session, TicketKeys,
};
use system_tests::{Pcap, PemIdentity, Process, echo_binary, udp_port};

const SERVER: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(192, 0, 2, 1), 4_433);
const CLIENT: std::net::Ipv4Addr = std::net::Ipv4Addr::new(198, 51, 100, 1);

/// Content type of records with a connection id (RFC 9146 §4).
const TLS12_CID: u8 = 25;

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl KeyLog for Lines {
    fn log(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

/// Two endpoints, and a capture of all that passes between them.
struct Wire {
    client: Endpoint,
    server: Endpoint,
    client_address: SocketAddrV4,
    now: Instant,
    started: Instant,
    capture: Pcap,
    session: Option<Session>,
    /// The sides, client's first, that have sent records with a connection id.
    sent_ids: [bool; 2],
}

impl Wire {
    /// Carries datagrams until there are none, and returns both ends of the association if it has
    /// opened meanwhile.
    fn exchange(&mut self) -> [Option<AssociationId>; 2] {
        let mut opened = [None; 2];
        loop {
            let mut is_quiet = true;
            for (from, opened) in opened.iter_mut().enumerate() {
                let (at, client) = (self.now - self.started, self.client_address);
                let (sender, receiver, source, target) = match from {
                    0 => (&mut self.client, &mut self.server, client, SERVER),
                    _ => (&mut self.server, &mut self.client, SERVER, client),
                };
                while let Some((transmit, bytes)) = sender.outbox().front() {
                    is_quiet = false;
                    let size = transmit.segment_size.unwrap_or(bytes.len());
                    for datagram in bytes.chunks(size) {
                        self.sent_ids[from] |= datagram[0] == TLS12_CID;
                        self.capture.datagram(at, source, target, datagram);
                        let path = SocketAddr::from(source).into();
                        receiver.handle_datagram(self.now, path, &mut datagram.to_vec());
                    }
                    sender.outbox().pop();
                }
                while let Some((id, event)) = sender.poll_event() {
                    if let Event::Established(established) = event {
                        *opened = Some(id);
                        self.session = established.session.or_else(|| self.session.take());
                    }
                }
                self.now += Duration::from_millis(1);
            }
            if is_quiet {
                return opened;
            }
        }
    }

    /// One association, full or resumed, with a message each way.
    fn talk(&mut self, config: &Arc<Config>, session: Option<Session>, name: &str) -> [String; 2] {
        let is_resumed = session.is_some();
        let id = match session {
            None => self.client.connect(self.now, SERVER.into(), config.clone()),
            Some(session) => self.client.resume(self.now, SERVER.into(), config.clone(), session),
        };
        let _ = id.unwrap();
        let [Some(client), Some(server)] = self.exchange() else { panic!("{name} did not open") };
        assert_eq!(self.server.stats().handshakes_resumed > 0, is_resumed, "{name}");
        let messages = [format!("{name}, from the client"), format!("{name}, from the server")];
        self.client.send(client, messages[0].as_bytes()).unwrap();
        self.exchange();
        self.server.send(server, messages[1].as_bytes()).unwrap();
        self.exchange();
        self.client.close(client);
        self.exchange();
        messages
    }
}

/// Application data as tshark sees it, with the help of a key log or without.
fn decrypted(capture: &Path, key_log: Option<&Path>) -> Vec<String> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(capture).args(["-d", "udp.port==4433,dtls", "-Y", "dtls && data"]);
    tshark.args(["-T", "fields", "-e", "data.data"]);
    if let Some(key_log) = key_log {
        tshark.arg("-o").arg(format!("tls.keylog_file:{}", key_log.display()));
    }
    let output = tshark.output().unwrap_or_else(|error| {
        panic!("tshark, so nothing was tested; install it: sudo apt-get install tshark ({error})")
    });
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let hex = text.lines().flat_map(|line| line.split(','));
    hex.map(|hex| String::from_utf8(HEXLOWER.decode(hex.as_bytes()).unwrap()).unwrap()).collect()
}

#[test]
fn tshark_reads_associations_full_resumed_and_with_connection_ids_with_the_key_log_only() {
    let directory = tempfile::tempdir().unwrap();
    let (capture, key_log) = (directory.path().join("pcap"), directory.path().join("keys"));
    let (server, client) = (PemIdentity::new(), PemIdentity::new());
    let log = Arc::new(Lines::default());
    let (started, mut pcap) = (Instant::now(), Pcap::new());
    let (mut now, mut sent) = (started, Vec::new());
    // tshark 4.0 opens no ChaCha20 records of DTLS, nor those of OpenSSL; the line in the key log is
    // the same for every suite.
    let suites = [CipherSuite::Aes128GcmSha256, CipherSuite::Aes256GcmSha384];
    let cases = [false, true].into_iter().flat_map(|ids| suites.map(|suite| (ids, suite)));
    for (port, (ids, suite)) in (50_000..).zip(cases) {
        let mode = || if ids { ConnectionIdMode::Made } else { ConnectionIdMode::Off };
        // The server's, so that one line of each handshake is there: the client logs the same.
        let serving = server
            .config(&client)
            .with_suites(&[suite])
            .with_connection_id(mode())
            .with_ticket_keys(Arc::new(TicketKeys::random().unwrap()), Duration::ZERO)
            .with_key_log(log.clone());
        let endpoint = |server| EndpointConfig { server, ..EndpointConfig::default() };
        let mut wire = Wire {
            client: Endpoint::new(now, endpoint(None)).unwrap(),
            server: Endpoint::new(now, endpoint(Some(Arc::new(serving)))).unwrap(),
            client_address: SocketAddrV4::new(CLIENT, port),
            now,
            started,
            capture: pcap,
            session: None,
            sent_ids: [false; 2],
        };
        let config = client.config(&server).with_suites(&[suite]).with_connection_id(mode());
        let config = Arc::new(config.asking_for_tickets());
        sent.extend(wire.talk(&config, None, &format!("{suite:?}, full, {:?}", mode())));
        let session = wire.session.take();
        assert!(session.is_some());
        wire.client_address.set_port(port + 1_000);
        sent.extend(wire.talk(&config, session, &format!("{suite:?}, resumed, {:?}", mode())));
        assert_eq!(wire.sent_ids, [ids; 2]);
        (now, pcap) = (wire.now, wire.capture);
    }
    pcap.write(&capture);
    std::fs::write(&key_log, log.0.lock().unwrap().join("\n") + "\n").unwrap();
    assert_eq!(decrypted(&capture, Some(&key_log)), sent);
    assert_eq!(decrypted(&capture, None), [""; 0]);
}

#[test]
fn dtls_echo_logs_keys_only_when_asked_and_into_a_file_for_its_owner_alone() {
    let (server, client) = (PemIdentity::new(), PemIdentity::new());
    for asks in [false, true] {
        let file = client.directory().join(format!("keys-{asks}"));
        if asks {
            // One that others could read is closed to them.
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        }
        let port = udp_port().to_string();
        let echo = |role: &[&str], own: &PemIdentity, peer: &PemIdentity| {
            let mut command = Command::new(echo_binary());
            command.args(role).arg(own.pem()).arg(own.pem());
            command.env("PEER_CERT", peer.pem()).env("SSLKEYLOGFILE", &file);
            command
        };
        let mut serving = Process::start(&mut echo(&["server", &port], &server, &client));
        serving.wait_for_line("that it is ready", |line| (line == "READY").then_some(()));
        let mut command = echo(&["client", "127.0.0.1", &port], &client, &server);
        if asks {
            command.env("KEYLOG", &file);
        }
        let mut talking = Process::start(&mut command);
        talking.write_line("a secret");
        talking.wait_for_line("the echo", |line| (line == "a secret").then_some(()));
        talking.close_stdin();
        assert!(talking.wait().success(), "{talking}");
        assert!(serving.wait().success(), "{serving}");
        if asks {
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{mode:o}");
            assert!(std::fs::read_to_string(&file).unwrap().starts_with("CLIENT_RANDOM "));
        } else {
            assert!(!file.exists());
            for end in [&talking, &serving] {
                assert!(!end.text().contains("CLIENT_RANDOM"), "{end}");
            }
        }
    }
}
