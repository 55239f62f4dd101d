//! Looks for an enrolment token in what the cloud hands over, again and again, until a server has taken one:
//! an agent without one works without a server meanwhile, and the one it has may be refused.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::bootstrap::{Found, Places};
use crate::enrolment::Enrolment;
use crate::machine::System;

/// Between the first two looks; each later pause is twice as long as the last. The metadata service may be
/// later than we are.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The thread that looks; it ends when this is dropped, once it has looked.
#[derive(Debug)]
pub(super) struct Search {
    _stop: mpsc::Sender<()>,
}

/// Whether no server has taken a token.
pub(super) fn is_needed(enrolment: Option<&Enrolment>) -> bool {
    enrolment.is_none_or(|enrolment| enrolment.token().is_some())
}

impl Search {
    /// Begins after the first pause. What is found goes to `found`, each time that it is.
    ///
    /// # Errors
    /// There can be no further thread.
    pub(super) fn start(system: System, found: UnboundedSender<Found>) -> io::Result<Self> {
        Self::start_with(system, found, PAUSE_FIRST)
    }

    fn start_with(
        system: System,
        found: UnboundedSender<Found>,
        mut pause: Duration,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut places = Places::default();
        let search = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
                pause = (pause * 2).min(PAUSE_MAX);
                match places.look(&system) {
                    // Which is wanted is known elsewhere. Nobody listens when the agent ends.
                    Ok(tokens) => tokens.into_iter().for_each(|token| drop(found.send(token))),
                    Err(error) => tracing::debug!(%error, "still no token"),
                }
            }
        };
        thread::Builder::new().name("tokens".into()).spawn(search)?;
        Ok(Self { _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use certs::{EnrolmentToken, Fingerprint};

    use super::*;

    #[test]
    fn a_token_is_looked_for_until_a_server_has_taken_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("enrolment.json");
        let (token, _) = EnrolmentToken::issue(
            vec!["127.0.0.1:4242".to_owned()],
            Fingerprint::from_bytes([7; 32]),
            "vm-1".parse().unwrap(),
            2_000_000_000,
        )
        .unwrap();
        assert!(is_needed(None));
        let (mut enrolment, _) = Enrolment::take(&path, &token, true).unwrap();
        assert!(is_needed(Some(&enrolment)), "it may be refused, also after a restart");
        enrolment.redeemed(&path).unwrap();
        assert!(!is_needed(Some(&enrolment)));
    }

    #[test]
    fn a_token_that_comes_later_is_found() {
        let root = tempfile::tempdir().unwrap();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let system =
            System::below(root.path(), OsStr::new("/usr/bin:/bin"), &format!("http://{nobody}"));
        let (tell, mut found) = tokio::sync::mpsc::unbounded_channel();
        let search = Search::start_with(system.clone(), tell, Duration::from_millis(1)).unwrap();
        let servers = vec!["127.0.0.1:4242".to_owned()];
        let fingerprint = Fingerprint::from_bytes([7; 32]);
        let (token, _) =
            EnrolmentToken::issue(servers, fingerprint, "vm-1".parse().unwrap(), 2_000_000_000)
                .unwrap();
        let place = system.at("/etc/agent-client/token");
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        certs::file::write_atomic(&place, token.encode().as_bytes(), 0o600).unwrap();
        let found_token = found.blocking_recv().unwrap();
        assert_eq!(found_token.token.token_id, token.token_id);
        assert_eq!(found_token.place, "/etc/agent-client/token");
        drop(search);
        // The thread ends, and with it the channel, whatever was found meanwhile.
        while found.blocking_recv().is_some() {}
    }
}
