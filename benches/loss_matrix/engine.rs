//! The engines that are measured, and ours among them.

use std::sync::Arc;
use std::time::Duration;

use channel_benches::{identity, ours};
use dtls_channel::testing::{LinkConfig, Net};
use dtls_channel::{Config, Event, MTU_DEFAULT, Session, TicketKeys, Timers};

use crate::dimpl_pair::DimplPair;
use crate::webrtc_pair::WebrtcPair;

/// What the tickets say; nobody's clock is asked.
const TICKET_LIFETIME: Duration = Duration::from_secs(3_600);

/// Who shakes hands with itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Engine {
    Ours,
    OursWithRfc6347Timers,
    /// With the ticket of an earlier association.
    OursResumed,
    /// As its defaults are: four retries of each flight, 40 s in all.
    Dimpl,
    /// With so many retries that only the time ends it.
    DimplForAMinute,
    /// As its defaults are: a second between retries.
    Webrtc,
}

/// Two ends of one engine.
pub(crate) trait Pair {
    /// Shakes hands over a fresh path and says how long it took until *both* ends were open; `None`
    /// if that took longer than `limit`. The path's directions are seeded with 2 × `seed` and one
    /// more.
    fn handshake(&mut self, seed: u64, link: &LinkConfig, limit: Duration) -> Option<Duration>;
}

impl Engine {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "dtls-channel",
            Self::OursWithRfc6347Timers => "dtls-channel, RFC 6347's timers",
            Self::OursResumed => "dtls-channel, resumed",
            Self::Dimpl => "dimpl",
            Self::DimplForAMinute => "dimpl, retries for 60 s",
            Self::Webrtc => "webrtc-dtls",
        }
    }

    pub(crate) fn pair(self) -> Box<dyn Pair> {
        match self {
            Self::Ours => Box::new(OurPair::new(Timers::default())),
            Self::OursWithRfc6347Timers => Box::new(OurPair::new(Timers::rfc6347())),
            Self::OursResumed => Box::new(OurPair::new(Timers::default()).with_session()),
            Self::Dimpl => Box::new(DimplPair::new(None)),
            Self::DimplForAMinute => Box::new(DimplPair::new(Some(crate::LIMIT))),
            Self::Webrtc => Box::new(WebrtcPair::new()),
        }
    }
}

struct OurPair {
    client: Arc<Config>,
    server: Arc<Config>,
    /// What is resumed, if anything is.
    session: Option<Session>,
}

impl OurPair {
    fn new(timers: Timers) -> Self {
        let (client, server) = (identity(), identity());
        let keys = Arc::new(TicketKeys::random().expect("randomness"));
        let set = |config: Config| config.with_mtu(MTU_DEFAULT).with_timers(timers);
        let server_config =
            set(ours::config(&server, None)).with_ticket_keys(keys, TICKET_LIFETIME);
        Self {
            client: Arc::new(set(ours::config(&client, Some(&server)))),
            server: Arc::new(server_config),
            session: None,
        }
    }

    /// Lets the client take a ticket first, on a path that loses nothing.
    fn with_session(mut self) -> Self {
        self.client = Arc::new(Config::clone(&self.client).asking_for_tickets());
        let mut net = Net::new(0, &LinkConfig::default(), self.server.clone());
        net.connect(self.client.clone());
        assert!(net.run_until(crate::LIMIT, |net| net.both_open()), "not opened");
        self.session = net.events.into_iter().find_map(|(_, _, _, event)| match event {
            Event::Established(established) => established.session,
            _ => None,
        });
        assert!(self.session.is_some(), "no ticket");
        self
    }
}

impl Pair for OurPair {
    fn handshake(&mut self, seed: u64, link: &LinkConfig, limit: Duration) -> Option<Duration> {
        let mut net = Net::new(seed, link, self.server.clone());
        match self.session.clone() {
            None => net.connect(self.client.clone()),
            Some(session) => net.resume(self.client.clone(), session),
        };
        let is_open = net.run_until(limit, |net| net.both_open());
        let resumed = net
            .events
            .iter()
            .any(|(_, _, _, event)| matches!(event, Event::Established(e) if e.resumed));
        assert!(!is_open || resumed == self.session.is_some(), "another handshake than asked for");
        is_open.then(|| net.elapsed())
    }
}
