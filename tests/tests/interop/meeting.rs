//! One handshake with one peer, and what follows it.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use dtls_channel::{CipherSuite, CloseReason, Config, Established, Event, Session};
use ring::digest::{SHA256, digest};
use system_tests::{Disturbance, Node, PemIdentity, Process, Relay, Role, lines};

use crate::peers::Peer;

/// How long a meeting may take. Peers' own timers end at a minute or so.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_WITH_LOSSES: Duration = Duration::from_secs(75);
/// A line of ours whose echo does not come is sent again after this.
const RESEND: Duration = Duration::from_millis(300);
/// How often the peer's output is looked at while we wait for the network.
const GLANCE: Duration = Duration::from_millis(20);

/// Who meets how.
#[derive(Debug)]
pub(crate) struct Meeting<'a> {
    peer: &'static Peer,
    our_role: Role,
    config: Config,
    theirs: &'a PemIdentity,
    their_pin: &'a PemIdentity,
    suite: Option<CipherSuite>,
    mtu: usize,
    variables: Vec<(String, String)>,
    network: Option<(u64, Disturbance)>,
    patience: Duration,
    resuming: bool,
    their_word: &'static str,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) established: Established,
    /// Times that we followed the peer to another address.
    pub(crate) moves: usize,
}

/// How it did not.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: CloseReason,
    /// The peer's program reported a failure.
    pub(crate) peer_failed: bool,
}

/// The two programs and what is between.
struct Ends {
    node: Node,
    /// Where the client finds the server.
    server: SocketAddr,
    relay: Option<Relay>,
    process: Process,
    deadline: Instant,
    moves: usize,
}

impl<'a> Meeting<'a> {
    /// The peer is `theirs` and wants `their_pin`.
    pub(crate) fn new(
        peer: &'static Peer,
        our_role: Role,
        config: Config,
        theirs: &'a PemIdentity,
        their_pin: &'a PemIdentity,
    ) -> Self {
        Self {
            peer,
            our_role,
            config,
            theirs,
            their_pin,
            suite: None,
            mtu: 1_200,
            variables: Vec::new(),
            network: None,
            patience: PATIENCE,
            resuming: false,
            their_word: "",
        }
    }

    /// The only suite that the peer has.
    pub(crate) fn with_suite(mut self, suite: CipherSuite) -> Self {
        self.suite = Some(suite);
        self.with_variable("SUITE", suite.name())
    }

    /// The peer's datagram size, in bytes; lines of ours fit it too.
    pub(crate) fn with_mtu(mut self, mtu: usize) -> Self {
        self.mtu = mtu;
        self.with_variable("MTU", &mtu.to_string())
    }

    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub(crate) fn over_a_bad_network(mut self, seed: u64) -> Self {
        self.network = Some((seed, Disturbance::lossy()));
        self.patience = PATIENCE_WITH_LOSSES;
        self
    }

    /// The client has another port after every so many datagrams.
    pub(crate) fn moving(mut self, datagrams: u64) -> Self {
        self.network = Some((1, Disturbance::rebinding(datagrams)));
        self
    }

    /// What the peer's `PEER` line has to contain.
    pub(crate) fn with_their_word(mut self, word: &'static str) -> Self {
        self.their_word = word;
        self
    }

    pub(crate) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// A first association is opened and closed at once, and the second resumes it.
    pub(crate) fn resuming(mut self) -> Self {
        self.resuming = true;
        self.with_variable("RESUME", "1")
    }

    /// A handshake, lines echoed, an orderly end.
    pub(crate) fn run(self) -> Result<Met, String> {
        let mut ends = self.start()?;
        let met = self.converse(&mut ends);
        met.map_err(|why| ends.explain(&why, self.network.as_ref().map(|(seed, _)| *seed)))
    }

    /// A handshake that one of the two ends.
    pub(crate) fn run_to_refusal(self) -> Result<Refused, String> {
        let mut ends = self.start()?;
        let refused = loop {
            match ends.event("the end") {
                // A client may be done before its server refuses it.
                Ok(Event::Established(_)) if self.our_role == Role::Client => {}
                Ok(Event::Closed(reason)) => {
                    let status = ends.status()?;
                    break Ok(Refused { reason, peer_failed: !status.success() });
                }
                Ok(other) => break Err(format!("instead of the end: {other:?}")),
                Err(why) => break Err(why),
            }
        };
        refused.map_err(|why| ends.explain(&why, None))
    }

