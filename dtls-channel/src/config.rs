use std::sync::Arc;
use std::time::Duration;

use crate::crypto::{CipherSuite, Credentials, Group};
use crate::error::PeerRefused;
use crate::record::{CONTENT_BYTES_MAX, ConnectionId, REPLAY_WINDOW_RECORDS_MAX};
use crate::resumption::TicketKeys;
use crate::wire::AlertDescription;

/// The smallest datagram size that may be set, in bytes of UDP payload.
pub const MTU_MIN: usize = 228;
/// The largest datagram size that may be set: what one UDP datagram over IPv4 can carry.
pub const MTU_MAX: usize = 65_507;
/// Datagram size unless set: fits the IPv6 minimum MTU of 1,280 bytes behind a tunnel header.
pub const MTU_DEFAULT: usize = 1_200;

/// The smallest record size limit that may be set, or taken from a peer, in bytes (RFC 8449 §4).
pub const RECORD_SIZE_LIMIT_MIN: u16 = 64;

/// The shortest resend interval that may be set.
pub const RESEND_MIN: Duration = Duration::from_millis(10);
/// The longest waiting time that may be set.
pub const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// Decides whether a peer is one we want to talk to.
///
/// Called in each handshake, when the peer has proved that it holds the certificate's key and before
/// any application byte is accepted or sent; and before a session with that peer is resumed.
pub trait PeerVerifier: Send + Sync {
    /// Judges the peer's certificate, in DER.
    ///
    /// # Errors
    /// The text ends up in [`CloseReason::PeerRefused`](crate::CloseReason::PeerRefused); the peer
    /// is told no more than [`alert`](Self::alert).
    fn verify(&self, certificate_der: &[u8]) -> Result<(), PeerRefused>;

    /// Judges the client of a session that a server is about to resume, by SHA-256 of the certificate
    /// that it proved to hold when the session was made: what the ticket keeps of it. A client's own
    /// side has the whole certificate of its server, and asks [`verify`](Self::verify).
    ///
    /// # Errors
    /// A refusal, as unless overridden, leads to a full handshake with its own judgement. The text is
    /// not shown to anybody.
    fn verify_resumed(&self, _fingerprint: &[u8; 32]) -> Result<(), PeerRefused> {
        Err(PeerRefused("this verifier does not judge fingerprints".into()))
    }

    /// The alert by which a refused peer learns of it.
    fn alert(&self) -> AlertDescription {
        AlertDescription::BAD_CERTIFICATE
    }
}

/// Takes lines in the format of `SSLKEYLOGFILE`, with which Wireshark decrypts a capture.
///
/// Whoever reads them reads the traffic: off unless asked for.
pub trait KeyLog: Send + Sync {
    /// Takes one line, without a line end.
    fn log(&self, line: &str);
}

/// How long to wait for a peer during a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Until a flight is first sent again.
    pub first_resend: Duration,
    /// The resend interval doubles up to this.
    pub resend_cap: Duration,
    /// A handshake is given up when our newest flight has had no complete answer for so long.
    pub give_up: Duration,
    /// A handshake is given up after so long, however it goes on: each forged or repeated request
    /// for another hello looks like progress.
    pub give_up_in_all: Duration,
    /// How long a handshake that the peer seems to have refused, or broken, is still given a chance:
    /// before keys exist anybody can forge an alert or a message that is not due. Zero believes the
    /// first.
    pub alert_grace: Duration,
}

impl Default for Timers {
    /// 400 ms doubling to 4 s, 60 s for each flight, two minutes in all: reaches 99.9 % at 30 %
    /// loss, which the values of [`rfc6347`](Self::rfc6347) do not.
    fn default() -> Self {
        Self {
            first_resend: Duration::from_millis(400),
            resend_cap: Duration::from_secs(4),
            give_up: Duration::from_secs(60),
            give_up_in_all: Duration::from_secs(120),
            alert_grace: Duration::from_secs(10),
        }
    }
}

impl Timers {
    /// RFC 6347 §4.2.4.1's recommendation: 1 s doubling to 60 s, here with two minutes for each
    /// flight and four in all.
    #[must_use]
    pub fn rfc6347() -> Self {
        Self {
            first_resend: Duration::from_secs(1),
            resend_cap: Duration::from_secs(60),
            give_up: Duration::from_secs(120),
            give_up_in_all: Duration::from_secs(240),
            ..Self::default()
        }
    }
}

