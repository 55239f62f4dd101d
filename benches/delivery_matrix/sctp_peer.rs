//! An association of sctp-proto as a [`Peer`], as it would run over DTLS, whose bytes are there. A
//! document is a message on a stream; the receiver's application confirms it by a message of one byte.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dtls_channel::Ecn;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier, ServerConfig, StreamEvent, TransportConfig,
};

use crate::ours::RECORD_BYTES;
use crate::world::Peer;

const STREAM: u16 = 0;
/// The longest message, and what a receiver holds of it, in bytes.
const MESSAGE_BYTES_MAX: u32 = 32 << 20;

pub(crate) struct Sctp {
    endpoint: Endpoint,
    remote: SocketAddr,
    association: Option<(AssociationHandle, Association)>,
    connected: bool,
    /// Messages of the peer: documents at the agent, confirmations at the server.
    received: u64,
    is_agent: bool,
    outgoing: VecDeque<Bytes>,
}

/// Server and agent; the agent connects.
pub(crate) fn pair() -> [Sctp; 2] {
    let transport = TransportConfig::default()
        .with_max_message_size(MESSAGE_BYTES_MAX)
        .with_max_receive_buffer_size(MESSAGE_BYTES_MAX);
    let transport = Arc::new(transport);
    let [server_address, agent_address] =
        [1, 2].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let mut server_config = ServerConfig::new();
    server_config.transport = transport.clone();
    let mut client_config = ClientConfig::new();
    client_config.transport = transport;
    let endpoint = |config| Endpoint::new(Arc::new(EndpointConfig::new()), config);
    let server = Sctp::new(endpoint(Some(Arc::new(server_config))), agent_address, false);
    let mut agent = Sctp::new(endpoint(None), server_address, true);
    let association = agent.endpoint.connect(client_config, server_address);
    agent.association = Some(association.expect("a valid address"));
    [server, agent]
}

impl Sctp {
    fn new(endpoint: Endpoint, remote: SocketAddr, is_agent: bool) -> Self {
        Self {
            endpoint,
            remote,
            association: None,
            connected: false,
            received: 0,
            is_agent,
            outgoing: VecDeque::new(),
        }
    }

    fn settle(&mut self) {
        let mut read = 0;
        let Some((handle, association)) = &mut self.association else { return };
        while let Some(event) = association.poll_endpoint_event() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                association.handle_event(event);
            }
        }
        while let Some(event) = association.poll() {
            match event {
                Event::Connected => {
                    self.connected = true;
                    if self.is_agent {
                        let opened =
                            association.open_stream(STREAM, PayloadProtocolIdentifier::Binary);
                        opened.expect("a stream is granted");
                    }
                }
                Event::Stream(StreamEvent::Opened) => {
                    while association.accept_stream().is_some() {}
                }
                // Given up after so many losses; what it carried never arrives.
                _ => {}
            }
        }
        if let Ok(mut stream) = association.stream(STREAM) {
            while let Ok(Some(_)) = stream.read() {
                read += 1;
            }
        }
        for _ in 0..read {
            self.received += 1;
            if self.is_agent {
                self.write(&Bytes::from_static(b"!"));
            }
        }
    }

    fn write(&mut self, message: &Bytes) {
        let Some((_, association)) = &mut self.association else { return };
        if association.stream(STREAM).is_err() {
            let _ = association.open_stream(STREAM, PayloadProtocolIdentifier::Binary);
        }
        let Ok(mut stream) = association.stream(STREAM) else { return };
        // An association that was given up takes none; then nobody will see the message arrive.
        let _ = stream.write_sctp(message, PayloadProtocolIdentifier::Binary);
    }
}

impl Peer for Sctp {
    fn is_ready(&self) -> bool {
        self.connected
    }

    fn send(&mut self, _now: Instant, body: Bytes) {
        self.write(&body);
    }

    fn received(&self) -> u64 {
        if self.is_agent { self.received } else { 0 }
    }

    fn confirmed(&self) -> u64 {
        if self.is_agent { 0 } else { self.received }
    }

    fn handle(&mut self, now: Instant, _ecn: Ecn, datagram: &[u8]) {
        let packet = Bytes::copy_from_slice(&datagram[RECORD_BYTES..]);
        match self.endpoint.handle(now, self.remote, None, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                self.association = Some((handle, association));
            }
            Some((_, DatagramEvent::AssociationEvent(event))) => {
                if let Some((_, association)) = &mut self.association {
                    association.handle_event(event);
                }
            }
            None => {}
        }
        self.settle();
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, association)) = &mut self.association {
            association.handle_timeout(now);
        }
        self.settle();
    }

    fn next_timeout(&mut self) -> Option<Instant> {
        self.association.as_mut()?.1.poll_timeout()
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        while self.outgoing.is_empty() {
            let from_endpoint = self.endpoint.poll_transmit();
            let transmit =
                from_endpoint.or_else(|| self.association.as_mut()?.1.poll_transmit(now));
            match transmit.map(|transmit| transmit.payload) {
                Some(Payload::RawEncode(packets)) => self.outgoing.extend(packets),
                Some(Payload::PartialDecode(_)) => {}
                None => return false,
            }
        }
        let Some(packet) = self.outgoing.pop_front() else { return false };
        out.resize(out.len() + RECORD_BYTES, 0);
        out.extend_from_slice(&packet);
        true
    }
}
