//! The hub on a virtual clock: every phase, every refusal, and what one agent can reach of another.

use bytes::Bytes;
use certs::EnrolmentToken;
use certs::token::TokenRecord;
use metadata_delivery::message::{
    DeploymentProgress, DeploymentState, Enrol, Hex32, Message, ResultStatus, Welcome,
    metadata_name,
};
use metadata_delivery::{Document, Name};

use super::*;
use crate::store::{DocumentHead, Dropped, Enrolment, Kept, PinOrigin, StoreError, StoredDocument};

mod entry;
mod follow;
mod signals;
mod traffic;

const EXPORTER: [u8; 32] = [9; 32];
const START_MS: u64 = 1_000_000;

fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

fn key(byte: u8) -> Fingerprint {
    Fingerprint::from_bytes([byte; 32])
}

fn pin(byte: u8, id: &str) -> PinRecord {
    PinRecord {
        fingerprint: key(byte),
        agent_id: agent(id),
        origin: PinOrigin::Token,
        added_unix_ms: 0,
    }
}

fn hello(id: &str) -> Hello {
    Hello {
        protocol: 1,
        agent_id: id.into(),
        software: "test/1".into(),
        boot_id: "boot".into(),
        enrol: None,
        holds: None,
    }
}

fn stored(version: u64, text: &str) -> StoredDocument {
    let body = Bytes::copy_from_slice(text.as_bytes());
    let head = DocumentHead {
        version,
        sha256: Hex32::sha256_of(&body),
        bytes: body.len() as u64,
        deployments: 1,
        accepted_unix_ms: 1,
    };
    StoredDocument { head, body }
}

fn result(config_id: &str) -> DeploymentResult {
    DeploymentResult {
        config_id: config_id.into(),
        name: "n".into(),
        group: "script".into(),
        action: "CREATE".into(),
        document_version: 1,
        status: ResultStatus::Complete,
        deploy_stdout: String::new(),
        deploy_stderr: String::new(),
        deploy_status_code: 0,
        outputs: serde_json::Map::new(),
        reason: None,
        started_unix_ms: 1,
        finished_unix_ms: 2,
        rerun: None,
    }
}

/// A token for an agent, and a hello that proves it over the channel of these tests.
fn token(id: &str, seen: u8, expires_unix: u64) -> (TokenRecord, Hello) {
    let servers = vec!["a.example:1".into()];
    let (token, record) = EnrolmentToken::issue(servers, key(0), agent(id), expires_unix).unwrap();
    let proof = Hex32(token.prove(&EXPORTER, &key(seen)));
    let enrol = Enrol { token_id: token.token_id.to_string(), proof };
    (record, Hello { enrol: Some(enrol), ..hello(id) })
}

struct Bench {
    core: Core,
    now: Instant,
    elapsed: Duration,
}

impl Bench {
    fn with_pins(pins: &[(u8, &str)]) -> Self {
        let settings = Settings {
            server: key(0),
            software: "server/1".into(),
            keep_alive: Duration::from_secs(20),
            agents_max: 2000,
        };
        let pins = pins.iter().map(|(byte, id)| pin(*byte, id));
        Self { core: Core::new(settings, pins), now: Instant::now(), elapsed: Duration::ZERO }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, unix_ms: START_MS + self.elapsed.as_millis() as u64 }
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.elapsed += time;
        self.core.handle_timeout(self.moment());
        self.drain()
    }

    fn drain(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.core.poll_action()).collect()
    }

    fn give(&mut self, input: Input) -> Vec<Action> {
        self.core.handle(self.moment(), input);
        self.drain()
    }

    fn establish(&mut self, peer: u64, seen: u8) -> Vec<Action> {
        let remote = SocketAddr::from(([127, 0, 0, 1], 5000 + peer as u16));
        let (peer, fingerprint) = (PeerId(peer), key(seen));
        self.give(Input::Established { peer, fingerprint, exporter: Some(EXPORTER), remote })
    }

    fn say(&mut self, peer: u64, message: &impl Message, version: u64) -> Vec<Action> {
        self.give(Input::Received(PeerId(peer), message.to_document(version).unwrap()))
    }

    /// Connects an agent that has pin `seen` and no document.
    fn connect(&mut self, peer: u64, seen: u8, id: &str) {
        self.begin(peer, seen, id);
        assert_eq!(offered(&self.load(peer, LoadedDocument::None), peer), [welcome()]);
    }

    /// The same, up to the point where its document is asked for.
    fn begin(&mut self, peer: u64, seen: u8, id: &str) {
        self.establish(peer, seen);
        let actions = self.say(peer, &hello(id), 1);
        assert!(actions.contains(&Action::Load(PeerId(peer), agent(id), None)), "{actions:#?}");
    }

    fn load(&mut self, peer: u64, document: LoadedDocument) -> Vec<Action> {
        self.give(Input::Loaded(PeerId(peer), Ok(Loaded { applied_version: None, document })))
    }
}

fn closed(actions: &[Action]) -> (CloseCode, String) {
    actions
        .iter()
        .find_map(|a| match a {
            Action::Close(_, code, reason) => Some((*code, reason.clone())),
            _ => None,
        })
        .unwrap_or_else(|| panic!("not closed: {actions:#?}"))
}

fn refusal_of(actions: &[Action]) -> Refusal {
    actions
        .iter()
        .find_map(|a| match a {
            Action::Tell(Notice::AgentRefused(refusal)) => Some(refusal.clone()),
            _ => None,
        })
        .unwrap_or_else(|| panic!("not refused: {actions:#?}"))
}