/// Whether the client proves who it is. Without that a server cannot tell whom it serves, so
/// anything but [`Required`](Self::Required) is for peers that are identified by other means, and
/// for conformance tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// A server refuses a client without a certificate, a client a server that asks for none.
    #[default]
    Required,
    /// A server asks, and admits a client that has none; a client presents its own if asked.
    Optional,
    /// A server does not ask; a client presents none, even if asked.
    Never,
}

/// What a server needs to resume sessions.
#[derive(Clone)]
pub(crate) struct Tickets {
    pub(crate) keys: Arc<TicketKeys>,
    /// What clients are told, in seconds.
    pub(crate) lifetime_s: u32,
}

/// Which connection id (RFC 9146) the peer is to put on its records, so that we know its association
/// by them whatever address they come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConnectionIdMode {
    /// Connection ids are neither offered nor accepted, in either direction.
    Off,
    /// As a server an id that the endpoint makes, as a client none: it is the clients' addresses
    /// that change. The other side's id is used, whatever it is.
    #[default]
    ByRole,
    /// None; the other side's id is used.
    Empty,
    /// One that the endpoint makes, in either role.
    Made,
    /// This one. An endpoint knows by it only the newest of its associations, so it is for programs
    /// that have one at a time.
    Given(ConnectionId),
}

/// When to follow a peer whose records come from another address (RFC 9146 §6).
///
/// Only an authentic record that carries our connection id and is newer than all others ever gives
/// reason to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressChange {
    /// Never: we go on sending to the address of the handshake.
    Never,
    /// Once the peer has answered there (RFC 9853). A peer that has not agreed to that check in the
    /// handshake is not followed.
    #[default]
    AfterReturnRoutability,
    /// Once the peer has answered there, and at once if the peer cannot be asked. Then whoever sees a
    /// record on its way, and has it arrive first with another source address, makes us send
    /// to that address, without limit, until the peer's next record arrives: for networks where
    /// that does not happen, or applications that make sure themselves.
    AfterNewestRecord,
}

/// How associations of one kind behave. Made once and shared.
#[derive(Clone)]
pub struct Config {
    pub(crate) credentials: Credentials,
    pub(crate) verifier: Arc<dyn PeerVerifier>,
    pub(crate) suites: Vec<CipherSuite>,
    pub(crate) groups: Vec<Group>,
    pub(crate) mtu: usize,
    pub(crate) timers: Timers,
    pub(crate) require_ems: bool,
    pub(crate) require_renegotiation_info: bool,
    pub(crate) client_certificate: ClientCertificate,
    pub(crate) replay_window: u16,
    pub(crate) record_size_limit: u16,
    pub(crate) connection_id: ConnectionIdMode,
    pub(crate) address_change: AddressChange,
    pub(crate) key_log: Option<Arc<dyn KeyLog>>,
    pub(crate) tickets: Option<Tickets>,
    pub(crate) asks_for_tickets: bool,
}

impl Config {
    /// The defaults: all suites and groups of the profile, extended master secret required.
    #[must_use]
    pub fn new(credentials: Credentials, verifier: Arc<dyn PeerVerifier>) -> Self {
        Self {
            credentials,
            verifier,
            suites: CipherSuite::ALL.into(),
            groups: Group::ALL.into(),
            mtu: MTU_DEFAULT,
            timers: Timers::default(),
            require_ems: true,
            require_renegotiation_info: true,
            client_certificate: ClientCertificate::default(),
            replay_window: 64,
            record_size_limit: CONTENT_BYTES_MAX,
            connection_id: ConnectionIdMode::default(),
            address_change: AddressChange::default(),
            key_log: None,
            tickets: None,
            asks_for_tickets: false,
        }
    }

    /// Offers or accepts only these suites, best first. An empty list leaves nothing to agree on.
    #[must_use]
    pub fn with_suites(mut self, suites: &[CipherSuite]) -> Self {
        self.suites = suites.into();
        self
    }

    /// The groups for the key exchange, best first. A server chooses no others. A client lists P-256
    /// and P-384 behind them in any case, for the server's certificate (RFC 8422 §5.1.1), so a
    /// server may choose those too.
    #[must_use]
    pub fn with_groups(mut self, groups: &[Group]) -> Self {
        self.groups = groups.into();
        self
    }

    /// The largest datagram to send, in bytes of UDP payload; brought into
    /// [`MTU_MIN`]`..=`[`MTU_MAX`].
    #[must_use]
    pub fn with_mtu(mut self, bytes: usize) -> Self {
        self.mtu = bytes.clamp(MTU_MIN, MTU_MAX);
        self
    }

