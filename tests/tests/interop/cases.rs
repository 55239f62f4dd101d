//! What is tried with each peer.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use data_encoding::HEXLOWER;
use dtls_channel::{
    AddressChange, CipherSuite, CloseReason, Config, ConnectionId, ConnectionIdMode, KeyLog,
    Mismatch, TicketKeys, Timers,
};
use system_tests::{MTUS, PemIdentity, Role};

use crate::exceptions;
use crate::meeting::Meeting;
use crate::peers::Peer;

/// Lengths in bytes of our connection id and the peer's. wolfSSL takes up to 10.
const CONNECTION_ID_LENGTHS: [(usize, usize); 5] = [(8, 6), (1, 0), (0, 10), (10, 1), (0, 0)];
/// A client that moves has another port after so many datagrams; the first come before the
/// handshake's end.
const DATAGRAMS_AT_A_PORT: u64 = 7;

/// What may fail is tried so often, and so long each time.
const SEEDS_OF_EXCEPTIONS: u64 = 2;
const PATIENCE_WITH_EXCEPTIONS: Duration = Duration::from_secs(15);

/// One thing to be tried with one peer in one role.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) peer: &'static Peer,
    pub(crate) our_role: Role,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What {
    /// A handshake with both sides pinned, lines echoed, an orderly end.
    Echo { suite: CipherSuite, mtu: usize, lossy: bool },
    /// A session made, ended, and resumed by its ticket.
    Resume,
    /// Connection ids of these lengths in bytes. If the client moves, it has another port every few
    /// datagrams.
    ConnectionIds { ours: usize, theirs: usize, moving: bool },
    /// Both write the same key log.
    KeyLog,
    /// The peer has another certificate than the one we want.
    WeRefuse,
    /// The peer wants another certificate than ours.
    TheyRefuse,
    /// The peer leaves out the extended master secret: admitted by setting only.
    WithoutEms,
    /// The server leaves out `renegotiation_info`: admitted by setting only.
    WithoutRenegotiationInfo,
}

/// All cases of these peers.
pub(crate) fn all(peers: impl IntoIterator<Item = &'static Peer>) -> Vec<Case> {
    let mut cases = Vec::new();
    for peer in peers {
        for our_role in [Role::Client, Role::Server] {
            let mut add = |what| cases.push(Case { peer, our_role, what });
            for &suite in peer.suites {
                for mtu in MTUS {
                    add(What::Echo { suite, mtu, lossy: false });
                    add(What::Echo { suite, mtu, lossy: true });
                }
            }
            add(What::WeRefuse);
            add(What::TheyRefuse);
            if peer.tickets {
                add(What::Resume);
            }
            if peer.connection_ids {
                for (ours, theirs) in CONNECTION_ID_LENGTHS {
                    add(What::ConnectionIds { ours, theirs, moving: false });
                    // A server knows a client that moves by its own id only.
                    let servers = if our_role == Role::Server { ours } else { theirs };
                    if servers > 0 {
                        add(What::ConnectionIds { ours, theirs, moving: true });
                    }
                }
            }
            if peer.key_log.contains(&our_role) {
                add(What::KeyLog);
            }
            if peer.without_ems.contains(&our_role) {
                add(What::WithoutEms);
            }
            if peer.without_renegotiation_info && our_role == Role::Client {
                add(What::WithoutRenegotiationInfo);
            }
        }
    }
    cases
}

/// Who takes part. Made once: keys have no bearing on what is tried.
struct Identities {
    ours: PemIdentity,
    theirs: PemIdentity,
    stranger: PemIdentity,
}

impl Identities {
    fn new(one: fn() -> PemIdentity) -> Self {
        Self { ours: one(), theirs: one(), stranger: one() }
    }

