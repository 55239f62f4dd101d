//! The runner's flags, as far as `dtls-channel` can do what they ask for.

use std::path::PathBuf;
use std::time::Duration;

use dtls_channel::{AlertDescription, ClientCertificate, Group};

/// The engine always verifies these: ECDSA with SHA-256 and SHA-384, and Ed25519.
const VERIFIED_SCHEMES: [u16; 3] = [0x0403, 0x0503, 0x0807];
/// DTLS versions count downwards.
const DTLS_1_2: u16 = 0xfefd;

/// A flag, or a flag's value, that asks for what we do not have.
#[derive(Debug)]
pub(crate) struct ParseError(pub(crate) String);

/// What a test is about.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) port: u16,
    pub(crate) ipv6: bool,
    /// Whether associations live behind an endpoint, whose server asks for a cookie.
    pub(crate) endpoint: bool,
    pub(crate) shim_id: u64,
    /// Connections beyond the first, each with the newest session there is.
    pub(crate) resume_count: usize,
    /// Whether none of these is to be resumed.
    pub(crate) sessions_missed: bool,
    initial: Settings,
    resume: Settings,
}

/// How one of a test's connections behaves.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) server: bool,
    /// What we may present; the engine has one certificate, so more than one cannot be served.
    pub(crate) credentials: Vec<Credential>,
    pub(crate) mtu: Option<usize>,
    pub(crate) groups: Vec<Group>,
    asked_of_client: ClientCertificate,
    verify_peer: bool,
    verdict_is_bad: bool,
    /// The alert for a refused peer.
    pub(crate) refusal: AlertDescription,
    pub(crate) first_resend: Duration,
    pub(crate) require_ems: bool,
    pub(crate) expect_no_peer_certificate: bool,
    pub(crate) writes_first: bool,
    /// Whether the association ends by an alert once it is open.
    pub(crate) sends_alert: bool,
    pub(crate) export: Option<Export>,
    /// Whether a server gives tickets and a client asks for them.
    pub(crate) tickets: bool,
    /// Whether the verdict holds for the peer of a session as well.
    pub(crate) reverify_on_resume: bool,
    pub(crate) expect_ticket_renewal: bool,
}

/// Files with a certificate and its key, in PEM.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credential {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A key to export, and to send as the first message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Export {
    pub(crate) length: usize,
    pub(crate) label: String,
    pub(crate) context: String,
    pub(crate) use_context: bool,
}

impl Options {
    pub(crate) fn parse(arguments: Vec<String>) -> Result<Self, ParseError> {
        let settings = Settings {
            server: false,
            credentials: Vec::new(),
            mtu: None,
            groups: Vec::new(),
            asked_of_client: ClientCertificate::Never,
            verify_peer: false,
            verdict_is_bad: false,
            refusal: AlertDescription::HANDSHAKE_FAILURE,
            first_resend: Duration::from_millis(400),
            require_ems: false,
            expect_no_peer_certificate: false,
            writes_first: false,
            sends_alert: false,
            export: None,
            tickets: true,
            reverify_on_resume: false,
            expect_ticket_renewal: false,
        };
        let mut this = Self {
            port: 0,
            ipv6: false,
            endpoint: false,
            shim_id: 0,
            resume_count: 0,
            sessions_missed: false,
            initial: settings.clone(),
            resume: settings,
        };
        let mut datagrams = false;
        let mut arguments = Arguments { rest: arguments.into_iter(), flag: String::new() };
        while let Some(flag) = arguments.next_flag() {
            match flag.as_str() {
                "-dtls" => datagrams = true,
                "-port" => this.port = arguments.number()?,
                "-shim-id" => this.shim_id = arguments.number()?,
                "-ipv6" => this.ipv6 = true,
                // Ours, by -shim-extra-flags.
                "-behind-endpoint" => this.endpoint = true,
                "-resume-count" => this.resume_count = arguments.number()?,
                "-expect-session-miss" => this.sessions_missed = true,
                // How the caller of another library works; ours has one way.
                "-async"
                | "-implicit-handshake"
                | "-use-early-callback"
                | "-use-old-client-cert-callback"
                | "-use-ticket-callback"
                | "-use-ticket-aead-callback" => {}
                // We give no session ids, and without version 1.3 there is no HelloRetryRequest.
                "-expect-no-session-id" | "-expect-no-session" | "-expect-no-hrr" => {}
                _ => this.setting(&flag, &mut arguments)?,
            }
        }
        if !datagrams {
            return Err(ParseError("TLS over a stream".into()));
        }
        Ok(this)
    }