/// What a peer was offered: name and version of each document.
fn offered(actions: &[Action], peer: u64) -> Vec<(String, u64)> {
    actions
        .iter()
        .filter_map(|a| match a {
            Action::Offer(to, d) if *to == PeerId(peer) => Some((d.name.to_string(), d.version)),
            Action::Push { peer: to, document, .. } if *to == PeerId(peer) => {
                Some(("metadata".to_owned(), document.head.version))
            }
            _ => None,
        })
        .collect()
}

fn welcome() -> (String, u64) {
    ("welcome".into(), 1)
}

/// The document that a peer's welcome names.
fn newest(actions: &[Action], peer: u64) -> Option<u64> {
    let welcome = actions.iter().find_map(|a| match a {
        Action::Offer(to, d) if *to == PeerId(peer) && d.name.as_str() == "welcome" => {
            Some(Welcome::from_body(&d.body).unwrap())
        }
        _ => None,
    });
    welcome.unwrap_or_else(|| panic!("not welcomed: {actions:#?}")).newest.map(|n| n.version)
}

fn metadata(version: u64) -> Vec<(String, u64)> {
    vec![("metadata".into(), version)]
}

/// Every phase against every kind of input: what becomes of the phase. A change of the rules shows
/// up in this snapshot.
#[test]
fn the_transitions_between_phases_are_these() {
    let phases = ["stranger", "pinned", "looking up", "enrolling", "accepted", "closing"];
    type Make = fn() -> Input;
    let inputs: [(&str, Make); 13] = [
        ("hello of its agent", || Input::Received(PeerId(1), hello("a").to_document(1).unwrap())),
        ("hello of another agent", || {
            Input::Received(PeerId(1), hello("b").to_document(1).unwrap())
        }),
        ("hello with a token", || {
            Input::Received(PeerId(1), token("a", 5, 2000).1.to_document(1).unwrap())
        }),
        ("a result", || Input::Received(PeerId(1), result("x").to_document(1).unwrap())),
        ("token not found", || Input::TokenFound(PeerId(1), Ok(None))),
        ("enrolled", || Input::Enrolled {
            peer: PeerId(1),
            fingerprint: key(5),
            enrolled: Ok(Enrolment::Done { agent: agent("a"), replaced: vec![] }),
        }),
        ("enrolled by another", || Input::Enrolled {
            peer: PeerId(1),
            fingerprint: key(5),
            enrolled: Ok(Enrolment::Used),
        }),
        ("no document", || {
            let loaded = Loaded { applied_version: None, document: LoadedDocument::None };
            Input::Loaded(PeerId(1), Ok(loaded))
        }),
        ("store fails to load", || Input::Loaded(PeerId(1), Err(StoreError::Closed))),
        ("peer misbehaves", || {
            Input::Misbehaved(PeerId(1), CloseCode::PeerFault, "malformed".into())
        }),
        ("peer ends", || Input::Ended(PeerId(1), "bye".into())),
        ("pin removed", || Input::PinRemoved(key(5))),
        ("drain", || Input::Drain),
    ];
    let enter = |phase: &str| {
        let pins: &[(u8, &str)] = match phase {
            "pinned" | "accepted" | "closing" => &[(5, "a")],
            _ => &[],
        };
        let mut bench = Bench::with_pins(pins);
        bench.establish(1, 5);
        match phase {
            "looking up" | "enrolling" => {
                let (record, hello) = token("a", 5, 2000);
                bench.say(1, &hello, 1);
                if phase == "enrolling" {
                    bench.give(Input::TokenFound(PeerId(1), Ok(Some(record))));
                }
            }
            "accepted" | "closing" => {
                bench.say(1, &hello("a"), 1);
                if phase == "closing" {
                    bench.give(Input::Drain);
                }
            }
            _ => {}
        }
        bench
    };
    let phase_of = |core: &Core| match &core.peers[&PeerId(1)].phase {
        Phase::Waiting { .. } => "Waiting",
        Phase::LookingUp { .. } => "LookingUp",
        Phase::Enrolling { .. } => "Enrolling",
        Phase::Accepted(_) => "Accepted",
        Phase::Closing => "Closing",
    };
    let mut table = String::new();
    for phase in phases {
        for (name, input) in &inputs {
            let mut bench = enter(phase);
            let before = phase_of(&bench.core);
            let actions = bench.give(input());
            let after = phase_of(&bench.core);
            let doing: Vec<&str> = actions
                .iter()
                .map(|a| match a {
                    Action::Open(_) => "open",
                    Action::Offer(..) => "offer",
                    Action::Push { .. } => "push",
                    Action::Confirm(..) => "confirm",
                    Action::Refuse { .. } => "refuse document",
                    Action::Close(..) => "close",
                    Action::Hangup(_) => "hang up",
                    Action::LookUpToken(..) => "look up token",
                    Action::Enrol { .. } => "enrol",
                    Action::Load(..) => "load",
                    Action::RaiseVersion(..) => "raise version",
                    Action::SaveResult { .. } => "save result",
                    Action::LookAtSignal { .. } => "look at signal",
                    Action::QueueSignal { .. } => "queue signal",
                    Action::ShowLog(..) | Action::HideLog(_) => "log",
                    Action::SaveAgent(_) => "save agent",
                    Action::SaveStanding(..) => "save standing",
                    Action::Tell(_) => "tell",
                })
                .collect();
            table += &format!("{phase} + {name}: {before} -> {after} [{}]\n", doing.join(", "));
        }
    }
    insta::assert_snapshot!(table);
}
