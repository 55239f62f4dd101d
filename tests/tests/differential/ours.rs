//! Our own end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls_channel::{
    AssociationId, CloseReason, Config, Credentials, Endpoint, EndpointConfig, Event, SendError,
    Timers,
};
use system_tests::Pin;

use crate::peer::{EXPORTER_CONTEXT, EXPORTER_LABEL, End, Peer, Seen, Setup};
use crate::script::Side;

/// Where it sees its peer.
const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 4_433);

/// An endpoint with one association.
pub(crate) struct Ours {
    endpoint: Endpoint,
    id: Option<AssociationId>,
    seen: Seen,
}

/// The configuration that fits a setup.
pub(crate) fn config(setup: &Setup) -> Config {
    let identity = &setup.identity;
    let credentials = Credentials::from_der(identity.certificate.clone(), &identity.pkcs8).unwrap();
    // An alert in clear may be forged, so it is believed late; scripts go on sooner.
    let timers = Timers { alert_grace: Duration::from_secs(5), ..Timers::default() };
    Config::new(credentials, Arc::new(Pin(setup.pinned.certificate.clone())))
        .with_suites(&setup.suites)
        .with_groups(&setup.groups)
        .with_mtu(setup.mtu)
        .with_timers(timers)
}

impl Ours {
    /// Admits peers without extended master secret: who has it is compared, not required.
    pub(crate) fn new(now: Instant, setup: &Setup) -> Self {
        Self::with_config(now, setup.side, config(setup).admitting_peers_without_ems())
    }

    pub(crate) fn with_config(now: Instant, side: Side, config: Config) -> Self {
        let config = Arc::new(config);
        let server = (side == Side::Server).then(|| config.clone());
        let settings = EndpointConfig { server, ..EndpointConfig::default() };
        let mut endpoint = Endpoint::new(now, settings).unwrap();
        let id =
            (side == Side::Client).then(|| endpoint.connect(now, PEER.into(), config).unwrap());
        Self { endpoint, id, seen: Seen::default() }
    }

    fn note_events(&mut self) {
        while let Some((id, event)) = self.endpoint.poll_event() {
            match event {
                Event::Established(established) => {
                    self.id = Some(id);
                    self.seen.is_open = true;
                    let mut exported = [0; 32];
                    let exporter = &established.exporter;
                    exporter.export(EXPORTER_LABEL, EXPORTER_CONTEXT, &mut exported);
                    self.seen.exported = Some(exported);
                    self.seen.extended_master_secret = Some(established.extended_master_secret);
                    self.seen.peer_certificate = established.peer_certificate.clone();
                }
                Event::Message { data, .. } => self.seen.messages.push(data.to_vec()),
                Event::Closed(reason) => {
                    self.seen.end = Some(match reason {
                        CloseReason::CloseNotify => End::PeerClosed,
                        CloseReason::Local => End::Closed,
                        other => End::Failed(other.to_string()),
                    });
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Peer for Ours {
    fn receive(&mut self, now: Instant, mut datagram: Vec<u8>) {
        self.endpoint.handle_datagram(now, SocketAddr::from(PEER).into(), &mut datagram);
        self.note_events();
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.endpoint.next_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.note_events();
    }

    fn send(&mut self, _now: Instant, message: &[u8]) {
        // It may be over already; what came of it is seen at the other end.
        let sent = self.id.map(|id| self.endpoint.send(id, message));
        assert!(!matches!(sent, Some(Err(SendError::TooLarge { .. }))), "{sent:?}");
    }

    fn close(&mut self, _now: Instant) {
        if let Some(id) = self.id {
            self.endpoint.close(id);
        }
        self.note_events();
    }

    fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        while let Some((transmit, bytes)) = self.endpoint.outbox().front() {
            let size = transmit.segment_size.unwrap_or(bytes.len());
            taken.extend(bytes.chunks(size).map(<[u8]>::to_vec));
            self.endpoint.outbox().pop();
        }
        taken
    }

    fn seen(&self) -> &Seen {
        &self.seen
    }
}
