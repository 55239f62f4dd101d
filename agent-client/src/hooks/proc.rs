//! What `/proc` says about processes, and the end of hooks that outlived the agent that started them.
//!
//! A hook is found again by its recorded process id and start time. Between its start and the writing of
//! that record the agent may be killed; therefore every hook also carries [`RUN_VARIABLE`], by which it
//! is found without a record.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::journal::ProcessMark;

/// Environment variable of every hook: a name for one run of one config, unique on this machine.
pub const RUN_VARIABLE: &str = "AGENT_CLIENT_RUN";
/// How long killed processes may take to be gone.
const GONE_MS_MAX: u64 = 2_000;
const GONE_POLL_MS: u64 = 5;

/// The kernel's id of this boot; empty where it has none.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// The start time of a live process in clock ticks since boot: field 22 of its `stat`.
pub fn start_ticks(pid: u32) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.start_ticks)
}

/// Whether a child that nobody has reaped has ended.
pub fn is_zombie(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.is_dead)
}

#[derive(Debug, Clone, Copy)]
struct Stat {
    parent: u32,
    group: u32,
    session: u32,
    start_ticks: u64,
    is_dead: bool,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `pid (name) state ppid pgrp session … starttime …`; the name may hold anything, parentheses too.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
            is_dead: matches!(*fields.first()?, "Z" | "X"),
        })
    }
}

/// Kills what is left of a run: the process group of the recorded process, or without a record the one
/// whose leader carries the run's name. Returns whether there was anything to kill.
///
/// Only call it during the boot in which the run was started.
pub fn kill_leftover(recorded: Option<ProcessMark>, run_name: &str) -> bool {
    let groups: Vec<u32> = match recorded {
        Some(mark) if start_ticks(mark.pid) == Some(mark.start_ticks) => vec![mark.pid],
        // The leader is gone; its number can only have gone to somebody else, unless members of its
        // group are left: they carry the name.
        Some(mark) => members(run_name).filter(|&(_, g)| g == mark.pid).map(|(_, g)| g).collect(),
        None => members(run_name).filter(|&(pid, g)| pid == g).map(|(_, g)| g).collect(),
    };
    for &group in &groups {
        kill_group(group);
    }
    !groups.is_empty()
}

/// Kills what is left of the process group of a leader that was reaped. The number may belong to somebody
/// else by then, but not in our own session: hooks and what they start are all that is there.
pub fn kill_orphaned_group(group: u32) {
    let Some(session) = Stat::of(std::process::id()).map(|own| own.session) else { return };
    for (pid, stat) in processes() {
        if (stat.group, stat.session) == (group, session)
            && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Kills all live processes that carry the run's name, wherever they went. Returns whether there were any.
pub fn kill_named(run_name: &str) -> bool {
    let mut killed = BTreeSet::new();
    // One that was starting another while it was killed: look again until nobody new is there.
    loop {
        let found: Vec<u32> =
            members(run_name).map(|(pid, _)| pid).filter(|pid| killed.insert(*pid)).collect();
        for pid in &found {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if found.is_empty() {
            return !killed.is_empty();
        }
    }
}

/// Live processes whose environment holds the run's name, and their process groups.
fn members(run_name: &str) -> impl Iterator<Item = (u32, u32)> {
    processes()
        .filter(move |(pid, stat)| !stat.is_dead && carries_name(*pid, run_name))
        .map(|(pid, stat)| (pid, stat.group))
}

/// What a run has started since its hook began: what is in its process group, carries its name, or descends
/// from such a process. The hook itself is among them.
pub fn started_by(hook: ProcessMark, run_name: &str) -> BTreeSet<u32> {
    let since: Vec<(u32, Stat)> =
        processes().filter(|(_, stat)| stat.start_ticks >= hook.start_ticks).collect();
    let own = |(pid, stat): &(u32, Stat)| {
        *pid == hook.pid || stat.group == hook.pid || carries_name(*pid, run_name)
    };
    let mut found: BTreeSet<u32> = since.iter().filter(|p| own(p)).map(|(pid, _)| *pid).collect();
    loop {
        let known = found.len();
        for (pid, stat) in &since {
            if found.contains(&stat.parent) {
                found.insert(*pid);
            }
        }
        if found.len() == known {
            return found;
        }
    }
}

fn carries_name(pid: u32, run_name: &str) -> bool {
    let variable = format!("{RUN_VARIABLE}={run_name}");
    std::fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|&b| b == 0).any(|v| v == variable.as_bytes()))
}

fn kill_group(group: u32) {
    let Some(pid) = i32::try_from(group).ok().and_then(Pid::from_raw) else { return };
    if kill_process_group(pid, Signal::KILL).is_err() {
        return;
    }
    // Death is not immediate, and the next run must not meet this one.
    for _ in 0..GONE_MS_MAX / GONE_POLL_MS {
        if !has_live_member(group) {
            return;
        }
        std::thread::sleep(Duration::from_millis(GONE_POLL_MS));
    }
    tracing::warn!(group, "a killed hook is still there (waiting for a device?)");
}

fn has_live_member(group: u32) -> bool {
    processes().any(|(_, stat)| stat.group == group && !stat.is_dead)
}

fn processes() -> impl Iterator<Item = (u32, Stat)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, Stat::of(pid)?))
    })
}

