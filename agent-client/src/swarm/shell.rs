//! The loop around the fleet: the agents' sockets, the log, signals, the clock.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use serde_json::{Value, json};

use super::fleet::{Action, Census, Fleet, Plan};
use super::heard::Heard;
use super::keys::Key;
use super::log::{Keep, Log};
use super::report;
use super::sockets::Sockets;
use crate::pipeline::unix_ms;

/// How long to go on saying goodbye.
const GOODBYE_MS_MAX: u64 = 1_000;
/// A line of progress for programs, and for people.
const PROGRESS_MS: u64 = 1_000;
const PROGRESS_FOR_PEOPLE_MS: u64 = 5_000;
/// Events taken from the kernel at a time. Before the next, documents that are durable by now are confirmed: a crowd
/// that is spoken to at once must not keep each other waiting.
const EVENTS_MAX: usize = 64;
/// While all of a crowd are in sync, datagrams are taken so far apart. Else each of the server's would wake this process, at
/// the expense of the server if it is on the same machine.
const CALM_REST: Duration = Duration::from_millis(10);
/// So many agents are a crowd.
const CROWD_MIN: usize = 1_000;
/// After a datagram of at least this, there is probably another.
const LARGE_DATAGRAM_BYTES_MIN: usize = 1_000;
/// Runs of datagrams taken from one socket before the others get their turn.
const RUNS_PER_TURN_MAX: usize = 16;
/// File descriptors beside the agents' sockets.
const SPARE_FILES: u64 = 64;

/// Who else wakes the loop: numbers that are no agent's.
const WAKE: u64 = u64::MAX;
const SIGNAL: u64 = u64::MAX - 1;

/// What the command line says of the shell's part.
pub(super) struct Run<'a> {
    /// Where keys and documents are.
    pub(super) directory: &'a Path,
    /// Where the server is.
    pub(super) server: SocketAddr,
    /// Addresses that agents send from, in turn; any if there is none.
    pub(super) locals: Vec<IpAddr>,
    /// Whether a document is on the disk before it is confirmed.
    pub(super) sync: bool,
    /// When to end; without it, when told to.
    pub(super) time: Option<Duration>,
    /// Progress and summary as JSON.
    pub(super) json: bool,
}

/// Runs a swarm until its time is over or a signal comes; returns its summary.
///
/// # Errors
/// The system has too few files or sockets, or the log cannot be written.
pub(super) fn run(run: &Run<'_>, plan: Plan, keys: Vec<Key>) -> anyhow::Result<Value> {
    let agents = keys.len();
    allow_files(agents)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC).context("epoll")?;
    // Blocked before there is another thread, so that they come here alone.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("blocking signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("signalfd")?;
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("eventfd")?;
    let wake = Arc::new(wake);
    epoll::add(&epoll, &signals, EventData::new_u64(SIGNAL), EventFlags::IN).context("epoll")?;
    epoll::add(&epoll, &*wake, EventData::new_u64(WAKE), EventFlags::IN).context("epoll")?;
    let waker = Arc::clone(&wake);
    let (log, held) = Log::open(run.directory, run.sync, move || {
        // Full means that the loop has been told.
        let _ = rustix::io::write(&*waker, &1u64.to_ne_bytes());
    })?;
    let held = held.into_iter().filter(|(n, _)| (*n as usize) < agents).collect();
    let now = Instant::now();
    let fleet = Fleet::new(now, plan, keys, held)?;
    let sockets = Sockets::new(epoll, agents, run.server, run.locals.clone());
    let mut shell = Shell {
        fleet,
        sockets,
        log,
        began: now,
        json: run.json,
        agents,
        reached: Census::default(),
        is_calm: false,
    };
    shell.serve(run.time.map(|time| now + time), &signals, &wake)?;
    Ok(shell.summary())
}

struct Shell {
    fleet: Fleet,
    sockets: Sockets,
    log: Log,
    began: Instant,
    json: bool,
    agents: usize,
    /// Where everybody was before the goodbyes.
    reached: Census,
    /// A crowd of which all were in sync when it was last looked, and nothing has come since that is to be kept.
    is_calm: bool,
}

