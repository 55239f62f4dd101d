//! The engine's configuration for one connection.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dtls_channel::{
    AlertDescription, Config, Credentials, MTU_MAX, PeerRefused, PeerVerifier, Session, TicketKeys,
    Timers,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::options::Settings;

/// The runner counts messages backwards in groups of this many.
const REPLAY_WINDOW_RECORDS: u16 = 256;
/// The runner expects the resend interval to stop doubling here.
const RESEND_CAP: Duration = Duration::from_secs(60);
/// The runner expects the end of the handshake with the 13th timeout of a flight.
const TIMEOUTS_MAX: u32 = 13;
/// It runs several flights up to that point in one handshake, each of some six minutes.
const GIVE_UP_IN_ALL: Duration = Duration::from_secs(3_600);

/// A hint that nobody here takes.
const TICKET_LIFETIME: Duration = Duration::from_secs(7_200);

/// Takes every peer, or none.
struct Verdict {
    refuse: bool,
    /// What was found good when the session was made is good without a second look: how the runner
    /// wants it unless a test says otherwise.
    trusts_sessions: bool,
    /// The certificate of the session that is to be resumed.
    session_with: Option<Vec<u8>>,
    alert: AlertDescription,
}

impl PeerVerifier for Verdict {
    fn verify(&self, certificate_der: &[u8]) -> Result<(), PeerRefused> {
        let known = self.session_with.as_deref() == Some(certificate_der);
        if self.refuse && !(known && self.trusts_sessions) {
            return Err(PeerRefused("the test says so".into()));
        }
        Ok(())
    }

    fn verify_resumed(&self, _fingerprint: &[u8; 32]) -> Result<(), PeerRefused> {
        if self.refuse && !self.trusts_sessions {
            return Err(PeerRefused("the test says so".into()));
        }
        Ok(())
    }

    fn alert(&self) -> AlertDescription {
        self.alert
    }
}

/// Builds the configuration; the error says what cannot be done.
pub(crate) fn config(
    settings: &Settings,
    keys: &Arc<TicketKeys>,
    session: Option<&Session>,
) -> Result<Arc<Config>, String> {
    let credentials = match &settings.credentials[..] {
        [] => generate()?,
        [one] => load(&one.certificate, &one.key)?,
        several => return Err(format!("a choice of {} certificates", several.len())),
    };
    let timers = Timers {
        first_resend: settings.first_resend,
        resend_cap: RESEND_CAP,
        give_up: schedule(settings.first_resend),
        give_up_in_all: GIVE_UP_IN_ALL,
        // The runner's alerts are never forged.
        alert_grace: Duration::ZERO,
    };
    let verdict = Verdict {
        refuse: settings.refuses_peer(),
        trusts_sessions: !settings.reverify_on_resume,
        session_with: session.map(|session| session.server_certificate().to_vec()),
        alert: settings.refusal,
    };
    let mut config = Config::new(credentials, Arc::new(verdict))
        .with_mtu(settings.mtu.unwrap_or(MTU_MAX))
        .with_timers(timers)
        .with_replay_window(REPLAY_WINDOW_RECORDS)
        .with_client_certificate(settings.client_certificate());
    if settings.tickets {
        config = config.with_ticket_keys(keys.clone(), TICKET_LIFETIME).asking_for_tickets();
    }
    if !settings.groups.is_empty() {
        config = config.with_groups(&settings.groups);
    }
    if !settings.require_ems {
        config = config.admitting_peers_without_ems();
    }
    Ok(Arc::new(config.admitting_servers_without_renegotiation_info()))
}

/// How long all timeouts of a flight take together.
fn schedule(first_resend: Duration) -> Duration {
    (0..TIMEOUTS_MAX).map(|n| (first_resend * (1 << n)).min(RESEND_CAP)).sum()
}

fn load(certificate: &Path, key: &Path) -> Result<Credentials, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let certificate = CertificateDer::from_pem_slice(&read(certificate)?)
        .map_err(|e| format!("{}: {e:?}", certificate.display()))?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&read(key)?)
        .map_err(|e| format!("{}: {e:?}", key.display()))?;
    Credentials::from_der(certificate.to_vec(), key.secret_pkcs8_der()).map_err(|e| e.to_string())
}

/// An identity for a client that the test gives none: it is configured, but never presented.
fn generate() -> Result<Credentials, String> {
    let generate = || {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec![])?.self_signed(&key)?;
        Ok::<_, rcgen::Error>((certificate.der().to_vec(), key.serialize_der()))
    };
    let (certificate, key) = generate().map_err(|e| e.to_string())?;
    Credentials::from_der(certificate, &key).map_err(|e| e.to_string())
}
