use std::fmt;

macro_rules! drop_causes {
    ($($(#[$doc:meta])* $id:ident = $text:literal,)*) => {
        /// Why a datagram or record was dropped without effect. Each is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum DropCause { $($(#[$doc])* $id,)* }

        impl DropCause {
            /// All of them, in the order of [`Drops::iter`].
            pub const ALL: &[Self] = &[$(Self::$id,)*];

            /// A stable name in `snake_case`, for metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$id => $text,)* }
            }
        }
    };
}

drop_causes! {
    /// No whole record in it.
    Malformed = "malformed",
    /// From an address without an association, and no ClientHello.
    Unknown = "unknown",
    /// A protected record that the AEAD refused.
    BadTag = "bad_tag",
    /// A sequence number seen before or too old.
    Replayed = "replayed",
    /// An epoch that does not fit the state.
    WrongEpoch = "wrong_epoch",
    /// A version that is not DTLS 1.2 (or 1.0 where that is usual).
    WrongVersion = "wrong_version",
    /// Longer than a record may be.
    TooLong = "too_long",
    /// A record type that has no place here.
    UnexpectedRecord = "unexpected_record",
    /// Unprotected, though keys are up.
    Unprotected = "unprotected",
    /// A handshake fragment whose lengths contradict each other or its siblings.
    BadFragment = "bad_fragment",
    /// A handshake fragment beyond the reassembly limits.
    ReassemblyFull = "reassembly_full",
    /// A handshake message too far ahead, or seen before.
    StaleMessage = "stale_message",
    /// A record that came too early and found no room to wait.
    EarlyFull = "early_full",
    /// A ClientHello with a wrong or outdated cookie; it was answered with a new one.
    BadCookie = "bad_cookie",
    /// A ClientHello with a good cookie, right after another one from the same address.
    TooSoon = "too_soon",
    /// A ClientHello with a good cookie from a peer to which we connect ourselves, and go first.
    Crossed = "crossed",
    /// A ClientHello while no more associations are admitted.
    NoRoom = "no_room",
    /// A ClientHello though we are no server.
    NotServing = "not_serving",
    /// A handshake message that was not due, while anybody could have forged it.
    UnexpectedMessage = "unexpected_message",
    /// Not an incoming record: a flight or cookie of ours that found the outbox full.
    NotSent = "not_sent",
    /// A protected record with a connection id that is not of the association, or of none at all.
    WrongConnectionId = "wrong_connection_id",
    /// A protected record without the connection id that was agreed on.
    MissingConnectionId = "missing_connection_id",
    /// An authentic record with nothing but padding in it.
    NoContentType = "no_content_type",
    /// An answer to a path challenge that was not asked, or a malformed message of that kind.
    BadPathMessage = "bad_path_message",
    /// For an association that is closed.
    Closed = "closed",
}

/// How often each [`DropCause`] occurred.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops([u64; DropCause::ALL.len()]);

impl Drops {
    pub(crate) fn count(&mut self, cause: DropCause) {
        self.0[cause as usize] += 1;
    }

    /// How often `cause` occurred.
    #[must_use]
    pub fn get(&self, cause: DropCause) -> u64 {
        self.0[cause as usize]
    }

    /// All causes with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropCause, u64)> + '_ {
        DropCause::ALL.iter().map(|c| (*c, self.get(*c)))
    }

    /// The sum over all causes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().filter(|(_, n)| *n > 0).map(|(c, n)| (c.name(), n)))
            .finish()
    }
}

/// What an [`Endpoint`](crate::Endpoint) has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Datagrams taken from the network.
    pub datagrams_in: u64,
    /// Bytes of UDP payload taken from the network.
    pub bytes_in: u64,
    /// Datagrams handed to the network.
    pub datagrams_out: u64,
    /// Bytes of UDP payload handed to the network.
    pub bytes_out: u64,
    /// HelloVerifyRequests sent.
    pub cookies_sent: u64,
    /// Hellos that resumed a session from where it began, and were not asked for a cookie.
    pub cookies_spared: u64,
    /// Handshakes begun: as a client, or as a server after a valid cookie or one that was spared.
    pub handshakes_started: u64,
    /// Handshakes that reached the open state.
    pub handshakes_completed: u64,
    /// Of these, the ones that resumed a session.
    pub handshakes_resumed: u64,
    /// Tickets that led to a full handshake: at a server those it refused, at a client those that
    /// the server did.
    pub resumptions_declined: u64,
    /// Handshakes that ended otherwise.
    pub handshakes_failed: u64,
    /// Half-open associations evicted to admit newer ones.
    pub half_open_evicted: u64,
    /// Flights sent again.
    pub flights_resent: u64,
    /// Return routability checks begun: a peer seems to have another address.
    pub path_checks: u64,
    /// Of these, those that left the address as it was: nobody answered at the new one, or the peer
    /// answered at the old one.
    pub path_checks_failed: u64,
    /// Path challenges sent; at most six for a check.
    pub path_challenges: u64,
    /// Address changes that were followed.
    pub path_changes: u64,
    /// Authentic records from another address that by our settings, by the peer's abilities or by
    /// their age gave no reason to follow. They are delivered all the same.
    pub path_changes_ignored: u64,
    /// What was dropped, by cause.
    pub drops: Drops,
}