    /// A flag for the first connection, the others, or all.
    fn setting(&mut self, flag: &str, arguments: &mut Arguments) -> Result<(), ParseError> {
        if let Some(flag) = flag.strip_prefix("-on-initial") {
            return self.initial.set(flag, arguments);
        }
        if let Some(flag) = flag.strip_prefix("-on-resume") {
            return self.resume.set(flag, arguments);
        }
        let before = arguments.clone();
        self.resume.set(flag, &mut before.clone())?;
        self.initial.set(flag, arguments)
    }

    /// The settings of a connection, counted from 0.
    pub(crate) fn settings(&self, number: usize) -> &Settings {
        if number == 0 { &self.initial } else { &self.resume }
    }
}

impl Settings {
    fn set(&mut self, flag: &str, arguments: &mut Arguments) -> Result<(), ParseError> {
        match flag {
            "-server" => self.server = true,
            "-new-x509-credential" => self.credentials.push(Credential::default()),
            "-cert-file" => self.credential().certificate = arguments.value()?.into(),
            "-key-file" => self.credential().key = arguments.value()?.into(),
            // There is no choice.
            "-expect-selected-credential" => drop(arguments.value()?),
            // Whom to trust is the verifier's affair, which here takes all or nobody.
            "-trust-cert" => drop(arguments.value()?),
            "-mtu" => self.mtu = Some(arguments.number()?),
            "-initial-timeout-duration-ms" => {
                self.first_resend = Duration::from_millis(arguments.number()?);
            }
            "-curves" => {
                let number: u16 = arguments.number()?;
                let group = match number {
                    23 => Group::P256,
                    24 => Group::P384,
                    29 => Group::X25519,
                    _ => return Err(ParseError(format!("group {number}"))),
                };
                self.groups.push(group);
            }
            "-verify-peer" => {
                self.verify_peer = true;
                if self.asked_of_client == ClientCertificate::Never {
                    self.asked_of_client = ClientCertificate::Optional;
                }
            }
            "-require-any-client-certificate" => {
                self.asked_of_client = ClientCertificate::Required;
            }
            // The application's own verdict has an alert of its own.
            "-use-custom-verify-callback" => self.refusal = AlertDescription::CERTIFICATE_UNKNOWN,
            "-verify-fail" => self.verdict_is_bad = true,
            // The verdict is the verifier's own, so there is nothing to compare it with.
            "-expect-verify-result" => {}
            "-expect-no-peer-cert" => self.expect_no_peer_certificate = true,
            "-expect-extended-master-secret" => self.require_ems = true,
            "-min-version" | "-max-version" => {
                let version: u16 = arguments.number()?;
                // Versions count downwards; 1.2 must be inside.
                let inside =
                    if flag == "-min-version" { version >= DTLS_1_2 } else { version <= DTLS_1_2 };
                if !inside {
                    return Err(ParseError(format!("{flag} {version:#06x}")));
                }
            }
            "-verify-prefs" => {
                let scheme: u16 = arguments.number()?;
                if !VERIFIED_SCHEMES.contains(&scheme) {
                    return Err(ParseError(format!("signature scheme {scheme:#06x}")));
                }
            }
            // It must not work for DTLS whatever the flag says.
            "-renegotiate-freely" => {}
            "-no-ticket" | "-skip-ticket" => self.tickets = false,
            "-reverify-on-resume" => self.reverify_on_resume = true,
            "-expect-ticket-renewal" => self.expect_ticket_renewal = true,
            "-no-tls1" | "-no-tls11" | "-no-tls13" => {}
            "-shim-writes-first" => self.writes_first = true,
            "-send-alert" => self.sends_alert = true,
            "-export-keying-material" => self.export().length = arguments.number()?,
            "-export-label" => self.export().label = arguments.value()?,
            "-export-context" => self.export().context = arguments.value()?,
            "-use-export-context" => self.export().use_context = true,
            _ => return Err(ParseError(format!("flag {flag}"))),
        }
        Ok(())
    }