    fn of(peer: &Peer) -> &'static Self {
        static USUAL: OnceLock<Identities> = OnceLock::new();
        static WITH_AN_END: OnceLock<Identities> = OnceLock::new();
        if peer.wants_an_end {
            WITH_AN_END.get_or_init(|| Self::new(PemIdentity::until_2099))
        } else {
            USUAL.get_or_init(|| Self::new(PemIdentity::new))
        }
    }
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let what = match self.what {
            What::Echo { suite, mtu, lossy } => {
                let suite = match suite {
                    CipherSuite::Aes128GcmSha256 => "aes128",
                    CipherSuite::Aes256GcmSha384 => "aes256",
                    CipherSuite::Chacha20Poly1305Sha256 => "chacha",
                };
                format!("echo/{suite}/{mtu}/{}", if lossy { "lossy" } else { "direct" })
            }
            What::Resume => "resume".into(),
            What::ConnectionIds { ours, theirs, moving } => {
                format!("cid/{ours}/{theirs}{}", if moving { "/moving" } else { "" })
            }
            What::KeyLog => "key-log".into(),
            What::WeRefuse => "we-refuse".into(),
            What::TheyRefuse => "they-refuse".into(),
            What::WithoutEms => "without-ems".into(),
            What::WithoutRenegotiationInfo => "without-renegotiation-info".into(),
        };
        let role = match self.our_role {
            Role::Client => "client",
            Role::Server => "server",
        };
        format!("{}/we-are-{role}/{what}", self.peer.name)
    }

    /// Long ones go first, so that none is left alone at the end.
    pub(crate) fn is_quick(&self) -> bool {
        !matches!(self.what, What::Echo { lossy: true, .. })
    }

    pub(crate) fn run(&self) -> Result<(), String> {
        match self.what {
            What::Echo { suite, mtu, lossy } => self.echo(suite, mtu, lossy),
            What::Resume => self.resume(),
            What::ConnectionIds { ours, theirs, moving } => {
                self.connection_ids(ours, theirs, moving)
            }
            What::KeyLog => self.key_log(),
            What::WeRefuse => self.we_refuse(),
            What::TheyRefuse => self.they_refuse(),
            What::WithoutEms => self.without(
                ("EMS", "0"),
                Mismatch::ExtendedMasterSecret,
                Config::admitting_peers_without_ems,
            ),
            What::WithoutRenegotiationInfo => self.without(
                ("RENEGOTIATION_INFO", "0"),
                Mismatch::RenegotiationInfo,
                Config::admitting_servers_without_renegotiation_info,
            ),
        }
    }

    fn config(&self) -> Config {
        let who = Identities::of(self.peer);
        let config = who.ours.config(&who.theirs);
        if self.peer.lacks_renegotiation_info {
            return config.admitting_servers_without_renegotiation_info();
        }
        config
    }

    fn meeting(&self, config: Config) -> Meeting<'static> {
        let who = Identities::of(self.peer);
        Meeting::new(self.peer, self.our_role, config, &who.theirs, &who.ours)
    }

    fn echo(&self, suite: CipherSuite, mtu: usize, lossy: bool) -> Result<(), String> {
        let meeting = || self.meeting(self.config().with_mtu(mtu)).with_suite(suite).with_mtu(mtu);
        if !lossy {
            return meeting().run().map(drop);
        }
        if exceptions::reason(self).is_none() {
            return meeting().over_a_bad_network(self.seed()).run().map(drop);
        }
        let mut why = String::new();
        for nth in 0..SEEDS_OF_EXCEPTIONS {
            let seed = self.seed().wrapping_add(nth);
            let meeting =
                meeting().over_a_bad_network(seed).with_patience(PATIENCE_WITH_EXCEPTIONS);
            match meeting.run() {
                Ok(_) => return Ok(()),
                Err(what) => why = what,
            }
        }
        Err(why)
    }

    /// Another one for each case, the same in each run, unless INTEROP_SEED says otherwise.
    fn seed(&self) -> u64 {
        let other = std::env::var("INTEROP_SEED").map_or(0, |seed| seed.parse().unwrap());
        // FNV-1a
        self.name().bytes().fold(0xcbf2_9ce4_8422_2325 ^ other, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    fn resume(&self) -> Result<(), String> {
        let keys = TicketKeys::random().map_err(|error| error.to_string())?;
        let config = self.config().asking_for_tickets();
        let config = config.with_ticket_keys(Arc::new(keys), Duration::from_secs(3_600));
        self.meeting(config).resuming().run().map(drop)
    }

    fn connection_ids(&self, ours: usize, theirs: usize, moving: bool) -> Result<(), String> {
        const BYTES: [u8; 10] = [0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x17, 0x28, 0x39, 0x4a];
        let our_id = ConnectionId::new(&BYTES[..ours]).unwrap();
        let their_id = ConnectionId::new(&BYTES[BYTES.len() - theirs..]).unwrap();
        let mode = if ours == 0 {
            ConnectionIdMode::Empty
        } else {
            ConnectionIdMode::Given(our_id.clone())
        };
        // wolfSSL has no return routability check.
        let config = self.config().with_connection_id(mode);
        let config = config.with_address_change(AddressChange::AfterNewestRecord);
        let hex = HEXLOWER.encode(&BYTES[BYTES.len() - theirs..]);
        let hex = if hex.is_empty() { "-" } else { &hex };
        let mut meeting = self.meeting(config).with_variable("CID", hex).with_their_word("cid=yes");
        if moving {
            meeting = meeting.moving(DATAGRAMS_AT_A_PORT);
        }
        let met = meeting.run()?;
        let ids = met.established.connection_id.ok_or("there are no connection ids")?;
        if (&ids.ours, &ids.theirs) != (&our_id, &their_id) {
            return Err(format!("other ids: {ids:?}"));
        }
        if moving && self.our_role == Role::Server && met.moves == 0 {
            return Err("we never followed".into());
        }
        Ok(())
    }

    fn key_log(&self) -> Result<(), String> {
        let ours = Arc::new(Lines::default());
        let theirs = tempfile::NamedTempFile::new().unwrap();
        let path = theirs.path().to_str().unwrap();
        let config = self.config().with_key_log(ours.clone());
        self.meeting(config).with_variable("KEYLOG", path).run()?;
        let ours = ours.0.lock().unwrap().join("\n").to_lowercase();
        let theirs = std::fs::read_to_string(path).unwrap().to_lowercase();
        let theirs: Vec<_> = theirs.lines().filter(|l| l.starts_with("client_random ")).collect();
        if ours.is_empty() || theirs != [ours.as_str()] {
            return Err(format!("{} lines of theirs are not our one", theirs.len()));
        }
        Ok(())
    }

    fn we_refuse(&self) -> Result<(), String> {
        let who = Identities::of(self.peer);
        let config = self.config();
        let meeting = Meeting::new(self.peer, self.our_role, config, &who.stranger, &who.ours);
        let refused = meeting.run_to_refusal()?;
        match refused.reason {
            CloseReason::PeerRefused(_) if refused.peer_failed => Ok(()),
            reason => Err(format!("{reason}; they failed: {}", refused.peer_failed)),
        }
    }

    fn they_refuse(&self) -> Result<(), String> {
        let who = Identities::of(self.peer);
        let timers = Timers {
            alert_grace: Duration::from_millis(200),
            give_up: Duration::from_secs(5),
            ..Timers::default()
        };
        let config = self.config().with_timers(timers);
        let meeting = Meeting::new(self.peer, self.our_role, config, &who.theirs, &who.stranger);
        let refused = meeting.run_to_refusal()?;
        match refused.reason {
            CloseReason::PeerAlert(_) if refused.peer_failed => Ok(()),
            CloseReason::TimedOut if refused.peer_failed && self.peer.refuses_in_silence => Ok(()),
            reason => Err(format!("{reason}; they failed: {}", refused.peer_failed)),
        }
    }

    /// Without a setting the handshake ends with `mismatch`, with it all is well.
    fn without(
        &self,
        (name, value): (&str, &str),
        mismatch: Mismatch,
        admitting: fn(Config) -> Config,
    ) -> Result<(), String> {
        let refused = self.meeting(self.config()).with_variable(name, value).run_to_refusal()?;
        if refused.reason != CloseReason::Mismatch(mismatch.clone()) {
            return Err(format!("without the setting: {}", refused.reason));
        }
        let config = admitting(self.config());
        let met = self.meeting(config).with_variable(name, value).run()?;
        if met.established.extended_master_secret == (mismatch == Mismatch::ExtendedMasterSecret) {
            return Err("the peer had all of it".into());
        }
        Ok(())
    }
}

/// A key log in memory.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl KeyLog for Lines {
    fn log(&self, line: &str) {
        self.0.lock().unwrap().push(line.into());
    }
}