    fn start(&self) -> Result<Ends, String> {
        let deadline = Instant::now() + self.patience;
        let mut command = self.peer.command();
        command.env("PEER_CERT", self.their_pin.certificate_pem());
        command.env("TIMEOUT", (self.patience.as_secs() + 5).to_string());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let relay = |server| {
            let network = self.network.clone();
            network.map(|(seed, disturbance)| Relay::start(server, seed, disturbance))
        };
        let own = [self.theirs.certificate_pem(), self.theirs.key_pem()];
        match self.our_role {
            Role::Server => {
                let node = Node::serve(self.config.clone());
                let relay = relay(node.address());
                let server = relay.as_ref().map_or_else(|| node.address(), Relay::address);
                command.args(["client", "127.0.0.1", &server.port().to_string()]).args(own);
                let process = Process::start(&mut command);
                Ok(Ends { node, server, relay, process, deadline, moves: 0 })
            }
            Role::Client => {
                let mut process = Process::start(command.args(["server", "0"]).args(own));
                let server = process
                    .find_line(deadline, |line| {
                        line.strip_prefix("listening on ")?.parse::<SocketAddr>().ok()
                    })
                    .ok_or_else(|| format!("does not listen\n{process}"))?;
                let relay = relay(server);
                let server = relay.as_ref().map_or(server, Relay::address);
                let node = Node::connect(server, self.config.clone());
                Ok(Ends { node, server, relay, process, deadline, moves: 0 })
            }
        }
    }

    fn converse(&self, ends: &mut Ends) -> Result<Met, String> {
        let mut established = ends.established()?;
        self.check(&established)?;
        if self.resuming {
            self.begin_anew(ends, established.session.take())?;
            established = ends.established()?;
            self.check(&established)?;
            if !established.resumed {
                return Err("the second association was not resumed".into());
            }
        }
        // Repeated losses of full datagrams make smaller ones.
        let mut lines = lines(if ends.relay.is_some() { self.mtu.min(700) } else { self.mtu });
        if self.moves() {
            lines.extend((4..20).map(|n| format!("message {n}")));
        }
        match self.our_role {
            Role::Client => ends.send_lines(&lines)?,
            Role::Server => ends.echo_lines(&lines)?,
        }
        if self.moves() && ends.relay.as_ref().is_none_or(|relay| relay.stats().rebound == 0) {
            return Err("the client never moved".into());
        }
        // A goodbye is said once.
        if let Some(relay) = &ends.relay {
            relay.calm();
        }
        match self.our_role {
            Role::Client => ends.node.close(),
            Role::Server => ends.process.close_stdin(),
        }
        let wanted = match self.our_role {
            Role::Client => CloseReason::Local,
            Role::Server => CloseReason::CloseNotify,
        };
        ends.closed(&wanted)?;
        let status = ends.status()?;
        if !status.success() {
            return Err(format!("the peer's program ended with {status}"));
        }
        self.check_their_word(ends)?;
        Ok(Met { established, moves: ends.moves })
    }

    /// Ends the first association and begins the second.
    fn begin_anew(&self, ends: &mut Ends, session: Option<Session>) -> Result<(), String> {
        match self.our_role {
            Role::Server => ends.closed(&CloseReason::CloseNotify),
            Role::Client => {
                let session = session.ok_or("they gave us no ticket")?;
                ends.node.close();
                ends.closed(&CloseReason::Local)?;
                ends.node = Node::resume(ends.server, self.config.clone(), session);
                Ok(())
            }
        }
    }

    fn check(&self, established: &Established) -> Result<(), String> {
        if self.suite.is_some_and(|suite| suite != established.suite) {
            return Err(format!("we agreed on {:?}", established.suite));
        }
        let theirs = self.theirs.certificate();
        let fingerprint = established.peer_fingerprint;
        if fingerprint.is_none_or(|known| known != digest(&SHA256, theirs).as_ref()) {
            return Err("they have another certificate".into());
        }
        if established.peer_certificate.as_deref().is_some_and(|known| known != theirs) {
            return Err("they have another certificate than their fingerprint says".into());
        }
        Ok(())
    }

    fn moves(&self) -> bool {
        self.network.as_ref().is_some_and(|(_, network)| network.rebind_every.is_some())
    }

