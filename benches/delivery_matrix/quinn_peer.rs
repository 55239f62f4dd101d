//! A connection of quinn-proto as a [`Peer`]. A document is a stream of its own from the server; the
//! agent's application confirms it by an empty stream the other way.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use dtls_channel::Ecn;
use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint,
    EndpointConfig, Event, ReadError, ServerConfig, StreamEvent, StreamId, TransportConfig,
    WriteError,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::world::Peer;

/// Which of quinn's congestion controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    Cubic,
    Bbr,
}

pub(crate) struct Quinn {
    endpoint: Endpoint,
    remote: SocketAddr,
    connection: Option<(ConnectionHandle, Connection)>,
    connected: bool,
    /// Documents not wholly handed to the connection.
    sending: HashMap<StreamId, Bytes>,
    /// Streams of the peer that have come to their end: documents at the agent, confirmations at
    /// the server.
    finished: u64,
    is_agent: bool,
    /// Datagrams that the endpoint itself has answered with.
    responses: Vec<Vec<u8>>,
    /// Of the last datagram written.
    ecn: Ecn,
}

/// Server and agent; the agent connects.
pub(crate) fn pair(now: Instant, controller: Controller, seed: u64) -> [Quinn; 2] {
    let [server_address, agent_address] =
        [1, 2].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let (server_config, client_config) = configs(controller);
    let mut seeds = [[0; 32], [1; 32]];
    seeds.iter_mut().for_each(|bytes| bytes[..8].copy_from_slice(&seed.to_be_bytes()));
    let [server, agent] =
        [(Some(Arc::new(server_config)), seeds[0]), (None, seeds[1])].map(|(config, seed)| {
            Endpoint::new(Arc::new(EndpointConfig::default()), config, true, Some(seed))
        });
    let server = Quinn::new(server, agent_address, false);
    let mut agent = Quinn::new(agent, server_address, true);
    let connection = agent.endpoint.connect(now, client_config, server_address, "localhost");
    agent.connection = Some(connection.expect("a valid name and address"));
    [server, agent]
}

fn configs(controller: Controller) -> (ServerConfig, ClientConfig) {
    static IDENTITY: OnceLock<(CertificateDer<'static>, Vec<u8>)> = OnceLock::new();
    let (certificate, key) = IDENTITY.get_or_init(|| {
        let identity = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        let identity = identity.expect("a key is made");
        (identity.cert.der().clone(), identity.signing_key.serialize_der())
    });
    let factory: Arc<dyn ControllerFactory + Send + Sync> = match controller {
        Controller::Cubic => Arc::new(CubicConfig::default()),
        Controller::Bbr => Arc::new(BbrConfig::default()),
    };
    let mut transport = TransportConfig::default();
    transport.congestion_controller_factory(factory);
    transport.max_idle_timeout(None);
    let transport = Arc::new(transport);
    let key = PrivateKeyDer::try_from(key.clone()).expect("a key in DER");
    let server = ServerConfig::with_single_cert(vec![certificate.clone()], key);
    let mut server = server.expect("a certificate that fits its key");
    server.transport_config(transport.clone());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let mut client = ClientConfig::with_root_certificates(Arc::new(roots)).expect("a verifier");
    client.transport_config(transport);
    (server, client)
}

impl Quinn {
    fn new(endpoint: Endpoint, remote: SocketAddr, is_agent: bool) -> Self {
        Self {
            endpoint,
            remote,
            connection: None,
            connected: false,
            sending: HashMap::new(),
            finished: 0,
            is_agent,
            responses: Vec::new(),
            ecn: Ecn::NotEct,
        }
    }

    /// Lets connection and endpoint tell each other, and takes what the application has to know.
    fn settle(&mut self) {
        let Some((handle, connection)) = &mut self.connection else { return };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        let mut readable = Vec::new();
        let mut writable = Vec::new();
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    while let Some(id) = connection.streams().accept(Dir::Uni) {
                        readable.push(id);
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => readable.push(id),
                Event::Stream(StreamEvent::Writable { id }) => writable.push(id),
                Event::ConnectionLost { reason } => panic!("{reason}"),
                _ => {}
            }
        }
        for id in writable {
            self.write(id);
        }
        for id in readable {
            self.read(id);
        }
    }

    fn write(&mut self, id: StreamId) {
        let Some((_, connection)) = &mut self.connection else { return };
        let Some(body) = self.sending.get_mut(&id) else { return };
        let mut stream = connection.send_stream(id);
        while !body.is_empty() {
            match stream.write(body) {
                Ok(count) => drop(body.split_to(count)),
                Err(WriteError::Blocked) => return,
                Err(error) => panic!("{error}"),
            }
        }
        self.sending.remove(&id);
        stream.finish().expect("a stream that is open");
    }

    fn read(&mut self, id: StreamId) {
        let Some((_, connection)) = &mut self.connection else { return };
        let mut stream = connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return };
        let finished = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(ReadError::Blocked) => break false,
                Err(error) => panic!("{error}"),
            }
        };
        let _ = chunks.finalize();
        if !finished {
            return;
        }
        self.finished += 1;
        if self.is_agent {
            let answer = connection.streams().open(Dir::Uni).expect("a stream is granted");
            connection.send_stream(answer).finish().expect("a stream that is open");
        }
    }
}

impl Peer for Quinn {
    fn is_ready(&self) -> bool {
        self.connected
    }

    fn send(&mut self, _now: Instant, body: Bytes) {
        let Some((_, connection)) = &mut self.connection else { return };
        let id = connection.streams().open(Dir::Uni).expect("a stream is granted");
        self.sending.insert(id, body);
        self.write(id);
    }

    fn received(&self) -> u64 {
        if self.is_agent { self.finished } else { 0 }
    }

    fn confirmed(&self) -> u64 {
        if self.is_agent { 0 } else { self.finished }
    }

    fn handle(&mut self, now: Instant, ecn: Ecn, datagram: &[u8]) {
        let mut out = Vec::new();
        let datagram = BytesMut::from(datagram);
        let ecn = EcnCodepoint::from_bits(ecn.bits());
        let event = self.endpoint.handle(now, self.remote, None, ecn, datagram, &mut out);
        match event {
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut out, None);
                self.connection = Some(accepted.unwrap_or_else(|e| panic!("{}", e.cause)));
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::Response(transmit)) => {
                out.truncate(transmit.size);
                self.responses.push(out);
            }
            None => {}
        }
        self.settle();
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, connection)) = &mut self.connection {
            connection.handle_timeout(now);
        }
        self.settle();
    }

    fn next_timeout(&mut self) -> Option<Instant> {
        self.connection.as_mut()?.1.poll_timeout()
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.ecn = Ecn::NotEct;
        if let Some(response) = self.responses.pop() {
            out.extend_from_slice(&response);
            return true;
        }
        let Some((_, connection)) = &mut self.connection else { return false };
        let mut datagram = Vec::new();
        let Some(transmit) = connection.poll_transmit(now, 1, &mut datagram) else { return false };
        out.extend_from_slice(&datagram[..transmit.size]);
        self.ecn = transmit.ecn.map_or(Ecn::NotEct, |ecn| Ecn::from_bits(ecn as u8));
        true
    }

    fn ecn(&self) -> Ecn {
        self.ecn
    }
}