/// Kills a process and everything that it started, as far as the parents still live. All are stopped
/// first, from the top, so that none can start another one or lose its parent meanwhile.
pub fn kill_tree(root: Pid) {
    let mut tree = vec![root];
    let _ = kill_process(root, Signal::STOP);
    loop {
        let known = tree.len();
        for (pid, stat) in processes() {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let parent = i32::try_from(stat.parent).ok().and_then(Pid::from_raw);
            if let (Some(pid), Some(parent)) = (pid, parent)
                && tree.contains(&parent)
                && !tree.contains(&pid)
            {
                let _ = kill_process(pid, Signal::STOP);
                tree.push(pid);
            }
        }
        if tree.len() == known {
            break;
        }
    }
    for pid in tree {
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeper(run_name: &str) -> Child {
        Command::new("/bin/sleep")
            .arg("60")
            .env(RUN_VARIABLE, run_name)
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap()
    }

    #[test]
    fn the_process_name_cannot_confuse_the_parser() {
        let rest = "S 1 77 76 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        for name in ["sh", "a b", ") S 1 2 3 (", "(x)"] {
            let stat = Stat::parse(&format!("123 ({name}) {rest}")).unwrap();
            assert_eq!((stat.group, stat.session, stat.start_ticks), (77, 76, 4242), "{name}");
            assert!(!stat.is_dead);
        }
        assert!(Stat::parse("123 (sh) Z").is_none());
    }

    #[test]
    fn a_tree_is_killed_with_those_that_left_its_process_group() {
        let script = "setsid sleep 60 & sleep 60 & echo; wait";
        let mut shell = Command::new("/bin/sh");
        let mut shell = shell.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        // Once it has written its line both children run; they hold the pipe open until they die.
        let mut out = shell.stdout.take().unwrap();
        std::io::Read::read_exact(&mut out, &mut [0]).unwrap();
        kill_tree(Pid::from_child(&shell));
        assert!(!shell.wait().unwrap().success());
        assert_eq!(std::io::Read::read_to_end(&mut out, &mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn a_recorded_leftover_is_killed() {
        let mut child = sleeper("recorded-leftover");
        let mark = ProcessMark { pid: child.id(), start_ticks: start_ticks(child.id()).unwrap() };
        assert!(kill_leftover(Some(mark), "recorded-leftover"));
        assert!(!child.wait().unwrap().success());
        assert!(!kill_leftover(Some(mark), "recorded-leftover"), "nothing is left");
    }

    #[test]
    fn an_unrecorded_leftover_is_found_by_its_run_name() {
        let mut child = sleeper("unrecorded-leftover");
        // The environment is in place once the program runs, which spawning waits for.
        assert!(kill_leftover(None, "unrecorded-leftover"));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn what_carries_a_runs_name_is_killed_in_any_session_and_others_are_not() {
        let script = "setsid sleep 60 & setsid sleep 60 & echo; wait";
        let mut shell = Command::new("/bin/sh");
        let shell = shell.args(["-c", script]).env(RUN_VARIABLE, "named-run");
        let mut shell = shell.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = shell.stdout.take().unwrap();
        std::io::Read::read_exact(&mut out, &mut [0]).unwrap();
        let mut other = sleeper("named-run-too");
        assert!(kill_named("named-run"));
        assert!(!shell.wait().unwrap().success());
        assert_eq!(std::io::Read::read_to_end(&mut out, &mut Vec::new()).unwrap(), 0);
        assert!(!kill_named("named-run"));
        assert!(other.try_wait().unwrap().is_none(), "the other still runs");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_later_process_with_the_recorded_number_is_left_alone() {
        let mut child = sleeper("somebody-else");
        let mark = ProcessMark { pid: child.id(), start_ticks: 1 };
        assert!(!kill_leftover(Some(mark), "my-run"));
        assert!(child.try_wait().unwrap().is_none(), "it still runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