    /// What their `PEER` line says.
    fn check_their_word(&self, ends: &Ends) -> Result<(), String> {
        let text = ends.process.text();
        let word = text.lines().rfind(|line| line.starts_with("PEER ")).ok_or("no PEER line")?;
        if self.resuming != word.contains(" resumed=yes") {
            return Err(format!("they say: {word}"));
        }
        if !word.contains(self.their_word) {
            return Err(format!("they say: {word}"));
        }
        match self.suite {
            Some(suite) if !word.contains(&format!(" suite={} ", suite.name())) => {
                Err(format!("they say: {word}"))
            }
            _ => Ok(()),
        }
    }
}

impl Ends {
    /// The next event, but for moves, which are counted.
    fn next(&mut self, patience: Duration) -> Option<Event> {
        match self.node.event(patience) {
            Some(Event::PathChanged { .. }) => {
                self.moves += 1;
                None
            }
            event => event,
        }
    }

    /// The next event; an early end of the peer's program does not wait for the deadline.
    fn event(&mut self, wanted: &str) -> Result<Event, String> {
        let mut ended_at = None;
        loop {
            if let Some(event) = self.next(GLANCE) {
                return Ok(event);
            }
            let now = Instant::now();
            if !self.process.is_running() {
                let ended_at = *ended_at.get_or_insert(now);
                // What it sent last may still be on its way, and alerts are believed late.
                if now > ended_at + Duration::from_secs(8) {
                    return Err(format!("the peer's program ended, {wanted} did not come"));
                }
            }
            if now > self.deadline {
                return Err(format!("{wanted} did not come in time"));
            }
        }
    }

    fn established(&mut self) -> Result<Established, String> {
        match self.event("the handshake's end")? {
            Event::Established(established) => Ok(*established),
            other => Err(format!("instead of the handshake's end: {other:?}")),
        }
    }

    fn closed(&mut self, wanted: &CloseReason) -> Result<(), String> {
        loop {
            match self.event("the end")? {
                Event::Closed(reason) if reason == *wanted => return Ok(()),
                // Late repetitions of what was answered already.
                Event::Message { .. } if self.relay.is_some() => {}
                other => return Err(format!("instead of {wanted}: {other:?}")),
            }
        }
    }

    fn status(&mut self) -> Result<ExitStatus, String> {
        let status = self.process.ended(self.deadline);
        status.ok_or_else(|| format!("the peer's program does not end\n{}", self.process))
    }

    /// Each line until it is echoed.
    fn send_lines(&mut self, lines: &[String]) -> Result<(), String> {
        for line in lines {
            let line = format!("{line}\n");
            let mut resend = Instant::now();
            loop {
                let now = Instant::now();
                if now > self.deadline {
                    return Err("an echo did not come in time".into());
                }
                if now >= resend {
                    self.node.send(line.as_bytes());
                    // Only a bad network excuses that one does not come.
                    resend = if self.relay.is_some() { now + RESEND } else { self.deadline };
                }
                match self.next(resend.saturating_duration_since(now)) {
                    Some(Event::Message { data, .. }) if data == line.as_bytes() => break,
                    Some(Event::Message { .. }) if self.relay.is_some() => {}
                    Some(other) => return Err(format!("instead of an echo: {other:?}")),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Echoes until the peer's program has printed all lines.
    fn echo_lines(&mut self, lines: &[String]) -> Result<(), String> {
        for line in lines {
            self.process.write_line(line);
        }
        let mut got = Vec::new();
        for line in lines {
            while self
                .process
                .find_line(Instant::now(), |echo| (echo == line).then_some(()))
                .is_none()
            {
                if Instant::now() > self.deadline || !self.process.is_running() {
                    return Err("they did not see their echo".into());
                }
                match self.next(GLANCE) {
                    Some(Event::Message { data, .. }) => {
                        self.node.send(&data);
                        got.push(String::from_utf8_lossy(&data).trim_end().to_owned());
                    }
                    Some(other) => return Err(format!("instead of a line: {other:?}")),
                    None => {}
                }
            }
        }
        if self.relay.is_none() && got != lines {
            return Err(format!("we got {} lines instead of {}", got.len(), lines.len()));
        }
        Ok(())
    }

    /// A failure with all that is known.
    fn explain(self, why: &str, seed: Option<u64>) -> String {
        let relay = self.relay.as_ref().map(Relay::stats);
        let seed = seed.map_or(String::new(), |seed| format!("\nseed: {seed}, relay: {relay:?}"));
        format!("{why}{seed}\nour counters: {:?}\n{}", self.node.stop(), self.process)
    }
}
