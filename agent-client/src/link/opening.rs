//! What every connection begins with: the channel's configuration, the hello, the session.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use certs::{EnrolmentToken, Fingerprint, PinSet, proof};
use dtls_channel::{
    Config, Credentials, CredentialsError, Established, PeerRefused, PeerVerifier, Timers,
};
use metadata_delivery::message::{Enrol, Hello, Hex32, Holds, PROTOCOL};
use metadata_delivery::{Limits, Session, SessionConfig};

/// A handshake that takes longer is begun anew, with the next server if there are several. A server
/// that was restarted in the middle of one knows nothing of it and stays silent, so waiting the
/// channel's full minute would keep the agent away for that long.
const HANDSHAKE_MS_MAX: u64 = 15_000;
/// Largest datagram to try on a path, in bytes: IPv6 over Ethernet.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1_452;

/// Compares what the server shows with what is pinned.
pub(crate) struct Pinned(pub(crate) PinSet);

impl PeerVerifier for Pinned {
    fn verify(&self, certificate_der: &[u8]) -> Result<(), PeerRefused> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_unix = now.map_or(0, |since| since.as_secs());
        let seen = Fingerprint::of_der(certificate_der);
        self.0.check(now_unix, seen).map_err(|mismatch| PeerRefused(mismatch.to_string()))
    }
}

/// How an agent's side of the channel behaves.
///
/// # Errors
/// The key is not one the channel can use.
pub(crate) fn channel(
    certificate_der: Vec<u8>,
    pkcs8: &[u8],
    verifier: Arc<Pinned>,
) -> Result<Config, CredentialsError> {
    let credentials = Credentials::from_der(certificate_der, pkcs8)?;
    let give_up = Duration::from_millis(HANDSHAKE_MS_MAX);
    let timers = Timers { give_up, ..Timers::default() };
    Ok(Config::new(credentials, verifier).with_timers(timers).asking_for_tickets())
}

/// The first message on a channel, with a proof of the token that is bound to it, if there is one.
pub(crate) fn hello(
    agent_id: String,
    boot_id: String,
    holds: Option<Holds>,
    token: Option<(&EnrolmentToken, &Fingerprint)>,
    established: &Established,
) -> Hello {
    let enrol = token.map(|(token, fingerprint)| {
        let mut exported = [0; proof::EXPORTER_BYTES];
        established.exporter.export(proof::EXPORTER_LABEL, b"", &mut exported);
        let proof = Hex32(token.prove(&exported, fingerprint));
        Enrol { token_id: token.token_id.to_string(), proof }
    });
    Hello { protocol: PROTOCOL, agent_id, software: crate::SOFTWARE.into(), boot_id, enrol, holds }
}

/// The session over a channel that has just been established. `sizes`: the longest message that is
/// sure to fit, and the longest that may be searched for. `ecn`: whether the channel's sockets tell of congestion marks.
pub(crate) fn session(
    now: Instant,
    sizes: (usize, usize),
    established: &Established,
    keep_alive: Duration,
    peer_timeout: Duration,
    ecn: bool,
) -> Session {
    let default = SessionConfig::default();
    Session::new(
        now,
        SessionConfig {
            payload_max: sizes.0,
            payload_search_max: Some(sizes.1),
            keep_alive: Some(keep_alive),
            peer_timeout,
            initial_rtt: established.round_trip.unwrap_or(default.initial_rtt),
            lag_max: default.lag_max,
            ecn,
            limits: Limits::agent(),
        },
    )
}