    /// Other waiting times. Resends are kept between [`RESEND_MIN`] and [`WAIT_MAX`], so that no
    /// setting makes a flood or overflows; the others are kept below [`WAIT_MAX`].
    #[must_use]
    pub fn with_timers(mut self, timers: Timers) -> Self {
        self.timers = Timers {
            first_resend: timers.first_resend.clamp(RESEND_MIN, WAIT_MAX),
            resend_cap: timers.resend_cap.clamp(RESEND_MIN, WAIT_MAX),
            give_up: timers.give_up.min(WAIT_MAX),
            give_up_in_all: timers.give_up_in_all.min(WAIT_MAX),
            alert_grace: timers.alert_grace.min(WAIT_MAX),
        };
        self
    }

    /// Admits a peer without the extended master secret (RFC 7627), which is required by default.
    #[must_use]
    pub fn admitting_peers_without_ems(mut self) -> Self {
        self.require_ems = false;
        self
    }

    /// As a client, admits a server without `renegotiation_info` (RFC 5746), such as MatrixSSL's.
    #[must_use]
    pub fn admitting_servers_without_renegotiation_info(mut self) -> Self {
        self.require_renegotiation_info = false;
        self
    }

    /// Whether the client has to present a certificate; [`ClientCertificate::Required`] unless set.
    #[must_use]
    pub fn with_client_certificate(mut self, client_certificate: ClientCertificate) -> Self {
        self.client_certificate = client_certificate;
        self
    }

    /// Width of the replay window in records: rounded up to a power of two, at least 64, at most
    /// [`REPLAY_WINDOW_RECORDS_MAX`].
    #[must_use]
    pub fn with_replay_window(mut self, records: u16) -> Self {
        self.replay_window = records.min(REPLAY_WINDOW_RECORDS_MAX);
        self
    }

    /// The longest record content to take, in bytes, brought into [`RECORD_SIZE_LIMIT_MIN`]`..=`
    /// 16,384, which is the default: peers that know RFC 8449 send none that is longer, and one
    /// that comes from them all the same is dropped. It says nothing about what we send.
    #[must_use]
    pub fn with_record_size_limit(mut self, bytes: u16) -> Self {
        self.record_size_limit = bytes.clamp(RECORD_SIZE_LIMIT_MIN, CONTENT_BYTES_MAX);
        self
    }

    /// Whether records carry connection ids, and which; [`ConnectionIdMode::ByRole`] unless set.
    #[must_use]
    pub fn with_connection_id(mut self, mode: ConnectionIdMode) -> Self {
        self.connection_id = mode;
        self
    }

    /// When to follow a peer to another address; [`AddressChange::AfterReturnRoutability`] unless
    /// set.
    #[must_use]
    pub fn with_address_change(mut self, address_change: AddressChange) -> Self {
        self.address_change = address_change;
        self
    }

    /// Hands every association's secrets to `log`.
    #[must_use]
    pub fn with_key_log(mut self, log: Arc<dyn KeyLog>) -> Self {
        self.key_log = Some(log);
        self
    }

    /// As a server, gives tickets to clients that ask for them, and resumes (RFC 5077) where
    /// [`PeerVerifier::verify_resumed`] agrees. `lifetime` is a hint for clients: for how long the
    /// keys will be held, in whole seconds; zero does not say.
    #[must_use]
    pub fn with_ticket_keys(mut self, keys: Arc<TicketKeys>, lifetime: Duration) -> Self {
        let lifetime_s = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        self.tickets = Some(Tickets { keys, lifetime_s });
        self
    }

    /// As a client, asks for a ticket, so that [`Established::session`](crate::Established::session)
    /// has what the next association can begin with. One that resumes asks anyway.
    #[must_use]
    pub fn asking_for_tickets(mut self) -> Self {
        self.asks_for_tickets = true;
        self
    }

    /// The certificate we present, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.credentials.certificate()
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("credentials", &self.credentials)
            .field("suites", &self.suites)
            .field("groups", &self.groups)
            .field("mtu", &self.mtu)
            .field("timers", &self.timers)
            .field("require_ems", &self.require_ems)
            .field("client_certificate", &self.client_certificate)
            .field("connection_id", &self.connection_id)
            .field("address_change", &self.address_change)
            .field("key_log", &self.key_log.is_some())
            .field("tickets", &self.tickets.is_some())
            .finish_non_exhaustive()
    }
}
