//! What is under test: an association by itself, or one behind an endpoint.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls_channel::{
    AlertDescription, AssociationId, Config, ConnectError, Connection, Drops, Endpoint,
    EndpointConfig, Event, Outbox, SendError, Session, Sink,
};

/// The two ways to use the engine, with the same face. There is one peer, so its association needs
/// no name here.
#[expect(clippy::large_enum_variant, reason = "there is one of them")]
pub(crate) enum Engine {
    /// Without a cookie exchange, as the runner's own clients expect it.
    Alone(Connection, Sink),
    /// With one, as servers on a network are.
    BehindEndpoint { endpoint: Endpoint, peer: SocketAddr, id: Option<AssociationId> },
}

impl Engine {
    pub(crate) fn alone(
        now: Instant,
        peer: SocketAddr,
        server: bool,
        config: Arc<Config>,
        session: Option<Session>,
    ) -> Result<Self, ConnectError> {
        let (id, path, mut sink) = (AssociationId::STANDALONE, peer.into(), Sink::default());
        let connection = match session {
            _ if server => Connection::server_without_cookie(now, id, path, config, &mut sink),
            None => Connection::client(now, id, path, config, &mut sink)?,
            Some(session) => Connection::resume(now, id, path, config, session, &mut sink)?,
        };
        Ok(Self::Alone(connection, sink))
    }

    pub(crate) fn behind_endpoint(
        now: Instant,
        peer: SocketAddr,
        server: bool,
        config: Arc<Config>,
        session: Option<Session>,
    ) -> Result<Self, ConnectError> {
        let serving = server.then(|| config.clone());
        let config_of_all = EndpointConfig { server: serving, ..EndpointConfig::default() };
        let mut endpoint = Endpoint::new(now, config_of_all)?;
        let id = match session {
            _ if server => None,
            None => Some(endpoint.connect(now, peer, config)?),
            Some(session) => Some(endpoint.resume(now, peer, config, session)?),
        };
        Ok(Self::BehindEndpoint { endpoint, peer, id })
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, datagram: &mut [u8]) {
        match self {
            Self::Alone(connection, sink) => {
                connection.handle_datagram(now, datagram, sink);
            }
            Self::BehindEndpoint { endpoint, peer, .. } => {
                endpoint.handle_datagram(now, (*peer).into(), datagram);
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Alone(connection, sink) => connection.handle_timeout(now, sink),
            Self::BehindEndpoint { endpoint, .. } => endpoint.handle_timeout(now),
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Alone(connection, _) => connection.next_timeout().map(|(at, _)| at),
            Self::BehindEndpoint { endpoint, .. } => endpoint.next_timeout(),
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        match self {
            Self::Alone(_, sink) => sink.poll_event().map(|(_, event)| event),
            Self::BehindEndpoint { endpoint, id, .. } => {
                let (from, event) = endpoint.poll_event()?;
                *id = Some(from);
                Some(event)
            }
        }
    }

    pub(crate) fn send(&mut self, message: &[u8]) -> Result<u64, SendError> {
        match self {
            Self::Alone(connection, sink) => connection.send(message, sink),
            Self::BehindEndpoint { endpoint, id, .. } => {
                endpoint.send(id.ok_or(SendError::NotOpen)?, message)
            }
        }
    }

    pub(crate) fn set_path_mtu(&mut self, bytes: usize) {
        match self {
            Self::Alone(connection, _) => connection.set_path_mtu(bytes),
            Self::BehindEndpoint { endpoint, id, .. } => {
                if let Some(id) = *id {
                    endpoint.set_path_mtu(id, bytes);
                }
            }
        }
    }

    pub(crate) fn set_first_resend(&mut self, first: Duration) {
        match self {
            Self::Alone(connection, _) => connection.set_first_resend(first),
            Self::BehindEndpoint { endpoint, id, .. } => {
                if let Some(id) = *id {
                    endpoint.set_first_resend(id, first);
                }
            }
        }
    }

    pub(crate) fn close_with_alert(&mut self, what: AlertDescription) {
        match self {
            Self::Alone(connection, sink) => connection.close_with_alert(what, sink),
            Self::BehindEndpoint { endpoint, id, .. } => {
                if let Some(id) = *id {
                    endpoint.close_with_alert(id, what);
                }
            }
        }
    }

    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        match self {
            Self::Alone(_, sink) => &mut sink.outbox,
            Self::BehindEndpoint { endpoint, .. } => endpoint.outbox(),
        }
    }

    pub(crate) fn drops(&self) -> Drops {
        match self {
            Self::Alone(_, sink) => sink.stats.drops,
            Self::BehindEndpoint { endpoint, .. } => endpoint.stats().drops,
        }
    }
}
