use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use certs::Fingerprint;
use dtls_channel::{
    CloseReason, Config, Driver, EndpointConfig, Established, Event, PeerRefused, PeerVerifier,
    SendError, Session, Stats,
};
use tokio::sync::mpsc as commands;

use crate::PATIENCE;

/// Wants exactly one certificate.
#[derive(Debug)]
pub struct Pin(pub Vec<u8>);

impl PeerVerifier for Pin {
    fn verify(&self, certificate_der: &[u8]) -> Result<(), PeerRefused> {
        if certificate_der == self.0 {
            return Ok(());
        }
        Err(PeerRefused("not the certificate that was pinned".into()))
    }

    fn verify_resumed(&self, fingerprint: &[u8; 32]) -> Result<(), PeerRefused> {
        if fingerprint == Fingerprint::of_der(&self.0).as_bytes() {
            return Ok(());
        }
        Err(PeerRefused("not the fingerprint that was pinned".into()))
    }
}

/// Our end of one association: the real driver on a thread of its own, on loopback.
///
/// Its methods wait for what they are named after, at most [`PATIENCE`].
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    commands: Option<commands::UnboundedSender<Command>>,
    events: mpsc::Receiver<Event>,
    thread: Option<JoinHandle<Stats>>,
}

#[derive(Debug)]
enum Command {
    Send(Vec<u8>),
    Close,
}

impl Node {
    /// Waits for a client on a free port.
    #[must_use]
    pub fn serve(config: Config) -> Self {
        let server = Some(Arc::new(config));
        Self::start(EndpointConfig { server, ..EndpointConfig::default() }, None)
    }

    /// Connects to a server.
    #[must_use]
    pub fn connect(remote: SocketAddr, config: Config) -> Self {
        Self::start(EndpointConfig::default(), Some((remote, config, None)))
    }

    /// Connects to a server by the session of an earlier association.
    #[must_use]
    pub fn resume(remote: SocketAddr, config: Config, session: Session) -> Self {
        Self::start(EndpointConfig::default(), Some((remote, config, Some(session))))
    }

    fn start(
        endpoint: EndpointConfig,
        connect: Option<(SocketAddr, Config, Option<Session>)>,
    ) -> Self {
        let (commands, inbox) = commands::unbounded_channel();
        let (outbox, events) = mpsc::channel();
        let (bound, address) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let mut driver = Driver::bind(([127, 0, 0, 1], 0).into(), endpoint).expect("bind");
                bound.send(driver.local_addr().expect("address")).expect("listened to");
                if let Some((remote, config, session)) = connect {
                    let (now, config) = (Instant::now(), Arc::new(config));
                    match session {
                        None => driver.connect(now, remote, config),
                        Some(session) => driver.resume(now, remote, config, session),
                    }
                    .expect("connect");
                }
                drive(driver, inbox, &outbox).await
            })
        });
        let address = address.recv().expect("the driver's thread has bound its socket");
        Self { address, commands: Some(commands), events, thread: Some(thread) }
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next event, if it comes in time.
    ///
    /// # Panics
    /// If the driver's thread has died.
    #[must_use]
    pub fn event(&self, patience: Duration) -> Option<Event> {
        match self.events.recv_timeout(patience) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the driver died"),
        }
    }

    fn next(&self, wanted: &str) -> Event {
        match self.events.recv_timeout(PATIENCE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => panic!("{wanted} did not come in {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the driver died before {wanted} came"),
        }
    }

    /// The handshake's end.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn established(&self) -> Established {
        match self.next("the handshake's end") {
            Event::Established(established) => *established,
            other => panic!("instead of the handshake's end: {other:?}"),
        }
    }

    /// The next message.
    ///
    /// # Panics
    /// If something else happens.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        match self.next("a message") {
            Event::Message { data, .. } => data.to_vec(),
            other => panic!("instead of a message: {other:?}"),
        }
    }

    /// The association's end.
    ///
    /// # Panics
    /// If something else happens.
    #[must_use]
    pub fn closed(&self) -> CloseReason {
        match self.next("the end") {
            Event::Closed(reason) => reason,
            other => panic!("instead of the end: {other:?}"),
        }
    }

    /// Echoes until the end.
    ///
    /// # Panics
    /// If something else happens.
    pub fn echo(&self) -> CloseReason {
        loop {
            match self.next("a message or the end") {
                Event::Message { data, .. } => self.send(&data),
                Event::Closed(reason) => return reason,
                other => panic!("instead of a message or the end: {other:?}"),
            }
        }
    }

    /// Sends a message.
    pub fn send(&self, message: &[u8]) {
        self.command(Command::Send(message.to_vec()));
    }

    /// Ends it and returns its counters.
    ///
    /// # Panics
    /// If the driver's thread has panicked.
    #[must_use]
    pub fn stop(mut self) -> Stats {
        self.commands = None;
        self.thread.take().expect("not stopped yet").join().expect("the driver's thread")
    }

    /// Says goodbye.
    pub fn close(&self) {
        self.command(Command::Close);
    }

    fn command(&self, command: Command) {
        let commands = self.commands.as_ref().expect("there until dropped");
        commands.send(command).expect("the driver's thread lives");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let died = thread.join().is_err();
            assert!(!died || std::thread::panicking(), "the driver's thread panicked");
        }
    }
}

/// Ends when the node is dropped.
async fn drive(
    mut driver: Driver,
    mut inbox: commands::UnboundedReceiver<Command>,
    outbox: &mpsc::Sender<Event>,
) -> Stats {
    let mut peer = None;
    loop {
        tokio::select! {
            waited = driver.wait(None) => waited.expect("the socket works"),
            command = inbox.recv() => {
                let now = Instant::now();
                match (command, peer) {
                    (Some(Command::Send(message)), Some(id)) => {
                        match driver.send(now, id, &message) {
                            // The event that says so is on its way to the test.
                            Ok(_) | Err(SendError::Closed) => {}
                            Err(error) => panic!("{} bytes not sent: {error}", message.len()),
                        }
                    }
                    (Some(Command::Close), Some(id)) => driver.close(now, id),
                    (Some(_), None) => panic!("nobody to talk to yet"),
                    (None, _) => {
                        driver.shutdown(now);
                        driver.flush();
                        return *driver.stats();
                    }
                }
            }
        }
        while let Some((id, event)) = driver.poll_event() {
            if matches!(event, Event::Established(_)) {
                peer = Some(id);
            }
            // Nobody listens any more when a test is over.
            let _ = outbox.send(event);
        }
    }
}
