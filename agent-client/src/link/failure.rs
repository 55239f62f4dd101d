//! Why a connection failed: in words for people, a code for programs, and how patient to be about it.

use dtls_channel::CloseReason;
use metadata_delivery::CloseCode;

use crate::status::LinkError;

/// The end of a connection, or of an attempt at one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A stable word for it.
    pub code: &'static str,
    /// What happened.
    pub text: String,
    /// What to try.
    pub hint: Option<String>,
    /// What it means for the next attempt.
    pub kind: Kind,
}

/// What a failure means for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The other side was not reached, or got lost: soon again, then more rarely.
    Unreachable,
    /// The server stops, most often to be started again: soon again, but not all agents at once.
    ServerStops,
    /// One side does not want the other. Trying helps only once somebody has changed something.
    Refused,
    /// This agent is connected from elsewhere: being quick would only throw that one out.
    Superseded,
}

impl Failure {
    /// The server was not reached.
    pub fn unreachable(server: &str, why: impl std::fmt::Display) -> Self {
        Self {
            code: "unreachable",
            text: format!("server {server} was not reached: {why}"),
            hint: Some(format!("check that metadata-server runs and that UDP to {server} is open")),
            kind: Kind::Unreachable,
        }
    }

    /// The server has stopped answering.
    pub fn lost(server: &str) -> Self {
        Self {
            code: "lost",
            text: format!("server {server} stopped answering"),
            hint: None,
            kind: Kind::Unreachable,
        }
    }

    /// The channel ended below us.
    pub fn of_channel(server: &str, reason: &CloseReason) -> Self {
        match reason {
            CloseReason::PeerRefused(refused) => Self {
                code: "server_not_pinned",
                text: format!("server {server} refused: {refused}"),
                hint: Some(
                    "compare the fingerprints with the server's own; if its key was replaced on purpose, \
                     enroll again: metadata-server enroll ID there, agent-client enroll --replace --token-file FILE here"
                        .into(),
                ),
                kind: Kind::Refused,
            },
            CloseReason::CloseNotify => Self {
                code: "closed",
                text: format!("server {server} closed the connection"),
                hint: None,
                kind: Kind::Unreachable,
            },
            CloseReason::PeerFault(_) | CloseReason::Mismatch(_) => Self {
                code: "handshake",
                text: format!("server {server}: {reason}"),
                hint: Some("check that the address is that of a metadata-server, and both versions".into()),
                kind: Kind::Unreachable,
            },
            other => Self::unreachable(server, other),
        }
    }

    /// The server hung up and said why.
    pub fn of_close(server: &str, agent: &str, code: CloseCode, reason: &str) -> Self {
        let enroll = format!(
            "on the server run: metadata-server enroll {agent}; then here: agent-client enroll --token-file FILE"
        );
        let (word, kind, hint) = match code {
            CloseCode::Shutdown => ("server_stops", Kind::ServerStops, None),
            CloseCode::UnknownAgent => ("unknown_agent", Kind::Refused, Some(enroll)),
            CloseCode::PinMismatch => (
                "pin_mismatch",
                Kind::Refused,
                Some(format!("if this machine was rebuilt or its key lost: {enroll}")),
            ),
            CloseCode::TokenExpired => ("token_expired", Kind::Refused, Some(enroll)),
            CloseCode::TokenUsed => ("token_used", Kind::Refused, Some(enroll)),
            CloseCode::TokenForged => ("token_forged", Kind::Refused, Some(enroll)),
            CloseCode::TokenUnknown => ("token_unknown", Kind::Refused, Some(enroll)),
            CloseCode::Superseded => (
                "superseded",
                Kind::Superseded,
                Some(
                    "two agents use one identity: stop one of them, and enroll it on its own"
                        .into(),
                ),
            ),
            CloseCode::ProtocolVersion => (
                "protocol_version",
                Kind::Refused,
                Some("upgrade the older of agent-client and metadata-server".into()),
            ),
            CloseCode::Internal | CloseCode::PeerFault | CloseCode::Other(_) => {
                ("server_error", Kind::Unreachable, Some("see the server's log".into()))
            }
            _ => ("server_error", Kind::Unreachable, None),
        };
        let text = match kind {
            Kind::Refused => format!("server {server} refused this agent: {code}: {reason}"),
            Kind::Unreachable | Kind::ServerStops | Kind::Superseded => {
                format!("server {server} closed the connection: {code}: {reason}")
            }
        };
        Self { code: word, text, hint, kind }
    }

    /// The server did something it must not.
    pub fn broken(server: &str, what: impl std::fmt::Display) -> Self {
        Self {
            code: "protocol",
            text: format!("server {server} broke the protocol: {what}"),
            hint: Some("check that both sides have the same version".into()),
            kind: Kind::Unreachable,
        }
    }

    /// For the status file.
    pub fn shown(&self) -> LinkError {
        LinkError {
            code: self.code.into(),
            text: self.text.clone(),
            hint: self.hint.clone(),
            refused: self.kind == Kind::Refused,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a refusal is about the document itself, so that it would be the same at any time.
pub fn is_for_good(refusal_code: u16) -> bool {
    use metadata_delivery::refusal::{APPLICATION_FIRST, ENCODING, NAME, TOO_LARGE};
    refusal_code >= APPLICATION_FIRST || matches!(refusal_code, TOO_LARGE | NAME | ENCODING)
}

#[cfg(test)]
mod tests {
    use dtls_channel::PeerRefused;

    use super::*;

    #[test]
    fn every_close_code_has_a_word_a_kind_and_where_it_helps_a_hint() {
        let codes = [
            CloseCode::Shutdown,
            CloseCode::Internal,
            CloseCode::PeerFault,
            CloseCode::ProtocolVersion,
            CloseCode::Superseded,
            CloseCode::UnknownAgent,
            CloseCode::PinMismatch,
            CloseCode::TokenExpired,
            CloseCode::TokenUsed,
            CloseCode::TokenForged,
            CloseCode::TokenUnknown,
            CloseCode::Other(999),
        ];
        let mut table = String::new();
        for code in codes {
            let failure = Failure::of_close("s:1", "vm-1", code, "REASON");
            let hint = failure.hint.as_deref().unwrap_or("-");
            table.push_str(&format!(
                "{} {:?}\n  {failure}\n  try: {hint}\n",
                failure.code, failure.kind
            ));
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_server_with_another_key_is_a_refusal_that_names_both_keys() {
        let refused = PeerRefused("key sha-256 AA is not pinned; expected sha-256 BB".into());
        let failure = Failure::of_channel("s:1", &CloseReason::PeerRefused(refused));
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.text.contains("key sha-256 AA is not pinned; expected sha-256 BB"));
        assert!(failure.shown().refused && failure.shown().hint.is_some());
    }

    #[test]
    fn a_refusal_is_for_good_unless_it_is_about_the_moment() {
        use metadata_delivery::refusal;
        for code in [refusal::TOO_LARGE, refusal::NAME, refusal::ENCODING, 0x100, 0xffff] {
            assert!(is_for_good(code), "{code}");
        }
        for code in [refusal::TOO_MANY, refusal::DIGEST, refusal::SUPERSEDED, refusal::BASE] {
            assert!(!is_for_good(code), "{code}");
        }
    }
}