    /// A server asks for what the flags say, a client presents what it has been given.
    pub(crate) fn client_certificate(&self) -> ClientCertificate {
        match (self.server, self.credentials.is_empty()) {
            (true, _) => self.asked_of_client,
            (false, true) => ClientCertificate::Never,
            (false, false) => ClientCertificate::Optional,
        }
    }

    /// A bad verdict has consequences only where the test wants the peer verified.
    pub(crate) fn refuses_peer(&self) -> bool {
        self.verify_peer && self.verdict_is_bad
    }

    fn credential(&mut self) -> &mut Credential {
        if self.credentials.is_empty() {
            self.credentials.push(Credential::default());
        }
        let last = self.credentials.len() - 1;
        &mut self.credentials[last]
    }

    fn export(&mut self) -> &mut Export {
        self.export.get_or_insert_default()
    }
}

#[derive(Clone)]
struct Arguments {
    rest: std::vec::IntoIter<String>,
    flag: String,
}

impl Arguments {
    fn next_flag(&mut self) -> Option<String> {
        self.flag = self.rest.next()?;
        Some(self.flag.clone())
    }

    fn value(&mut self) -> Result<String, ParseError> {
        self.rest.next().ok_or_else(|| ParseError(format!("{} without a value", self.flag)))
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, ParseError> {
        let value = self.value()?;
        value.parse().map_err(|_| ParseError(format!("{} {value}", self.flag)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split(' ').map(str::to_owned).collect()).map_err(|e| e.0)
    }

    #[test]
    fn a_flag_that_nobody_knows_is_not_implemented() {
        assert_eq!(parse("-dtls -psk secret").unwrap_err(), "flag -psk");
        assert_eq!(parse("-dtls -mtu").unwrap_err(), "-mtu without a value");
        assert_eq!(parse("-dtls -mtu many").unwrap_err(), "-mtu many");
        assert!(parse("-port 1").is_err(), "TLS over a stream");
    }

    #[test]
    fn version_1_2_must_be_among_those_allowed() {
        for allowed in ["-max-version 65277", "-max-version 65276", "-min-version 65279"] {
            assert!(parse(&format!("-dtls {allowed}")).is_ok(), "{allowed}");
        }
        for other in ["-max-version 65279", "-min-version 65276", "-no-tls12"] {
            assert!(parse(&format!("-dtls {other}")).is_err(), "{other}");
        }
    }

    #[test]
    fn more_connections_resume_unless_a_miss_is_expected() {
        let options = parse("-dtls -resume-count 2 -no-ticket").unwrap();
        assert_eq!((options.resume_count, options.sessions_missed), (2, false));
        assert!(!options.settings(0).tickets && !options.settings(1).tickets);
        let options = parse("-dtls -resume-count 1 -expect-session-miss -verify-peer").unwrap();
        assert!(options.sessions_missed && options.settings(1).tickets);
    }

    #[test]
    fn a_prefixed_flag_is_for_its_connection_and_others_are_for_all() {
        let options = parse("-dtls -verify-peer -on-resume-verify-fail -mtu 300").unwrap();
        let (first, later) = (options.settings(0), options.settings(1));
        assert_eq!((first.mtu, later.mtu), (Some(300), Some(300)));
        assert_eq!((first.refuses_peer(), later.refuses_peer()), (false, true));
    }

    #[test]
    fn a_verdict_has_consequences_only_where_the_peer_is_to_be_verified() {
        assert!(!parse("-dtls -verify-fail").unwrap().settings(0).refuses_peer());
        assert!(parse("-dtls -verify-fail -verify-peer").unwrap().settings(0).refuses_peer());
    }

    #[test]
    fn a_server_asks_for_what_it_is_told_and_a_client_presents_what_it_has() {
        use ClientCertificate::{Never, Optional, Required};

        for (line, expected) in [
            ("-dtls -server", Never),
            ("-dtls -server -verify-peer", Optional),
            ("-dtls -server -require-any-client-certificate -verify-peer", Required),
            ("-dtls -verify-peer", Never),
            ("-dtls -cert-file a -key-file b", Optional),
        ] {
            assert_eq!(parse(line).unwrap().settings(0).client_certificate(), expected, "{line}");
        }
    }
}
