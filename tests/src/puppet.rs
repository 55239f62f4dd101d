use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use certs::Identity;
use dtls_channel::testing::AcceptAnyone;
use dtls_channel::{
    AssociationId, CloseReason, Config, Credentials, Driver, EndpointConfig, Established,
    Event as ChannelEvent,
};
use metadata_delivery::message::Hello;
use metadata_delivery::{Document, Event, Session, SessionConfig};
use tokio::sync::mpsc as orders;

use crate::PATIENCE;

/// A peer of the server that says exactly what a test wants it to: for those that a real agent
/// would never say.
#[derive(Debug)]
pub struct Puppet {
    orders: orders::UnboundedSender<Document>,
    seen: mpsc::Receiver<Seen>,
}

/// What a [`Puppet`] meets with.
#[derive(Debug)]
pub enum Seen {
    /// The DTLS handshake is done.
    Established(Box<Established>),
    /// Something came through the session.
    Delivery(Event),
    /// The association has ended.
    Closed(CloseReason),
}

impl Puppet {
    /// Connects with an identity, to whatever server is there.
    ///
    /// # Panics
    /// If there is no socket to be had.
    #[must_use]
    pub fn connect(server: SocketAddr, identity: &Identity) -> Self {
        let certificate = identity.certificate_der().to_vec();
        let credentials = Credentials::from_der(certificate, identity.pkcs8());
        let config = Config::new(credentials.expect("our own identity"), Arc::new(AcceptAnyone));
        let (orders, inbox) = orders::unbounded_channel();
        let (outbox, seen) = mpsc::channel();
        // Ends when the puppet is dropped, which ends its orders.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let any = ([127, 0, 0, 1], 0).into();
                let mut driver = Driver::bind(any, EndpointConfig::default()).expect("bind");
                let id = driver.connect(Instant::now(), server, Arc::new(config));
                drive(driver, id.expect("connect"), inbox, &outbox).await;
            });
        });
        Self { orders, seen }
    }

    /// Offers a document.
    pub fn offer(&self, document: Document) {
        // The answer to a peer that has gone is in what it has seen.
        let _ = self.orders.send(document);
    }

    /// What it meets with next.
    ///
    /// # Panics
    /// If that takes too long.
    #[must_use]
    pub fn next(&self) -> Option<Seen> {
        match self.seen.recv_timeout(PATIENCE) {
            Ok(seen) => Some(seen),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing happened in {PATIENCE:?}"),
        }
    }

    /// The handshake's end.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn established(&self) -> Established {
        match self.next() {
            Some(Seen::Established(established)) => *established,
            other => panic!("instead of the handshake's end: {other:?}"),
        }
    }

    /// All that comes through the session until the server closes it.
    #[must_use]
    pub fn until_closed(&self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(seen) = self.next() {
            match seen {
                Seen::Established(_) => {}
                Seen::Delivery(event) => {
                    let last = matches!(event, Event::PeerClosed { .. } | Event::PeerLost);
                    events.push(event);
                    if last {
                        break;
                    }
                }
                Seen::Closed(_) => break,
            }
        }
        events
    }
}

/// A hello without proof.
#[must_use]
pub fn hello(agent: &str) -> Hello {
    Hello {
        protocol: metadata_delivery::message::PROTOCOL,
        agent_id: agent.to_owned(),
        software: "puppet".to_owned(),
        boot_id: "none".to_owned(),
        enrol: None,
        holds: None,
    }
}

async fn drive(
    mut driver: Driver,
    id: AssociationId,
    mut inbox: orders::UnboundedReceiver<Document>,
    outbox: &mpsc::Sender<Seen>,
) {
    let mut session = Session::new(Instant::now(), SessionConfig::default());
    let mut packet = Vec::new();
    let mut is_open = false;
    loop {
        let now = Instant::now();
        session.handle_timeout(now);
        while let Some(event) = session.poll_event() {
            if let Event::Received(document) = &event {
                session.stored(now, &document.name, document.version);
            }
            let _ = outbox.send(Seen::Delivery(event));
        }
        while is_open
            && let Some(number) = driver.next_sequence(id)
            && session.poll_transmit(now, number, &mut packet)
        {
            let _ = driver.send(now, id, &packet);
        }
        let wake = if is_open { session.next_timeout() } else { None };
        tokio::select! {
            waited = driver.wait(wake) => waited.expect("the socket works"),
            order = inbox.recv() => match order {
                // A session that is over takes none.
                Some(document) => drop(session.offer(Instant::now(), document)),
                None => {
                    driver.shutdown(Instant::now());
                    return driver.flush();
                }
            },
        }
        let now = Instant::now();
        while let Some((_, event)) = driver.poll_event() {
            let seen = match event {
                ChannelEvent::Established(established) => {
                    is_open = true;
                    Seen::Established(established)
                }
                ChannelEvent::Message { sequence, data, .. } => {
                    session
                        .handle_packet(now, sequence, &data)
                        .expect("the server keeps the rules");
                    continue;
                }
                ChannelEvent::Closed(reason) => {
                    is_open = false;
                    while let Some(event) = session.poll_event() {
                        let _ = outbox.send(Seen::Delivery(event));
                    }
                    Seen::Closed(reason)
                }
                _ => continue,
            };
            let _ = outbox.send(seen);
        }
    }
}