impl Shell {
    fn serve(
        &mut self,
        end: Option<Instant>,
        signals: &SignalFd,
        wake: &OwnedFd,
    ) -> anyhow::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let mut end = end;
        let mut stopping = false;
        let interval = if self.json { PROGRESS_MS } else { PROGRESS_FOR_PEOPLE_MS };
        let interval = Duration::from_millis(interval);
        let mut progress_at = self.began + interval;
        let mut heard = Heard::new(self.began);
        loop {
            let now = Instant::now();
            if end.is_some_and(|at| at <= now) {
                if stopping {
                    self.fleet.end();
                    self.flush();
                    return Ok(());
                }
                self.reached = self.fleet.census();
                self.progress();
                stopping = true;
                end = Some(now + Duration::from_millis(GOODBYE_MS_MAX));
                self.fleet.stop(now);
                self.attend();
            }
            if stopping && self.fleet.is_gone() {
                self.flush();
                return Ok(());
            }
            if progress_at <= now && !stopping {
                progress_at = now + interval;
                self.progress();
            }
            let until =
                [self.fleet.next_timeout(), end, Some(progress_at)].into_iter().flatten().min();
            let mut wait = until.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
            if self.is_calm {
                thread::sleep(wait.min(CALM_REST));
                wait = Duration::ZERO;
            }
            let timeout = Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            };
            events.clear();
            let asked_at = Instant::now();
            match epoll::wait(
                self.sockets.epoll(),
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(anyhow!(error).context("waiting for datagrams")),
            }
            for event in &events {
                match event.data.u64() {
                    SIGNAL => {
                        if signals.read_signal().context("reading a signal")?.is_some() {
                            end = Some(Instant::now());
                        }
                    }
                    WAKE => {
                        let _ = rustix::io::read(wake, &mut [0; 8]);
                    }
                    number => self.receive(number as u32),
                }
                self.attend();
            }
            self.take_kept()?;
            let heard_until = heard.asked(asked_at, events.len() < EVENTS_MAX);
            if self.fleet.next_timeout().is_some_and(|at| at <= heard_until) {
                self.fleet.handle_timeout(heard_until);
                self.attend();
            }
            self.sockets.check()?;
        }
    }

    fn take_kept(&mut self) -> anyhow::Result<()> {
        while let Some(kept) = self.log.kept() {
            let (now, unix_ms) = (Instant::now(), unix_ms());
            for (agent, holds) in kept.context("writing the documents' log")? {
                self.fleet.kept(now, unix_ms, agent, holds);
                self.flush();
            }
        }
        Ok(())
    }

    fn receive(&mut self, number: u32) {
        for _ in 0..RUNS_PER_TURN_MAX {
            let Some(run) = self.sockets.receive(number) else { return };
            self.fleet.handle_run(Instant::now(), number, run.bytes, run.size);
            let may_go_on = run.may_go_on(LARGE_DATAGRAM_BYTES_MIN);
            self.flush();
            if !may_go_on {
                return;
            }
        }
    }

    /// Sends what there is, then does what is to be done.
    fn attend(&mut self) {
        self.flush();
        while let Some(action) = self.fleet.poll_action() {
            match action {
                Action::Keep { agent, holds, body } => {
                    self.is_calm = false;
                    self.log.keep(Keep { agent, holds, body });
                }
                Action::HangUp(agent) => {
                    self.is_calm = false;
                    self.sockets.close(agent);
                }
            }
        }
    }

    fn flush(&mut self) {
        while let Some((agent, bytes, size)) = self.fleet.transmit() {
            self.sockets.send(agent, bytes, size);
            self.fleet.sent();
        }
    }

    fn progress(&mut self) {
        let seconds = self.began.elapsed().as_secs();
        let Census { connected, in_sync, connecting, results_owed } = self.fleet.census();
        let agents = self.agents;
        self.is_calm = agents >= CROWD_MIN && in_sync == agents && results_owed == 0;
        // Nothing is left to do if nobody listens any more.
        if self.json {
            let line = json!({
                "event": "progress", "seconds": seconds, "agents": agents, "connected": connected,
                "in_sync": in_sync, "connecting": connecting, "results_owed": results_owed,
                "newest": self.fleet.tally.newest(),
            });
            let _ = writeln!(io::stdout(), "{line}");
        } else {
            let _ = writeln!(
                io::stderr(),
                "{seconds:>5} s: {connected} of {agents} connected, {in_sync} in sync, {connecting} connecting"
            );
        }
    }

    fn summary(&self) -> Value {
        self.fleet.tally.json(Instant::now(), unix_ms(), self.agents, self.reached)
    }
}

/// Lets this process open a socket for each agent.
fn allow_files(agents: usize) -> anyhow::Result<()> {
    let wanted = agents as u64 + SPARE_FILES;
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).context("asking for the limit of files")?;
    if soft >= wanted {
        return Ok(());
    }
    if hard >= wanted {
        return setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
            .context("raising the limit of files");
    }
    // Whoever may, may raise the hard limit as well.
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
        bail!(
            "{agents} agents need {wanted} open files, and this process may have {hard}; raise it with \
             \"ulimit -n {wanted}\" as root, or take fewer agents"
        );
    }
    Ok(())
}

/// The processor's time that this process has taken, in seconds: as user, and in the system.
pub(super) fn cpu() -> Value {
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    match getrusage(UsageWho::RUSAGE_SELF) {
        Ok(usage) => json!({
            "user_s": seconds(usage.user_time()),
            "system_s": seconds(usage.system_time()),
        }),
        Err(_) => Value::Null,
    }
}

/// Writes the summary.
///
/// # Errors
/// Standard output is gone.
pub(super) fn tell(summary: &Value, json: bool) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if json {
        writeln!(stdout, "{summary}")
    } else {
        stdout.write_all(report::text(summary).as_bytes())
    }
}
